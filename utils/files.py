"""Files that are written whole or not at all: beside their place, then renamed."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"  # ending of a file that is being written


@contextmanager
def replacing(path: Path, sync: bool = False, shared: bool = False) -> Generator[Path]:
    """Give the path of a new file, which replaces `path` when the block ends.

    If the block raises, the new file is removed. sync: flush the file to disk before it replaces
    `path`. shared: other processes may write the same `path` at the same time.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}{PART}" if shared else path.name + PART)
    try:
        yield beside
        if sync:
            with open(beside, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text)


def unused(path: Path, word: str = "kept") -> Path:
    """The first free name of {name}.{word}1, {name}.{word}2, ... to keep `path` under."""
    number = 1
    while (new := path.with_name(f"{path.name}.{word}{number}")).exists():
        number += 1
    return new
