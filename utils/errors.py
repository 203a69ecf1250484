"""Mistakes that a user can mend, and how a command reports them."""

import errno
import functools
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

BROKEN_PIPE = 141  # exit status of a command whose reader has ended: 128 plus the number of SIGPIPE


class UserError(Exception):
    """A mistake in the flags, the data or the disk.

    The message is one line: what was found, what was expected, what to do. `main.py` prints it on
    stderr and exits with code 2.
    """


def in_short(error: BaseException) -> str:
    """The class of an error of a library and the begin of its text, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def warn(text: str) -> None:
    """Print a line of main.py on stderr."""
    print(f"main.py: {text}", file=sys.stderr)


def refuse_other_text(argv: list[str]) -> None:
    """Raise UserError if an argument is not UTF-8: torch and ffmpeg cannot open such a name.

    Files of a data set may have such names. They are printed as \\udcXX.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for part in argv:
        try:
            part.encode()
        except UnicodeEncodeError:
            shown = part.encode("utf-8", "backslashreplace").decode()
            problem = f"found '{shown}' on the command line, expected text in UTF-8"
            raise UserError(f"{problem}: rename the folder, or give a link to it") from None


def in_one_line(main: Callable) -> Callable:
    """Decorate a command's `main(argv=None)`: a UserError becomes a line on stderr and status 2.

    So does an error of the disk. A reader that has ended, as in `| head`, gives BROKEN_PIPE.
    """

    @functools.wraps(main)
    def command(argv=None):
        argv = sys.argv[1:] if argv is None else argv
        try:
            refuse_other_text(argv)
            status = main(argv)
            sys.stdout.flush()
            return status
        except UserError as error:
            why = str(error)
        except OSError as error:
            if broken_pipe(error):
                return BROKEN_PIPE
            why = f"{error.filename or 'a file'}: {error.strerror}: check the place and its space"
        print(" ".join(why.split()), file=sys.stderr)  # a library's message may have several lines
        return 2

    return command


def broken_pipe(error: OSError) -> bool:
    """Whether the program that read our output has ended; from then on, nothing more is printed."""
    if error.errno != errno.EPIPE:
        return False
    with suppress(OSError, ValueError):  # else Python complains at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
