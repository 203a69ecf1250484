"""What every model can do, whatever it calls static and dynamic; and what every stage of its training can do."""

from typing import Protocol

import numpy as np
import torch
from torch import nn

from models.settings import NODES
from utils.annealing import geometric


class VideoModel(Protocol):
    """A trained model as metrics and pictures see it. Frames are float [N, T, 3, 64, 64] in [0, 1]; no method keeps gradients.

    static    one code a clip, what stays: identity
    dynamic   what moves: one code a clip, or one a frame where a model has no more than that
    continues whether `decode` gives more frames than were encoded; True where it is not said

    A model may also have `codes(frames)` -> {letter: code [N, D] or [N, T, D]}, the static one first, and
    `vary(codes, letter, values, frames)`, of which traversals are drawn; and `mixing_weights(frames)` -> [N, K], of which the
    use of its experts is told. models/vdsm/model.py has them all.
    """

    continues: bool = True

    def encode(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames -> static [N, ...], dynamic [N, ...]: the posterior's locations."""

    def decode(self, static: torch.Tensor, dynamic: torch.Tensor, frames: int) -> torch.Tensor:
        """Codes -> `frames` frames of each clip. Any pairing of static and dynamic codes is a swap."""

    def draw(self, clips: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes from the priors, as `decode` takes them: static [clips, ...], dynamic [clips, ...]. Torch's generator draws."""

    def sample(self, clips: int, frames: int) -> torch.Tensor:
        """Clips drawn from the model's priors: what `draw` gives, decoded."""


@torch.no_grad()
def in_batches(function, *tensors, batch=40):
    """function over blocks of `batch` along the first dimension of every tensor; its results joined, on CPU."""
    blocks = [function(*block) for block in zip(*(t.split(batch) for t in tensors))]
    if isinstance(blocks[0], tuple):
        return tuple(torch.cat([b.cpu() for b in part]) for part in zip(*blocks))
    return torch.cat([b.cpu() for b in blocks])


def standardise(layer, x, rows=None, spread=1.0):
    """Rescale the first `rows` outputs of a linear layer or a convolution, transposed or not (default: all), to zero mean and
    deviation `spread` over x; returns the layer's output."""
    y = layer(x)[:, :rows]
    dims = [d for d in range(y.dim()) if d != 1]
    gain = spread / y.std(dims).clamp_min(1e-12)
    weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight  # outputs first
    weight[:rows] *= gain.view(-1, *[1] * (weight.dim() - 1))
    layer.bias[:rows] = -(y.mean(dims) - layer.bias[:rows]) * gain
    return layer(x)


class View:
    """A network with `encode`, `decode`, `draw_static` and `draw_dynamic` behind `VideoModel`: in batches, without gradients, on CPU."""

    def __init__(self, network):
        self.network, self.continues = network.eval(), network.continues
        self.planar = network.z_dim == 2
        self.device = next(network.parameters()).device

    def encode(self, frames):
        """Frames [N, T, 3, 64, 64] in [0, 1] -> static, dynamic: the network's locations."""
        return in_batches(lambda x: self.network.encode(x.to(self.device)), frames)

    def decode(self, static, dynamic, frames):
        """Codes -> [N, frames, 3, 64, 64] in [0, 1]."""
        return in_batches(
            lambda s, d: self.network.decode(s.to(self.device), d.to(self.device), frames), static, dynamic
        )

    def codes(self, frames):
        """Frames [N, T, 3, 64, 64] -> {'f': static, 'z': dynamic}, for traversals."""
        return dict(zip("fz", self.encode(frames)))

    def vary(self, codes, name, values, frames):
        """One clip's `codes` decoded again, [N, frames, 3, 64, 64], with each of `values` [N, ...] in place of its code `name`."""
        every = {key: code.expand(len(values), *code.shape[1:]) for key, code in codes.items()} | {name: values}
        return self.decode(every["f"], every["z"], frames)

    def draw_dynamic(self, static, frames):
        """Dynamic codes of `frames` frames from their prior, given the static codes."""
        return in_batches(lambda s: self.network.draw_dynamic(s.to(self.device), frames), static)

    @torch.no_grad()
    def draw(self, clips, frames):
        """Codes from the priors, as `decode` takes them."""
        static = self.network.draw_static(clips).cpu()
        return static, self.draw_dynamic(static, frames)

    def sample(self, clips, frames):
        """Clips from the priors, [clips, frames, 3, 64, 64] in [0, 1]."""
        return self.decode(*self.draw(clips, frames), frames)


def mean_colour(clips):
    """The mean colour [3] of some frames of the clips (a data.base.Clips), within (0, 1)."""
    some = np.unique(np.linspace(0, len(clips) - 1, 256).astype(int))
    frames = clips.take(some, 0, min(clips.num_frames, 16))
    return torch.from_numpy(frames.mean((0, 1, 2, 3)) / 255).float().clamp(1e-3, 1 - 1e-3)


class Stage:
    """One stage of training as the loop takes it: a network whose `loss(x, weights)` gives {term: Term} of a batch
    [N, T, 3, 64, 64] in [0, 1].

    A subclass names its network's class, built from the settings alone, and changes what differs.
    """

    name = network_of = None

    def __init__(self, settings):
        self.settings, self.network = settings, self.network_of(settings)

    @classmethod
    def build(cls, settings, clips=None, earlier=None):
        """The stage with fresh weights. clips: the training split (a data.base.Clips), where the start depends on it; earlier: the
        trained network, as its state, of the stage that this one stands on. Without them: the same network, to be loaded."""
        stage = cls(settings)
        if clips is not None and settings.output_bias == "data":
            stage.network.start_at(mean_colour(clips))
        return stage

    def to(self, device):
        """Move the network; returns the stage."""
        self.network.to(device)
        return self

    def trainable(self):
        """The parameters that this stage trains, by the share of the learning rate that they train at."""
        return {1.0: [p for p in self.network.parameters() if p.requires_grad]}

    def start_from(self, sampler, store):
        """Data-dependent initialisation: none."""

    def schedules(self):
        """{weight: array [epochs]} that `loss` is handed, one value an epoch: of `OneStageSettings`, those of the KLs of f and z."""
        c, found = self.settings, {}
        for code in ("f", "z"):
            start, end = getattr(c, f"kl_{code}_start"), getattr(c, f"kl_{code}")
            found[code] = np.full(c.epochs, end) if start is None else geometric([start, end], NODES, c.epochs)
        return found

    def batch(self, sampler, step):
        """Index arrays of batch `step`."""
        return sampler.draw(step, self.settings.bs)

    def some(self, sampler, step, count):
        """Index arrays of batch `step`, `count` frames of each sample drawn at random."""
        clip, *_ = batch = sampler.draw(step, self.settings.bs)
        picked = sampler.pick(step, *clip.shape, count)
        return [np.take_along_axis(part, picked, 1) for part in batch]

    def loss(self, sampler, store, step, weights):
        """{term: Term} of batch `step`, and the number of sequences in it."""
        return self.network.loss(store.pick(*self.batch(sampler, step)), weights), self.settings.bs

    def objective(self, terms, clips):
        """What is descended: the weighted terms, summed over the batch."""
        return sum(term.weighted for term in terms.values())

    def identities(self, sampler, store, batches):
        """What is looked at for signs of collapse: VDSM's identities; None here."""

    def view(self):
        """The network as `VideoModel`."""
        return View(self.network)
