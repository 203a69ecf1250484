"""DSA: Li & Mandt, 'Disentangled Sequential Autoencoder', ICML 2018.

One static code f per clip and one dynamic code z_t per frame. The layers are those of a public
reproduction. Frames are in [-1, 1] inside the model and in [0, 1] outside.

--fidelity paper: the LSTM of the prior reads the posterior's samples z_<t, for all steps in one
call; every mean and log-variance is linear in the features. --fidelity release (the reproduction's
code, which departs from its README): the prior runs on its own samples, a LeakyReLU follows the
heads of f, the decoder has a batch norm before its tanh and none in its dense layers, weights start
Kaiming-normal, and the biases of the batch norms start at 1. Both divide the loss by the batch size
(`DSAStage.objective`).

Shapes: N clips of T frames, B = N T frames, f [N, f_dim], z [N, T, z_dim].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models import precision
from models.convolution import Conv2d, ConvTranspose2d, ToColours
from models.elbo import centred, closed_terms, noise, normal
from models.stage import OneStage
from models.start import log_variance, start_output

SLOPE = 0.2  # of every LeakyReLU, in the reproduction
KERNEL = 5
TOP = 8  # side of the last feature map


class Gaussian(nn.Module):
    """Two linear heads, then a LeakyReLU: features [..., width] -> loc, scale [..., dim]."""

    def __init__(self, width, dim, slope=1.0):
        super().__init__()
        self.loc, self.log_variance = nn.Linear(width, dim), nn.Linear(width, dim)
        self.slope = slope

    def start_scale_at(self, scale):
        """Let every scale be `scale` (> 0) before training."""
        value = log_variance(scale)
        # The LeakyReLU multiplies what is below 0 by the slope.
        start_output(self.log_variance, value / self.slope if value < 0 else value)

    def forward(self, features):
        loc, log_var = self.loc(features), self.log_variance(features)
        if self.slope != 1:  # a slope of 1 stands for no LeakyReLU
            loc, log_var = F.leaky_relu(loc, self.slope), F.leaky_relu(log_var, self.slope)
        return loc, torch.exp(log_var / 2)


def _dense(c_in, c_out, norm=True):
    norms = [nn.BatchNorm1d(c_out)] if norm else []
    return nn.Sequential(precision.Linear(c_in, c_out), *norms, nn.LeakyReLU(SLOPE, True))


def _rectified(conv, channels):
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE, True))


class FrameEncoder(nn.Module):
    """Features of frames: x [B, 3, 64, 64] in [-1, 1] -> v [B, conv_dim]."""

    def __init__(self, width, hidden, conv_dim):
        super().__init__()
        convs = (
            Conv2d(c_in, width, KERNEL, stride, KERNEL // 2)
            for c_in, stride in ((3, 1), (width, 2), (width, 2), (width, 2))
        )
        self.convs = nn.Sequential(*(_rectified(conv, width) for conv in convs))
        self.dense = nn.Sequential(_dense(width * TOP**2, hidden), _dense(hidden, conv_dim))

    def forward(self, x):
        features = self.convs(x.contiguous(memory_format=torch.channels_last))
        return self.dense(features.flatten(1))


class FrameDecoder(nn.Module):
    """p(x_t | f, z_t): concat(f, z_t) [B, f_dim + z_dim] -> its mean [B, 3, 64, 64] in [-1, 1].

    norm_last: a batch norm stands before the tanh, and none in the dense layers.
    """

    def __init__(self, code_dim, width, hidden, norm_last=False):
        super().__init__()
        self.width = width
        sizes = (code_dim, hidden), (hidden, width * TOP**2)
        self.dense = nn.Sequential(*(_dense(*size, not norm_last) for size in sizes))
        padding = KERNEL // 2
        convs = (ConvTranspose2d(width, width, KERNEL, 2, padding, 1) for _ in range(3))
        blocks = [_rectified(conv, width) for conv in convs]
        last = [ToColours(width, 3, KERNEL, 1, padding), *[nn.BatchNorm2d(3)] * norm_last]
        self.convs = nn.Sequential(*blocks, *last, nn.Tanh())

    def forward(self, code):
        features = self.dense(code).unflatten(1, (self.width, TOP, TOP))
        return self.convs(features.contiguous(memory_format=torch.channels_last))


class StaticPosterior(nn.Module):
    """q(f | x_1:T): v [N, T, conv_dim] -> loc, scale [N, f_dim], from a bi-LSTM's last states."""

    def __init__(self, conv_dim, rnn_dim, f_dim, slope):
        super().__init__()
        self.rnn = nn.LSTM(conv_dim, rnn_dim, batch_first=True, bidirectional=True)
        self.heads = Gaussian(2 * rnn_dim, f_dim, slope)

    def forward(self, v):
        # h_n [2, N, rnn_dim]: forward at the last frame, backward at the first.
        _, (h_n, _) = self.rnn(v)
        return self.heads(torch.cat(h_n.unbind(), -1))


