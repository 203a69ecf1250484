"""Which frames make a batch, and getting them: index arrays drawn from (seed, stage, step) alone, and a store they pick from.

A batch depends on nothing but its number, so that a resumed run draws the batches that an unbroken one would have drawn.
"""

import numpy as np
import torch

from utils.frames import as_float


class Sampler:
    """Draws batches as index arrays clip, time, flip, each [N, P]: frame time[n, p] of clip clip[n, p] (a row of the split),
    mirrored where flip[n, p].

    A sample is a random window of seq_len frames of one clip; where the data set joins clips (sprites, stage 1), all frames of
    `joined` random clips of one group instead, whatever seq_len says. flips: each sample is mirrored, as a whole, with
    probability 1/2. frozen (release): a clip's window is drawn once for the run, and so is, frame by frame, what is mirrored.
    """

    def __init__(self, clips, seq_len, group=None, joined=1, seed=(0,), flips=False, frozen=False):
        self.clips, self.seq_len, self.joined, self.seed = clips, seq_len, joined, tuple(seed)
        self.flips, self.frozen = flips, frozen
        self.windows = clips.lengths[clips.index] - seq_len + 1  # of each clip
        self.members = None
        if group is not None and joined > 1:
            labels = clips.label(group)
            order = np.argsort(labels, kind="stable")
            self.members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        if frozen:
            rng = self._rng(0, 3)
            self.start = rng.integers(self.windows)
            self.mirrored = rng.random(clips.total) < 0.5

    def _rng(self, step, *use):
        """The generator of one use at one step, alike whatever was drawn before."""
        return np.random.default_rng([*self.seed, step, *use])

    def draw(self, step, batch):
        """Batch number `step` of `batch` samples: clip, time int64 [batch, P], flip bool [batch, P]."""
        rng = self._rng(step)
        if self.members is not None:
            frames = self.clips.num_frames
            chosen = rng.integers(len(self.members), size=batch)
            rows = [
                rng.choice(self.members[c], self.joined, replace=len(self.members[c]) < self.joined)
                for c in chosen
            ]
            clip, time = (
                np.repeat(np.stack(rows), frames, 1),
                np.tile(np.arange(frames), (batch, self.joined)),
            )
        else:
            rows = rng.integers(len(self.clips), size=batch)
            start = self.start[rows] if self.frozen else rng.integers(self.windows[rows])
            time = start[:, None] + np.arange(self.seq_len)
            clip = np.broadcast_to(rows[:, None], time.shape)
        return clip, time, self._flip(step, clip, time)

    def _flip(self, step, clip, time):
        if not self.flips:
            return np.zeros(clip.shape, bool)
        if self.frozen:
            return self.mirrored[self.clips.rank[clip] + time]
        return np.broadcast_to(self._rng(step, 2).random((len(clip), 1)) < 0.5, clip.shape)

    def pick(self, step, batch, frames, count):
        """For each of `batch` samples, `count` of `frames` positions (one number, or one a sample) at random, ascending: [batch, count]."""
        order = self._rng(step, 1).permuted(np.tile(np.arange(np.max(frames)), (batch, 1)), axis=1)
        beyond = order >= np.reshape(frames, (-1, 1))
        own_first = np.take_along_axis(order, np.argsort(beyond, axis=1, kind="stable"), 1)
        return np.sort(own_first[:, :count], 1)


class FrameStore:
    """A split's frames, to be picked from by index arrays, as float [N, P, 3, 64, 64] in [0, 1] on `device`.

    On a GPU the set lives there as uint8 when it takes at most a quarter of the free memory; otherwise it stays where it lies
    (in memory or memory-mapped) and only the picked frames move.
    """

    def __init__(self, clips, device):
        self.clips, self.device, self.resident = clips, device, None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if clips.frames[0].nbytes * clips.total <= free // 4:
                self.resident = move(clips, device)

    def pick(self, clip, time, flip=None):
        """Frames at index arrays clip, time [N, P], mirrored where flip [N, P]."""
        if self.resident is not None:
            place = torch.from_numpy(self.clips.rank[clip] + time).to(
                self.device, non_blocking=True
            )
            frames = self.resident[place]
        else:
            frames = torch.from_numpy(self.clips.frames[self.clips.first[clip] + time]).to(
                self.device
            )
        if flip is not None and flip.any():
            mirrored = torch.tensor(flip, device=self.device)[..., None, None, None]
            frames = torch.where(mirrored, frames.flip(-2), frames)
        return as_float(frames)


def move(clips, device, block=4096):
    """A split's frames on `device`, uint8 [F of the split, 64, 64, 3], clip after clip; block by block, so that a set that is memory-mapped
    is never whole in the CPU's memory."""
    clip, time = clips.every_frame()
    place = clips.first[clip] + time
    moved = torch.empty((len(place), *clips.frames.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(place), block):
        some = place[start : start + block]
        moved[start : start + block] = torch.from_numpy(clips.frames[some])
    return moved
