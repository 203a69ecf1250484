"""Unordered: Helminger et al., 'Disentangled Dynamic Representations from Unordered Data', 2018.

One static code f per clip, read from pairwise comparisons of its frames, and one dynamic code z_t
per frame. The model knows nothing of time: it draws frames of a clip, not their order.

The layers are those of Appendix C. Where the appendix is silent: a head has twice the width of its
code and gives mean and log-variance, a dense layer turns [f, z] into the first feature map, all
LeakyReLUs have slope 0.2, and one of them follows that dense layer. With more than three frames,
the statistics of f are averaged over random triples.

Shapes: N clips of T frames, B = N T frames, M triples, f [N, f_dim], z [N, T, z_dim].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models import precision
from models.convolution import Conv2d, ConvTranspose2d, ToColours
from models.elbo import centred, closed_terms, normal
from models.stage import OneStage
from models.start import log_variance, standardise, start_output
from utils.distributed import rows

SLOPE = 0.2
TOP = 4  # side of the feature map of a frame
START_SAMPLES = 16  # at least; over two clips, the gains of f's layers overflow on other clips
PAIRS = (0, 0, 1), (1, 2, 2)  # first and second members of the three pairs of a triple


def gaussian(heads):
    """Output of a head: [..., 2 dim] -> loc, scale [..., dim]."""
    loc, log_var = heads.chunk(2, -1)
    return loc, torch.exp(log_var / 2)


def triples(clips, frames, generator=None, device=None):
    """Random triples that together hold every frame of a clip: positions [clips, M, 3].

    If 3 does not divide `frames`, the first frames drawn occur twice. generator: on the CPU, for
    the same triples in all clips. Default: each clip draws its own.
    """
    number = -(-frames // 3)
    if generator is None:
        drawn = rows(lambda count: torch.rand(count, frames, device=device), clips).argsort(1)
    else:
        drawn = torch.rand(1, frames, generator=generator).argsort(1).to(device)
    drawn = drawn[:, torch.arange(3 * number, device=device) % frames]
    return drawn.expand(clips, -1).unflatten(1, (number, 3))


def _dense(c_in, hidden, c_out):
    layers = nn.Linear(c_in, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, c_out)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _output(layer, x):
    return layer(x)


class FrameFeatures(nn.Module):
    """Appendix C's Conv: frames x [B, 3, 64, 64] -> h [B, width, 4, 4]."""

    def __init__(self, width):
        super().__init__()
        channels = (3, width, width, width)
        self.convs = nn.ModuleList(Conv2d(c_in, width, 4, 2, 1) for c_in in channels)

    def forward(self, x):
        h = x.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            h = F.leaky_relu_(conv(h), SLOPE)
        return h


