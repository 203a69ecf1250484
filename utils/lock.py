"""A lock that lets one process at a time train in a run folder. It ends with its process."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from utils.errors import UserError, warn

try:
    import fcntl
except ImportError:  # not a Unix system
    fcntl = None


@contextmanager
def only_run(root: Path, override: bool = False) -> Generator[bool]:
    """Hold the lock of the run folder `root`; gives whether it is held.

    The lock is the file .NAME.lock beside the folder, because --fresh renames the folder. If
    another process holds it, UserError names the process; with `override`, only warns. Also warns
    if the file system has no locks.
    """
    path = _path(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _hold(path)
    except BlockingIOError:
        in_use = f"{root} is in use by {_holder(path)}"
        if not override:
            ways = "wait for it, choose another --RUN, or give --override_lock True"
            raise UserError(f"{in_use}: {ways}") from None
        warn(f"{in_use}; training anyway (--override_lock)")
        file = None
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error.strerror}): choose another --runs_dir or path flag"
        ) from None
    try:
        yield file is not None
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


def refuse_in_use(root: Path) -> None:
    """Raise UserError if another process holds the lock of the run folder `root` now."""
    if _path(root).exists():
        with only_run(root):
            pass


def _path(root):
    return root.with_name(f".{root.name}.lock")


def _hold(path):
    """Lock the file at `path` and write its holder into it.

    Returns the open file, or None if there are no locks here. Raises BlockingIOError if another
    process holds the lock.
    """
    while fcntl is not None:
        file = open(path, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the last holder may have removed the file between open and flock
            still_there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except BlockingIOError:
            file.close()
            raise
        except FileNotFoundError:
            still_there = False
        except OSError as error:  # for example a network file system
            file.close()
            warn(f"no lock on {path} ({error.strerror}): let no other run write there")
            return None
        if still_there:
            file.truncate(0)
            since = datetime.now().isoformat(" ", "seconds")
            json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": since}, file)
            file.flush()
            return file
        file.close()
    return None


def _holder(path):
    """Who holds the lock, in words."""
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
