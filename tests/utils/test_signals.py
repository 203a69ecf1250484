"""utils/signals.py: at once, or patiently; the second time for good."""

import os
import signal
import subprocess
import sys

import pytest

from utils import signals
from utils.signals import Signals, Stopped

BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture(autouse=True)
def handlers_come_back():
    before = [signal.getsignal(number) for number, _ in BOTH]
    yield
    assert [signal.getsignal(number) for number, _ in BOTH] == before


@pytest.mark.parametrize("number, code", BOTH)
def test_at_once(number, code):
    with pytest.raises(Stopped) as stop, Signals():
        os.kill(os.getpid(), number)
    assert stop.value.code == code


@pytest.mark.parametrize("number, code", BOTH)
def test_patiently(number, code, capfd):
    done = []
    with pytest.raises(Stopped) as stop, Signals() as heard:
        with heard.patiently():
            os.kill(os.getpid(), number)
            done.append("step")
            assert heard.asked == number
        done.append("never")
    assert stop.value.code == code and done == ["step"]
    assert "once more to stop at once" in capfd.readouterr().err


def test_an_error_inside_is_not_hidden():
    with pytest.raises(ZeroDivisionError), Signals() as heard, heard.patiently():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError


@pytest.mark.parametrize("number, code", BOTH)
def test_the_second_one_ends_the_process(number, code):
    script = (
        "import os, sys; from utils.signals import Signals\n"
        "with Signals() as heard, heard.patiently():\n"
        f"    for _ in range(2): os.kill(os.getpid(), {int(number)})\n"
        "    print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=os.path.dirname(signals.__file__) + "/..",
        capture_output=True,
    )
    assert done.returncode == -number and b"alive" not in done.stdout
