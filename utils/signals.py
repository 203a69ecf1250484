"""SIGINT and SIGTERM: training finishes its step and saves; everything else stops at once.

SIGBUS: a memory-mapped file was cut while it was in use, and one line says so.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from utils.distributed import rank

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
        self.asked: int | None = None
        self._patient, self._before = False, {}

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
        if rank() == 0:
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


def tell_of_cut_files(problem: Callable[[], str | None]) -> None:
    """End the process with one line on stderr, and code 2, when a mapped file is cut (SIGBUS).

    Without this, the process would vanish without a word. problem: says which file was cut, or
    returns None. Python's own handlers run only after the instruction that failed, which would
    fail for ever; so this one is called by the C library itself.
    """
    if not hasattr(signal, "SIGBUS"):
        return

    def handle(_):
        known = "a memory-mapped file was cut, or its disk failed, while it was in use"
        line = problem() or f"{known}: check the data and the disk, then give the same command"
        os.write(2, f"main.py: {line}\n".encode("utf-8", "backslashreplace"))
        os._exit(2)

    # a reference keeps the function alive
    _KEPT["SIGBUS"] = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
    ctypes.CDLL(None).signal(signal.SIGBUS, _KEPT["SIGBUS"])


_KEPT: dict = {}
