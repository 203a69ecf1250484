"""Which frames make a batch, and getting them: index arrays drawn from (seed, stage, step) alone, and a store they pick from.

A batch depends on nothing but its number, so that a resumed run draws the batches that an unbroken one would have drawn.
"""

import numpy as np
import torch

from utils.frames import as_float


class Sampler:
    """Draws batches as index arrays clip, time [N, P]: frame time[n, p] of clip clip[n, p] (a row of the split).

    A sample is a random window of seq_len frames of one clip; where the data set joins clips (sprites, stage 1), all frames of
    `joined` random clips of one group instead, whatever seq_len says.
    """

    def __init__(self, clips, seq_len, group=None, joined=1, seed=(0,)):
        self.clips, self.seq_len, self.joined, self.seed = clips, seq_len, joined, tuple(seed)
        self.members = None
        if group is not None and joined > 1:
            labels = clips.label(group)
            order = np.argsort(labels, kind="stable")
            self.members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def draw(self, step, batch):
        """Batch number `step` of `batch` samples: clip, time, each int64 [batch, P]."""
        rng = np.random.default_rng([*self.seed, step])
        if self.members is not None:
            frames = self.clips.num_frames
            chosen = rng.integers(len(self.members), size=batch)
            rows = [
                rng.choice(self.members[c], self.joined, replace=len(self.members[c]) < self.joined) for c in chosen
            ]
            return np.repeat(np.stack(rows), frames, 1), np.tile(np.arange(frames), (batch, self.joined))
        rows = rng.integers(len(self.clips), size=batch)
        start = rng.integers(self.clips.num_frames - self.seq_len + 1, size=batch)
        time = start[:, None] + np.arange(self.seq_len)
        return np.broadcast_to(rows[:, None], time.shape), time

    def pick(self, step, batch, frames, count):
        """For each of `batch` samples, `count` of `frames` positions at random, ascending: [batch, count]."""
        rng = np.random.default_rng([*self.seed, step, 1])
        return np.sort(rng.permuted(np.tile(np.arange(frames), (batch, 1)), axis=1)[:, :count], 1)


class FrameStore:
    """A split's frames, to be picked from by index arrays, as float [N, P, 3, 64, 64] in [0, 1] on `device`.

    On a GPU the set lives there as uint8 when it takes at most a quarter of the free memory; otherwise it stays where it lies
    (in memory or memory-mapped) and only the picked frames move.
    """

    def __init__(self, clips, device):
        self.clips, self.device, self.resident = clips, device, None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if clips.frames[0].nbytes * len(clips) <= free // 4:
                self.resident = torch.from_numpy(clips.take(np.arange(len(clips)))).to(device)

    def pick(self, clip, time):
        """Frames at index arrays clip, time [N, P]."""
        if self.resident is not None:
            to = {"device": self.device, "non_blocking": True}
            frames = self.resident[
                torch.from_numpy(np.ascontiguousarray(clip)).to(**to), torch.from_numpy(time).to(**to)
            ]
        else:
            frames = torch.from_numpy(self.clips.frames[self.clips.index[clip], time]).to(self.device)
        return as_float(frames)
