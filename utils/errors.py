"""Mistakes that a user can mend, and how a command reports them."""

import functools
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


def in_one_line(main: Callable) -> Callable:
    """Decorate a command's `main(argv=None)`: a UserError becomes a line on stderr and status 2."""

    @functools.wraps(main)
    def command(argv=None):
        try:
            return main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2

    return command
