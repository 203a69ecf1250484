"""VDSM as a `models.view.VideoModel`: the locations of its codes, decoded in any pairing."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from models.annealing import Annealed
from models.vdsm.seq import Sequences
from models.view import VideoModel, in_batches, kl_of_dimensions, with_values


class VDSM(VideoModel):
    """A trained `EncDec`, or a `Seq` over one, in eval mode, as a `VideoModel`.

    static   the mixing weights w [N, K]
    dynamic  with stage 2 the dynamics d [N, dynamics_dim], without it the poses
             z [N, T, pose_dim]. `draw` gives poses in both cases, and `decode` takes both

    temperature: of the mixing weights; test_temp_id for stage 1, temp_id_end for stage 2.
    """

    mixes = True

    def __init__(self, network, temperature: float):
        self.network, self.temperature = network, temperature
        self.continues = hasattr(network, "poses")
        self.device = next(network.parameters()).device

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        encode = partial(self.network.encode, temperature=self.temperature)
        return in_batches(encode, frames, device=self.device)

    def decode(self, static: Tensor, dynamic: Tensor, frames: int) -> Tensor:
        """See `VideoModel.decode`. Poses give at most as many frames as there are poses."""

        def decode(w, code):
            z = self.network.poses(code, frames) if code.dim() == 2 else code[:, :frames]
            return self.network.decode(z, w)

        return in_batches(decode, static, dynamic, device=self.device)

    def codes(self, static: Tensor, dynamic: Tensor, frames: int) -> dict[str, Tensor]:
        """The codes of clips by letter, for traversals.

        's' [N, K] is log w: the temperature times s, up to a shift that the softmax ignores. 'd'
        [N, dynamics_dim] is there with stage 2 alone. 'z' is [N, frames, pose_dim].
        """
        s = _log(static)
        if dynamic.dim() == 3:
            return {"s": s, "z": dynamic}
        poses = partial(self.network.poses, frames=frames)
        return {"s": s, "d": dynamic, "z": in_batches(poses, dynamic, device=self.device)}

    def kl(self, frames: Tensor) -> dict[str, Tensor]:
        """The KL of each dimension of s, of d with stage 2, and of z, in nats per clip."""
        annealed = Annealed(dict.fromkeys("sdz", 1.0), self.temperature)

        def loss(x):
            batch = Sequences(self.network.frame_codes(x), x) if self.continues else x
            return self.network.loss(batch, annealed, "each")

        kl = kl_of_dimensions(loss, frames, self.device)
        first = kl.pop("z_1", 0)  # stage 2 has a term of its own for the first pose
        return kl | {"z": kl["z"] + first}

    def vary(self, codes: Mapping[str, Tensor], name: str, values: Tensor, frames: int) -> Tensor:
        """See `View.vary`. Poses follow from d only when d is the code that varies."""
        varied = with_values(codes, name, values)
        return self.decode(varied["s"].softmax(-1), varied["d" if name == "d" else "z"], frames)

    @torch.no_grad()
    def draw(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Mixing weights w [clips, K] and poses z [clips, frames, pose_dim] from the priors."""
        w, z = self.network.sample(clips, frames, self.temperature)
        return w.cpu(), z.cpu()

    def fitted_codes(self, static: Tensor, dynamic: Tensor) -> dict[str, Tensor]:
        """'s' [N, K] is log w, as in `codes`; then d [N, dynamics_dim] or the poses z."""
        return {"s": _log(static), "d" if dynamic.dim() == 2 else "z": dynamic}

    def draw_fitted(self, clips: int, frames: int) -> tuple[Tensor, Tensor]:
        """Mixing weights w [clips, K] and dynamics d, without stage 2 poses z, as `encode` gives.

        z_1 has no density of its own: q(z_1:T | x_1:T, d) reads the frames through d alone, and
        `decode` follows its locations.
        """
        w = self.densities["s"].sample(clips).softmax(-1)
        if self.continues:
            return w, self.densities["d"].sample(clips)
        return w, self.densities["z"].sample(clips * frames).unflatten(0, (clips, frames))


def _log(w):
    """log w of mixing weights w, some of which may be 0."""
    return w.clamp_min(1e-6).log()
