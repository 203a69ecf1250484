"""utils/signals.py: a signal stops at once or after a block; a second one ends the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from utils import signals
from utils.signals import Signals, Stopped

BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def handlers_are_restored():
    before = [signal.getsignal(number) for number, _ in BOTH]
    yield
    assert [signal.getsignal(number) for number, _ in BOTH] == before


@pytest.mark.parametrize("number, code", BOTH)
def test_outside_a_block_a_signal_stops_at_once(number, code):
    with pytest.raises(Stopped) as stop, Signals():
        os.kill(os.getpid(), number)
    assert stop.value.code == code


@pytest.mark.parametrize("number, code", BOTH)
def test_inside_a_block_a_signal_waits_for_its_end(number, code, capfd):
    done = []
    with pytest.raises(Stopped) as stop, Signals() as signalled:
        with signalled.patiently():
            os.kill(os.getpid(), number)
            done.append("step")
            assert signalled.asked == number
        done.append("never")
    assert stop.value.code == code and done == ["step"]
    assert "a second signal (Ctrl-C) stops at once" in capfd.readouterr().err


def test_an_error_inside_a_block_is_not_hidden_by_the_signal():
    with pytest.raises(ZeroDivisionError), Signals() as signalled, signalled.patiently():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError


@pytest.mark.parametrize("number, code", BOTH)
def test_the_second_signal_ends_the_process(number, code):
    script = (
        "import os, sys; from utils.signals import Signals\n"
        "with Signals() as signalled, signalled.patiently():\n"
        f"    for _ in range(2): os.kill(os.getpid(), {int(number)})\n"
        "    print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=os.path.dirname(signals.__file__) + "/..",
        capture_output=True,
    )
    assert done.returncode == -number and b"alive" not in done.stdout


CUT = """
import os, sys
import numpy as np
from data.base import Dataset
from utils.signals import tell_of_cut_files

frames = np.memmap("frames.bin", np.uint8, "w+", shape=(3, 64, 64, 3))
splits = {name: np.array([i]) for i, name in enumerate(("train", "val", "test"))}
dataset = Dataset("own", frames, np.ones(3, int), {}, {}, splits, (), (), "0")
dataset.refuse_cut()
tell_of_cut_files(dataset.cut if sys.argv[1] == "known" else lambda: None)
os.truncate("frames.bin", 5000)
frames.sum()
print("not reached")
"""


@pytest.mark.parametrize("known", ["known", "unknown"])
def test_a_file_that_is_cut_while_it_is_read_ends_in_one_line(tmp_path, known):
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CUT, known],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    words = "frames.bin was cut to 5,000 bytes" if known == "known" else "was cut, or its disk"
    assert done.returncode == 2 and words in done.stderr and not done.stdout, done
    assert done.stderr.startswith("main.py: ") and done.stderr.count("\n") == 1
