"""Unordered: Helminger et al., 'Disentangled Dynamic Representations from Unordered Data', 2018.

    p(x, f, z) = p(f) prod_t p(z_t | f) p(x_t | f, z_t)                 f ~ N(0, 1), p(z | f) learned, x Bernoulli a pixel
    q(f, z | x_S) = q(f | x_S) prod_i q(z_i | f, x_i)                   S: N frames at random, in no order

One static code f a clip, read from pairwise comparisons of its frames; one dynamic code z_t a frame, which knows nothing of time: the
model draws frames of a clip, not their order. Layers are Appendix C's; the heads are twice the code's width, [f, z] becomes the first
map by a dense layer. Left open there and taken so: LeakyReLUs of slope 0.2, one behind that dense layer too; heads that say the mean and
the log-variance. With more than three frames the statistics of f are averaged over random triples.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import kl_divergence

from models.elbo import Term, normal
from models.stage import OneStage
from models.start import standardise

SLOPE = 0.2
TOP = 4  # side of a frame's feature map
FIRST, SECOND = (0, 0, 1), (1, 2, 2)  # the pairs of a triple


def gaussian(heads):
    """[..., 2 dim] -> loc, scale, each [..., dim]."""
    loc, log_variance = heads.chunk(2, -1)
    return loc, torch.exp(log_variance / 2)


@torch.no_grad()
def start_scale_at(heads, value):
    """Have the layer that says loc and log-variance give the scale `value` (> 0), whatever comes in, before training."""
    half = heads.out_features // 2
    heads.weight[half:] = 0
    heads.bias[half:] = 2 * math.log(value)


def triples(clips, frames, generator=None):
    """Positions [clips, M, 3] of random triples that hold every frame once, the first ones again where 3 does not divide `frames`.

    generator: one on the CPU, and then the same triples for all clips; None draws each clip's own from torch's noise.
    """
    number = -(-frames // 3)
    drawn = torch.rand(clips if generator is None else 1, frames, generator=generator).argsort(1)
    return drawn[:, torch.arange(3 * number) % frames].expand(clips, -1).unflatten(1, (number, 3))


def _dense(c_in, hidden, c_out):
    return nn.Sequential(
        nn.Linear(c_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, c_out),
    )


class FrameFeatures(nn.Module):
    """Conv: frames x [B, 3, 64, 64] -> h [B, width, 4, 4]."""

    def __init__(self, width):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, width, 4, 2, 1) for c_in in (3, width, width, width)
        )

    def forward(self, x):
        h = x.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            h = F.leaky_relu(conv(h), SLOPE)
        return h


class StaticPosterior(nn.Module):
    """q(f | x_S): features h [N, T, width, 4, 4] and triples [N, M, 3] of frames -> loc, scale [N, f_dim].

    The same convolution compares each pair of a triple (Conv_C); what the three pairs say becomes the statistics (Conv_F), whose means
    and variances are averaged over the triples.
    """

    def __init__(self, width, hidden, f_dim):
        super().__init__()
        self.compare = nn.Conv2d(2 * width, hidden, 3, padding=1)
        self.join = nn.Conv2d(3 * hidden, hidden, 3, padding=1)
        self.dense, self.heads = nn.Linear(hidden * TOP**2, hidden), nn.Linear(hidden, 2 * f_dim)

    def forward(self, h, triples):
        compared = F.relu(self.compare(_pairs(h, triples)))  # [N M 3, hidden, 4, 4]
        joined = F.relu(
            self.join(compared.unflatten(0, (-1, 3)).flatten(1, 2))
        )  # [N M, hidden, 4, 4]
        loc, scale = gaussian(
            self.heads(F.relu(self.dense(joined.flatten(1)))).unflatten(0, triples.shape[:2])
        )
        return loc.mean(1), (scale**2).mean(1).sqrt()

    def start_from(self, h, triples):
        """Unit variance, layer by layer, of all that leads to the loc (see `Unordered.start_from`)."""
        compared = F.relu(standardise(self.compare, _pairs(h, triples)))
        joined = F.relu(standardise(self.join, compared.unflatten(0, (-1, 3)).flatten(1, 2)))
        dense = F.relu(standardise(self.dense, joined.flatten(1)))
        standardise(self.heads, dense, rows=self.heads.out_features // 2)


def _pairs(h, triples):
    """The pairs of each triple, side by side: h [N, T, width, 4, 4], triples [N, M, 3] -> [N M 3, 2 width, 4, 4]."""
    drawn = h[
        torch.arange(len(h), device=h.device)[:, None, None], triples
    ]  # [N, M, 3, width, 4, 4]
    return torch.cat([drawn[:, :, FIRST], drawn[:, :, SECOND]], 3).flatten(0, 2)


class DynamicPosterior(nn.Module):
    """q(z_i | f, x_i): f [N, f_dim], h [N, T, width, 4, 4] -> loc, scale [N, T, z_dim]."""

    def __init__(self, width, hidden, f_dim, z_dim):
        super().__init__()
        self.dense = _dense(f_dim + width * TOP**2, hidden, 2 * z_dim)

    def forward(self, f, h):
        return gaussian(
            self.dense(torch.cat([f[:, None].expand(-1, h.shape[1], -1), h.flatten(2)], -1))
        )


class DynamicPrior(nn.Module):
    """p(z | f): f [N, f_dim] -> loc, scale [N, z_dim], for every frame the same."""

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
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(width, c_out, 4, 2, 1) for c_out in (width, width, width, 3)
        )

    def forward(self, code):
        x = self._map(self.dense(code))
        for conv in self.convs:
            x = conv(F.leaky_relu(x, SLOPE))
        return x

    @torch.no_grad()
    def start_from(self, code):
        """Unit variance of every channel before the pixels, layer by layer, on codes [B, f_dim + z_dim]."""
        x = self._map(standardise(self.dense, code))
        for conv in self.convs[:-1]:
            x = standardise(conv, F.leaky_relu(x, SLOPE))

    @staticmethod
    def _map(features):
        return features.unflatten(1, (-1, TOP, TOP)).contiguous(memory_format=torch.channels_last)


class Unordered(nn.Module):
    """Both densities of the module's header. settings: models.settings.UnorderedSettings."""

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
        for heads, start in (
            (self.static.heads, c.f_scale_start),
            (self.dynamic.dense[-1], c.z_scale_start),
        ):
            if start:
                start_scale_at(heads, start)

    @torch.no_grad()
    def start_at(self, mean):
        """Start every picture at `mean` [3] in (0, 1), the data's mean colour, instead of grey."""
        self.decoder.convs[-1].bias.copy_(torch.logit(mean))

    @torch.no_grad()
    def start_from(self, x):
        """Give every channel on the way to f's loc zero mean and unit variance over clips x [N, T, 3, 64, 64], layer by layer: as for
        VDSM, torch's init shrinks what differs between clips but for their brightness."""
        h = x.flatten(0, 1)
        for conv in self.features.convs:
            h = F.leaky_relu(standardise(conv, h), SLOPE)
        self.static.start_from(h.unflatten(0, x.shape[:2]), triples(*x.shape[:2]).to(x.device))

    @torch.no_grad()
    def start_decoder_from(self, x):
        """The same for the decoder, on the codes f of clips x [N, T, 3, 64, 64] and standard noise for z: else what f says of a clip
        is shrunk on the way to the pixels, where pose has long been learnt when colour begins."""
        f = self.encode(x)[0]
        self.decoder.start_from(torch.cat([f, torch.randn(len(f), self.z_dim).to(f)], -1))

    def _features(self, x):
        return self.features(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # [N, T, width, 4, 4]

    def _logits(self, f, z):
        """f [N, f_dim], z [N, T, z_dim] -> [N, T, 3, 64, 64]."""
        code = torch.cat([f[:, None].expand(-1, z.shape[1], -1), z], -1)
        return self.decoder(code.flatten(0, 1)).unflatten(0, z.shape[:2])

    def loss(self, x, annealed):
        """The negative of Section 2's bound as {term: Term}, summed over the batch x [N, T, 3, 64, 64] in [0, 1], in any order;
        annealed: models.annealing.Annealed."""
        h = self._features(x)
        q_f = normal(*self.static(h, triples(*x.shape[:2]).to(x.device)), 1)
        f = q_f.rsample()
        q_z = normal(*self.dynamic(f, h), 2)
        z = q_z.rsample()
        p_z = normal(*(part[:, None].expand_as(z) for part in self.prior(f)), 2)
        of_f = kl_divergence(q_f, normal(torch.zeros_like(f), torch.ones_like(f), 1)).sum()
        of_z = kl_divergence(q_z, p_z).sum()
        of_x = F.binary_cross_entropy_with_logits(self._logits(f, z), x, reduction="sum")
        return {
            "f": Term(of_f, annealed.weights["f"] * of_f),
            "z": Term(of_z, annealed.weights["z"] * of_z),
            "x": Term(of_x, of_x),
        }

    def encode(self, x):
        """The locations: x [N, T, 3, 64, 64] in [0, 1], any T -> static f [N, f_dim], dynamic z [N, T, z_dim].

        f is read from the same random triples at every call.
        """
        h = self._features(x)
        f = self.static(h, triples(*x.shape[:2], torch.Generator().manual_seed(0)).to(x.device))[0]
        return f, self.dynamic(f, h)[0]

    def decode(self, f, z, frames):
        """f [N, f_dim], z [N, T, z_dim] -> [N, frames, 3, 64, 64] in [0, 1]; the model knows no frame beyond its codes, so at most T."""
        return torch.sigmoid(self._logits(f, z[:, :frames]))

    def draw_static(self, clips):
        """f [clips, f_dim] from its prior."""
        return torch.randn(clips, self.f_dim).to(self.decoder.dense.weight)

    def draw_dynamic(self, f, frames):
        """z [N, frames, z_dim] from p(z | f), each frame's on its own; f [N, f_dim]."""
        loc, scale = self.prior(f)
        return loc[:, None] + scale[:, None] * torch.randn(len(f), frames, self.z_dim).to(f)


class UnorderedStage(OneStage):
    """Unordered's one stage. What it calls static is f, one a clip; dynamic is z_1:T, one a frame."""

    name, network_of = "Unordered", Unordered

    def start_from(self, batches):
        """With --start data: the mean colour, and unit variance on the way to f and to the pixels."""
        super().start_from(batches)
        if self.settings.start == "data":
            for start in (self.network.start_from, self.network.start_decoder_from):
                start(batches.frames(*self.batch(batches, 0)))

    def batch(self, batches, step):
        """Random frames of each sample: of all clips that it joins, or of the whole clip."""
        count = self.settings.frames_per_clip
        if batches.members is not None:
            return self.some_frames(batches, step, count)
        clip, _, flip = (part[:, :count] for part in batches.draw(step))
        lengths = batches.clips.lengths[batches.clips.index[clip[:, 0]]]
        return clip, batches.pick(step, len(clip), lengths, count), flip