class FactorisedPosterior(nn.Module):
    """q(z_t | x_t): v [N, T, conv_dim] -> loc, scale [N, T, z_dim]; f is not used."""

    def __init__(self, conv_dim, f_dim, rnn_dim, z_dim):
        super().__init__()
        self.hidden, self.heads = nn.Linear(conv_dim, rnn_dim), Gaussian(rnn_dim, z_dim)

    def forward(self, v, f):
        return self.heads(F.leaky_relu(self.hidden(v), SLOPE))


class FullPosterior(nn.Module):
    """q(z_t | f, x_1:T): v [N, T, conv_dim], f [N, f_dim] -> loc, scale [N, T, z_dim]."""

    def __init__(self, conv_dim, f_dim, rnn_dim, z_dim):
        super().__init__()
        self.both_ways = nn.LSTM(conv_dim + f_dim, rnn_dim, batch_first=True, bidirectional=True)
        self.onwards = nn.RNN(2 * rnn_dim, rnn_dim, batch_first=True)
        self.heads = Gaussian(rnn_dim, z_dim)

    def forward(self, v, f):
        inputs = torch.cat([v, f[:, None].expand(-1, v.shape[1], -1)], -1)
        outputs, _ = self.both_ways(inputs)
        outputs, _ = self.onwards(outputs)
        return self.heads(outputs)


POSTERIORS = {"factorised": FactorisedPosterior, "full": FullPosterior}


class DynamicPrior(nn.Module):
    """p(z_t | z_<t): an LSTM over the previous codes, z_0 = 0, and two linear heads."""

    def __init__(self, z_dim, rnn_dim):
        super().__init__()
        self.rnn, self.heads = nn.LSTM(z_dim, rnn_dim, batch_first=True), Gaussian(rnn_dim, z_dim)

    def forward(self, z):
        """loc, scale [N, T, z_dim] of each z_t given the codes before it in z [N, T, z_dim]."""
        return self.heads(self.rnn(F.pad(z[:, :-1], (0, 0, 1, 0)))[0])

    def walk(self, previous, noise):
        """Continue the codes `previous` [N, S, z_dim], S >= 0: new codes, loc and scale.

        Each step reads the sample before. noise [N, T, z_dim]: standard, or zero for means.
        """
        outputs, state = self.rnn(F.pad(previous, (0, 0, 1, 0)))
        steps = []
        for eps in noise.unbind(1):
            loc, scale = self.heads(outputs[:, -1])
            steps.append((loc + scale * eps, loc, scale))
            outputs, state = self.rnn(steps[-1][0][:, None], state)
        return tuple(torch.stack(part, 1) for part in zip(*steps))


