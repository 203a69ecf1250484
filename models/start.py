"""The state before training: layers rescaled on data, posterior scales, the mean colour."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn


def standardise(
    layer: Any, x: torch.Tensor, rows: int | None = None, spread: float = 1.0
) -> torch.Tensor:
    """Rescale a layer so that its outputs over x have zero mean and deviation `spread`.

    layer: linear or a convolution. rows: how many outputs, from the first. Default: all. Returns
    the layer's new output.
    """
    y = layer(x)[:, :rows]
    dims = [d for d in range(y.dim()) if d != 1]
    gain = spread / y.std(dims).clamp_min(1e-12)
    # The kernels of a transposed convolution have their inputs first.
    transposed = isinstance(layer, nn.ConvTranspose2d)
    weight = layer.weight.transpose(0, 1) if transposed else layer.weight
    weight[:rows] *= gain.view(-1, *[1] * (weight.dim() - 1))
    layer.bias[:rows] = -(y.mean(dims) - layer.bias[:rows]) * gain
    return layer(x)


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
    return torch.from_numpy(frames.mean((0, 1, 2, 3)) / 255).float().clamp(1e-3, 1 - 1e-3)
