"""utils/signals.py: a signal stops at once or after a block; a second one ends the process."""

import os
import signal
import subprocess
import sys

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
