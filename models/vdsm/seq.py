"""VDSM's second stage: the Pyro model and guide of the dynamics, over the frozen networks of the first.

    p(x, s, d, z) = prod_n p(s) p(d) p(z_1) prod_t>1 p(z_t | z_{t-1}, d) prod_t p(x_t | z_t, s)        (Eq. 1)
    q(s, d, z | x) = prod_n q(s | x) q(d | x) q(z_1 | x, d) prod_t>1 q(z_t | z_{t-1}, x, d)            (Eq. 2)

s ~ N(0, 1/K), d ~ N(0, 1/dynamics_dim), z_1 ~ N(0, 1). The seq2seq decoder never sees z, so it runs first and for all clips;
the transition is evaluated at all steps in one call. Encoder and decoder stay as stage 1 left them (fidelity 'release': the
identity layers go on training, and lambda_z weighs only the posterior term of z_1).
"""

from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import nn

from models.elbo import Chain, elbo_terms, normal
from models.vdsm.encdec import bernoulli, mixing_weights
from models.vdsm.networks import (
    Combiner,
    DynamicsPosterior,
    GatedTransition,
    PoseContext,
    start_scale_at,
)


class Sequences(NamedTuple):
    """A training batch of stage 2.

    codes   z loc [N, T, pose_dim], s loc and s scale [N, T, K] of the frozen encoder
    x       frames [N, P, 3, 64, 64] in [0, 1] whose pixels count
    picked  their positions in time [N, P]; None: all T frames
    seen    d is read from so many first frames of the clip; None: from all
    """

    codes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    x: torch.Tensor
    picked: torch.Tensor | None = None
    seen: int | None = None


