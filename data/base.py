"""What every data set provides: clips of uint8 frames, labels by name, and a seeded split.

The frames of all clips lie one after another in one array, which may be memory-mapped. Clips may
differ in length. Neither splitting nor batching copies the array.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from utils.errors import UserError

IMAGE_SIZE = 64
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clips:
    """One split of a data set. A `row` is a position among the clips of the split.

    frames: of all clips of the set, uint8 [F, 64, 64, 3]. lengths: in frames, [clips of the set].
    labels: [clips of the set, ...] each. index: the split's clips as positions in the set, [n].
    """

    frames: np.ndarray
    lengths: np.ndarray
    labels: dict[str, np.ndarray]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def num_frames(self) -> int:
        """The length of the shortest clip, in frames."""
        return int(self.lengths[self.index].min())

    @cached_property
    def total(self) -> int:
        """The number of frames in this split."""
        return int(self.lengths[self.index].sum())

    @cached_property
    def first(self) -> np.ndarray:
        """The position in `frames` at which each clip starts, int64 [n]."""
        return (np.cumsum(self.lengths) - self.lengths)[self.index]

    @cached_property
    def rank(self) -> np.ndarray:
        """The position at which each clip starts among the frames of this split, int64 [n]."""
        lengths = self.lengths[self.index]
        return np.cumsum(lengths) - lengths

    def every_frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and time of every frame of this split, clip after clip, int64 [total] each."""
        rows = np.repeat(np.arange(len(self)), self.lengths[self.index])
        return rows, np.arange(len(rows)) - self.rank[rows]

    def take(self, rows, start=0, length: int | None = None) -> np.ndarray:
        """A copy of frames of the clips at `rows` [k]: uint8 [k, length, 64, 64, 3].

        start: first frame, one integer or one per clip. length: `num_frames` by default. Raises
        IndexError if a clip is too short.
        """
        rows, start = np.asarray(rows), np.asarray(start)
        length = self.num_frames if length is None else length
        if np.any(start + length > self.lengths[self.index[rows]]):
            raise IndexError(f"a clip ends before its frame {start} + {length}")
        return self.frames[(self.first[rows] + start)[:, None] + np.arange(length)]

    def label(self, name: str, rows=None) -> np.ndarray:
        """Label `name` of the clips at `rows`, by default of all clips."""
        return self.labels[name][self.index if rows is None else self.index[np.asarray(rows)]]


