"""What every data set gives: clips of uint8 frames, labels by name, a seeded split. Nothing of models.

The frames of all clips lie one after another, [F, 64, 64, 3] uint8, possibly memory-mapped, with the clips' lengths beside them:
clips may differ in length, and neither splitting nor batching copies the set.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from utils.errors import UserError

IMAGE_SIZE = 64
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clips:
    """One split of a data set.

    frames [F, 64, 64, 3] uint8, lengths [n_all] (sum F) and labels (each [n_all]) are those of the whole set; `index` [n] picks
    the split's clips.
    """

    frames: np.ndarray
    lengths: np.ndarray
    labels: dict[str, np.ndarray]
    index: np.ndarray

    def __len__(self):
        return len(self.index)

    @property
    def num_frames(self):
        """The frames that each clip of the split has: the shortest one's."""
        return int(self.lengths[self.index].min())

    @cached_property
    def total(self):
        """The frames of all clips of the split."""
        return int(self.lengths[self.index].sum())

    @cached_property
    def first(self):
        """Where each clip of the split begins in `frames`, int64 [n]."""
        return starts(self.lengths)[self.index]

    @cached_property
    def rank(self):
        """Where each clip of the split begins among the split's own frames, clip after clip, int64 [n]."""
        return starts(self.lengths[self.index])

    def every_frame(self):
        """clip, time of all the split's frames in that order, int64 [F of the split] each."""
        lengths = self.lengths[self.index]
        clip = np.repeat(np.arange(len(self)), lengths)
        return clip, np.arange(len(clip)) - self.rank[clip]

    def take(self, rows, start=0, length=None):
        """The clips at `rows` of this split (integers in [0, n)) as uint8 [k, length, 64, 64, 3], a copy; by default
        `num_frames` long. `start` is one integer or one a clip. Raises IndexError past a clip's end."""
        rows, start = np.asarray(rows), np.asarray(start)
        length = self.num_frames if length is None else length
        if np.any(start + length > self.lengths[self.index[rows]]):
            raise IndexError(f"found a clip without frames {start} to {start} + {length}")
        return self.frames[(self.first[rows] + start)[:, None] + np.arange(length)]

    def label(self, name, rows=None):
        """Label `name` of the clips at `rows` (all by default), [k]."""
        position = self.index if rows is None else self.index[np.asarray(rows)]
        return self.labels[name][position]


@dataclass(frozen=True)
class Dataset:
    """A data set as loaded: see `Clips` for frames, lengths and labels.

    classes       names of the values of each categorical factor: label `factor` holds indices into classes[factor]
    splits        'train', 'val' and 'test' -> positions [n_split]; disjoint, none empty
    static        the factors that stay over a clip (identity); dynamic: those of the action
    group         label whose equal values mean the same identity (a sprite's character), or None
    clips_per_sample  stage 1 joins this many clips of one group into one training sample (sprites: 2)
    flips         stage 1 mirrors its samples with probability 1/2
    fps           frames a second of the GIFs
    continuations lengths, in frames, to which pictures continue a clip past its training length
    fingerprint   SHA-256 of frames, labels and split, hexadecimal
    """

    name: str
    frames: np.ndarray
    lengths: np.ndarray
    labels: dict[str, np.ndarray]
    classes: dict[str, tuple[str, ...]]
    splits: dict[str, np.ndarray]
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    fingerprint: str
    group: str | None = None
    clips_per_sample: int = 1
    flips: bool = False
    fps: int = 10
    continuations: tuple[int, ...] = ()
    split_flag: str | None = None

    def __post_init__(self):
        check_frames(self.frames, self.name)
        if self.lengths.min() < 1 or self.lengths.sum() != len(self.frames):
            found = f"{len(self.frames)} frames for clips of {self.lengths.sum()}"
            raise UserError(f"{self.name}: found {found}, expected as many: make the data again")
        for name, values in self.labels.items():
            if len(values) != len(self.lengths):
                raise UserError(
                    f"{self.name}: label '{name}' has {len(values)} values for {len(self.lengths)} clips"
                )
        for name in SPLITS:
            if len(self.splits.get(name, ())) == 0:
                raise UserError(
                    f"{self.name}: found no clip in split '{name}', expected one or more: make the data again"
                )

    def split(self, name):
        """The clips of split 'train', 'val' or 'test'; 'all': of the three, in the data set's order."""
        index = (
            np.sort(np.concatenate(list(self.splits.values())))
            if name == "all"
            else self.splits[name]
        )
        return Clips(self.frames, self.lengths, self.labels, index)

    def subsample(self, count, seed):
        """The same set with `count` clips, each split keeping its share and one clip at least, drawn by `seed` group after group
        (whole characters, where there are such). Frames and labels stay where they are."""
        total, rng, splits = sum(map(len, self.splits.values())), np.random.default_rng(seed), {}
        if count >= total:
            return self
        for name in SPLITS:
            rows = self.splits[name]
            _, member = np.unique(
                self.labels[self.group][rows] if self.group else rows, return_inverse=True
            )
            order = np.argsort(rng.permutation(member.max() + 1)[member], kind="stable")
            splits[name] = np.sort(rows[order[: max(1, round(count * len(rows) / total))]])
        digest = hashlib.sha256(self.fingerprint.encode())
        for name in SPLITS:
            digest.update(splits[name].astype(np.int64).data)
        return replace(self, splits=splits, fingerprint=digest.hexdigest())

    def need_frames(self, length):
        """Raise UserError unless every clip of a split has at least `length` frames."""
        shortest = min(self.split(name).num_frames for name in SPLITS)
        if shortest < length:
            raise UserError(
                f"{self.name} has clips of {shortest} frames and --seq_len asks for {length}: "
                f"use --seq_len {shortest} or less"
            )


def starts(lengths):
    """Where each of the pieces laid one after another begins: 0, then the sums of the lengths [n] before it, int64 [n]."""
    return np.cumsum(lengths) - lengths


def flat(clips):
    """Clips of one length [n, T, 64, 64, 3] -> frames [n T, 64, 64, 3], a view, and lengths [n]."""
    return clips.reshape(-1, *clips.shape[2:]), np.full(len(clips), clips.shape[1])


def check_frames(frames, name):
    """Raise UserError unless frames are uint8 [F > 0, 64, 64, 3]."""
    want = f"uint8 [frames, {IMAGE_SIZE}, {IMAGE_SIZE}, 3]"
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3)
    ):
        raise UserError(
            f"{name}: found {frames.dtype} {list(frames.shape)}, expected {want}: make the data again"
        )
    if len(frames) == 0:
        raise UserError(f"{name}: found no clip, expected {want}: make the data again")


def fingerprint(frames, labels, splits):
    """SHA-256 (hexadecimal) of frames, of any shape (in blocks, so that a memory map is not loaded), labels and split by name."""
    digest = hashlib.sha256(str((frames.shape, frames.dtype.str)).encode())
    for block in range(0, len(frames), 256):
        digest.update(np.ascontiguousarray(frames[block : block + 256]).data)
    for table in (labels, splits):
        for name in sorted(table):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(table[name]).data)
    return digest.hexdigest()
