"""Training batches: which frames of which clips, and their pixels.

A batch depends on the seed and the step alone, so a resumed run draws the same batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.base import Clips
from utils.frames import as_float

# Streams of random numbers at one step, independent of each other and of the batch's own stream.
PICK, FLIP, FROZEN = 1, 2, 3


@dataclass(eq=False)
class Batches:
    """Batches of one split of a data set.

    A batch is three index arrays clip, time, flip, [N, P] each: the frame time[n, p] of the clip in
    row clip[n, p] of the split, mirrored where flip[n, p]. `frames` gives the pixels.

    A sample is a random window of seq_len frames of one clip. If `joined` is above 1 and `group`
    names a label, a sample is all frames of `joined` random clips of one group.

    size: samples per batch. seed: integers, different for each stage and split. flips: each sample
    is mirrored as a whole with probability 1/2. frozen (release): the window of each clip and the
    mirroring of each single frame are drawn once per run. distinct (release): the clips of a batch
    are drawn without replacement, so that a batch has at most as many samples as there are clips.
    If `group` names a label, each clip then gives way to `joined` clips of its group, each of which
    may be any, so that a clip can be joined with itself.

    A GPU holds all frames as uint8 if they take at most a quarter of its free memory.
    """

    clips: Clips
    device: torch.device
    seq_len: int
    size: int
    group: str | None = None
    joined: int = 1
    seed: Sequence[int] = (0,)
    flips: bool = False
    frozen: bool = False
    distinct: bool = False

    def __post_init__(self):
        clips = self.clips
        if self.distinct:
            self.size = min(self.size, len(clips))
        self.windows = clips.lengths[clips.index] - self.seq_len + 1  # possible starts in each clip
        self.members = None  # rows of each group
        if self.group is not None and (self.joined > 1 or self.distinct):
            _, labels = np.unique(clips.label(self.group), return_inverse=True)
            order, self.group_of = np.argsort(labels, kind="stable"), labels
            self.members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        if self.frozen:
            rng = self._rng(0, FROZEN)
            self.start = rng.integers(self.windows)
            self.mirrored = rng.random(clips.total) < 0.5
        self.rank = torch.from_numpy(clips.rank).to(self.device)
        self.resident = None
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if clips.frames[0].nbytes * clips.total <= free // 4:
                self.resident = move(clips, self.device)

    def _rng(self, step, *stream):
        return np.random.default_rng([*self.seed, step, *stream])

    def draw(self, step: int, size: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Batch number `step`: clip, time int64 and flip bool, each [size, P]."""
        rng, size = self._rng(step), self.size if size is None else size
        rows = self._rows(rng, size)
        if self.joined > 1 and self.members is not None:
            frames = self.clips.num_frames
            clip = np.repeat(rows, frames, 1)
            time = np.tile(np.arange(frames), (len(rows), self.joined))
        else:
            rows = rows[:, 0]
            start = self.start[rows] if self.frozen else rng.integers(self.windows[rows])
            time = start[:, None] + np.arange(self.seq_len)
            clip = np.broadcast_to(rows[:, None], time.shape)
        return clip, time, self._flip(step, clip, time)

    def _rows(self, rng, size):
        """Rows of random clips: those of each sample, [size, joined], or [size, 1]."""
        count, members = len(self.clips), self.members
        if self.distinct:
            rows = rng.choice(count, min(size, count), replace=False)
            groups = [] if members is None else [members[i] for i in self.group_of[rows]]
            return np.stack([rng.choice(g, self.joined) for g in groups] or [*rows[:, None]])
        if members is None:
            return rng.integers(count, size=size)[:, None]
        groups = [members[i] for i in rng.integers(len(members), size=size)]
        rows = [rng.choice(g, self.joined, replace=len(g) < self.joined) for g in groups]
        return np.stack(rows)

    def _flip(self, step, clip, time):
        if not self.flips:
            return np.zeros(clip.shape, bool)
        if self.frozen:
            return self.mirrored[self.clips.rank[clip] + time]
        return np.broadcast_to(self._rng(step, FLIP).random((len(clip), 1)) < 0.5, clip.shape)

    def pick(self, step: int, size: int, frames, count: int) -> np.ndarray:
        """Ascending random positions in each of `size` samples: int64 [size, count].

        frames: positions in a sample, one integer or one per sample.
        """
        order = np.tile(np.arange(np.max(frames)), (size, 1))
        order = self._rng(step, PICK).permuted(order, axis=1)
        beyond = order >= np.reshape(frames, (-1, 1))
        within = np.take_along_axis(order, np.argsort(beyond, axis=1, kind="stable"), 1)
        return np.sort(within[:, :count], 1)

    def place(self, clip, time) -> torch.Tensor:
        """Positions among the frames of the split, on the device. clip, time: as for `frames`."""
        if isinstance(clip, torch.Tensor):
            return self.rank[clip] + time
        return self.send(self.clips.rank[clip] + time)

    def frames(self, clip, time, flip=None) -> torch.Tensor:
        """The frames at the indices [N, P] of `draw`: float [N, P, 3, 64, 64] in [0, 1].

        clip, time, flip: arrays, or tensors on a device that holds all frames.
        """
        if self.resident is not None:
            frames = self.resident[self.place(clip, time)]
        else:
            place = self.clips.first[clip] + time
            frames = self.send(self.clips.frames[place])
        if isinstance(flip, np.ndarray):
            # On a CPU, most batches are spared the copy.
            flip = self.send(np.array(flip)) if flip.any() else None
        if flip is not None:
            frames = torch.where(flip[..., None, None, None], frames.flip(-2), frames)
        return as_float(frames)

    def send(self, array: np.ndarray) -> torch.Tensor:
        """A fresh array as a tensor on the device. The host does not wait until a GPU has it."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            # Only from pinned memory does a copy run beside the host.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def send_steps(self, steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The inputs of several training steps, with their arrays as tensors on the device.

        All steps have the same arrays. An array takes one copy for all steps. Other values stay.
        """
        names = [name for name, value in steps[0].items() if isinstance(value, np.ndarray)]
        whole = {name: self.send(np.stack([step[name] for step in steps])) for name in names}
        return [{**step, **{n: whole[n][i] for n in names}} for i, step in enumerate(steps)]


def move(clips: Clips, device: torch.device, block: int = 4096) -> torch.Tensor:
    """The frames of a split on `device`, clip after clip: uint8 [clips.total, 64, 64, 3]."""
    clip, time = clips.every_frame()
    place = clips.first[clip] + time
    moved = torch.empty((len(place), *clips.frames.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(place), block):  # so that a memory map is not loaded whole
        moved[start : start + block] = torch.from_numpy(clips.frames[place[start : start + block]])
    return moved
