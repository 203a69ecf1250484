"""Speed, each figure beside the machine's measured limit; `reference` is the slow, literal form."""

import os

# As in main.py: torch reads this variable when it is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
