"""DSA: Li & Mandt, 'Disentangled Sequential Autoencoder', ICML 2018, after its reproduction's layers.

    p(x, f, z) = p(f) prod_t p(z_t | z_<t) p(x_t | f, z_t)              f ~ N(0, 1), p(z_t | z_<t) an LSTM's
    q(f, z | x) = q(f | x_1:T) prod_t q(z_t | x_t)                      --posterior factorised
    q(f, z | x) = q(f | x_1:T) prod_t q(z_t | f, x_1:T)                 --posterior full

One static code f a clip, one dynamic code z_t a frame. Frames are in [-1, 1] inside the model and in [0, 1] outside it. The
likelihood is the squared error, that of a Normal of variance 1/2 less its constant.

--fidelity paper: the prior's LSTM reads the posterior's samples z_<t (all steps in one call); every mean and log-variance is linear in
the features. --fidelity release, the reproduction: the prior runs on its own samples, a LeakyReLU follows the heads of f, and the biases
of the batch norms start at 1. The published loss is divided by the batch, here as there (`DSAStage.objective`).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import kl_divergence

from models.elbo import Term, normal
from models.stage import OneStage

SLOPE = 0.2  # of every LeakyReLU (reproduction)
KERNEL = 5
TOP = 8  # side of the last feature map


def scale_of(log_variance):
    """The standard deviation of a log-variance."""
    return torch.exp(log_variance / 2)


class Gaussian(nn.Module):
    """Two affine heads: features [..., width] -> loc, scale, each [..., dim]. slope: of a LeakyReLU behind both, 1.0 for none."""

    def __init__(self, width, dim, slope=1.0):
        super().__init__()
        self.loc, self.log_variance, self.slope = (
            nn.Linear(width, dim),
            nn.Linear(width, dim),
            slope,
        )

    @torch.no_grad()
    def start_scale_at(self, value):
        """Have every scale be `value` (> 0) before training, whatever comes in."""
        said = 2 * math.log(value)
        self.log_variance.weight.zero_()
        self.log_variance.bias.fill_(
            said / self.slope if said < 0 else said
        )  # the LeakyReLU's inverse

    def forward(self, features):
        loc, log_variance = self.loc(features), self.log_variance(features)
        if self.slope != 1:
            loc, log_variance = (
                F.leaky_relu(loc, self.slope),
                F.leaky_relu(log_variance, self.slope),
            )
        return loc, scale_of(log_variance)


def _dense(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out), nn.LeakyReLU(SLOPE))


def _rectified(conv, channels):
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE))


class FrameEncoder(nn.Module):
    """Frames x [B, 3, 64, 64] in [-1, 1] -> v [B, conv_dim]: 64, 32, 16, 8 px at `width` channels, then two dense layers."""

    def __init__(self, width, hidden, conv_dim):
        super().__init__()
        self.convs = nn.Sequential(
            *(
                _rectified(nn.Conv2d(c_in, width, KERNEL, stride, KERNEL // 2), width)
                for c_in, stride in ((3, 1), (width, 2), (width, 2), (width, 2))
            )
        )
        self.dense = nn.Sequential(_dense(width * TOP**2, hidden), _dense(hidden, conv_dim))

    def forward(self, x):
        features = self.convs(x.contiguous(memory_format=torch.channels_last))
        return self.dense(features.flatten(1))


class FrameDecoder(nn.Module):
    """p(x_t | f, z_t): concat(f, z_t) [B, f_dim + z_dim] -> the mean [B, 3, 64, 64] in [-1, 1], the encoder's mirror image."""

    def __init__(self, code_dim, width, hidden):
        super().__init__()
        self.width = width
        self.dense = nn.Sequential(_dense(code_dim, hidden), _dense(hidden, width * TOP**2))
        self.convs = nn.Sequential(
            *(
                _rectified(nn.ConvTranspose2d(width, width, KERNEL, 2, KERNEL // 2, 1), width)
                for _ in range(3)
            ),
            nn.ConvTranspose2d(width, 3, KERNEL, 1, KERNEL // 2),
            nn.Tanh(),
        )

    def forward(self, code):
        features = self.dense(code).unflatten(1, (self.width, TOP, TOP))
        return self.convs(features.contiguous(memory_format=torch.channels_last))


class StaticPosterior(nn.Module):
    """q(f | x_1:T): v [N, T, conv_dim] -> loc, scale [N, f_dim], from both last states of a bi-LSTM."""

    def __init__(self, conv_dim, rnn_dim, f_dim, slope):
        super().__init__()
        self.rnn = nn.LSTM(conv_dim, rnn_dim, batch_first=True, bidirectional=True)
        self.heads = Gaussian(2 * rnn_dim, f_dim, slope)

    def forward(self, v):
        _, (h_n, _) = self.rnn(
            v
        )  # [2, N, rnn_dim]: forward at the last frame, backward at the first
        return self.heads(torch.cat(h_n.unbind(), -1))


class FactorisedPosterior(nn.Module):
    """q(z_t | x_t): v [N, T, conv_dim] (f is not read) -> loc, scale [N, T, z_dim]."""

    def __init__(self, conv_dim, f_dim, rnn_dim, z_dim):
        super().__init__()
        self.hidden, self.heads = nn.Linear(conv_dim, rnn_dim), Gaussian(rnn_dim, z_dim)

    def forward(self, v, f):
        return self.heads(F.leaky_relu(self.hidden(v), SLOPE))


class FullPosterior(nn.Module):
    """q(z_t | f, x_1:T): v [N, T, conv_dim], f [N, f_dim] -> loc, scale [N, T, z_dim], by a bi-LSTM and an RNN over it."""

    def __init__(self, conv_dim, f_dim, rnn_dim, z_dim):
        super().__init__()
        self.both_ways = nn.LSTM(conv_dim + f_dim, rnn_dim, batch_first=True, bidirectional=True)
        self.onwards, self.heads = (
            nn.RNN(2 * rnn_dim, rnn_dim, batch_first=True),
            Gaussian(rnn_dim, z_dim),
        )

    def forward(self, v, f):
        g = torch.cat([v, f[:, None].expand(-1, v.shape[1], -1)], -1)
        return self.heads(self.onwards(self.both_ways(g)[0])[0])


POSTERIORS = {"factorised": FactorisedPosterior, "full": FullPosterior}


class DynamicPrior(nn.Module):
    """p(z_t | z_<t): an LSTM over the codes so far, z_0 = 0, and two affine heads."""

    def __init__(self, z_dim, rnn_dim):
        super().__init__()
        self.rnn, self.heads = nn.LSTM(z_dim, rnn_dim, batch_first=True), Gaussian(rnn_dim, z_dim)

    def forward(self, z):
        """z [N, T, z_dim] -> loc, scale [N, T, z_dim] of every z_t given those before it (teacher forcing), in one call."""
        return self.heads(self.rnn(F.pad(z[:, :-1], (0, 0, 1, 0)))[0])

    def walk(self, seen, noise):
        """Go on from the codes seen [N, S, z_dim] (S may be 0) with standard noise [N, T, z_dim] for T steps, each fed its own
        sample (noise 0: its mean) -> the codes z, their loc and scale, each [N, T, z_dim]."""
        outputs, state = self.rnn(F.pad(seen, (0, 0, 1, 0)))
        steps = []
        for eps in noise.unbind(1):
            loc, scale = self.heads(outputs[:, -1])
            steps.append((loc + scale * eps, loc, scale))
            outputs, state = self.rnn(steps[-1][0][:, None], state)
        return tuple(torch.stack(part, 1) for part in zip(*steps))


class DSA(nn.Module):
    """Both densities of the module's header. settings: models.settings.DSASettings."""

    continues = True

    def __init__(self, settings):
        super().__init__()
        c = settings
        self.release = c.fidelity == "release"
        self.f_dim, self.z_dim = c.f_dim, c.z_dim
        self.encoder = FrameEncoder(c.width, c.hidden, c.conv_dim)
        self.static = StaticPosterior(
            c.conv_dim, c.rnn_dim, c.f_dim, SLOPE if self.release else 1.0
        )
        self.dynamic = POSTERIORS[c.posterior](c.conv_dim, c.f_dim, c.rnn_dim, c.z_dim)
        self.prior = DynamicPrior(c.z_dim, c.rnn_dim)
        self.decoder = FrameDecoder(c.f_dim + c.z_dim, c.width, c.hidden)
        for posterior, start in ((self.static, c.f_scale_start), (self.dynamic, c.z_scale_start)):
            if start:
                posterior.heads.start_scale_at(start)
        if self.release:
            for layer in self.modules():
                if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    nn.init.ones_(layer.bias)

    @torch.no_grad()
    def start_at(self, mean):
        """Start every picture at `mean` [3] in (0, 1), the data's mean colour, instead of grey."""
        self.decoder.convs[-2].bias.copy_(torch.atanh(2 * mean - 1))

    def _features(self, x):
        return self.encoder((2 * x - 1).flatten(0, 1)).unflatten(0, x.shape[:2])  # [N, T, conv_dim]

    def _pictures(self, f, z):
        """f [N, f_dim], z [N, T, z_dim] -> means [N, T, 3, 64, 64] in [-1, 1]."""
        code = torch.cat([f[:, None].expand(-1, z.shape[1], -1), z], -1)
        return self.decoder(code.flatten(0, 1)).unflatten(0, z.shape[:2])

    def loss(self, x, annealed):
        """The negative ELBO as {term: Term}, summed over the batch x [N, T, 3, 64, 64] in [0, 1];
        annealed: models.annealing.Annealed."""
        v = self._features(x)
        q_f = normal(*self.static(v), 1)
        f = q_f.rsample()
        q_z = normal(*self.dynamic(v, f), 2)
        z = q_z.rsample()
        before = (
            self.prior.walk(z[:, :0], torch.randn_like(z))[1:] if self.release else self.prior(z)
        )
        p_f = normal(torch.zeros_like(f), torch.ones_like(f), 1)
        of_f = kl_divergence(q_f, p_f).sum()
        of_z = kl_divergence(q_z, normal(*before, 2)).sum()
        error = ((self._pictures(f, z) - (2 * x - 1)) ** 2).sum()
        return {
            "f": Term(of_f, annealed.weights["f"] * of_f),
            "z": Term(of_z, annealed.weights["z"] * of_z),
            "x": Term(error, error),
        }

    def encode(self, x):
        """The locations: x [N, T, 3, 64, 64] in [0, 1] -> static f [N, f_dim], dynamic z [N, T, z_dim]."""
        v = self._features(x)
        f = self.static(v)[0]
        return f, self.dynamic(v, f)[0]

    def decode(self, f, z, frames):
        """f [N, f_dim], z [N, T, z_dim] -> [N, frames, 3, 64, 64] in [0, 1]; beyond T the prior goes on by its means."""
        if frames > z.shape[1]:
            more = z.new_zeros(len(z), frames - z.shape[1], self.z_dim)
            z = torch.cat([z, self.prior.walk(z, more)[0]], 1)
        return (self._pictures(f, z[:, :frames]) + 1) / 2

    def draw_static(self, clips):
        """f [clips, f_dim] from its prior."""
        return torch.randn(clips, self.f_dim).to(self.prior.heads.loc.weight)

    def draw_dynamic(self, f, frames):
        """z [N, frames, z_dim] from its prior, whatever f [N, f_dim] is."""
        return self.prior.walk(
            f.new_zeros(len(f), 0, self.z_dim), torch.randn(len(f), frames, self.z_dim).to(f)
        )[0]


class DSAStage(OneStage):
    """DSA's one stage. What it calls static is f, one a clip; dynamic is z_1:T, one a frame."""

    name, network_of = "DSA", DSA

    def objective(self, terms, sequences):
        """What is descended: the weighted terms, divided by the batch (published)."""
        return super().objective(terms, sequences) / sequences
