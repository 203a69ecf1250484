"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A mistake of the command line, the data or the disk. The message is one line: what was found,
    what was expected, what to do. `main.py` prints it on stderr and exits with code 2."""