class DSA(nn.Module):
    """The networks of DSA and their loss. settings: models.settings.DSASettings."""

    continues = True

    def __init__(self, settings):
        super().__init__()
        c = settings
        self.release = c.fidelity == "release"
        self.f_dim, self.z_dim = c.f_dim, c.z_dim
        self.encoder = FrameEncoder(c.width, c.hidden, c.conv_dim)
        slope = SLOPE if self.release else 1.0
        self.static = StaticPosterior(c.conv_dim, c.rnn_dim, c.f_dim, slope)
        self.dynamic = POSTERIORS[c.posterior](c.conv_dim, c.f_dim, c.rnn_dim, c.z_dim)
        self.prior = DynamicPrior(c.z_dim, c.rnn_dim)
        norm_last = (c.decoder or ("code" if self.release else "text")) == "code"
        self.decoder = FrameDecoder(c.f_dim + c.z_dim, c.width, c.hidden, norm_last)
        if self.release:
            self._start_as_released()
        for posterior, start in ((self.static, c.f_scale_start), (self.dynamic, c.z_scale_start)):
            if start:
                posterior.heads.start_scale_at(start)
        precision.compute_in(self, c.precision)

    def _start_as_released(self):
        """Start weights Kaiming-normal, but for recurrent ones, and biases of batch norms at 1."""
        for layer in self.modules():
            if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.ones_(layer.bias)
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)

    @torch.no_grad()
    def start_at(self, mean):
        """Let pictures start at the colour `mean` [3] in (0, 1), for instance that of the data."""
        # The last convolution, or the batch norm behind it.
        last_layer: Any = self.decoder.convs[-2]
        last_layer.bias.copy_(torch.atanh(2 * mean - 1))

    def _features(self, x):
        """Frames x [N, T, 3, 64, 64] in [0, 1] -> v [N, T, conv_dim]."""
        return self.encoder((2 * x - 1).flatten(0, 1)).unflatten(0, x.shape[:2])

    def _pictures(self, f, z):
        """Means [N, T, 3, 64, 64] in [-1, 1] of p(x_t | f, z_t)."""
        code = torch.cat([f[:, None].expand(-1, z.shape[1], -1), z], -1)
        return self.decoder(code.flatten(0, 1)).unflatten(0, z.shape[:2])

    # p(x_1:T, f, z_1:T) = p(f) prod_t p(z_t | z_<t) p(x_t | f, z_t)
    # q(f, z_1:T | x_1:T) = q(f | x_1:T) prod_t q(z_t | x_t)               --posterior factorised
    # q(f, z_1:T | x_1:T) = q(f | x_1:T) prod_t q(z_t | f, x_1:T)          --posterior full
    # Section 2 of the paper. p(f) = N(0, 1); p(x_t | f, z_t) is a Normal of variance 1/2, whose
    # log density is the negative squared error and a constant, which the loss leaves out.
    def loss(self, x, annealed, kl="analytic"):
        """The terms f, z and x of the negative ELBO, summed over a batch x [N, T, 3, 64, 64]."""
        v = self._features(x)
        q_f = normal(*self.static(v), 1)
        f = q_f.rsample()
        q_z = normal(*self.dynamic(v, f), 2)
        z = q_z.rsample()
        if self.release:
            _, *z_stats = self.prior.walk(z[:, :0], noise(z.shape, z))
        else:
            z_stats = self.prior(z)
        p_f, p_z = centred(f.shape, 1, 1, f), normal(*z_stats, 2)
        error = ((self._pictures(f, z) - (2 * x - 1)) ** 2).sum()
        return closed_terms({"f": (q_f, p_f), "z": (q_z, p_z)}, error, annealed.weights, kl)

    def encode(self, x):
        """The locations of f and z for frames x [N, T, 3, 64, 64] in [0, 1]."""
        v = self._features(x)
        f = self.static(v)[0]
        return f, self.dynamic(v, f)[0]

    def decode(self, f, z, frames):
        """Frames [N, frames, 3, 64, 64] in [0, 1]; beyond T, the prior's means continue z."""
        if frames > z.shape[1]:
            more = z.new_zeros(len(z), frames - z.shape[1], self.z_dim)
            z = torch.cat([z, self.prior.walk(z, more)[0]], 1)
        return (self._pictures(f, z[:, :frames]) + 1) / 2

    def draw_static(self, clips):
        """Draw f [clips, f_dim] from p(f)."""
        return torch.randn(clips, self.f_dim).to(self.prior.heads.loc.weight)

    def draw_dynamic(self, f, frames):
        """Draw z [N, frames, z_dim] from its prior, which does not depend on f [N, f_dim]."""
        nothing = f.new_zeros(len(f), 0, self.z_dim)
        return self.prior.walk(nothing, torch.randn(len(f), frames, self.z_dim).to(f))[0]


class DSAStage(OneStage):
    """DSA's stage. Static code: f, one per clip. Dynamic code: z, one z_t per frame."""

    name, network_of = "DSA", DSA

    def objective(self, terms, sequences):
        """The scalar to minimise: the weighted terms, averaged over the batch as published."""
        return super().objective(terms, sequences) / sequences
