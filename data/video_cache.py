"""Decoded clips on disk, appended one by one and found again by the content of their files.

frames.bin holds the frames of all clips, uint8 [F, 64, 64, 3]. clips.jsonl has one line per clip,
written after its frames. An unfinished clip at the end of either file is cut off and decoded again.
A clip whose frames were changed is decoded again too. One process writes at a time.
"""

import hashlib
import json
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from data import checked
from data.base import IMAGE_SIZE
from utils.files import regular, sweep, write_text

VERSION = 1
FRAME_BYTES = IMAGE_SIZE * IMAGE_SIZE * 3


class Cache:
    """The clips decoded into `folder`. Open it with `opened`.

    entries: by key, in the order of frames.bin, the clip's 'first' frame there, its number of
    'frames', and the SHA-256 of its 'pixels'; 'size', [width, height] of its pictures before they
    were cropped, unless an earlier version decoded it.
    """

    def __init__(self, folder: Path):
        self.bin, self.index = folder / "frames.bin", folder / "clips.jsonl"
        self._known = 0  # bytes of frames.bin that the note beside it is about
        self.entries: dict[str, dict] = {}

    def read(self) -> None:
        """Read the index, and cut off unfinished clips at the end of both files."""
        if not self.bin.exists():
            self.bin.touch()
        size, lines = regular(self.bin).st_size, []
        if self.index.exists():
            regular(self.index)
            lines = self.index.read_text("utf-8", "replace").splitlines(keepends=True)
        whole, total = "", 0
        for line in lines:
            try:
                entry = json.loads(line)
                key, count, pixels = entry.pop("key"), entry["frames"], entry["pixels"]
                fits = entry["first"] == total and (total + count) * FRAME_BYTES <= size
                size_of_pictures = [type(side) for side in entry.get("size", [1, 1])]
                fits = fits and size_of_pictures == [int, int]
                fits = fits and type(count) is int and count > 0
                fits = fits and isinstance(key, str) and isinstance(pixels, str)
                if entry["version"] != VERSION or not fits or not line.endswith("\n"):
                    break
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                break
            self.entries[key] = entry
            whole, total = whole + line, total + count
        if whole != "".join(lines):
            write_text(self.index, whole)
        if size != total * FRAME_BYTES:
            os.truncate(self.bin, total * FRAME_BYTES)
        self._look()

    def _look(self):
        """Look at some frames, or at all if frames.bin is new here or was changed by others."""
        known = checked.intact(self.bin, str(VERSION))
        self._known = self.bin.stat().st_size if known else 0
        if known or not (damaged := self.damaged()):
            return
        # The frames stay where they are, because another process may be reading this file.
        for key in damaged:
            print(f"{self.bin}: a clip was changed since it was decoded: decoding it again")
            place = self.entries[key]["first"]
            self.entries = {
                f"damaged at {place}" if name == key else name: entry
                for name, entry in self.entries.items()
            }
        lines = (json.dumps({"key": key, **entry}) + "\n" for key, entry in self.entries.items())
        write_text(self.index, "".join(lines))

    def confirm(self) -> None:
        """Note that the frames are right, for the next start."""
        if self._known < self.bin.stat().st_size or not self._known:
            checked.confirm(self.bin, str(VERSION), self._known)

    def damaged(self) -> list[str]:
        """Keys of the clips whose frames are not those that were decoded. Reads all frames."""
        damaged = []
        with open(self.bin, "rb") as file:
            for key, entry in self.entries.items():
                digest, left = hashlib.sha256(), entry["frames"] * FRAME_BYTES
                file.seek(entry["first"] * FRAME_BYTES)
                while left and (block := file.read(min(left, 2**20))):
                    digest.update(block)
                    left -= len(block)
                if digest.hexdigest() != entry["pixels"] and not key.startswith("damaged at "):
                    damaged.append(key)
        return damaged

    def verify(self) -> bool:
        """Whether every stored frame is the one that was decoded."""
        return not self.damaged()

    def add(self, key: str, frames: Iterable[np.ndarray], sizes: list | None = None) -> int:
        """Append the frames of a clip, uint8 [64, 64, 3], all or none. Returns their number.

        sizes: of the frames before they were cropped, filled while `frames` are read.
        """
        size, count, digest = self.bin.stat().st_size, 0, hashlib.sha256()
        try:
            with open(self.bin, "ab") as file:
                for frame in frames:
                    count += 1
                    file.write(frame.tobytes())
                    digest.update(frame.tobytes())
            if count:
                entry = {"version": VERSION, "first": size // FRAME_BYTES, "frames": count}
                entry["pixels"] = digest.hexdigest()
                if sizes:
                    entry["size"] = sizes[0]
                with open(self.index, "a") as file:
                    file.write(json.dumps({"key": key, **entry}) + "\n")
                self.entries[key] = entry
        finally:
            if key not in self.entries:
                os.truncate(self.bin, size)
        return count

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """All frames, memory-mapped uint8 [F, 64, 64, 3], and lengths [n], in `entries` order."""
        lengths = np.array([entry["frames"] for entry in self.entries.values()])
        shape = (int(lengths.sum()), IMAGE_SIZE, IMAGE_SIZE, 3)
        return np.memmap(self.bin, np.uint8, "r", shape=shape), lengths


@contextmanager
def opened(folder: Path) -> Generator[Cache]:
    """The cache in `folder`, created if missing. Other processes wait until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, "*.json*")
    if (folder / "lock").exists():
        regular(folder / "lock")
    with open(folder / "lock", "w") as lock:
        # Windows has no fcntl: there nothing waits.
        with suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        cache = Cache(folder)
        cache.read()
        yield cache
        cache.confirm()