class Seq(nn.Module):
    """The sequence network over a trained `EncDec`, with its model and guide (see the module's header).

    settings: models.vdsm.settings.VDSMSettings (dynamics_dim, rnn_dim, rnn_layers, rnn_dropout, trans_dim,
        fidelity).
    """

    def __init__(self, settings, encdec):
        super().__init__()
        release = settings.fidelity == "release"
        pose_dim, rnn_dim = encdec.pose_dim, settings.rnn_dim
        self.dynamics_dim, self.release = settings.dynamics_dim, release
        encdec.requires_grad_(False)
        self.identity = encdec.identity.requires_grad_(
            release
        )  # one with stage 1's, as in the release
        self.encdec = encdec
        self.dynamics = DynamicsPosterior(
            pose_dim, settings.dynamics_dim, rnn_dim, settings.rnn_layers, settings.rnn_dropout
        )
        self.context = PoseContext(settings.dynamics_dim, rnn_dim, settings.rnn_layers)
        self.combiner = Combiner(pose_dim, settings.dynamics_dim, rnn_dim)
        hidden, start = (rnn_dim, "kaiming") if release else (settings.trans_dim, "identity")
        self.transition = GatedTransition(pose_dim, settings.dynamics_dim, hidden, start)

    def trainable(self):
        """The parameters that this stage trains."""
        return [p for p in self.parameters() if p.requires_grad]

    def start_scales_at(self, d, z):
        """Let the posterior scales of d and z start at the numbers `d` and `z` (> 0)."""
        start_scale_at(self.dynamics.code, d, slice(self.dynamics_dim, None))
        start_scale_at(self.combiner.scale, z)

    @torch.no_grad()
    def frame_codes(self, x):
        """The frozen encoder: x [N, T, 3, 64, 64] -> z loc [N, T, pose_dim], s loc, s scale [N, T, K]; never changes."""
        z_loc, _, s_loc, s_scale = self.encdec.frame_codes(x)
        return z_loc, s_loc, s_scale

    def pose_posterior(self, d, frames):
        """q(z_1 | x, d) as a Normal and q(z_2:T | z_1, x, d) as a function z_1 -> Chain, for T = frames."""
        u = self.combiner.context(self.context(d, frames), d)  # [N, T, rnn_dim]
        first = normal(*self.combiner(self.combiner.z_0.expand(len(d), -1), u[:, 0]), 1)
        return first, lambda z_1: Chain(
            lambda z, t: self.combiner(z, u[:, 1:][:, t]), z_1, frames - 1
        )

    def pose_prior(self, d, z_1, frames):
        """p(z_2:T | z_1, d) as a Chain."""

        def kernel(z, t):
            return self.transition(z, d if z.dim() == 2 else d[:, None].expand(-1, z.shape[1], -1))

        return Chain(kernel, z_1, frames - 1)

    def foresight(self, poses):
        """Half the squared distance between two accounts of the poses after the clip, summed: a regulariser, not in the paper.

        poses [N, T, pose_dim]: the frames' pose means. The clip's own path, walked on to 2 T, is drawn to the path that its second
        half, read as a clip of its own, walks to the same frames in T / 2 steps less (no gradient): what the dynamics say of
        frames that nobody saw must not depend on where the reading began.
        """
        frames = poses.shape[1]
        late = frames // 2
        with torch.no_grad():
            told = self.poses(self.dynamics(poses[:, late:])[0], 2 * frames - late)[
                :, frames - late :
            ]
        return ((self.poses(self.dynamics(poses)[0], 2 * frames)[:, frames:] - told) ** 2).sum() / 2

    def guide(self, batch, annealed):
        z_loc, frame_loc, frame_scale = batch.codes
        weights, (clips, frames) = annealed.weights, z_loc.shape[:2]
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights["s"]):
                s_loc, s_scale = self.identity(frame_loc, frame_scale)
                pyro.sample("s", normal(s_loc, s_scale, 1))
            with poutine.scale(scale=weights["d"]):
                d_loc, d_scale = self.dynamics(z_loc[:, : batch.seen])
                d = pyro.sample("d", normal(d_loc, d_scale, 1))
            with poutine.scale(scale=weights["z"]):
                first, rest = self.pose_posterior(d, frames)
                z_1 = pyro.sample("z_1", first)
                pyro.sample("z", rest(z_1))

    def model(self, batch, annealed):
        weights, picked = annealed.weights, batch.picked
        clips, frames, pose_dim = batch.codes[0].shape
        zero = batch.codes[0].new_zeros(())
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights["s"]):
                experts = self.encdec.experts
                s = pyro.sample("s", normal(zero.expand(clips, experts), zero + 1 / experts, 1))
            with poutine.scale(scale=weights["d"]):
                d = pyro.sample(
                    "d",
                    normal(zero.expand(clips, self.dynamics_dim), zero + 1 / self.dynamics_dim, 1),
                )
            with poutine.scale(scale=1.0 if self.release else weights["z"]):
                z_1 = pyro.sample("z_1", normal(zero.expand(clips, pose_dim), zero + 1, 1))
            with poutine.scale(scale=weights["z"]):
                z = pyro.sample("z", self.pose_prior(d, z_1, frames))
            z, scale = torch.cat([z_1[:, None], z], 1), 1.0
            if picked is not None:  # pixels of some frames stand for all
                z = z.gather(1, picked[..., None].expand(-1, -1, pose_dim))
                scale = frames / picked.shape[1]
            logits = self.encdec.decoder(z, mixing_weights(s, annealed.temperature))
            with poutine.scale(scale=scale):
                pyro.sample("x", bernoulli(logits, 4), obs=batch.x)

    def loss(self, batch, annealed, kl="analytic"):
        """The negative ELBO (Eq. 4) as {term: Term}, summed over the batch (`Sequences`).

        annealed: models.annealing.Annealed, with lambda_s, lambda_d, lambda_z and tau.
        """
        return elbo_terms(self.model, self.guide, batch, annealed, kl=kl)

    def encode(self, x, temperature):
        """The locations: x [N, T, 3, 64, 64] -> mixing weights w [N, K], dynamics d [N, dynamics_dim]."""
        z_loc, s_loc, s_scale = self.frame_codes(x)
        return mixing_weights(self.identity(s_loc, s_scale)[0], temperature), self.dynamics(z_loc)[
            0
        ]

    def poses(self, d, frames):
        """The path of pose means that d [N, dynamics_dim] generates, for any number of frames: [N, frames, pose_dim]."""
        first, rest = self.pose_posterior(d, frames)
        z_1 = first.mean
        return torch.cat([z_1[:, None], rest(z_1).means()], 1) if frames > 1 else z_1[:, None]

    def sample(self, clips, frames, temperature):
        """Draw from the model: mixing weights w [clips, K] and poses z [clips, frames, pose_dim], all from the priors."""
        like = self.combiner.z_0
        s = torch.randn(clips, self.encdec.experts).to(like) / self.encdec.experts
        d = torch.randn(clips, self.dynamics_dim).to(like) / self.dynamics_dim
        z_1 = torch.randn(clips, self.encdec.pose_dim).to(like)
        z = (
            torch.cat([z_1[:, None], self.pose_prior(d, z_1, frames).rsample()], 1)
            if frames > 1
            else z_1[:, None]
        )
        return mixing_weights(s, temperature), z

    def decode(self, z, w):
        """z [N, T, pose_dim], w [N, K] -> frames [N, T, 3, 64, 64] in [0, 1]."""
        return self.encdec.decode(z, w)
