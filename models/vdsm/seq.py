"""Stage 2 of VDSM: the model and guide of the dynamics, over the networks of stage 1.

Symbols and shapes are explained in models/vdsm/__init__.py. Encoder and decoder are frozen. With
--fidelity release, the identity layers train on, and lambda_z does not weigh the prior of z_1.
"""

from typing import NamedTuple

import pyro
import torch
from pyro import poutine
from torch import nn

from models.elbo import Chain, centred, elbo_terms, normal, weighted_sample
from models.start import start_output
from models.vdsm import networks
from models.vdsm.encdec import bernoulli, mixing_weights


class Sequences(NamedTuple):
    """A training batch of stage 2."""

    codes: tuple[torch.Tensor, ...]  # see `Seq.frame_codes`
    x: torch.Tensor  # frames [N, P, 3, 64, 64] in [0, 1] whose pixels count
    picked: torch.Tensor | None = None  # their positions in time [N, P]; None: all T frames
    seen: int | None = None  # d is read from so many first frames; None: from all


class Seq(nn.Module):
    """The networks of stage 2 over a trained `EncDec`, with model and guide."""

    def __init__(self, settings, encdec):
        super().__init__()
        self.release = settings.fidelity == "release"
        self.pose_dim, self.dynamics_dim = encdec.pose_dim, settings.dynamics_dim
        encdec.requires_grad_(False).eval()
        # The same layers as stage 1's, under a second name.
        self.identity = encdec.identity.requires_grad_(self.release)
        self.encdec = encdec
        sizes, rnn_dim = (self.pose_dim, self.dynamics_dim), settings.rnn_dim
        rnn_sizes = rnn_dim, settings.rnn_layers
        self.dynamics = networks.DynamicsPosterior(*sizes, *rnn_sizes, settings.rnn_dropout)
        self.context = networks.PoseContext(self.dynamics_dim, *rnn_sizes)
        self.combiner = networks.Combiner(*sizes, rnn_dim)
        hidden, start = (rnn_dim, "kaiming") if self.release else (settings.trans_dim, "identity")
        self.transition = networks.GatedTransition(*sizes, hidden, start)

    def trainable(self):
        """The parameters that this stage trains."""
        return [p for p in self.parameters() if p.requires_grad]

    def start_scales_at(self, d, z):
        """Let the posterior scales of d and z start at the numbers `d` and `z` (> 0)."""
        start_output(self.dynamics.code, networks.inverse_softplus(d), self.dynamics_dim)
        start_output(self.combiner.scale, networks.inverse_softplus(z))

    @torch.no_grad()
    def frame_codes(self, x):
        """Frozen: frames [N, T, 3, 64, 64] -> z loc [N, T, pose_dim], s loc, s scale [N, T, K]."""
        z_loc, _, s_loc, s_scale = self.encdec.frame_codes(x)
        return z_loc, s_loc, s_scale

    def pose_posterior(self, d, frames):
        """q(z_1 | x_1:T, d), and q(z_2:T | z_1, x_1:T, d) as a function of z_1 -> `Chain`."""
        # The seq2seq decoder does not see z, so that it runs first, for all steps.
        u = self.combiner.context(self.context(d, frames), d)  # [N, T, rnn_dim]
        # The gradient of `unbind` is one copy, that of an index per step many.
        u_1, *later = u.unbind(1)
        first = normal(*self.combiner(self.combiner.z_0.expand(len(d), -1), u_1), 1)

        def kernel(z, t):
            return self.combiner(z, u[:, 1:] if isinstance(t, slice) else later[t])

        return first, lambda z_1: Chain(kernel, z_1, frames - 1)

    def pose_prior(self, d, z_1, frames):
        """p(z_2:T | z_1, d) as a `Chain`, which can evaluate all steps in one call."""

        def kernel(z, t):
            return self.transition(z, d if z.dim() == 2 else d[:, None].expand(-1, z.shape[1], -1))

        return Chain(kernel, z_1, frames - 1)

    def foresight(self, poses):
        """Regulariser (ours, not in the paper): two predictions of what follows a clip must agree.

        poses [N, T, pose_dim]: pose means. d read from the whole clip and d read from its second
        half both predict the poses T+1 to 2T. Returns half the summed squared distance. Only the
        prediction from the whole clip receives gradient.
        """
        frames = poses.shape[1]
        middle = frames // 2
        with torch.no_grad():
            from_half = self.poses(self.dynamics(poses[:, middle:])[0], 2 * frames - middle)
        from_whole = self.poses(self.dynamics(poses)[0], 2 * frames)
        return ((from_whole[:, frames:] - from_half[:, frames - middle :]) ** 2).sum() / 2

    def pose_error(self, poses):
        """Regulariser (ours, not in the paper): d must lead to the poses that it was read from.

        poses [N, T, pose_dim]: pose means of stage 1. Returns half the squared distance of the path
        that d generates, summed.
        """
        return ((self.poses(self.dynamics(poses)[0], poses.shape[1]) - poses) ** 2).sum() / 2

    # q(s, d, z_1:T | x_1:T) = q(s | x_1:T) q(d | x_1:T) q(z_1 | x_1:T, d)
    #                          prod_{t=2..T} q(z_t | z_{t-1}, x_1:T, d)                      (Eq. 2)
    def guide(self, batch, annealed):
        z_loc, frame_loc, frame_scale = batch.codes
        weights, (clips, frames) = annealed.weights, z_loc.shape[:2]
        with pyro.plate("clips", clips):
            q_s = normal(*self.identity(frame_loc, frame_scale), 1)
            weighted_sample("s", q_s, weights["s"])
            q_d = normal(*self.dynamics(z_loc[:, : batch.seen]), 1)
            d = weighted_sample("d", q_d, weights["d"])
            first, rest = self.pose_posterior(d, frames)
            z_1 = weighted_sample("z_1", first, weights["z"])
            weighted_sample("z", rest(z_1), weights["z"])

    # p(x_1:T, s, d, z_1:T) = p(s) p(d) p(z_1) p(x_1 | s, z_1)
    #                         prod_{t=2..T} p(x_t | s, z_t) p(z_t | z_{t-1}, d)              (Eq. 1)
    # The paper's Eq. 1 leaves p(x_1 | s, z_1) out; its Eq. 4 has it.
    # p(s) = N(0, 1/K); p(d) = N(0, 1/dynamics_dim); p(z_1) = N(0, 1).
    def model(self, batch, annealed):
        weights, picked, like = annealed.weights, batch.picked, batch.codes[0]
        clips, frames, pose_dim = like.shape
        experts, size = self.encdec.experts, self.dynamics_dim
        with pyro.plate("clips", clips):
            s = weighted_sample("s", centred((clips, experts), 1 / experts, 1, like), weights["s"])
            d = weighted_sample("d", centred((clips, size), 1 / size, 1, like), weights["d"])
            weight = 1.0 if self.release else weights["z"]
            z_1 = weighted_sample("z_1", centred((clips, pose_dim), 1, 1, like), weight)
            z = weighted_sample("z", self.pose_prior(d, z_1, frames), weights["z"])
            z, scale = torch.cat([z_1[:, None], z], 1), 1.0
            if picked is not None:
                # The pixels of P frames are counted for those of all T.
                z = z.gather(1, picked[..., None].expand(-1, -1, pose_dim))
                scale = frames / picked.shape[1]
            logits = self.encdec.decoder(z, mixing_weights(s, annealed.temperature))
            with poutine.scale(scale=scale):
                pyro.sample("x", bernoulli(logits, self.release), obs=batch.x)

    def loss(self, batch, annealed, kl="analytic"):
        """The terms s, d, z_1, z and x of the negative ELBO (Eq. 4), summed over the batch.

        batch: `Sequences`. annealed: an `Annealed`. kl: see models/elbo.py.
        """
        return elbo_terms(self.model, self.guide, batch, annealed, kl=kl)

    def encode(self, x, temperature):
        """The locations: frames x [N, T, 3, 64, 64] -> w [N, K], d [N, dynamics_dim]."""
        z_loc, frame_loc, frame_scale = self.frame_codes(x)
        w = mixing_weights(self.identity(frame_loc, frame_scale)[0], temperature)
        return w, self.dynamics(z_loc)[0]

    def poses(self, d, frames):
        """The path of pose means that d [N, dynamics_dim] generates: [N, frames, pose_dim]."""
        u = self.combiner.context(self.context(d, frames), d)
        # a copy: torch's counter of arithmetic fails at a view of a parameter without gradients
        z, path = self.combiner.z_0.repeat(len(d), 1), []
        for u_t in u.unbind(1):
            z = self.combiner.loc(self.combiner.hidden(z, u_t))
            path.append(z)
        return torch.stack(path, 1)

    def sample(self, clips, frames, temperature):
        """Draw w [clips, K] and a path of poses z [clips, frames, pose_dim] from the priors."""
        like = self.combiner.z_0
        s = torch.randn(clips, self.encdec.experts).to(like) / self.encdec.experts
        d = torch.randn(clips, self.dynamics_dim).to(like) / self.dynamics_dim
        z_1 = torch.randn(clips, self.pose_dim).to(like)
        z = z_1[:, None]
        if frames > 1:
            z = torch.cat([z, self.pose_prior(d, z_1, frames).rsample()], 1)
        return mixing_weights(s, temperature), z

    def decode(self, z, w):
        """z [N, T, pose_dim], w [N, K] -> frames [N, T, 3, 64, 64] in [0, 1]."""
        return self.encdec.decode(z, w)
