"""The networks of VDSM: one class per density of Equations 1 and 2.

Symbols and shapes are explained in models/vdsm/__init__.py. Two things differ from the text of the
paper. The encoder's five convolutions have stride 1, and a BlurPool follows each of the first four:
only this gives the sizes in the text. The decoder ends in a sigmoid, not in a LeakyReLU.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from antialiased_cnns import BlurPool
from torch import nn

from models import precision
from models.start import in_blocks, rescale, standardise, start_output
from models.vdsm import cuda
from models.vdsm.functions import Blend, Blurred, ClipByClip, upsample
from models.vdsm.whitening import Whitening
from utils import distributed

ENCODER_WIDTHS, IDENTITY_HIDDEN = (32, 32, 64, 64, 256), 128  # supplementary, section 3
DECODER_WIDTHS = (512, 256, 128, 64)  # the authors' code
KERNEL = 4
# The weights of one layer of an LSTM, in the order of the arguments of torch.lstm_cell.
LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
# Of --start all: how far the experts lie apart, in units of what they share (chosen among .7, 2
# and 5: docs/RECIPES.md), and the gain of the first and the last layer (not searched).
APART, FAINT = 2.0, 0.3
# Of --whiten_identity: the deviation of the location of s, in units of the prior's, 1/K (chosen
# from .7 and 1.2).
WHITE = 0.7
SMALLEST_SCALE = 1e-6  # where softplus underflows to 0, every log density would be infinite
LARGEST = 1e6  # bound of scales and predicted poses: their squares and gradients stay finite


def positive(x):
    """The standard deviation that the output x of a layer stands for: softplus(x), clamped."""
    return F.softplus(x).clamp(SMALLEST_SCALE, LARGEST)


def inverse_softplus(scale: float) -> float:
    """The x for which softplus(x) is `scale` (> 0)."""
    return math.log(math.expm1(scale))


class Heads(nn.Module):
    """Statistics of z and s per frame: the heads of stage 1's q(z_t | x_t) and q(s | x_1:T).

    x [B, 3, 64, 64] in [0, 1] -> z loc, z scale [B, pose_dim], s loc, s scale [B, K]. A subclass is
    a trunk, whose `features` of x are [B, width].
    """

    def add_heads(self, width, pose_dim, experts):
        self.pose = nn.Linear(width, 2 * pose_dim)
        self.identity_hidden = nn.Linear(width, IDENTITY_HIDDEN)
        self.identity = nn.Linear(IDENTITY_HIDDEN, 2 * experts)

    def features(self, x):
        """The features [B, width] of frames x [B, 3, 64, 64]. Each subclass has its own."""
        raise NotImplementedError

    def forward(self, x):
        features = self.features(x)
        z_loc, z_raw = self.pose(features).chunk(2, -1)
        s_loc, s_raw = self.identity(F.leaky_relu(self.identity_hidden(features))).chunk(2, -1)
        return z_loc, positive(z_raw), s_loc, positive(s_raw)

    def start_heads(self, features):
        """Rescale the layers of s on features [B, width]: unit variance of s's loc."""
        hidden = F.leaky_relu(standardise(self.identity_hidden, features))
        rescale(self.identity, hidden, rows=self.identity.out_features // 2)


class FrameEncoder(Heads):
    """The paper's trunk: five convolutions.

    slope: of the five LeakyReLUs; 0.01 (paper) or 1.0, which makes the trunk affine (release).
    """

    compute_dtype: torch.dtype | None = None  # of the convolutions: see models/precision.py

    def __init__(self, pose_dim, experts, widths=ENCODER_WIDTHS, slope=0.01):
        super().__init__()
        self.slope = slope
        channels, paddings = zip((3, *widths), widths), (1, 1, 1, 1, 0)
        self.convs = nn.ModuleList(
            precision.Conv2d(c_in, c_out, KERNEL, padding=padding)
            for (c_in, c_out), padding in zip(channels, paddings)
        )
        self.blurs = nn.ModuleList(BlurPool(width, filt_size=4, stride=2) for width in widths[:4])
        self.add_heads(widths[4], pose_dim, experts)

    def features(self, x):
        # oneDNN convolves faster in this layout.
        features = x.contiguous(memory_format=torch.channels_last)
        for i, conv in enumerate(self.convs):
            features = conv(features.to(precision.dtype_of(self, x.dtype)))
            if self.slope != 1:
                # In place: half the memory of the widest layers.
                features = F.leaky_relu(features, self.slope, inplace=True)
            if i < 4:
                # Not in bfloat16: on a CPU, its gradient takes up to 80 times as long.
                # 64 -> 32 -> 16 -> 8 -> 4 px
                features = Blurred.apply(features.to(x.dtype), self.blurs[i])
        return features.to(x.dtype).flatten(1)  # [B, widths[4]]

    @torch.no_grad()
    def start_from(self, x):
        """Rescale the trunk and s's loc, layer by layer: unit variance on frames x [B, 3, 64, 64].

        With torch's initial weights, the trunk shrinks the differences between clips a
        thousandfold, and z takes the place of s. Source: Mishkin & Matas 2016 (LSUV).
        """
        features = x
        for i, conv in enumerate(self.convs):
            rescale(conv, features)
            layers = conv, nn.LeakyReLU(self.slope, inplace=True), *self.blurs[i : i + 1]
            features = in_blocks(nn.Sequential(*layers), features)
        self.start_heads(features.flatten(1))


class IdentityPosterior(nn.Module):
    """q(s | x_1:T), averaged over frames: frame loc, scale [N, T, K] -> s loc, scale [N, K].

    whitened: a `Whitening` of the loc takes the place of its LeakyReLU.
    """

    def __init__(self, experts, whitened=False):
        super().__init__()
        self.loc, self.scale = nn.Linear(experts, experts), nn.Linear(experts, experts)
        self.whiten = Whitening(experts, WHITE / experts) if whitened else None

    def forward(self, frame_loc, frame_scale):
        loc, scale = self.loc(frame_loc), positive(self.scale(frame_scale)).mean(1)
        if self.whiten is not None:
            return self.whiten(loc.mean(1)), scale
        return F.leaky_relu(loc).mean(1), scale

    def start_scale_at(self, scale):
        """Let every scale of s be `scale` (> 0) before training."""
        # At a high temperature, softplus(0) = 0.69 makes the mixing weights pure noise.
        start_output(self.scale, inverse_softplus(scale))

    @torch.no_grad()
    def start_loc_from(self, frame_loc, spread):
        """Let the loc of s spread by `spread` over the clips of frame_loc [N, T, K]."""
        rescale(self.loc, frame_loc.mean(1), spread=spread)
        if self.whiten is not None:
            self.whiten.start_from(self.loc(frame_loc.mean(1)))


class MixtureOfExpertsDecoder(nn.Module):
    """The logits of p(x_t | s, z_t): z [N, T, pose_dim], w [N, K] -> [N, T, 3, 64, 64].

    K banks of five transposed convolutions, whose kernels and biases are blended: each clip has a
    decoder of its own, W(n) = sum_k w_k(n) W_k, which reads concat(z_t, w) of its T frames.
    """

    # Of all layers but the first, whose input is one pixel: see models/precision.py. Kernels are
    # blended in the dtype of the banks.
    compute_dtype: torch.dtype | None = None

    def __init__(self, pose_dim, experts, widths=DECODER_WIDTHS, banks=None):
        super().__init__()
        banks = experts if banks is None else banks
        self.pose_dim, channels = pose_dim, (pose_dim + experts, *widths, 3)
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for c_in, c_out in zip(channels[:-1], channels[1:]):
            bank = torch.empty(banks, c_in, c_out, KERNEL, KERNEL)
            # What torch's Kaiming-uniform, a = sqrt(5), computes for a tensor of five dimensions.
            bound = 1 / math.sqrt(c_in * c_out * KERNEL**2)
            self.kernels.append(nn.Parameter(bank.uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(banks, c_out)))

    @torch.no_grad()
    def start_at(self, mean):
        """Let pictures start at the colour `mean` [3] in (0, 1), for instance that of the data."""
        self.biases[-1].copy_(torch.logit(mean).expand_as(self.biases[-1]))

    @torch.no_grad()
    def start_together(self):
        """Let the experts differ from one common network that keeps the variance of its input.

        With torch's start, the blended kernels of a layer shrink its input a hundredfold or more
        (deviation 1 / sqrt(24 c_out K)), so that many steps pass before pictures differ.
        """
        experts, pose_dim = len(self.kernels[0]), self.pose_dim

        def around_one(shape):
            """[K, *shape]: unit variance in every blend of equal parts."""
            common, own = torch.randn(shape), torch.randn(experts, *shape)
            return (common + APART * own) / math.sqrt(1 + APART**2 / experts)

        for kernel in self.kernels[1:]:
            # Of 16 positions, a stride of 2 lets 4 reach each pixel; LeakyReLU halves the power.
            kernel.copy_(around_one(kernel.shape[1:]) * math.sqrt(2 / (4 * kernel.shape[1])))
        self.kernels[-1].mul_(FAINT)  # so that pictures start near the mean colour
        # The poses are noise at first. A strong bias lets the experts differ without them.
        first = around_one(self.kernels[0].shape[1:]) * FAINT
        first[:, :pose_dim] /= math.sqrt(pose_dim)
        first[:, pose_dim:] *= 2
        self.kernels[0].copy_(first)
        own = torch.randn(self.biases[0].shape)
        self.biases[0].copy_(torch.randn(own.shape[1:]) + APART / 2 * own)

    def forward(self, z, w):
        dtype = precision.dtype_of(self, w.dtype)
        dtypes = w.dtype, *[dtype] * len(self.kernels[1:])
        kernels = self._blend(w, dtypes)  # [N, c_in, c_out, 4, 4]
        biases = [(w @ bank).to(dtype) for bank, dtype in zip(self.biases, dtypes)]  # [N, c_out]
        # The input is one pixel, so that its transposed convolution is a matrix product.
        x = torch.bmm(_with_weights(z, w), kernels[0].flatten(2))
        x = x.unflatten(2, (-1, KERNEL, KERNEL)) + biases[0][:, None, :, None, None]
        x, layers = x.to(dtype), list(zip(kernels[1:], biases[1:]))
        if x.is_cuda:
            return cuda.upsample(x, layers).to(w.dtype)
        # On a CPU, one convolution per clip is faster than groups.
        return ClipByClip.apply(x, *itertools.chain(*layers)).to(w.dtype)

    def _blend(self, w, dtypes):
        """The kernels of each clip, layer by layer: w [N, K] -> [N, c_in, c_out, 4, 4]."""
        # The largest bank comes last, so that it comes first in the backward pass: a heap that has
        # room for its gradient keeps it. The copies of w let the gradients add up layer by layer.
        copies, kernels = [w.view_as(w) for _ in self.kernels], {}
        for i in sorted(range(len(copies)), key=lambda i: self.kernels[i].numel()):
            kernels[i] = Blend.apply(copies[i], self.kernels[i]).to(dtypes[i])
        return [kernels[i] for i in range(len(copies))]


class SingleDecoder(MixtureOfExpertsDecoder):
    """The ablation of the supplementary, section 6: one decoder for all clips reads w as a code."""

    def __init__(self, pose_dim, experts, widths=DECODER_WIDTHS):
        super().__init__(pose_dim, experts, widths, banks=1)

    def forward(self, z, w):
        x = _with_weights(z, w).flatten(0, 1)  # [N T, pose_dim + K]
        x = (x @ self.kernels[0][0].flatten(1)).unflatten(1, (-1, KERNEL, KERNEL))
        dtype = precision.dtype_of(self, w.dtype)
        x = (x + self.biases[0][0, :, None, None]).to(dtype)
        banks = zip(self.kernels[1:], self.biases[1:])
        x = upsample(x, [(kernel[0].to(dtype), bias[0].to(dtype)) for kernel, bias in banks])
        return x.unflatten(0, z.shape[:2]).to(w.dtype)


def _with_weights(z, w):
    """Input of a decoder: z [N, T, pose_dim], w [N, K] -> [N, T, pose_dim + K]."""
    return torch.cat([z, w[:, None].expand(-1, z.shape[1], -1)], -1)


class DynamicsPosterior(nn.Module):
    """q(d | x_1:T), a bi-LSTM: pose means [N, T, pose_dim] -> d loc, d scale [N, dynamics_dim]."""

    def __init__(self, pose_dim, dynamics_dim, rnn_dim, rnn_layers, dropout=0.0):
        super().__init__()
        dropout = dropout if rnn_layers > 1 else 0.0
        self.rnn = nn.LSTM(
            pose_dim, rnn_dim, rnn_layers, batch_first=True, bidirectional=True, dropout=dropout
        )
        # One initial state for all layers and directions.
        self.h_0, self.c_0 = (nn.Parameter(torch.zeros(1, 1, rnn_dim)) for _ in range(2))
        self.code = nn.Linear(2 * rnn_layers * rnn_dim, 2 * dynamics_dim)

    def forward(self, poses):
        shape = (2 * self.rnn.num_layers, len(poses), self.rnn.hidden_size)
        start = tuple(state.expand(shape).contiguous() for state in (self.h_0, self.c_0))
        own_dropout = poses.is_cuda or distributed.sharing()
        if own_dropout and self.training and self.rnn.dropout:
            h_n = cuda.last_states(self.rnn, poses, start)
        else:
            _, (h_n, _) = self.rnn(poses, start)
        loc, raw = self.code(h_n.transpose(0, 1).flatten(1)).chunk(2, -1)
        return F.leaky_relu(loc), positive(raw)


class PoseContext(nn.Module):
    """The seq2seq decoder: d [N, dynamics_dim] -> h [N, T, rnn_dim]. It reads its last output."""

    def __init__(self, dynamics_dim, rnn_dim, rnn_layers):
        super().__init__()
        self.rnn = nn.LSTM(rnn_dim, rnn_dim, rnn_layers, batch_first=True)
        self.first = nn.Parameter(torch.zeros(rnn_dim))
        size = rnn_layers * rnn_dim
        self.to_h, self.to_c = nn.Linear(dynamics_dim, size), nn.Linear(dynamics_dim, size)

    def forward(self, d, frames):
        clips, layers = len(d), range(self.rnn.num_layers)
        shape = (clips, self.rnn.num_layers, self.rnn.hidden_size)
        h, c = (list(to(d).view(shape).unbind(1)) for to in (self.to_h, self.to_c))
        weights = [[getattr(self.rnn, f"{name}_l{k}") for name in LSTM_WEIGHTS] for k in layers]
        step, outputs = self.first.expand(clips, -1), []
        # Cell by cell: on a CPU, calling the LSTM once per frame takes 2.6 times as long.
        for _ in range(1 if self._one_call(d) else frames):
            for k in layers:
                h[k], c[k] = torch.lstm_cell(step, (h[k], c[k]), *weights[k])
                step = h[k]
            outputs.append(step)
        if frames > len(outputs):
            return torch.cat([step[:, None], self._rest(h[0], c[0], frames - 1)], 1)
        return torch.stack(outputs, 1)

    def _one_call(self, d):
        """Whether all steps after the first are computed in one call: not yet tried on a GPU."""
        return self.rnn.num_layers == 1 and not d.is_cuda

    def _rest(self, h, c, frames):
        """Outputs [N, frames, rnn_dim] of a single layer from its state h, c [N, rnn_dim].

        A single layer reads its last output twice, as its input and as its state. It is thus an
        LSTM without input whose two matrices are added.
        """
        from_input, from_state, *biases = [getattr(self.rnn, f"{n}_l0") for n in LSTM_WEIGHTS]
        nothing, unused = h.new_zeros(len(h), frames, 1), h.new_zeros(len(from_state), 1)
        weights = [unused, from_input + from_state, *biases]
        settings = True, 1, 0.0, self.training, False, True  # as torch.nn.LSTM calls it
        return torch.lstm(nothing, (h[None], c[None]), weights, *settings)[0]


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, x_1:T, d), the last factor of Eq. 2, which reads x_1:T through h_t and d.

    z_prev [..., pose_dim], u [..., rnn_dim] of `context` -> loc, scale [..., pose_dim].
    """

    def __init__(self, pose_dim, dynamics_dim, rnn_dim):
        super().__init__()
        self.from_context = nn.Linear(dynamics_dim + rnn_dim, rnn_dim)
        self.from_pose = nn.Linear(pose_dim, rnn_dim)
        self.loc, self.scale = nn.Linear(rnn_dim, pose_dim), nn.Linear(rnn_dim, pose_dim)
        self.z_0 = nn.Parameter(torch.zeros(pose_dim))

    def context(self, h, d):
        """What h and d say of all steps: h [N, T, rnn_dim], d [N, dynamics_dim] -> u like h."""
        d = d[:, None].expand(-1, h.shape[1], -1)
        return F.leaky_relu(self.from_context(torch.cat([h, d], -1)))

    def hidden(self, z_prev, u):
        """The features [..., rnn_dim] of loc and scale."""
        return (torch.tanh(self.from_pose(z_prev)) + u) / 2

    def forward(self, z_prev, u):
        hidden = self.hidden(z_prev, u)
        return self.loc(hidden), positive(self.scale(hidden))


class GatedTransition(nn.Module):
    """p(z_t | z_{t-1}, d), the last factor of Eq. 1: the gated transition of deep Markov models.

    z_prev [..., pose_dim], d [..., dynamics_dim] -> loc, scale [..., pose_dim]. start: 'identity'
    for the linear map (paper), or 'kaiming' for all weights, with zero biases (release).
    """

    def __init__(self, pose_dim, dynamics_dim, hidden, start="identity"):
        super().__init__()
        size = pose_dim + dynamics_dim
        self.gate_hidden, self.gate = nn.Linear(size, hidden), nn.Linear(hidden, pose_dim)
        self.proposal_hidden, self.proposal = nn.Linear(size, hidden), nn.Linear(hidden, pose_dim)
        self.linear, self.scale = nn.Linear(pose_dim, pose_dim), nn.Linear(pose_dim, pose_dim)
        if start == "kaiming":
            for layer in self.children():
                assert isinstance(layer, nn.Linear)
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        else:
            # nn.init.eye_ would import torch's compiler on the meta device
            nn.init.zeros_(self.linear.weight).data.fill_diagonal_(1)
            nn.init.zeros_(self.linear.bias)

    def forward(self, z_prev, d):
        x = torch.cat([z_prev, d], -1)
        gate = torch.sigmoid(self.gate(F.relu(self.gate_hidden(x))))
        proposal = self.proposal(F.relu(self.proposal_hidden(x)))
        loc = (1 - gate) * self.linear(z_prev) + gate * proposal
        # A linear map with an eigenvalue above 1 would grow without bound over the steps.
        return loc.clamp(-LARGEST, LARGEST), positive(self.scale(F.relu(proposal)))
