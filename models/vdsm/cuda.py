"""Forms of two layers for a CUDA GPU. They compute what models/vdsm/networks.py does on a CPU."""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from utils import distributed

# cuDNN copies the weights of a layer that `last_states` calls alone, which takes microseconds.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous")

LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def grouped(x, kernel, bias):
    """Transposed convolution of each clip with a kernel of its own, stride 2, padding 1.

    x [N, T, c_in, H, W], kernel [N, c_in, c_out, 4, 4], bias [N, c_out] -> [N, T, c_out, 2H, 2W].
    The clips are the groups of one convolution. The result lies in memory as [T, N, ...].
    """
    clips = len(x)
    x = x.transpose(0, 1).flatten(1, 2)
    x = F.conv_transpose2d(
        x, kernel.flatten(0, 1), bias.flatten(), stride=2, padding=1, groups=clips
    )
    return x.unflatten(1, (clips, -1)).transpose(0, 1)


def products(x, kernel, bias):
    """The same as `grouped` by one matrix product per clip, for all 16 taps of the kernel at once.

    The taps of neighbouring pixels are then added, rows first. The result lies in memory with its
    channels last.
    """
    clips, frames, c_in, height, width = x.shape
    pixels = x.movedim(2, -1).reshape(clips, -1, c_in)
    taps = torch.bmm(pixels, kernel.flatten(2))
    taps = taps.view(clips * frames, height, width, -1, 4, 4)  # [N T, H, W, c_out, row, column]
    rows = _interleave(taps, 1, 4)  # [N T, 2H, W, c_out, column]
    x = _interleave(rows, 2, 4)  # [N T, 2H, 2W, c_out]
    return x.unflatten(0, (clips, frames)).movedim(-1, 2) + bias[:, None, :, None, None]


def _interleave(taps, dim, axis):
    """Lines of twice the number along `dim`, from the four taps that each line gives along `axis`.

    Line i writes to the lines 2i - 1, 2i, 2i + 1 and 2i + 2.
    """
    before, even, odd, after = taps.unbind(axis)
    lines = taps.shape[dim]
    even = even + _shifted(after, dim, 1, lines)
    odd = odd + _shifted(before, dim, -1, lines)
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1)


def _shifted(x, dim, by, lines):
    """x with its lines moved by one along `dim` (by: 1 or -1), and zeros where none comes from."""
    zeros = torch.zeros_like(x.narrow(dim, 0, 1))
    if by == 1:
        return torch.cat([zeros, x.narrow(dim, 0, lines - 1)], dim)
    return torch.cat([x.narrow(dim, 1, lines - 1), zeros], dim)


FORMS = {"grouped": grouped, "products": products}
# The form of each layer after the first. `python -m benchmarks.cuda` prints which one is faster.
LAYERS = ("grouped", "grouped", "grouped", "grouped")


def upsample(x, layers):
    """All layers of the decoder after the first: x [N, T, c, 4, 4] -> logits [N, T, 3, 64, 64].

    layers: blended kernel [N, c_in, c_out, 4, 4] and bias [N, c_out] of each. A LeakyReLU comes
    before each layer.
    """
    for form, (kernel, bias) in zip(LAYERS, layers, strict=True):
        x = FORMS[form](F.leaky_relu(x), kernel, bias)
    return x


def dropout(x, rnn):
    """The dropout between two layers of `rnn`: x [T, N, c]."""
    if not distributed.sharing():
        return F.dropout(x, rnn.dropout, rnn.training)
    time, clips, channels = x.shape

    def mask(clips):
        return F.dropout(x.new_ones(time, clips, channels), rnn.dropout, rnn.training)

    return x * distributed.rows(mask, clips, 1)


def last_states(rnn: nn.LSTM, x, start):
    """h_n [2 layers, N, hidden] of a bidirectional `rnn`, layer by layer, with dropout between.

    x [N, T, c]; start: h_0, c_0 [2 layers, N, hidden]. cuDNN would draw the dropout from a
    generator of its own, which no checkpoint holds and which moves between two steps of a graph.
    """
    x, states = x.transpose(0, 1), []
    for layer in range(rnn.num_layers):
        names = [f"{name}_l{layer}{way}" for way in ("", "_reverse") for name in LSTM_WEIGHTS]
        weights = [getattr(rnn, name) for name in names]
        h, c = (state[2 * layer : 2 * layer + 2] for state in start)
        if layer:
            x = dropout(x, rnn)
        x, h, _ = torch.lstm(x, (h, c), weights, True, 1, 0.0, rnn.training, True, False)
        states.append(h)
    return torch.cat(states)
