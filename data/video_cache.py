"""Decoded clips on disk, appended as they come and found again by the content of their files.

frames.bin holds the frames of all clips one after another, uint8 [F, 64, 64, 3]; clips.jsonl has a line a clip,
written after its frames: what is in frames.bin beyond the last line was half-written and is cut off, and a clip whose
frames are not all there is decoded again. One process writes at a time.
"""

import hashlib
import json
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from data.base import IMAGE_SIZE

VERSION = 1
FRAME = IMAGE_SIZE * IMAGE_SIZE * 3  # bytes


class Cache:
    """The clips decoded into `folder`. entries: {key: {'first', 'frames', 'pixels'}} in the order of frames.bin:
    where a clip begins, how many frames it has, the SHA-256 of its pixels. Open it with `opened`."""

    def __init__(self, folder):
        self.bin, self.index, self.entries = (
            Path(folder) / "frames.bin",
            Path(folder) / "clips.jsonl",
            {},
        )

    def read(self):
        """Read the index; cut off what is not whole at the end of either file."""
        self.bin.touch()
        lines = self.index.read_text().splitlines(keepends=True) if self.index.exists() else []
        whole, total, size = "", 0, self.bin.stat().st_size
        for line in lines:
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                end = (total + entry["frames"]) * FRAME
                if (
                    entry["version"] != VERSION
                    or entry["first"] != total
                    or end > size
                    or not line.endswith("\n")
                ):
                    break
                entry["pixels"]
            except (ValueError, LookupError, TypeError, AttributeError):
                break
            self.entries[key] = entry
            whole, total = whole + line, total + entry["frames"]
        if whole != "".join(lines):
            self.index.write_text(whole)
        if size != total * FRAME:
            with open(self.bin, "r+b") as file:
                file.truncate(total * FRAME)

    def add(self, key, frames):
        """Append a clip, an iterable of uint8 [64, 64, 3]. If it raises, or gives no frame, nothing stays of it.
        Returns the number of frames."""
        first, count, digest = self.bin.stat().st_size, 0, hashlib.sha256()
        try:
            with open(self.bin, "ab") as file:
                for frame in frames:
                    count += 1
                    file.write(frame.tobytes())
                    digest.update(frame.tobytes())
            if count:
                entry = {
                    "version": VERSION,
                    "first": first // FRAME,
                    "frames": count,
                    "pixels": digest.hexdigest(),
                }
                with open(self.index, "a") as file:
                    file.write(json.dumps({"key": key, **entry}) + "\n")
                self.entries[key] = entry
        finally:
            if key not in self.entries:
                with open(self.bin, "r+b") as file:
                    file.truncate(first)
        return count

    def frames(self):
        """All frames, memory-mapped, uint8 [F, 64, 64, 3], and the clips' lengths [n] in the order of `entries`."""
        lengths = np.array([entry["frames"] for entry in self.entries.values()])
        return np.memmap(
            self.bin, np.uint8, "r", shape=(int(lengths.sum()), IMAGE_SIZE, IMAGE_SIZE, 3)
        ), lengths


@contextmanager
def opened(folder):
    """The cache in `folder`, made if it is not there, for this process alone (others wait)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        with suppress(ImportError):  # not on Windows
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        cache = Cache(folder)
        cache.read()
        yield cache
