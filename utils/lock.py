"""A lock that lets one process at a time write to the folders of a run, while the process lives."""

import json
import os
import socket
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from utils.errors import UserError, warn
from utils.files import regular


@contextmanager
def only_run(folders: Iterable[Path], override: bool = False) -> Generator[bool]:
    """Hold the lock of each of the `folders` of a run; gives whether all are held.

    The lock of a folder is the file .NAME.lock beside it, because --fresh renames the folder. If
    another process holds one, UserError names the process; with `override`, only warns. Also warns
    if the file system has no locks.
    """
    with ExitStack() as held:
        yield all([held.enter_context(_one(folder, override)) for folder in folders])


def refuse_in_use(folders: Iterable[Path]) -> None:
    """Raise UserError if another process holds the lock of one of the `folders` now."""
    with only_run([folder for folder in folders if _path(folder).exists()]):
        pass


@contextmanager
def _one(folder, override):
    from filelock import FileLock, Timeout  # a mistake in the flags is told without it

    path = _path(folder)
    lock = FileLock(path, blocking=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            regular(path)
        open(path, "ab").close()
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): choose another --runs_dir or path flag"
        ) from None
    try:
        lock.acquire()
    except Timeout:
        in_use = f"{folder} is in use by {_holder(path)}"
        if not override:
            ways = "wait for it, choose another --RUN, or give --override_lock True"
            raise UserError(f"{in_use}: {ways}") from None
        warn(f"{in_use}; training anyway (--override_lock)")
    except OSError as error:  # for example a network file system
        warn(f"no lock on {path} ({error.strerror}): let no other run write there")
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            # while the lock is held, so that nobody else's file is removed; filelock looks whether
            # the file that it locks is still there. Windows removes no open file: filelock does.
            with suppress(OSError):
                path.unlink()
            lock.release()


def _path(folder):
    folder = folder.resolve()  # two names of one folder have one lock
    return folder.with_name(f".{folder.name}.lock")


def _sign(file):
    """Write who holds the lock, after the first byte, which Windows lets nobody else read."""
    since = datetime.now().isoformat(" ", "seconds")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    os.truncate(file, 0)
    os.write(file, b"\n" + json.dumps(holder).encode())


def _holder(path):
    """Who holds the lock, in words."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(1)
            owner = json.loads(file.read())
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
