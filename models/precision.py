"""Layers and networks that compute in bfloat16, over weights in float32 (--precision bf16).

Bfloat16 keeps 8 bits of the mantissa. The layers below round their input and their weights to it
and sum in float32, in training steps alone (`dtype_of`). Weights, gradients of weights, everything
between the layers and all that is not one of them stay in float32.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def dtype_of(part: Any, otherwise: torch.dtype) -> torch.dtype:
    """The dtype that a part of a network computes in: its `compute_dtype`, or `otherwise`.

    Without gradients it is always `otherwise`: the codes that stage 2 of VDSM learns from, pictures
    and figures are computed once and gain more from exact numbers than from speed.
    """
    return (part.compute_dtype if torch.is_grad_enabled() else None) or otherwise


def in_precision(layer: Any, function: Callable, x: torch.Tensor, *shape: Any) -> torch.Tensor:
    """function(x, weight, bias, *shape) of a layer, computed in its `compute_dtype`.

    The output has the dtype of x.
    """
    dtype = dtype_of(layer, layer.weight.dtype)
    bias = layer.bias if layer.bias is None else layer.bias.to(dtype)
    operands = x.to(dtype), layer.weight.to(dtype), bias
    return function(*operands, *shape).to(x.dtype)


class Conv2d(nn.Conv2d):
    compute_dtype: torch.dtype | None = None  # None: the dtype of the weights

    def forward(self, input):
        shape = self.stride, self.padding, self.dilation, self.groups
        return in_precision(self, F.conv2d, input, *shape)


class ConvTranspose2d(nn.ConvTranspose2d):
    compute_dtype: torch.dtype | None = None

    def forward(self, input, output_size=None):
        assert output_size is None
        shape = self.stride, self.padding, self.output_padding
        return in_precision(self, F.conv_transpose2d, input, *shape)


class Linear(nn.Linear):
    compute_dtype: torch.dtype | None = None

    def forward(self, input):
        return in_precision(self, F.linear, input)


def compute_in(network: nn.Module, precision: str) -> None:
    """Let the parts of a network that have a `compute_dtype` compute as --precision says.

    TF32 is a setting of the GPU and changes no tensor's dtype.
    """
    parts: Any = network.modules()
    for part in parts:
        if hasattr(part, "compute_dtype"):
            part.compute_dtype = torch.bfloat16 if precision == "bf16" else None
