"""A data set that is made once and kept on disk: frames in a .npy file, the rest in a .json file.

The .json file is removed first and written last, so a set whose .json file exists is complete.
Neither file holds a pickle. What a process that was killed left half-written is removed by the next
one that reads the set.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data import arrays, checked
from data.base import Dataset, fingerprint, flat
from utils.errors import UserError
from utils.files import read_json, regular, replacing, sweep, write_text

FRAMES, METADATA = "frames.npy", "dataset.json"


def pack(frames: np.ndarray, labels: dict, splits: dict, **facts) -> dict:
    """The metadata that `unpack` reads: `facts`, fingerprint, splits and labels."""
    digest = fingerprint(frames, labels, splits)
    return {**facts, "fingerprint": digest, "splits": splits, "labels": labels}


def unpack(metadata: dict, frames: np.ndarray) -> None:
    """Turn the lists of labels and splits into arrays. Raises ValueError if they do not fit."""
    labels = {name: np.array(values) for name, values in metadata["labels"].items()}
    splits = {name: np.array(rows) for name, rows in metadata["splits"].items()}
    if any(
        len(values) != len(frames) or values.dtype.kind not in "if" for values in labels.values()
    ):
        raise ValueError("labels")
    if any(rows.dtype.kind != "i" or rows.ndim != 1 for rows in splits.values()):
        raise ValueError("splits")
    rows = np.concatenate([*splits.values()])
    if rows.min() < 0 or rows.max() >= len(frames) or len(np.unique(rows)) < len(rows):
        raise ValueError("splits")
    if len(bytes.fromhex(metadata["fingerprint"])) != 32:
        raise ValueError("fingerprint")
    metadata.update(labels=labels, splits=splits)


def matches(metadata: dict, frames: np.ndarray) -> bool:
    """Whether frames, labels and splits are those of the fingerprint, to the last pixel."""
    made = fingerprint(frames, metadata["labels"], metadata["splits"])
    return made == metadata["fingerprint"]


def dataset(name: str, metadata: dict, clips: np.ndarray, classes: dict, **fields) -> Dataset:
    """The Dataset of unpacked metadata and clips [n, T, 64, 64, 3], with its other fields."""
    frames, lengths = flat(clips)
    stored = {key: metadata[key] for key in ("labels", "splits", "fingerprint", "verify")}
    return Dataset(name, frames, lengths, classes=classes, **stored, **fields)


@dataclass(frozen=True)
class Store:
    """The files of one data set, and how they are read and written.

    version: of the metadata's format. unpack: checks the metadata and turns its lists into arrays;
    any Python error in it, such as KeyError, means that the metadata are damaged. matches: compares
    what was unpacked with the checksum in it.
    """

    folder: Path
    version: int
    unpack: Callable[[dict, np.ndarray], None] = unpack
    frames_file: str = FRAMES
    metadata_file: str = METADATA
    matches: Callable[[dict, np.ndarray], bool] = matches

    def load(self, make: Callable[[str], None]) -> tuple[dict, np.ndarray]:
        """As `read`. If the files cannot be read, calls make(what is wrong), which writes them."""
        for name in (self.frames_file, self.metadata_file):
            sweep(self.folder, name)
        try:
            return self.read()
        except UserError as error:
            if (self.folder / self.metadata_file).exists():
                print(f"{error}: making the set again", flush=True)
            make(str(error))
        return self.read()

    def read(self) -> tuple[dict, np.ndarray]:
        """Metadata and memory-mapped frames. Raises UserError if they are damaged.

        Looks at a few pixels; at all of them if the files are new here or were changed.
        """
        path, about = self.folder / self.frames_file, self.folder / self.metadata_file
        try:
            metadata = read_json(about)
            if (version := metadata["version"]) != self.version:
                raise UserError(f"{about} has version {version}, expected {self.version}")
            size, expected = regular(path).st_size, metadata["bytes"]
            if size != expected:
                raise UserError(f"{path} has {size:,} bytes, expected {expected:,}")
            frames = arrays.mapped(path)
            kind = f"{frames.dtype} {[*frames.shape]}"
            shape = metadata.get("shape", [*frames.shape])
            if kind != f"uint8 {shape}":
                raise UserError(f"{path} is {kind}, expected uint8 {shape}")
            self.unpack(metadata, frames)
            whole = metadata["verify"] = partial(self.matches, metadata, frames)
            state = checked.intact(path, content := _digest(about))
            if state is False or not (state or whole()):
                raise UserError(f"{path} or {about.name} was changed since it was made (checksum)")
            if state is None:
                checked.confirm(path, content)
        except FileNotFoundError as error:
            raise UserError(f"found no {error.filename}") from None
        except UserError:
            raise
        except Exception as error:  # damaged metadata can raise any exception
            raise UserError(f"{about} or {path.name} is damaged ({error!r:.200})") from None
        return metadata, frames

    def verify(self) -> bool:
        """Whether the set is complete to the last pixel. Computes the fingerprint (seconds)."""
        try:
            metadata, frames = self.read()
        except UserError:
            return False
        return self.matches(metadata, frames)

    def write(self, shape: tuple[int, ...], fill: Callable[[np.ndarray], dict]) -> None:
        """Make the set: fill(frames) fills a memory map, uint8 `shape`, and returns the metadata.

        If that fails, no new file is left, and an older set stays. Raises UserError if the disk is
        too full or cannot be written.
        """
        path, about = self.folder / self.frames_file, self.folder / self.metadata_file
        need = int(np.prod(shape))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Checked first: a disk that fills up under a memory map kills the process silently.
            free = shutil.disk_usage(self.folder).free
            if free < need:
                problem = f"{self.folder} has {free:,} bytes free, the set needs {need:,}"
                raise UserError(f"{problem}: make room or choose another --data_dir")
            with replacing(path) as part:
                frames = np.lib.format.open_memmap(part, "w+", np.uint8, tuple(shape))
                _reserve(part)
                metadata = fill(frames) | {"version": self.version, "shape": [*shape]}
                frames.flush()
                metadata["bytes"] = part.stat().st_size
                about.unlink(missing_ok=True)
            write_text(about, json.dumps(metadata, default=np.ndarray.tolist))
            checked.confirm(path, _digest(about))
        except OSError as error:
            problem = f"cannot write {self.folder} ({error.strerror})"
            raise UserError(f"{problem}: choose another --data_dir") from None


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reserve(path):
    """Take the disk space of a file now: a full disk is then an error, and not a SIGBUS later."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
