"""The one exception for mistakes that a user can mend, and how a command says it."""

import functools
import sys


class UserError(Exception):
    """A mistake of the command line, the data or the disk. The message is one line: what was found,
    what was expected, what to do. `main.py` prints it on stderr and exits with code 2."""


def in_one_line(main):
    """A command's `main(argv=None)` that says a UserError on stderr, in one line, and then returns the exit status 2."""

    @functools.wraps(main)
    def command(argv=None):
        try:
            return main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2

    return command
