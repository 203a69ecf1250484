"""Stage 2 of VDSM: the model and guide of the dynamics, over the networks of stage 1.

Symbols and shapes are explained in models/vdsm/__init__.py. Encoder and decoder stay as stage 1
left them. With --fidelity release, the identity layers train on, and lambda_z does not weigh the
prior of z_1.
"""

from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import nn

from models.elbo import Chain, elbo_terms, normal
from models.start import start_scale
from models.vdsm.encdec import bernoulli, mixing_weights
from models.vdsm.networks import (
    Combiner,
    DynamicsPosterior,
    GatedTransition,
    PoseContext,
    inverse_softplus,
)


class Sequences(NamedTuple):
    """A training batch of stage 2."""

    codes: tuple[torch.Tensor, ...]  # see `Seq.frame_codes`
    x: torch.Tensor  # frames [N, P, 3, 64, 64] in [0, 1] whose pixels count
    picked: torch.Tensor | None = None  # their positions in time [N, P]; None: all T frames
    seen: int | None = None  # d is read from so many first frames; None: from all


class Seq(nn.Module):
    """The networks of stage 2 over a trained `EncDec`, with model and guide.

    settings: models.vdsm.settings.VDSMSettings.
    """

    def __init__(self, settings, encdec):
        super().__init__()
        release = settings.fidelity == "release"
        pose_dim, rnn_dim = encdec.pose_dim, settings.rnn_dim
        self.dynamics_dim, self.release = settings.dynamics_dim, release
        encdec.requires_grad_(False)
        # The same layers as stage 1's, under a second name.
        self.identity = encdec.identity.requires_grad_(release)
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
        rows = slice(self.dynamics_dim, None)
        start_scale(self.dynamics.code, d, inverse_softplus, rows)
        start_scale(self.combiner.scale, z, inverse_softplus)

    @torch.no_grad()
    def frame_codes(self, x):
        """Codes of the frozen encoder, which never change in this stage.

        Frames x [N, T, 3, 64, 64] -> z loc [N, T, pose_dim], s loc, s scale [N, T, K].
        """
        z_loc, _, s_loc, s_scale = self.encdec.frame_codes(x)
        return z_loc, s_loc, s_scale

    def pose_posterior(self, d, frames):
        """q(z_1 | x_1:T, d), a Normal, and q(z_2:T | z_1, x_1:T, d), a function of z_1 -> `Chain`.

        T = frames. The seq2seq decoder does not see z, so that it runs first, for all steps.
        """
        u = self.combiner.context(self.context(d, frames), d)  # [N, T, rnn_dim]
        first = normal(*self.combiner(self.combiner.z_0.expand(len(d), -1), u[:, 0]), 1)

        def kernel(z, t):
            return self.combiner(z, u[:, 1:][:, t])

        return first, lambda z_1: Chain(kernel, z_1, frames - 1)

    def pose_prior(self, d, z_1, frames):
        """p(z_2:T | z_1, d) as a `Chain`, which can evaluate all steps in one call."""

        def kernel(z, t):
            return self.transition(z, d if z.dim() == 2 else d[:, None].expand(-1, z.shape[1], -1))

        return Chain(kernel, z_1, frames - 1)

    def foresight(self, poses):
        """Regulariser (ours, not in the paper): two predictions of what follows a clip must agree.

        poses [N, T, pose_dim]: pose means of the frames. d read from the whole clip and d read from
        its second half both predict the poses T+1 to 2T. Returns half the squared distance of the
        predictions, summed. Only the prediction from the whole clip receives gradient.
        """
        frames = poses.shape[1]
        middle = frames // 2
        with torch.no_grad():
            from_half = self.poses(self.dynamics(poses[:, middle:])[0], 2 * frames - middle)
        from_whole = self.poses(self.dynamics(poses)[0], 2 * frames)
        return ((from_whole[:, frames:] - from_half[:, frames - middle :]) ** 2).sum() / 2

    # q(s, d, z_1:T | x_1:T) = q(s | x_1:T) q(d | x_1:T) q(z_1 | x_1:T, d)
    #                          prod_{t=2..T} q(z_t | z_{t-1}, x_1:T, d)                      (Eq. 2)
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

    # p(x_1:T, s, d, z_1:T) = p(s) p(d) p(z_1) p(x_1 | s, z_1)
    #                         prod_{t=2..T} p(x_t | s, z_t) p(z_t | z_{t-1}, d)              (Eq. 1)
    #
    # The paper's Eq. 1 leaves p(x_1 | s, z_1) out; its Eq. 4 has it.
    # p(s) = N(0, 1/K); p(d) = N(0, 1/dynamics_dim); p(z_1) = N(0, 1).
    def model(self, batch, annealed):
        weights, picked = annealed.weights, batch.picked
        clips, frames, pose_dim = batch.codes[0].shape
        zero = batch.codes[0].new_zeros(())
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights["s"]):
                experts = self.encdec.experts
                s = pyro.sample("s", normal(zero.expand(clips, experts), zero + 1 / experts, 1))
            with poutine.scale(scale=weights["d"]):
                size = self.dynamics_dim
                d = pyro.sample("d", normal(zero.expand(clips, size), zero + 1 / size, 1))
            with poutine.scale(scale=1.0 if self.release else weights["z"]):
                z_1 = pyro.sample("z_1", normal(zero.expand(clips, pose_dim), zero + 1, 1))
            with poutine.scale(scale=weights["z"]):
                z = pyro.sample("z", self.pose_prior(d, z_1, frames))
            z, scale = torch.cat([z_1[:, None], z], 1), 1.0
            if picked is not None:
                # The pixels of P frames are counted for those of all T.
                z = z.gather(1, picked[..., None].expand(-1, -1, pose_dim))
                scale = frames / picked.shape[1]
            logits = self.encdec.decoder(z, mixing_weights(s, annealed.temperature))
            with poutine.scale(scale=scale):
                pyro.sample("x", bernoulli(logits, 4), obs=batch.x)

    def loss(self, batch, annealed, kl="analytic"):
        """The terms s, d, z_1, z and x of the negative ELBO (Eq. 4), summed over the batch.

        batch: `Sequences`. annealed: a models.annealing.Annealed with lambda_s, lambda_d, lambda_z
        and tau. kl: 'analytic' or 'mc' (models/elbo.py).
        """
        return elbo_terms(self.model, self.guide, batch, annealed, kl=kl)

    def encode(self, x, temperature):
        """The locations: frames x [N, T, 3, 64, 64] -> w [N, K], d [N, dynamics_dim]."""
        z_loc, frame_loc, frame_scale = self.frame_codes(x)
        s_loc, _ = self.identity(frame_loc, frame_scale)
        d_loc, _ = self.dynamics(z_loc)
        return mixing_weights(s_loc, temperature), d_loc

    def poses(self, d, frames):
        """The path of pose means that d [N, dynamics_dim] generates: [N, frames, pose_dim]."""
        first, rest = self.pose_posterior(d, frames)
        z_1 = first.mean
        return _path(z_1, rest(z_1).means() if frames > 1 else None)

    def sample(self, clips, frames, temperature):
        """Draw w [clips, K] and a path of poses z [clips, frames, pose_dim] from the priors."""
        like = self.combiner.z_0
        s = torch.randn(clips, self.encdec.experts).to(like) / self.encdec.experts
        d = torch.randn(clips, self.dynamics_dim).to(like) / self.dynamics_dim
        z_1 = torch.randn(clips, self.encdec.pose_dim).to(like)
        rest = self.pose_prior(d, z_1, frames).rsample() if frames > 1 else None
        return mixing_weights(s, temperature), _path(z_1, rest)

    def decode(self, z, w):
        """z [N, T, pose_dim], w [N, K] -> frames [N, T, 3, 64, 64] in [0, 1]."""
        return self.encdec.decode(z, w)


def _path(z_1, rest):
    """z_1 [N, pose_dim] and the poses after it [N, T-1, pose_dim] (None if T is 1), joined."""
    return z_1[:, None] if rest is None else torch.cat([z_1[:, None], rest], 1)
