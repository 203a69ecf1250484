"""Whether a large file still holds the bytes that it held when it was last known to be right.

A note beside the file, NAME.checked, holds its size and time of change, and a CRC-32 per block. A
look at size, time and a few blocks takes milliseconds; other blocks are looked at each time.
"""

import json
import random
import zlib
from contextlib import suppress
from pathlib import Path

from utils.errors import UserError
from utils.files import read_json, sweep, write_text

BLOCK, SAMPLE = 2**18, 16  # bytes of a block, and blocks that a look reads


def _note(path):
    return path.with_name(f"{path.name}.checked")


def _blocks(path, numbers):
    with open(path, "rb", buffering=0) as file:
        for number in numbers:
            file.seek(number * BLOCK)
            yield zlib.crc32(file.read(BLOCK))


def _count(size):
    return -(-size // BLOCK)


def confirm(path: Path, about: str, kept: int = 0) -> None:
    """Note that the bytes of `path` are right. Without room for the note, nothing is noted.

    about: text that changes with what the bytes should be. kept: the first so many bytes are those
    that the note on the disk is about.
    """
    status, old = path.stat(), []
    if kept:
        with suppress(OSError, ValueError, LookupError, TypeError, UserError):
            old = read_json(_note(path))["blocks"][: kept // BLOCK]
    blocks = [*old, *_blocks(path, range(len(old), _count(status.st_size)))]
    note = {"about": about, "bytes": status.st_size, "time": status.st_mtime_ns, "blocks": blocks}
    with suppress(OSError):
        sweep(path.parent, _note(path).name)
        write_text(_note(path), json.dumps(note))


def intact(path: Path, about: str) -> bool | None:
    """Whether `path` holds the bytes that `confirm` noted; None: unknown, all must be looked at.

    It is unknown without a note, and where size or time changed. A copy of the file may be newer.
    """
    try:
        status, note = path.stat(), read_json(_note(path))
        blocks = note["blocks"]
        known = [note["about"], note["bytes"], note["time"], len(blocks)]
    except (OSError, ValueError, LookupError, TypeError, UserError):
        return None
    if known != [about, status.st_size, status.st_mtime_ns, _count(status.st_size)]:
        return None
    count = len(blocks)
    chosen = sorted(random.Random().sample(range(count), min(SAMPLE, count)))
    return list(_blocks(path, chosen)) == [blocks[number] for number in chosen]
