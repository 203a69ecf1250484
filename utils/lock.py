"""One training run a folder: a lock that the system takes back when its owner dies, however it dies."""

import json
import os
import socket
import sys
from contextlib import contextmanager
from datetime import datetime

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None


@contextmanager
def only_run(root, override=False):
    """Hold the lock of the run folder `root` (a Path): the file .NAME.lock beside it, so that --fresh can rename the folder.

    Gives whether it is held. UserError, naming the holder, if another process has it; override: warn instead. A system without
    locks is warned of too.
    """
    path = root.with_name(f".{root.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _hold(path)
    except BlockingIOError:
        said = f"{root} is in use by {_holder(path)}"
        if not override:
            raise UserError(
                f"{said}: wait for it, choose another --RUN, or give --override_lock True"
            ) from None
        print(f"main.py: {said}; going on all the same (--override_lock)", file=sys.stderr)
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


def _hold(path):
    """The locked file at `path`, signed; None where the system has no locks. BlockingIOError if another holds it."""
    while fcntl is not None:
        file = open(path, "a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        except BlockingIOError:
            file.close()
            raise
        except FileNotFoundError:  # its last owner removed it in between
            there = False
        except OSError as error:  # a network's file system, perhaps
            file.close()
            print(
                f"main.py: no lock on {path} ({error.strerror}): let no other run write there",
                file=sys.stderr,
            )
            return None
        if there:
            file.truncate(0)
            since = datetime.now().isoformat(" ", "seconds")
            json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": since}, file)
            file.flush()
            return file
        file.close()
    return None


def _holder(path):
    """Who signed the lock, in words."""
    try:
        known = json.loads(path.read_text())
        return f"process {known['process']} on {known['host']} since {known['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
