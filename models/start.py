"""The state before training: layers rescaled on data, posterior scales, the mean colour."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

BLOCK = 128  # pictures that a layer is run on at a time
CONSTANT = 1e-6  # deviation, as a share of the terms, below which all is rounding


def in_blocks(layer: Callable, x: torch.Tensor) -> torch.Tensor:
    """layer(x) for pictures x [B, C, H, W], BLOCK at a time, so that temporary copies stay small.

    Any other x is taken at once.
    """
    if x.dim() < 4 or len(x) <= BLOCK:
        return layer(x)
    y = torch.empty(0)
    for start in range(0, len(x), BLOCK):
        part = layer(x[start : start + BLOCK])
        if start == 0:
            last = part.dim() == 4 and not part.is_contiguous()
            layout = torch.channels_last if last else torch.contiguous_format
            y = torch.empty(len(x), *part.shape[1:], device=x.device, memory_format=layout)
        y[start : start + len(part)] = part
    return y


def deviation(y: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each channel of y [B, C, ...], summed in float64: [C].

    In float32 on Apple's GPU, which has no float64.
    """
    # y.std over several dimensions sums in float64 too, and takes three times as long.
    dims = [d for d in range(y.dim()) if d != 1]
    dtype = torch.float32 if y.device.type == "mps" else torch.float64
    total = squares = y.new_zeros(y.shape[1], dtype=dtype)
    for part in y.split(16):
        exact = part.to(dtype)
        total, squares = total + exact.sum(dims), squares + (exact * exact).sum(dims)
    count = y.numel() // y.shape[1]
    return ((squares - total * total / count) / max(count - 1, 1)).clamp_min(0).sqrt().to(y)


def rescale(layer: Any, x: torch.Tensor, rows: int | None = None, spread: float = 1.0) -> None:
    """Rescale a layer so that its outputs over x have zero mean and deviation `spread`.

    layer: linear or a convolution. rows: how many outputs, from the first. Default: all. An output
    that is constant over x keeps its weights.
    """
    y = in_blocks(layer, x)[:, :rows]
    mean, varies = y.mean([d for d in range(y.dim()) if d != 1]), deviation(y)
    # The kernels of a transposed convolution have their inputs first.
    transposed = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.transpose(0, 1) if transposed else layer.weight
    # What the terms of an output add up to if none cancels another.
    largest = weight[:rows].abs().flatten(1).sum(1) * x.abs().mean()
    gain = torch.where(varies > CONSTANT * largest, spread / varies, 1)
    weight[:rows] *= gain.view(-1, *[1] * (weight.dim() - 1))
    layer.bias[:rows] = -(mean - layer.bias[:rows]) * gain


def standardise(
    layer: Any, x: torch.Tensor, rows: int | None = None, spread: float = 1.0
) -> torch.Tensor:
    """`rescale` a layer and return its new outputs over x."""
    rescale(layer, x, rows, spread)
    return in_blocks(layer, x)


@torch.no_grad()
def start_output(layer: nn.Linear, value: float, first_row: int = 0) -> None:
    """Let the outputs of a linear layer, from `first_row` on, be `value` for every input."""
    layer.weight[first_row:] = 0
    layer.bias[first_row:] = value


def log_variance(scale: float) -> float:
    """The logarithm of the variance whose square root is `scale`."""
    return 2 * math.log(scale)


def mean_colour(clips) -> torch.Tensor:
    """The mean colour [3], within (0, 1), of some frames of clips (a data.base.Clips)."""
    rows = np.unique(np.linspace(0, len(clips) - 1, 256).astype(int))
    frames = clips.take(rows, 0, min(clips.num_frames, 16))
    # Integers are summed exactly, and rows of pixels ten times as fast as single pixels.
    total = frames.reshape(-1, frames.shape[-2] * 3).sum(0, np.int64).reshape(-1, 3).sum(0)
    mean = total / (frames.size // 3) / 255
    return torch.from_numpy(mean).float().clamp(1e-3, 1 - 1e-3)
