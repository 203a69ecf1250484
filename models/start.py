"""Where training starts: layers rescaled on data, posterior scales, the mean colour."""

import numpy as np
import torch
from torch import nn


def standardise(layer, x, rows=None, spread=1.0):
    """Rescale the first `rows` outputs of a linear layer or a convolution, transposed or not (default: all), to zero mean and
    deviation `spread` over x; returns the layer's output."""
    y = layer(x)[:, :rows]
    dims = [d for d in range(y.dim()) if d != 1]
    gain = spread / y.std(dims).clamp_min(1e-12)
    weight = (
        layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
    )  # outputs first
    weight[:rows] *= gain.view(-1, *[1] * (weight.dim() - 1))
    layer.bias[:rows] = -(y.mean(dims) - layer.bias[:rows]) * gain
    return layer(x)


def mean_colour(clips):
    """The mean colour [3] of some frames of the clips (a data.base.Clips), within (0, 1)."""
    some = np.unique(np.linspace(0, len(clips) - 1, 256).astype(int))
    frames = clips.take(some, 0, min(clips.num_frames, 16))
    return torch.from_numpy(frames.mean((0, 1, 2, 3)) / 255).float().clamp(1e-3, 1 - 1e-3)
