"""SIGINT and SIGTERM: training finishes its step and saves; everything else stops at once."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager

NOTICE = (
    b"\nmain.py: finishing the step and saving; a second signal (Ctrl-C) stops at once "
    b"and leaves the last checkpoint whole\n"
)


class Stopped(KeyboardInterrupt):
    """A signal ended the command. code: the exit status, 128 plus the number of the signal."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.code = 128 + number


class Signals:
    """A context in which the first SIGINT or SIGTERM raises `Stopped`.

    Inside `patiently()` it is raised at the end of that block; `asked` is the signal's number, or
    None. The second signal ends the process at once; files are whole, because they are renamed into
    place.
    """

    def __init__(self):
        self.asked, self._patient, self._before = None, False, {}

    def __enter__(self) -> "Signals":
        # Python lets only the main thread set handlers
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number, _frame):
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self.asked = number
        if not self._patient:
            raise Stopped(number)
        os.write(2, NOTICE)  # print is not safe inside a handler

    @contextmanager
    def patiently(self) -> Generator[None]:
        """Raise a signal that comes inside the block when the block ends."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        if self.asked:
            raise Stopped(self.asked)
