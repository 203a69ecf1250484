"""SIGINT and SIGTERM: training finishes its step and saves; anything else stops where it is."""

import os
import signal
import threading
from contextlib import contextmanager

NOTICE = b"\nmain.py: finishing the step, then saving; once more to stop at once (the last checkpoint is whole)\n"


class Stopped(KeyboardInterrupt):
    """A signal ended the command. code: what a shell shows for it, 128 + the signal's number."""

    def __init__(self, number):
        super().__init__(f"signal {number}")
        self.code = 128 + number


class Signals:
    """While it is entered, the first SIGINT or SIGTERM raises `Stopped`, inside `patiently()` not before `obey()` or its end.

    The second one is the system's own and ends the process whatever it computes; files are renamed into place, so what lies on
    disk is whole.
    """

    def __init__(self):
        self.asked, self._patient, self._before = None, False, {}

    def __enter__(self):
        if (
            threading.current_thread() is threading.main_thread()
        ):  # Python sets handlers nowhere else
            self._before = {
                n: signal.signal(n, self._heard) for n in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number, _frame):
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        self.asked = number
        if not self._patient:
            raise Stopped(number)
        os.write(2, NOTICE)  # print is not safe inside a handler

    @contextmanager
    def patiently(self):
        """A signal that comes inside is kept for `obey()`, at the latest for the end."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.obey()

    def obey(self):
        """Raise `Stopped` if a signal has come."""
        if self.asked:
            raise Stopped(self.asked)
