"""What every model can do, whatever it calls static and dynamic."""

from typing import Protocol

import torch


class VideoModel(Protocol):
    """A trained model as metrics and pictures see it. Frames are float [N, T, 3, 64, 64] in [0, 1]; no method keeps gradients.

    static    one code a clip, what stays: identity
    dynamic   what moves: one code a clip, or one a frame where a model has no more than that

    A model may also have `codes(frames)` -> {letter: code [N, D] or [N, T, D]}, the static one first, and
    `vary(codes, letter, values, frames)`, of which traversals are drawn; and `mixing_weights(frames)` -> [N, K], of which the
    use of its experts is told. models/vdsm/model.py has them all.
    """

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
