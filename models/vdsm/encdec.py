"""Stage 1 of VDSM: the model and guide that train the frame encoder and the decoder.

Symbols and shapes are explained in models/vdsm/__init__.py. Stage 1 has one s per clip and an
independent z per frame, so that the frames of a clip may come in any number and order.
"""

import math

import pyro
import torch
from pyro.distributions import Bernoulli
from torch import nn

from models.elbo import centred, elbo_terms, normal, weighted_sample
from models.precision import compute_in
from models.start import in_blocks
from models.vdsm import networks
from models.vdsm.image_networks import ImageEncoder


def mixing_weights(s, temperature):
    """w = softmax(temperature * s): s [..., K] -> w [..., K], which add up to 1."""
    return torch.softmax(temperature * s, -1)


def bernoulli(logits, release=False):
    """One Bernoulli per colour value of frames [N, T, 3, 64, 64].

    release: as in the authors' code, probabilities keep a distance of one rounding error from 0 and
    1. In float32, a colour value then costs at most 15.94 nats, and beyond that has no gradient.
    """
    if release:
        # torch keeps this distance for a Bernoulli that is built from probabilities.
        error = torch.finfo(logits.dtype).eps
        bound = math.log1p(-error) - math.log(error)
        logits = logits.clamp(-bound, bound)
    # As in the authors' code, values lie anywhere in [0, 1]: the density is not normalised.
    return Bernoulli(logits=logits, validate_args=False).to_event(4)


class EncDec(nn.Module):
    """The networks of stage 1, with model and guide; settings: a VDSMSettings."""

    def __init__(self, settings):
        super().__init__()
        self.experts, self.pose_dim = settings.n_e_w, settings.z_dim
        sizes = self.pose_dim, self.experts
        self.release = settings.fidelity == "release"
        slope = 1.0 if self.release else 0.01
        if settings.encoder == "conv":
            self.encoder = networks.FrameEncoder(*sizes, settings.enc_widths, slope)
        else:
            self.encoder = ImageEncoder(*sizes, settings.encoder, settings.encoder_frozen)
        self.identity = networks.IdentityPosterior(self.experts, settings.whiten_identity)
        if settings.single_decoder:
            self.decoder = networks.SingleDecoder(*sizes, settings.dec_widths)
        else:
            self.decoder = networks.MixtureOfExpertsDecoder(*sizes, settings.dec_widths)
        compute_in(self, settings.precision)

    def frame_codes(self, x):
        """Frames [N, T, 3, 64, 64] -> z loc, z scale [N, T, pose_dim], s loc, s scale [N, T, K]."""
        return tuple(code.unflatten(0, x.shape[:2]) for code in self.encoder(x.flatten(0, 1)))

    @torch.no_grad()
    def start_from(self, x, spread):
        """Rescale the encoder on clips x [N, T, 3, 64, 64]; over them, s's loc gets this spread."""
        self.encoder.start_from(x.flatten(0, 1))
        frame_loc = in_blocks(lambda frames: self.encoder(frames)[2], x.flatten(0, 1))
        self.identity.start_loc_from(frame_loc.unflatten(0, x.shape[:2]), spread)

    # q(s, z_1:T | x_1:T) = q(s | x_1:T) prod_t q(z_t | x_t)
    # Eq. 2 of stage 1: without d, and each pose read from its own frame.
    def guide(self, x, annealed):
        z_loc, z_scale, frame_loc, frame_scale = self.frame_codes(x)
        s_loc, s_scale = self.identity(frame_loc, frame_scale)
        with pyro.plate("clips", len(x)):
            weighted_sample("s", normal(s_loc, s_scale, 1), annealed.weights["s"])
            weighted_sample("z", normal(z_loc, z_scale, 2), annealed.weights["z"])

    # p(x_1:T, s, z_1:T) = p(s) prod_t p(x_t | s, z_t) p(z_t)
    # Eq. 1 of stage 1: without d, and with p(z_t) = N(0, 1) for the transition.
    # p(s) = N(0, 1/K); p(x_t | s, z_t) is a Bernoulli per pixel.
    def model(self, x, annealed):
        weights, (clips, frames), experts = annealed.weights, x.shape[:2], self.experts
        with pyro.plate("clips", clips):
            s = weighted_sample("s", centred((clips, experts), 1 / experts, 1, x), weights["s"])
            p_z = centred((clips, frames, self.pose_dim), 1, 2, x)
            z = weighted_sample("z", p_z, weights["z"])
            logits = self.decoder(z, mixing_weights(s, annealed.temperature))
            pyro.sample("x", bernoulli(logits, self.release), obs=x)

    def loss(self, x, annealed, kl="analytic"):
        """The terms s, z and x of the negative ELBO (Eq. 4 without d), summed over the batch.

        x [N, T, 3, 64, 64] in [0, 1]. annealed: an `Annealed`. kl: see models/elbo.py.
        """
        return elbo_terms(self.model, self.guide, x, annealed, kl=kl)

    def encode(self, x, temperature):
        """The locations: frames x [N, T, 3, 64, 64] -> w [N, K], z [N, T, pose_dim]."""
        z_loc, _, frame_loc, frame_scale = self.frame_codes(x)
        return mixing_weights(self.identity(frame_loc, frame_scale)[0], temperature), z_loc

    def sample(self, clips, frames, temperature):
        """Draw w [clips, K] and independent poses z [clips, frames, pose_dim] from the priors."""
        like = self.identity.loc.weight
        s = torch.randn(clips, self.experts).to(like) / self.experts
        return mixing_weights(s, temperature), torch.randn(clips, frames, self.pose_dim).to(like)

    def decode(self, z, w):
        """z [N, T, pose_dim], w [N, K] -> frames [N, T, 3, 64, 64] in [0, 1]."""
        return torch.sigmoid(self.decoder(z, w))
