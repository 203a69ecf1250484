"""A tiny model with two stages that no generic code knows: stage 1 codes frames, stage 2 motion.

Stage 1 is an autoencoder of small pictures with a static code f per clip and a code z_t per frame.
Stage 2 reads one code d per clip from the z_t of the frozen stage 1 and decodes all z_t from d.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.annealing import Schedules
from models.elbo import Term
from models.stage import Stage
from utils.flags import flag, number, redefault
from utils.settings import RunSettings, StageInfo

SMALL = 8  # px: the side of the pictures that it works on
LONGEST = 16  # frames


@dataclass
class TwoSettings(RunSettings):
    """Settings of one stage of the model."""

    model: str = redefault(RunSettings, "model", "two")
    train_frames: bool = flag(False, "Two", free=True)
    "Train stage 1."
    train_motion: bool = flag(False, "Two", free=True)
    "Train stage 2."
    pretrained_frames: int = flag(None, "Two", kind=int, low=0, free=True)
    "Epoch of the stage-1 checkpoint to use."
    pretrained_motion: int = flag(None, "Two", kind=int, low=0, free=True)
    "Epoch of the stage-2 checkpoint to test."
    lr_frames: float = flag(0.01, "Two", kind=number, low=0, stage="Frames")
    "Learning rate of stage 1."
    lr_motion: float = flag(0.01, "Two", kind=number, low=0, stage="Motion")
    "Learning rate of stage 2."
    size: int = flag(4, "Two", low=1)
    "Size of each code."

    STAGES: ClassVar = (
        StageInfo(
            "Frames", "models.two:FramesStage", "frames", ("size",),
            "train_frames", "pretrained_frames", "lr_frames", frames_only=True,
        ),
        StageInfo(
            "Motion", "models.two:MotionStage", "motion", ("size",),
            "train_motion", "pretrained_motion", "lr_motion", stands_on="Frames",
        ),
    )  # fmt: skip

    @property
    def code_size(self):
        """Numbers in the codes of one clip."""
        return 2 * self.size


def squared_error(made, x):
    """The only term of both losses."""
    error = F.mse_loss(made, x, reduction="sum")
    return {"x": Term(error, error)}


class Frames(nn.Module):
    """Frames x [N, T, 3, 64, 64] <-> f [N, size] and z [N, T, size]."""

    continues, z_dim = False, 4

    def __init__(self, settings):
        super().__init__()
        self.size = settings.size
        self.to_codes = nn.Linear(3 * SMALL**2, 2 * self.size)
        self.to_pixels = nn.Linear(2 * self.size, 3 * SMALL**2)

    def encode(self, x):
        small = F.adaptive_avg_pool2d(x.flatten(0, 1), SMALL).flatten(1)
        f, z = self.to_codes(small).unflatten(0, x.shape[:2]).chunk(2, -1)
        return f.mean(1), z

    def decode(self, f, z, frames):
        z = z[:, :frames]
        code = torch.cat([f[:, None].expand(-1, z.shape[1], -1), z], -1)
        small = self.to_pixels(code).sigmoid().flatten(0, 1).unflatten(1, (3, SMALL, SMALL))
        return F.interpolate(small, size=64).unflatten(0, z.shape[:2])

    def draw_static(self, clips):
        return torch.randn(clips, self.size)

    def draw_dynamic(self, f, frames):
        return torch.randn(len(f), frames, self.size)

    def loss(self, x, annealed):
        return squared_error(self.decode(*self.encode(x), x.shape[1]), x)


class Motion(nn.Module):
    """The motion d [N, size] over a frozen `Frames`."""

    continues, z_dim = False, 4

    def __init__(self, settings, frames):
        super().__init__()
        self.frames, self.size = frames.requires_grad_(False), settings.size
        self.to_d = nn.Linear(LONGEST * self.size, self.size)
        self.to_z = nn.Linear(self.size, LONGEST * self.size)

    def encode(self, x):
        f, z = self.frames.encode(x)
        return f, self.to_d(z.flatten(1))

    def decode(self, f, d, frames):
        return self.frames.decode(f, self.to_z(d).unflatten(1, (LONGEST, self.size)), frames)

    def draw_static(self, clips):
        return torch.randn(clips, self.size)

    def draw_dynamic(self, f, frames):
        return torch.randn(len(f), self.size)

    def loss(self, x, annealed):
        terms = squared_error(self.decode(*self.encode(x), x.shape[1]), x)
        # a term with a KL weight, to see that schedules arrive
        d = self.encode(x)[1].square().sum()
        return terms | {"d": Term(d, annealed.weights["d"] * d)}


class FramesStage(Stage):
    """Stage 1."""

    name, network_of = "Frames", Frames


class MotionStage(Stage):
    """Stage 2."""

    name = "Motion"

    @classmethod
    def build(cls, settings, earlier=None):
        """See `Stage.build`."""
        frames = Frames(settings)
        if earlier is not None:
            frames.load_state_dict(earlier)
        return cls(settings, Motion(settings, frames))

    def schedules(self):
        """See `Stage.schedules`."""
        return Schedules({"d": np.linspace(0, 1e-3, self.settings.epochs)})