@dataclass(frozen=True)
class Dataset:
    """A loaded data set. `Clips` describes frames, lengths and labels.

    classes: names of the values of each categorical factor, which the label of that name indexes
    splits: 'train', 'val' and 'test' -> positions of clips; disjoint, none is empty
    static, dynamic: the factors of the identity, and those of the motion
    fingerprint: SHA-256 of frames, labels and splits, hexadecimal
    group: the label that is equal for clips of one identity (the character of a sprite)
    clips_per_sample: stage 1 joins this many clips of one group into one training sample
    flips: stage 1 mirrors its samples with probability 1/2
    fps: frames per second of the GIFs
    continuations: lengths, in frames, to which the pictures continue a clip
    split_flag: the flag, if any, that decides the split together with the files
    release_names: the names that the authors' code gives to factors, where they are not ours
    former: fingerprints that earlier versions of this program gave to the same data
    verify: compares every stored byte with the fingerprint; None: nothing is stored
    pairs: positions of clips in no split, whose pair of group and action is in no training clip
    beyond: simulates clips at these positions to any number of frames, uint8 [n, frames, ...]
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
    release_names: Mapping[str, str] = field(default_factory=dict)
    former: tuple[str, ...] = ()
    verify: Callable[[], bool] | None = None
    pairs: np.ndarray | None = None
    beyond: Callable[[np.ndarray, int], np.ndarray] | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        """The static factors, then the dynamic ones."""
        return self.static + self.dynamic

    def __post_init__(self):
        for problem in self._problems():
            raise UserError(f"{self.name}: {problem}: make the data again")

    def _problems(self):
        frames, picture = self.frames, (IMAGE_SIZE, IMAGE_SIZE, 3)
        if frames.dtype != np.uint8 or frames.shape[1:] != picture or frames.size == 0:
            kind = f"{frames.dtype} {[*frames.shape]}" if frames.size else "no clip"
            yield f"found {kind}, expected uint8 [frames, {IMAGE_SIZE}, {IMAGE_SIZE}, 3]"
        total = self.lengths.sum()
        if self.lengths.min() < 1 or total != len(frames):
            yield f"found {len(frames)} frames for clips of {total}, expected as many"
        for name, values in self.labels.items():
            if len(values) != len(self.lengths):
                yield f"label '{name}' has {len(values)} values for {len(self.lengths)} clips"
        for name in SPLITS:
            if len(self.splits.get(name, ())) == 0:
                yield f"found no clip in split '{name}', expected one or more"
        rows = np.sort(np.concatenate([*self.splits.values()]))
        if rows.dtype.kind not in "iu" or rows[0] < 0 or rows[-1] >= len(self.lengths):
            yield f"found {rows[0]} to {rows[-1]} as clips of the splits, of {len(self.lengths)}"
            return
        if len(twice := rows[1:][rows[1:] == rows[:-1]]):
            yield f"found clip {twice[0]} twice in the splits, expected every clip in one"
        for name, values in self.classes.items():
            if name not in self.labels:
                yield f"found no label '{name}', expected one value per clip"
                return
            label = np.asarray(self.labels[name])[rows]
            if label.dtype.kind not in "iu" or label.min() < 0 or label.max() >= len(values):
                known = f"whole numbers 0 to {len(values) - 1}"
                yield f"label '{name}' is {label.min()} to {label.max()}, expected {known}"

    def split(self, name: str) -> Clips:
        """The clips of 'train', 'val' or 'test', of 'all' three by position, or `pairs`."""
        if name == "pairs":
            index = np.empty(0, np.int64) if self.pairs is None else self.pairs
        else:
            every = name == "all"
            index = np.sort(np.concatenate([*self.splits.values()])) if every else self.splits[name]
        return Clips(self.frames, self.lengths, self.labels, index)

    def subsample(self, count: int, seed: int) -> "Dataset":
        """The set with about `count` clips, drawn by `seed`, whole groups as far as possible.

        Each split keeps its share of the clips, and at least one.
        """
        total, rng, splits = sum(map(len, self.splits.values())), np.random.default_rng(seed), {}
        if count >= total:
            return self
        for name in SPLITS:
            rows = self.splits[name]
            groups = self.labels[self.group][rows] if self.group else rows
            _, member = np.unique(groups, return_inverse=True)
            order = np.argsort(rng.permutation(member.max() + 1)[member], kind="stable")
            splits[name] = np.sort(rows[order[: max(1, round(count * len(rows) / total))]])
        content = b"".join(splits[name].astype(np.int64).tobytes() for name in SPLITS)
        new, *former = (
            hashlib.sha256(old.encode() + content).hexdigest()
            for old in (self.fingerprint, *self.former)
        )
        pairs = self.pairs
        if pairs is not None and self.group:
            groups = self.labels[self.group]
            pairs = pairs[np.isin(groups[pairs], groups[splits["train"]])]
        given = {"fingerprint": new, "former": tuple(former), "pairs": pairs}
        return replace(self, splits=splits, **given)

    def knows(self, fingerprint: str) -> bool:
        """Whether a checkpoint or a file with this fingerprint is of these data."""
        return fingerprint in (self.fingerprint, *self.former)

    def cut(self) -> str | None:
        """What is wrong if the file of memory-mapped frames is shorter than it was, or None.

        To read the missing part would end the process with a SIGBUS.
        """
        array: Any = self.frames
        while array is not None and getattr(array, "_mmap", None) is None:
            array = getattr(array, "base", None)
        if array is None or (size := array._mmap.size()) >= len(array._mmap):
            return None
        problem = f"{array.filename} was cut to {size:,} bytes while it was in use"
        return f"{problem}: make the data again, then give the same command"

    def refuse_cut(self) -> None:
        """Raise UserError if the frames were cut (see `cut`)."""
        if problem := self.cut():
            raise UserError(problem)

    def need_frames(self, length: int) -> None:
        """Raise UserError unless every clip has at least `length` frames."""
        shortest = min(self.split(name).num_frames for name in SPLITS)
        if shortest < length:
            problem = f"{self.name} has clips of {shortest} frames and --seq_len asks for {length}"
            raise UserError(f"{problem}: use --seq_len {shortest} or less")


def flat(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips of one length [n, T, ...] -> frames [n T, ...], a view, and lengths [n]."""
    return clips.reshape(-1, *clips.shape[2:]), np.full(len(clips), clips.shape[1])


def consecutive(counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Positions of clips by split, where the splits of these counts lie one after another."""
    ends = np.cumsum([*counts.values()])
    return dict(zip(counts, np.split(np.arange(ends[-1]), ends[:-1])))


def fingerprint(frames: np.ndarray, labels: dict, splits: dict) -> str:
    """SHA-256 (hexadecimal) of frames of any shape, labels and splits."""
    digest = hashlib.sha256(str((frames.shape, frames.dtype.str)).encode())
    for block in range(0, len(frames), 256):  # so that a memory map is not loaded whole
        digest.update(np.ascontiguousarray(frames[block : block + 256]).data)
    for table in (labels, splits):
        for name in sorted(table):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(table[name]).data)
    return digest.hexdigest()
