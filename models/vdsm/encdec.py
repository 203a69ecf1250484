"""VDSM's first stage: the Pyro model and guide that train the frame encoder and the mixture-of-experts decoder.

    p(x, s, z) = prod_n p(s^n) prod_t p(z_t^n) p(x_t^n | z_t^n, s^n)        s ~ N(0, 1/K), z ~ N(0, 1)
    q(s, z | x) = prod_n q(s^n | x_1:T^n) prod_t q(z_t^n | x_t^n)

One s a clip, an independent z a frame; frames may be any of the clip, in any order. The likelihood is Bernoulli a pixel,
evaluated at grey levels in [0, 1] and therefore not normalised, as in the release.
"""

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli
from torch import nn

from models.elbo import elbo_terms, normal
from models.vdsm.networks import (
    FrameEncoder,
    IdentityPosterior,
    MixtureOfExpertsDecoder,
    SingleDecoder,
)


def mixing_weights(s, temperature):
    """w = softmax(temperature * s): s [..., K] -> w [..., K] on the simplex."""
    return torch.softmax(temperature * s, -1)


def bernoulli(logits, dims):
    """Independent Bernoullis a pixel with the last `dims` dimensions one event; values may lie anywhere in [0, 1]."""
    return Bernoulli(logits=logits, validate_args=False).to_event(dims)


class EncDec(nn.Module):
    """Encoder, identity posterior and decoder with the model and guide over them (see the module's header).

    settings: models.vdsm.settings.VDSMSettings (z_dim, n_e_w, single_decoder, enc_widths, dec_widths, fidelity).
    """

    def __init__(self, settings):
        super().__init__()
        self.experts, self.pose_dim = settings.n_e_w, settings.z_dim
        slope = 1.0 if settings.fidelity == "release" else 0.01
        self.encoder = FrameEncoder(self.pose_dim, self.experts, settings.enc_widths, slope)
        self.identity = IdentityPosterior(self.experts)
        decoder = SingleDecoder if settings.single_decoder else MixtureOfExpertsDecoder
        self.decoder = decoder(self.pose_dim, self.experts, settings.dec_widths)

    def frame_codes(self, x):
        """x [N, T, 3, 64, 64] in [0, 1] -> z loc, z scale [N, T, pose_dim]; per-frame s loc, s scale [N, T, K]."""
        return tuple(code.unflatten(0, x.shape[:2]) for code in self.encoder(x.flatten(0, 1)))

    @torch.no_grad()
    def start_from(self, x, spread):
        """Start the encoder from clips x [N, T, 3, 64, 64] (see `FrameEncoder.start_from`), s's loc spread by `spread` over them."""
        self.encoder.start_from(x.flatten(0, 1))
        self.identity.start_loc_from(self.frame_codes(x)[2], spread)

    def guide(self, x, annealed):
        weights = annealed.weights
        z_loc, z_scale, frame_loc, frame_scale = self.frame_codes(x)
        s_loc, s_scale = self.identity(frame_loc, frame_scale)
        with pyro.plate("clips", len(x)):
            with poutine.scale(scale=weights["s"]):
                pyro.sample("s", normal(s_loc, s_scale, 1))
            with poutine.scale(scale=weights["z"]):
                pyro.sample("z", normal(z_loc, z_scale, 2))

    def model(self, x, annealed):
        weights, (clips, frames) = annealed.weights, x.shape[:2]
        zero = x.new_zeros(())
        with pyro.plate("clips", clips):
            with poutine.scale(scale=weights["s"]):
                s = pyro.sample(
                    "s", normal(zero.expand(clips, self.experts), zero + 1 / self.experts, 1)
                )
            with poutine.scale(scale=weights["z"]):
                z = pyro.sample("z", normal(zero.expand(clips, frames, self.pose_dim), zero + 1, 2))
            logits = self.decoder(z, mixing_weights(s, annealed.temperature))
            pyro.sample("x", bernoulli(logits, 4), obs=x)

    def loss(self, x, annealed, kl="analytic"):
        """The negative ELBO (Eq. 4, first stage) as {term: Term}, summed over the batch.

        x [N, T, 3, 64, 64] in [0, 1]; annealed: models.annealing.Annealed, with lambda_s, lambda_z
        and tau.
        """
        return elbo_terms(self.model, self.guide, x, annealed, kl=kl)

    def encode(self, x, temperature):
        """The locations: x [N, T, 3, 64, 64] -> mixing weights w [N, K], poses z [N, T, pose_dim]."""
        z_loc, _, frame_loc, frame_scale = self.frame_codes(x)
        return mixing_weights(self.identity(frame_loc, frame_scale)[0], temperature), z_loc

    def sample(self, clips, frames, temperature):
        """Draw from the priors: mixing weights w [clips, K] and a pose of its own for each frame, z [clips, frames, pose_dim]."""
        like = self.identity.loc.weight
        s = torch.randn(clips, self.experts).to(like) / self.experts
        return mixing_weights(s, temperature), torch.randn(clips, frames, self.pose_dim).to(like)

    def decode(self, z, w):
        """z [N, T, pose_dim], w [N, K] -> frames [N, T, 3, 64, 64] in [0, 1]."""
        return torch.sigmoid(self.decoder(z, w))
