"""What metrics and pictures may ask of a trained model, whatever it calls static and dynamic."""

from typing import Protocol

import torch


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
            lambda s, d: self.network.decode(s.to(self.device), d.to(self.device), frames),
            static,
            dynamic,
        )

    def codes(self, frames):
        """Frames [N, T, 3, 64, 64] -> {'f': static, 'z': dynamic}, for traversals."""
        return dict(zip("fz", self.encode(frames)))

    def vary(self, codes, name, values, frames):
        """One clip's `codes` decoded again, [N, frames, 3, 64, 64], with each of `values` [N, ...] in place of its code `name`."""
        every = {key: code.expand(len(values), *code.shape[1:]) for key, code in codes.items()} | {
            name: values
        }
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
