"""What metrics and pictures may ask of a trained model: encode, decode, swap, sample."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from inspect import signature
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.annealing import Annealed
from models.density import Density
from utils.frames import as_float, as_uint8

# Clips that are encoded or decoded at a time. The memory of more clips leaves the cache of a CPU.
BLOCK = 8


class VideoModel(Protocol):
    """A trained model as metrics and pictures see it.

    Frames are float [N, T, 3, 64, 64] in [0, 1]. Results lie on the CPU and hold no gradient.

    static     one code per clip, for what stays the same: the identity
    dynamic    the code of what moves: one per clip, or one per frame
    continues  whether `decode` can produce more frames than were encoded. Default: True
    draw_from  what `sample` draws from: 'prior', or 'fitted' (see `draw_fitted`)
    fit        gives the fitted densities; None if the model has none

    Optional members; pictures draw more of a model that has them:

    codes(static, dynamic, frames) -> {name: code [N, D] or [N, T, D]}, the static code first
    kl(frames) -> {name of a code: KL of each of its dimensions, [D], in nats per clip}
    vary(codes, name, values, frames) -> one clip, decoded with other values of one code
    draw_dynamic(static, frames) -> dynamic codes from their prior, given static codes
    mixes: whether the static code holds the share of each expert in a clip. Default: False
    planar: whether the dynamic code of a frame has two dimensions. Default: False
    """

    continues: bool = True
    mixes: bool = False
    planar: bool = False
    draw_from: str = "prior"
    fit: Callable[[], dict[str, Density]] | None = None
    _known_frames: Any = None  # frames of the data set whose codes `encode_clips` has kept
    _known: dict  # {(position of a clip in it, frames): its codes}

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames -> static [N, ...], dynamic [N, ...]: the locations of the posterior."""

    def decode(self, static: Tensor, dynamic: Tensor, frames: int) -> Tensor:
        """Codes -> `frames` frames per clip. Codes of two different clips give a swap.

        More frames continue a clip: its first frames do not depend on `frames`.
        """

    def draw(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Static and dynamic codes from the priors, as `decode` takes them."""

    @cached_property
    def densities(self) -> dict[str, Density]:
        """The fitted densities of the codes that `fitted_codes` names, the static code first."""
        assert self.fit is not None, "see models.density.fitted"
        return self.fit()

    def fitted_codes(self, static: Tensor, dynamic: Tensor) -> dict[str, Tensor]:
        """The codes [N, D] or [N, T, D] whose densities `draw_fitted` needs, the static first."""
        raise NotImplementedError

    def draw_fitted(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """As `draw`, from `densities`. Codes without a density are drawn from the model."""
        raise NotImplementedError

    def nearest(self, static: Tensor, dynamic: Tensor) -> tuple[Tensor, Tensor]:
        """`Density.nearest` of the static codes among those of training clips."""
        return next(iter(self.densities.values())).nearest(
            next(iter(self.fitted_codes(static, dynamic).values()))
        )

    def novelty(self, static: Tensor, dynamic: Tensor) -> float:
        """How far static codes are from training codes; 1: as validation codes, 0: copies."""
        typical = next(iter(self.densities.values())).typical
        return float(self.nearest(static, dynamic)[0].median() / typical)

    def drawn(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Codes of `draw` or of `draw_fitted`, as `draw_from` says."""
        fitted = self.draw_from == "fitted"
        return self.draw_fitted(clips, frames) if fitted else self.draw(clips, frames)

    def sample(self, clips: int, frames: int) -> Tensor:
        """New clips: the decoded codes of `drawn`."""
        return self.decode(*self.drawn(clips, frames), frames)

    def encode_clips(self, clips: Any, rows: Any, length: int) -> tuple[Tensor, Tensor]:
        """`encode` of the first `length` frames of the clips at `rows` [n] of a data.base.Clips.

        The view keeps the codes, so that it encodes a clip once. Make a new view when the network
        has been trained further.
        """
        if self._known_frames is not clips.frames:
            # Positions in another data set mean other clips.
            self._known_frames, self._known = clips.frames, {}
        known = self._known
        places = [(place, length) for place in clips.index[np.asarray(rows)].tolist()]
        new = [at for at, place in enumerate(places) if place not in known]
        for start in range(0, len(new), BLOCK):
            block = new[start : start + BLOCK]
            x = torch.from_numpy(clips.take(np.asarray(rows)[block], 0, length))
            codes = zip(*self.encode(as_float(x)))
            known.update(zip([places[at] for at in block], codes))
        static, dynamic = zip(*(known[place] for place in places))
        return torch.stack(static), torch.stack(dynamic)

    def decode_uint8(self, static: Tensor, dynamic: Tensor, frames: int) -> np.ndarray:
        """`decode` as pictures: uint8 [n, frames, 64, 64, 3]."""
        # Floats of many clips at once would leave the cache before they are rounded.
        blocks = zip(static.split(BLOCK), dynamic.split(BLOCK))
        return np.concatenate([as_uint8(self.decode(*block, frames)) for block in blocks])


@torch.no_grad()
def in_batches(function: Callable, *tensors: Tensor, device: Any = "cpu", batch: int = 40):
    """Tensor or tensors that `function` gives for blocks of rows on `device`, joined on the CPU."""
    rows = zip(*(tensor.split(batch) for tensor in tensors))
    blocks = [function(*(part.to(device) for part in block)) for block in rows]
    if isinstance(blocks[0], tuple):
        return tuple(torch.cat([b.cpu() for b in part]) for part in zip(*blocks))
    return torch.cat([b.cpu() for b in blocks])


class View(VideoModel):
    """A network in eval mode, with a static code f and dynamic codes z, as a `VideoModel`.

    The network has `encode`, `decode`, `draw_static`, `draw_dynamic`, `continues` and `z_dim`.
    """

    def __init__(self, network):
        self.network, self.continues = network, network.continues
        self.planar = network.z_dim == 2
        self.device = next(network.parameters()).device

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return in_batches(self.network.encode, frames, device=self.device)

    def decode(self, static: Tensor, dynamic: Tensor, frames: int) -> Tensor:
        decode = partial(self.network.decode, frames=frames)
        return in_batches(decode, static, dynamic, device=self.device)

    def codes(self, static: Tensor, dynamic: Tensor, frames: int) -> dict[str, Tensor]:
        """The codes of clips by letter, {'f': static, 'z': dynamic}, for traversals."""
        return {"f": static, "z": dynamic}

    def kl(self, frames: Tensor) -> dict[str, Tensor]:
        """The KL of each dimension of f and z, in nats per clip; {} if the loss does not say."""
        if "kl" not in signature(self.network.loss).parameters:
            return {}
        annealed = Annealed({"f": 1.0, "z": 1.0})
        loss = partial(self.network.loss, annealed=annealed, kl="each")
        return kl_of_dimensions(loss, frames, self.device)

    def vary(self, codes: Mapping[str, Tensor], name: str, values: Tensor, frames: int) -> Tensor:
        """[N, frames, 3, 64, 64]: one clip of these codes, with each of `values` as code `name`."""
        varied = with_values(codes, name, values)
        return self.decode(varied["f"], varied["z"], frames)

    def draw_dynamic(self, static: Tensor, frames: int) -> Tensor:
        """Dynamic codes of `frames` frames from their prior, given static codes."""
        draw = partial(self.network.draw_dynamic, frames=frames)
        return in_batches(draw, static, device=self.device)

    @torch.no_grad()
    def draw(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        static = self.network.draw_static(clips).cpu()
        return static, self.draw_dynamic(static, frames)

    def fitted_codes(self, static: Tensor, dynamic: Tensor) -> dict[str, Tensor]:
        return {"f": static}

    def draw_fitted(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """f from its fitted density, z from its learned prior."""
        static = self.densities["f"].sample(clips)
        return static, self.draw_dynamic(static, frames)


@torch.no_grad()
def kl_of_dimensions(loss: Callable, frames: Tensor, device: Any) -> dict[str, Tensor]:
    """KL {latent variable: [D]} in nats per clip, averaged over the clips `frames` [N, T, ...].

    loss: the terms of clips, of which those with several numbers have one per dimension. The random
    state is restored.
    """
    sums: dict = {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        for block in frames.split(BLOCK):
            for name, term in loss(block.to(device)).items():
                sums[name] = sums.get(name, 0) + term.raw.cpu() / len(frames)
    return {name: total for name, total in sums.items() if total.dim()}


def with_values(codes: Mapping[str, Tensor], name: str, values: Tensor) -> dict[str, Tensor]:
    """The codes of one clip, repeated once per row of `values` [N, ...], which replace `name`."""
    repeated = {key: code.expand(len(values), *code.shape[1:]) for key, code in codes.items()}
    return repeated | {name: values}
