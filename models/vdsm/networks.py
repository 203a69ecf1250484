"""VDSM's networks: the densities of Equations 1 and 2, one class each, in the paper's letters.

Shapes: N clips of T frames, K experts (the paper's kappa_s), pose z [N, T, pose_dim], dynamics d [N, dynamics_dim],
identity s [N, K], mixing weights w [N, K] on the simplex. Every second parameter of a Normal is a standard deviation.

Differences from the paper's text that both fidelities share: five encoder convolutions of stride 1 with BlurPool after the
first four (the only reading under which the text's own sizes work out), and a sigmoid instead of a last LeakyReLU.
"""

import math

import torch
import torch.nn.functional as F
from antialiased_cnns import BlurPool
from torch import nn

from models.start import standardise

ENCODER_WIDTHS = (32, 32, 64, 64, 256)  # supplementary, section 3, as released
DECODER_WIDTHS = (512, 256, 128, 64)  # released; the text gives strides and paddings only
IDENTITY_HIDDEN = 128  # supplementary, section 3
KERNEL = 4
LSTM_WEIGHTS = (
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
)  # of a layer, in the order that torch.lstm_cell takes them
SMALLEST_SCALE = 1e-6  # a softplus that underflows to 0 would make every log-density infinite
LARGEST = 1e6  # of a scale, and of a pose that the transition foretells: its square, and the square's gradient, are finite


def positive(x):
    """softplus(x), kept off zero and off infinity: a standard deviation."""
    return F.softplus(x).clamp(SMALLEST_SCALE, LARGEST)


@torch.no_grad()
def start_scale_at(layer, value, rows=slice(None)):
    """Have the outputs `rows` of a linear layer, which `positive` makes scales, say `value` (> 0) whatever comes in."""
    layer.weight[rows] = 0
    layer.bias[rows] = math.log(math.expm1(value))


