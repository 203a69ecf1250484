"""What every data set gives: clips of uint8 frames, labels by name, a seeded split. Nothing of models.

Frames are [n, T, 64, 64, 3] uint8, possibly memory-mapped: a split is a list of positions, so that neither splitting nor
batching copies the set.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError

IMAGE_SIZE = 64
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clips:
    """One split of a data set.

    frames [n_all, T, 64, 64, 3] uint8 and labels (each [n_all]) are those of the whole set; `index` [n] picks the split's.
    """

    frames: np.ndarray
    labels: dict[str, np.ndarray]
    index: np.ndarray

    def __len__(self):
        return len(self.index)

    @property
    def num_frames(self):
        """T, the frames of a clip."""
        return self.frames.shape[1]

    def take(self, rows, start=0, length=None):
        """The clips at `rows` of this split (integers in [0, n)) as uint8 [k, length, 64, 64, 3], a copy;
        `start` is one integer or one a clip."""
        stop_at = self.num_frames if length is None else length
        position = self.index[np.asarray(rows)]
        if np.ndim(start) == 0:
            return np.ascontiguousarray(self.frames[position, start : start + stop_at])
        time = np.asarray(start)[:, None] + np.arange(stop_at)[None]
        return self.frames[position[:, None], time]

    def label(self, name, rows=None):
        """Label `name` of the clips at `rows` (all by default), [k]."""
        position = self.index if rows is None else self.index[np.asarray(rows)]
        return self.labels[name][position]


@dataclass(frozen=True)
class Dataset:
    """A data set as loaded: see `Clips` for frames and labels.

    classes       names of the values of each categorical factor: label `factor` holds indices into classes[factor]
    splits        'train', 'val' and 'test' -> positions [n_split]; disjoint, none empty
    static        the factors that stay over a clip (identity); dynamic: those of the action
    group         label whose equal values mean the same identity (a sprite's character), or None
    clips_per_sample  stage 1 joins this many clips of one group into one training sample (sprites: 2)
    fps           frames a second of the GIFs
    continuations lengths, in frames, to which pictures continue a clip past its training length
    fingerprint   SHA-256 of frames, labels and split, hexadecimal
    """

    name: str
    frames: np.ndarray
    labels: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]
    splits: dict[str, np.ndarray]
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    fingerprint: str
    group: str | None = None
    clips_per_sample: int = 1
    fps: int = 10
    continuations: tuple[int, ...] = ()

    def __post_init__(self):
        check_frames(self.frames, self.name)
        for name, values in self.labels.items():
            if len(values) != len(self.frames):
                raise UserError(f"{self.name}: label '{name}' has {len(values)} values for {len(self.frames)} clips")
        for name in SPLITS:
            if len(self.splits.get(name, ())) == 0:
                raise UserError(f"{self.name}: found no clip in split '{name}', expected one or more: make the data again")

    def split(self, name):
        """The clips of split 'train', 'val' or 'test'."""
        return Clips(self.frames, self.labels, self.splits[name])

    def need_frames(self, length):
        """Raise UserError unless clips have at least `length` frames."""
        if self.frames.shape[1] < length:
            raise UserError(
                f"{self.name} has clips of {self.frames.shape[1]} frames and --seq_len asks for {length}: "
                f"use --seq_len {self.frames.shape[1]} or less"
            )


def check_frames(frames, name):
    """Raise UserError unless frames are uint8 [n > 0, T, 64, 64, 3]."""
    want = f"uint8 [clips, frames, {IMAGE_SIZE}, {IMAGE_SIZE}, 3]"
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[2:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
        raise UserError(f"{name}: found {frames.dtype} {list(frames.shape)}, expected {want}: make the data again")
    if len(frames) == 0:
        raise UserError(f"{name}: found no clip, expected {want}: make the data again")


def fingerprint(frames, labels, splits):
    """SHA-256 (hexadecimal) of frames (in blocks, so that a memory map is not loaded), labels and split by name."""
    digest = hashlib.sha256(str((frames.shape, frames.dtype.str)).encode())
    for block in range(0, len(frames), 256):
        digest.update(np.ascontiguousarray(frames[block : block + 256]).data)
    for table in (labels, splits):
        for name in sorted(table):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(table[name]).data)
    return digest.hexdigest()
