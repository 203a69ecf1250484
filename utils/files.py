"""Files: written whole or not at all, and read only if they are regular files of a sane size.

A file is written beside its place and then renamed. While a process writes, it holds a lock on the
half-written file, which ends with the process; so `sweep` knows what dead processes left.
"""

import json
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # not a Unix system: there nothing is locked or swept
    fcntl = None

PART = ".part"  # ending of what is being written
MEBIBYTE = 2**20
LONGEST_TEXT = 64 * MEBIBYTE  # bytes of a JSON file; those of our largest sets have one or two MB
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


@contextmanager
def replacing(path: Path, sync: bool = True, folder: bool = False) -> Generator[Path]:
    """Give the path of a new empty file (or folder), which replaces `path` when the block ends.

    If the block raises, what is new is removed; an OSError then names `path`. sync: flush the file
    to disk before it replaces `path`. Processes that write the same `path` do not disturb each
    other: the last one wins.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    held = None
    try:
        if folder:
            beside.mkdir()
        held = _hold(beside, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT)
        yield beside
        if sync:
            os.fsync(held)
        os.replace(beside, path)
    except BaseException as error:
        _remove(beside)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        if held is not None:
            os.close(held)


def _hold(path, flags):
    """A descriptor of `path` with a lock on it, where the file system has locks."""
    while True:
        held = os.open(path, flags, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(held, fcntl.LOCK_EX)
            # a sweep may have removed the file between open and flock
            if os.path.samestat(os.fstat(held), os.stat(path)):
                return held
        except FileNotFoundError:
            pass
        except OSError:  # no locks here, for example on a network file system
            return held
        os.close(held)


def _remove(path):
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def sweep(folder: Path, names: str = "*") -> None:
    """Remove from `folder` what dead processes left half-written, never what a living one writes.

    names: pattern of the names of the whole files. A name that no version of this program gives,
    such as that of a browser's download, is only matched if the pattern matches it too.
    """
    for path in [*folder.glob(f"{names}{PART}"), *folder.glob(f"{names}.*{PART}")]:
        with suppress(OSError):  # BlockingIOError: a living process holds it
            kind = os.O_RDONLY if path.is_dir() else os.O_RDWR
            held = os.open(path, kind | os.O_NONBLOCK)
            try:
                if fcntl is not None:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)
            finally:
                os.close(held)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    # a file name that is not UTF-8 holds half characters, which are written as \\udcXX
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes, sync: bool = True) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path, sync) as beside:
        beside.write_bytes(content)


def regular(path: Path | str, limit: float | None = None) -> os.stat_result:
    """The status of `path`, which may be read: a regular file of at most `limit` bytes.

    Raises UserError for another kind (reading a pipe or a device may never end) or size, and
    OSError for a file that is missing.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in KINDS if test(status.st_mode)), "no file")
        raise UserError(f"{path} is {kind}, expected a regular file: move it away, or give another")
    if limit is not None and status.st_size > limit:
        size = f"{status.st_size:,} bytes, expected at most {int(limit):,}"
        raise UserError(f"{path} has {size}: it is another file, move it away")
    return status


def read_text(path: Path | str) -> str:
    """The UTF-8 text of a regular file. Raises UserError as `regular`, OSError and ValueError."""
    regular(path, LONGEST_TEXT)
    return Path(path).read_text(encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """The content of a JSON file. Raises UserError as `regular`, OSError, and else ValueError."""
    try:
        return json.loads(read_text(path))
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"its brackets are nested too deeply ({type(error).__name__})") from None


def unused(path: Path, word: str = "kept") -> Path:
    """The first free name of {name}.{word}1, {name}.{word}2, ... to keep `path` under."""
    number = 1
    while (new := path.with_name(f"{path.name}.{word}{number}")).exists():
        number += 1
    return new
