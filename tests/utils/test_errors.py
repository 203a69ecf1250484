"""utils/errors.py: how commands end, in one line."""

import os
import subprocess
import sys

import pytest

from utils.errors import BROKEN_PIPE, UserError, in_one_line

PRINTS = """
from utils.errors import in_one_line
@in_one_line
def main(argv):
    for _ in range(LINES):
        print("x" * 99)
    return 0
raise SystemExit(main())
"""


@pytest.mark.parametrize("error", [UserError("a\nb"), OSError(28, "No space\nleft", "a\nfile")])
def test_a_message_is_one_line(capsys, error):
    @in_one_line
    def main(argv):
        raise error

    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "a" in said


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("lines", [1, 9999])
def test_a_reader_that_ends_is_no_mistake(lines):
    """It is no error of the disk, and Python says nothing either at its end."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", PRINTS.replace("LINES", str(lines))]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.stderr, done.returncode) == ("", BROKEN_PIPE)
