"""Mistakes that a user can mend, and how a command reports them."""

import functools
import io
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in the flags, the data or the disk.

    The message is one line: what was found, what was expected, what to do. `main.py` prints it on
    stderr and exits with code 2.
    """


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
    """Decorate a command's `main(argv=None)`: a UserError becomes a line on stderr and status 2."""

    @functools.wraps(main)
    def command(argv=None):
        argv = sys.argv[1:] if argv is None else argv
        try:
            refuse_other_text(argv)
            return main(argv)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2

    return command
