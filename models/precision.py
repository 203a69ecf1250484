"""Layers and networks that compute in bfloat16, over weights in float32 (--precision bf16).

Bfloat16 keeps 8 bits of the mantissa. The layers below round their input and their weights to it
and sum in float32. Weights, gradients of weights, everything between the layers and all that is
not one of them stay in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class _Rounding:
    """A layer that computes in `compute_dtype`, or in the dtype of its weights if it is None.

    The output has the dtype of the input.
    """

    compute_dtype: torch.dtype | None = None

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.compute_dtype is None:
            return super().forward(x)
        weight, bias = self.weight.to(self.compute_dtype), self.bias.to(self.compute_dtype)
        return self.product(x.to(self.compute_dtype), weight, bias).to(x.dtype)


class Conv2d(_Rounding, nn.Conv2d):
    def product(self, x, weight, bias):
        return F.conv2d(x, weight, bias, self.stride, self.padding)


class ConvTranspose2d(_Rounding, nn.ConvTranspose2d):
    def product(self, x, weight, bias):
        strides = self.stride, self.padding, self.output_padding
        return F.conv_transpose2d(x, weight, bias, *strides)


class Linear(_Rounding, nn.Linear):
    def product(self, x, weight, bias):
        return F.linear(x, weight, bias)


def compute_in(network: nn.Module, precision: str) -> None:
    """Let the parts of a network that have a `compute_dtype` compute as --precision says.

    TF32 is a setting of the GPU and changes no tensor's dtype.
    """
    for part in network.modules():
        if hasattr(part, "compute_dtype"):
            part.compute_dtype = torch.bfloat16 if precision == "bf16" else None