class StaticPosterior(nn.Module):
    """q(f | x_S): h [N, T, width, 4, 4], triples of frames [N, M, 3] -> loc, scale [N, f_dim].

    One convolution compares the frames of each pair of a triple (Conv_C). The three comparisons
    give the statistics of f (Conv_F), whose means and variances are averaged over the triples.
    """

    pairs: torch.Tensor

    def __init__(self, width, hidden, f_dim):
        super().__init__()
        self.compare = Conv2d(2 * width, hidden, 3, padding=1)
        self.join = Conv2d(3 * hidden, hidden, 3, padding=1)
        self.dense, self.heads = nn.Linear(hidden * TOP**2, hidden), nn.Linear(hidden, 2 * f_dim)
        # On the device: the host waits for a GPU that has to fetch an index from it.
        self.register_buffer("pairs", torch.tensor(PAIRS), persistent=False)

    def forward(self, h, triples):
        heads = self.heads(self._features(h, triples, _output))
        loc, scale = gaussian(heads.unflatten(0, triples.shape[:2]))
        return loc.mean(1), (scale**2).mean(1).sqrt()

    def start_from(self, h, triples):
        """Rescale the layers that lead to the loc (see `Unordered.start_from`)."""
        features = self._features(h, triples, standardise)
        standardise(self.heads, features, rows=self.heads.out_features // 2)

    def _features(self, h, triples, run):
        """Features [N M, hidden] of the triples. run(layer, x) gives the output of a layer."""
        clip = torch.arange(len(h), device=h.device)[:, None, None]
        drawn = h[clip, triples]  # [N, M, 3, width, 4, 4]
        pairs = torch.cat([drawn[:, :, member] for member in self.pairs], 3).flatten(0, 2)
        compared = F.relu(run(self.compare, pairs))  # [N M 3, hidden, 4, 4]
        joined = compared.unflatten(0, (-1, 3)).flatten(1, 2)  # [N M, 3 hidden, 4, 4]
        joined = F.relu(run(self.join, joined))  # [N M, hidden, 4, 4]
        return F.relu(run(self.dense, joined.flatten(1)))


def _with_static(f, codes):
    """f [N, f_dim] beside each of the codes [N, T, D] of the frames: [N, T, f_dim + D]."""
    return torch.cat([f[:, None].expand(-1, codes.shape[1], -1), codes], -1)


class DynamicPosterior(nn.Module):
    """q(z_i | f, x_i): f [N, f_dim], h [N, T, width, 4, 4] -> loc, scale [N, T, z_dim]."""

    def __init__(self, width, hidden, f_dim, z_dim):
        super().__init__()
        self.dense = _dense(f_dim + width * TOP**2, hidden, 2 * z_dim)

    def forward(self, f, h):
        return gaussian(self.dense(_with_static(f, h.flatten(2))))


class DynamicPrior(nn.Module):
    """p(z | f): f [N, f_dim] -> loc, scale [N, z_dim], the same for all frames of a clip."""

    def __init__(self, hidden, f_dim, z_dim):
        super().__init__()
        self.dense = _dense(f_dim, hidden, 2 * z_dim)

    def forward(self, f):
        return gaussian(self.dense(f))


class FrameDecoder(nn.Module):
    """p(x_t | f, z_t): concat(f, z_t) [B, f_dim + z_dim] -> logits [B, 3, 64, 64]."""

    def __init__(self, code_dim, width):
        super().__init__()
        self.dense = nn.Linear(code_dim, width * TOP**2)
        convs = [ConvTranspose2d(width, width, 4, 2, 1) for _ in range(3)]
        self.convs = nn.ModuleList([*convs, ToColours(width, 3, 4, 2, 1)])

    def forward(self, code):
        x = self._map(self.dense(code))
        for conv in self.convs:
            x = conv(F.leaky_relu_(x, SLOPE))
        return x

    @torch.no_grad()
    def start_from(self, code):
        """Rescale all layers but the last on codes [B, f_dim + z_dim]: unit variance."""
        x = self._map(standardise(self.dense, code))
        for conv in self.convs[:-1]:
            x = standardise(conv, F.leaky_relu(x, SLOPE))

    @staticmethod
    def _map(features):
        return features.unflatten(1, (-1, TOP, TOP)).contiguous(memory_format=torch.channels_last)


class Unordered(nn.Module):
    """The networks of Unordered and their loss. settings: models.settings.UnorderedSettings."""

    continues = False

    def __init__(self, settings):
        super().__init__()
        c = settings
        self.f_dim, self.z_dim = c.f_dim, c.z_dim
        self.features = FrameFeatures(c.width)
        self.static = StaticPosterior(c.width, c.hidden, c.f_dim)
        self.dynamic = DynamicPosterior(c.width, c.hidden, c.f_dim, c.z_dim)
        self.prior = DynamicPrior(c.hidden, c.f_dim, c.z_dim)
        self.decoder = FrameDecoder(c.f_dim + c.z_dim, c.width)
        heads = (self.static.heads, c.f_scale_start), (self.dynamic.dense[-1], c.z_scale_start)
        for layer, scale in heads:
            if scale:
                start_output(layer, log_variance(scale), layer.out_features // 2)
        precision.compute_in(self, c.precision)

    @torch.no_grad()
    def start_at(self, mean):
        """Let pictures start at the colour `mean` [3] in (0, 1), for instance that of the data."""
        last_layer: Any = self.decoder.convs[-1]
        last_layer.bias.copy_(torch.logit(mean))

    @torch.no_grad()
    def start_from(self, x):
        """Rescale the layers that lead to f's loc: unit variance on clips x [N, T, 3, 64, 64]."""
        # With torch's initial weights, they shrink all differences between clips but brightness.
        h = x.flatten(0, 1)
        for conv in self.features.convs:
            h = F.leaky_relu(standardise(conv, h), SLOPE)
        self.static.start_from(h.unflatten(0, x.shape[:2]), triples(*x.shape[:2], device=x.device))

    @torch.no_grad()
    def start_decoder_from(self, x):
        """Rescale the decoder on f of clips x [N, T, 3, 64, 64] and standard noise for z."""
        # With torch's initial weights, colours are learnt long after poses.
        f, _ = self.encode(x)
        self.decoder.start_from(torch.cat([f, torch.randn(len(f), self.z_dim).to(f)], -1))

    def _features(self, x):
        """Frames x [N, T, 3, 64, 64] in [0, 1] -> h [N, T, width, 4, 4]."""
        return self.features(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _logits(self, f, z):
        """Logits [N, T, 3, 64, 64] of p(x_t | f, z_t)."""
        return self.decoder(_with_static(f, z).flatten(0, 1)).unflatten(0, z.shape[:2])

    # p(x_1:T, f, z_1:T) = p(f) prod_t p(z_t | f) p(x_t | f, z_t)
    # q(f, z_S | x_S) = q(f | x_S) prod_{i in S} q(z_i | f, x_i)             S: random frames
    # Section 2 of the paper. p(f) = N(0, 1); p(z | f) is learned; p(x | f, z): Bernoulli per pixel.
    def loss(self, x, annealed, kl="analytic"):
        """The terms f, z and x of the negative ELBO, summed over a batch x [N, T, 3, 64, 64]."""
        h = self._features(x)
        q_f = normal(*self.static(h, triples(*x.shape[:2], device=x.device)), 1)
        f = q_f.rsample()
        q_z = normal(*self.dynamic(f, h), 2)
        z = q_z.rsample()
        p_f = centred(f.shape, 1, 1, f)
        p_z = normal(*(part[:, None].expand_as(z) for part in self.prior(f)), 2)
        nll = F.binary_cross_entropy_with_logits(self._logits(f, z), x, reduction="sum")
        return closed_terms({"f": (q_f, p_f), "z": (q_z, p_z)}, nll, annealed.weights, kl)

    def encode(self, x):
        """The locations of f and z for frames x [N, T, 3, 64, 64] in [0, 1], any T."""
        h = self._features(x)
        same = torch.Generator().manual_seed(0)  # for the same triples in every call
        f = self.static(h, triples(*x.shape[:2], same, x.device))[0]
        return f, self.dynamic(f, h)[0]

    def decode(self, f, z, frames):
        """Frames [N, frames, 3, 64, 64] in [0, 1]; at most T, because no code predicts another."""
        return torch.sigmoid(self._logits(f, z[:, :frames]))

    def draw_static(self, clips):
        """Draw f [clips, f_dim] from p(f)."""
        return torch.randn(clips, self.f_dim).to(self.decoder.dense.weight)

    def draw_dynamic(self, f, frames):
        """Draw z [N, frames, z_dim] from p(z | f), independently per frame."""
        loc, scale = self.prior(f)
        return loc[:, None] + scale[:, None] * torch.randn(len(f), frames, self.z_dim).to(f)


class UnorderedStage(OneStage):
    """Unordered's stage. Static code: f, one per clip. Dynamic code: z, one z_t per frame."""

    name, network_of = "Unordered", Unordered

    def start_from(self, batches):
        super().start_from(batches)
        if self.settings.start == "data":
            size = max(batches.size, START_SAMPLES)
            for start in (self.network.start_from, self.network.start_decoder_from):
                start(batches.frames(*self.batch(batches, 0, size)))

    def batch(self, batches, step, size=None):
        """Random frames of each sample: of all clips that it joins, or of the whole clip."""
        if batches.members is not None:
            return super().batch(batches, step, size)
        count = self.settings.frames_per_clip
        clip, _, flip = (part[:, :count] for part in batches.draw(step, size))
        lengths = batches.clips.lengths[batches.clips.index[clip[:, 0]]]
        return clip, batches.pick(step, len(clip), lengths, count), flip
