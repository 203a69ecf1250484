"""Fixtures of the benchmarks' tests."""

from functools import partial

import pytest
import torch

from benchmarks import sweep
from benchmarks.jobs import Job


@pytest.fixture(autouse=True)
def same_threads():
    """A benchmark sets the number of threads: restore it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# In place of main.py. Run 'bad' fails. Run 'long' works until run 'other' begins, or
# until a SIGINT lets it save; a second one ends it at once.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
run = sys.argv[sys.argv.index("--RUN") + 1]
folder = Path(sys.argv[sys.argv.index("--runs_dir") + 1])
began = time.time()
def save(*_):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(0.2)
    (folder / f"{run}.saved").touch()
    sys.exit(130)
signal.signal(signal.SIGINT, save)
print(*range(9), sep="\\n")
if run.startswith("bad"):
    sys.exit("main.py: found nothing, expected something")
(folder / f"{run}.began").write_text(f"{os.getpgid(0)} {os.getppid()}")
if run == "other":
    (folder / "end").touch()
while run == "long" and not (folder / "end").exists():
    time.sleep(0.02)
(folder / f"{run}.times").write_text(f"{began} {time.time()}")
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """PROGRAM as a file; the jobs of this process run it in place of main.py."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(sweep, "Job", partial(Job, program=path))
    return path