class FrameEncoder(nn.Module):
    """The trunk of q(z_t | x_t) and q(s | x_1:T): x [B, 3, 64, 64] in [0, 1] -> z loc, z scale, each [B, pose_dim], and the
    per-frame s loc, s scale, each [B, K], which `IdentityPosterior` pools over the clip.

    slope is that of the five LeakyReLUs: 0.01 (paper) or 1.0, an affine trunk (release).
    """

    def __init__(self, pose_dim, experts, widths=ENCODER_WIDTHS, slope=0.01):
        super().__init__()
        self.slope = slope
        channels = (3, *widths)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], KERNEL, padding=1 if i < 4 else 0)
            for i in range(5)
        )
        self.blurs = nn.ModuleList(BlurPool(width, filt_size=4, stride=2) for width in widths[:4])
        self.pose = nn.Linear(widths[4], 2 * pose_dim)
        self.identity_hidden = nn.Linear(widths[4], IDENTITY_HIDDEN)
        self.identity = nn.Linear(IDENTITY_HIDDEN, 2 * experts)

    def forward(self, x):
        features = x.contiguous(memory_format=torch.channels_last)  # oneDNN's faster layout
        for i, conv in enumerate(self.convs):
            features = conv(features)
            if self.slope != 1:
                features = F.leaky_relu(
                    features, self.slope, inplace=True
                )  # half the memory of the widest layers
            if i < 4:
                features = self.blurs[i](features)  # 64 -> 32 -> 16 -> 8 -> 4 px
        features = features.flatten(1)  # [B, widths[4]]
        z_loc, z_raw = self.pose(features).chunk(2, -1)
        s_loc, s_raw = self.identity(F.leaky_relu(self.identity_hidden(features))).chunk(2, -1)
        return z_loc, positive(z_raw), s_loc, positive(s_raw)

    @torch.no_grad()
    def start_from(self, x):
        """Give every channel of the trunk and of s's path zero mean and unit variance on frames x [B, 3, 64, 64], layer by layer.

        After Mishkin & Matas 2016 ('All you need is a good init'). With torch's init the trunk shrinks what differs between
        clips a thousandfold, and identity sleeps until pose has taken its place.
        """
        features = x
        for i, conv in enumerate(self.convs):
            features = F.leaky_relu(standardise(conv, features), self.slope)
            if i < 4:
                features = self.blurs[i](features)
        hidden = F.leaky_relu(standardise(self.identity_hidden, features.flatten(1)))
        standardise(self.identity, hidden, rows=self.identity.out_features // 2)


class IdentityPosterior(nn.Module):
    """q(s | x_1:T): per-frame statistics loc, scale, each [N, T, K] -> loc, scale, each [N, K], averaged over the frames."""

    def __init__(self, experts):
        super().__init__()
        self.loc = nn.Linear(experts, experts)
        self.scale = nn.Linear(experts, experts)

    def forward(self, frame_loc, frame_scale):
        loc = F.leaky_relu(self.loc(frame_loc))
        return loc.mean(1), positive(self.scale(frame_scale)).mean(1)

    def start_scale_at(self, value):
        """Make every posterior scale `value` (> 0) before training: at a high temperature softplus(0) = 0.69 is pure noise."""
        start_scale_at(self.scale, value)

    @torch.no_grad()
    def start_loc_from(self, frame_loc, spread):
        """Spread the loc over the clips of frame_loc [N, T, K] by `spread` in every dimension, before training."""
        standardise(self.loc, frame_loc.mean(1), spread=spread)


class MixtureOfExpertsDecoder(nn.Module):
    """p(x_t | z_t, s) before the sigmoid: z [N, T, pose_dim], w [N, K] -> logits [N, T, 3, 64, 64].

    K banks of five transposed convolutions. Kernels and biases are blended, W(n) = sum_k w_k(n) W_k, so that each clip has
    one decoder of its own, used for its T frames on concat(z_t, w).
    """

    def __init__(self, pose_dim, experts, widths=DECODER_WIDTHS, banks=None):
        super().__init__()
        banks = experts if banks is None else banks
        channels = (pose_dim + experts, *widths, 3)
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for c_in, c_out in zip(channels[:-1], channels[1:]):
            bank = torch.empty(banks, c_in, c_out, KERNEL, KERNEL)
            bound = 1 / math.sqrt(
                c_in * c_out * KERNEL**2
            )  # torch's Kaiming-uniform, a = sqrt(5), of a 5-D tensor
            self.kernels.append(nn.Parameter(bank.uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.zeros(banks, c_out)))

    def start_at(self, mean):
        """Start every picture at `mean` [3] in (0, 1), the data's mean colour, instead of grey."""
        with torch.no_grad():
            self.biases[-1].copy_(torch.logit(mean).expand_as(self.biases[-1]))

    def forward(self, z, w):
        clips, frames = z.shape[:2]
        kernels = [Blend.apply(w, bank) for bank in self.kernels]  # [N, c_in, c_out, 4, 4]
        biases = [w @ bank for bank in self.biases]  # [N, c_out]
        x = _with_weights(z, w)
        x = torch.bmm(x, kernels[0].flatten(2)).unflatten(
            2, (-1, KERNEL, KERNEL)
        )  # a 1x1 input: its convolution is a product
        x = x + biases[0][:, None, :, None, None]  # [N, T, c_out, 4, 4]
        layers = list(zip(kernels[1:], biases[1:]))
        if x.is_cuda:  # one launch a layer: the clips as groups
            x = x.transpose(0, 1).flatten(1, 2)  # [T, N c_out, 4, 4]
            for kernel, bias in layers:
                x = _upsample(x, kernel.flatten(0, 1), bias.flatten(), groups=clips)
            return x.unflatten(1, (clips, 3)).transpose(0, 1)
        layers = [(kernel.unbind(), bias.unbind()) for kernel, bias in layers]
        pictures = []
        for n, own in enumerate(x.unbind()):  # oneDNN is faster clip by clip than over groups
            for kernel, bias in layers:
                own = _upsample(own, kernel[n], bias[n])
            pictures.append(own)
        return torch.stack(pictures)


class SingleDecoder(MixtureOfExpertsDecoder):
    """The ablation of the supplementary's section 6: w is a code like any other, read by one decoder that all clips share.

    Shapes as `MixtureOfExpertsDecoder`; its banks hold one expert.
    """

    def __init__(self, pose_dim, experts, widths=DECODER_WIDTHS):
        super().__init__(pose_dim, experts, widths, banks=1)

    def forward(self, z, w):
        x = _with_weights(z, w).flatten(0, 1)  # [N T, pose_dim + K]
        x = (x @ self.kernels[0][0].flatten(1)).unflatten(1, (-1, KERNEL, KERNEL)) + self.biases[0][
            0, :, None, None
        ]
        for kernel, bias in zip(self.kernels[1:], self.biases[1:]):
            x = _upsample(x, kernel[0], bias[0])
        return x.unflatten(0, z.shape[:2])


def _with_weights(z, w):
    """What a decoder reads of each frame: z [N, T, pose_dim], w [N, K] -> [N, T, pose_dim + K]."""
    return torch.cat([z, w[:, None].expand(-1, z.shape[1], -1)], -1)


def _upsample(x, kernel, bias, groups=1):
    """LeakyReLU, then a transposed convolution that doubles the picture's side."""
    return F.conv_transpose2d(F.leaky_relu(x), kernel, bias, stride=2, padding=1, groups=groups)


class Blend(torch.autograd.Function):
    """W(n) = sum_k w_k(n) W_k: w [N, K], bank [K, c_in, ...] -> [N, c_in, ...].

    One small product an input channel instead of one of [N, K] by [K, millions], which MKL does at a third of the speed and less; the
    results, the bank's gradient among them, are written where they belong, without a copy.
    """

    @staticmethod
    def forward(ctx, w, bank):
        ctx.save_for_backward(w, bank)
        blended = bank.new_empty(len(w), *bank.shape[1:])
        _by_rows(w, bank, blended)
        return blended

    @staticmethod
    def backward(ctx, grad):
        w, bank = ctx.saved_tensors
        grad_w = grad_bank = None
        if ctx.needs_input_grad[0]:
            rows, columns = grad.flatten(2).transpose(0, 1), bank.flatten(2).permute(1, 2, 0)
            grad_w = torch.bmm(rows, columns).sum(0)
        if ctx.needs_input_grad[1]:
            grad_bank = bank.new_empty(bank.shape)
            _by_rows(w.t(), grad, grad_bank)
        return grad_w, grad_bank


def _by_rows(mix, parts, out):
    """out[i] = sum_j mix[i, j] parts[j], for parts [J, c_in, ...] and out [I, c_in, ...]."""
    rows = parts.shape[1]
    torch.bmm(
        mix.expand(rows, -1, -1),
        parts.flatten(2).transpose(0, 1),
        out=out.flatten(2).transpose(0, 1),
    )


class DynamicsPosterior(nn.Module):
    """q(d | x_1:T): pose means [N, T, pose_dim] -> d loc, d scale, each [N, dynamics_dim], through a bi-LSTM."""

    def __init__(self, pose_dim, dynamics_dim, rnn_dim, rnn_layers, dropout=0.0):
        super().__init__()
        dropout = dropout if rnn_layers > 1 else 0.0
        self.rnn = nn.LSTM(
            pose_dim, rnn_dim, rnn_layers, batch_first=True, bidirectional=True, dropout=dropout
        )
        self.h_0 = nn.Parameter(torch.zeros(1, 1, rnn_dim))  # shared by all layers and directions
        self.c_0 = nn.Parameter(torch.zeros(1, 1, rnn_dim))
        self.code = nn.Linear(2 * rnn_layers * rnn_dim, 2 * dynamics_dim)

    def forward(self, poses):
        clips = len(poses)
        start = (2 * self.rnn.num_layers, clips, self.rnn.hidden_size)
        _, (h_n, _) = self.rnn(
            poses, (self.h_0.expand(start).contiguous(), self.c_0.expand(start).contiguous())
        )
        loc, raw = self.code(h_n.transpose(0, 1).reshape(clips, -1)).chunk(2, -1)
        return F.leaky_relu(loc), positive(raw)


class PoseContext(nn.Module):
    """The seq2seq decoder: d [N, dynamics_dim] -> h [N, T, rnn_dim] for any T, an LSTM that feeds on its own output."""

    def __init__(self, dynamics_dim, rnn_dim, rnn_layers):
        super().__init__()
        self.rnn = nn.LSTM(rnn_dim, rnn_dim, rnn_layers, batch_first=True)
        self.first = nn.Parameter(torch.zeros(rnn_dim))
        self.to_h = nn.Linear(dynamics_dim, rnn_layers * rnn_dim)
        self.to_c = nn.Linear(dynamics_dim, rnn_layers * rnn_dim)

    def forward(self, d, frames):
        layers, shape = (
            range(self.rnn.num_layers),
            (len(d), self.rnn.num_layers, self.rnn.hidden_size),
        )
        h, c = (list(to(d).view(shape).unbind(1)) for to in (self.to_h, self.to_c))
        weights = [[getattr(self.rnn, f"{name}_l{k}") for name in LSTM_WEIGHTS] for k in layers]
        step, outputs = self.first.expand(len(d), -1), []
        for _ in range(
            frames
        ):  # cell by cell: calling the LSTM for one step at a time takes 2.6 times as long on a CPU
            for k in layers:
                h[k], c[k] = torch.lstm_cell(step, (h[k], c[k]), *weights[k])
                step = h[k]
            outputs.append(step)
        return torch.stack(outputs, 1)


class Combiner(nn.Module):
    """q(z_t | z_{t-1}, h_t, d): the pose's posterior at one step (last factor of Eq. 2).

    z_prev [..., pose_dim] and the context u of `context(h, d)` [..., rnn_dim] -> loc, scale, each [..., pose_dim].
    """

    def __init__(self, pose_dim, dynamics_dim, rnn_dim):
        super().__init__()
        self.from_context = nn.Linear(dynamics_dim + rnn_dim, rnn_dim)
        self.from_pose = nn.Linear(pose_dim, rnn_dim)
        self.loc = nn.Linear(rnn_dim, pose_dim)
        self.scale = nn.Linear(rnn_dim, pose_dim)
        self.z_0 = nn.Parameter(torch.zeros(pose_dim))

    def context(self, h, d):
        """h [N, T, rnn_dim], d [N, dynamics_dim] -> u [N, T, rnn_dim], for all steps at once: it never sees z."""
        d = d[:, None].expand(-1, h.shape[1], -1)
        return F.leaky_relu(self.from_context(torch.cat([h, d], -1)))

    def forward(self, z_prev, u):
        state = (torch.tanh(self.from_pose(z_prev)) + u) / 2
        return self.loc(state), positive(self.scale(state))


class GatedTransition(nn.Module):
    """p(z_t | z_{t-1}, d), after the gated transition of deep Markov models (last factor of Eq. 1).

    z_prev [..., pose_dim], d [..., dynamics_dim] -> loc, scale, each [..., pose_dim]. start is 'identity' (paper: the linear
    map starts at the identity) or 'kaiming' (release: every weight Kaiming-normal, every bias zero).
    """

    def __init__(self, pose_dim, dynamics_dim, hidden, start="identity"):
        super().__init__()
        self.gate_hidden = nn.Linear(pose_dim + dynamics_dim, hidden)
        self.gate = nn.Linear(hidden, pose_dim)
        self.proposal_hidden = nn.Linear(pose_dim + dynamics_dim, hidden)
        self.proposal = nn.Linear(hidden, pose_dim)
        self.linear = nn.Linear(pose_dim, pose_dim)
        self.scale = nn.Linear(pose_dim, pose_dim)
        if start == "kaiming":
            for layer in self.children():
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        else:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, z_prev, d):
        x = torch.cat([z_prev, d], -1)
        gate = torch.sigmoid(self.gate(F.relu(self.gate_hidden(x))))
        proposal = self.proposal(F.relu(self.proposal_hidden(x)))
        loc = (1 - gate) * self.linear(z_prev) + gate * proposal
        loc = loc.clamp(
            -LARGEST, LARGEST
        )  # a linear map that stretches would grow without end, step by step
        return loc, positive(self.scale(F.relu(proposal)))
