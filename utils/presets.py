"""Presets: named runs, files of flags in presets/. Imports no torch.

A file begins with the lines '# trains: ...', '# time: ...' and '# memory: ...', which
`--list_presets` shows. A line '# sizes: module:function' names the function that chooses further
flags by the data (`sizes_by`). Other '#' lines are remarks. A line '[stage 1]', '[stage 2]' stands
above the flags of each stage.
"""

import functools
import re
import shlex
from pathlib import Path

from utils.errors import UserError
from utils.flags import value_of

PRESETS = Path(__file__).resolve().parent.parent / "presets"
COLUMNS = ("preset", "trains", "data set", "time on two cores", "memory by stage")


def preset_names() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.txt"))


def stage_flags(name: str) -> list[list[str]]:
    """The lists of flags of the preset `name`, one per stage. Raises UserError."""
    if not (stages := _words(_text(name))):
        raise UserError(f"presets/{name}.txt: expected a line [stage 1] above the flags of stage 1")
    return [[*words] for words in stages]


@functools.cache
def _words(text):
    """The flags of each stage in the text of a preset. shlex takes milliseconds."""
    parts = re.split(r"^\[stage [0-9]\]\s*$", text, flags=re.MULTILINE)
    return [shlex.split(part, comments=True) for part in parts[1:]]


def sizes_by(name: str) -> str | None:
    """module:function of a preset that chooses flags of each stage by the data, or None.

    The function takes the settings of the first stage and returns a list of flags per stage.
    """
    found = re.search(r"^# sizes: (\S+)$", _text(name), re.MULTILINE)
    return found[1] if found else None


def _text(name):
    return (PRESETS / f"{name}.txt").read_text()


def described(name: str) -> tuple[str, ...]:
    """The COLUMNS of a preset. What its file does not say is 'not measured'."""
    said = dict(re.findall(r"^# (trains|time|memory): (.*)$", _text(name), re.MULTILINE))
    trains, time, memory = (said.get(k, "not measured") for k in ("trains", "time", "memory"))
    return name, trains, value_of(stage_flags(name)[0], "--dataset_name") or "", time, memory


def table() -> str:
    """One line per preset, under a line of COLUMNS."""
    rows = [COLUMNS, *map(described, preset_names())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
