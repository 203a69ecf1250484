"""Convolutions that compute what torch's do, with kernels that are faster on a CPU.

Measured with torch 2.11 (oneDNN 3.10), float32 and channels_last; docs/SPEED.md has the figures:

- The gradient of the bias of a transposed convolution takes longer than the rest of its backward
  pass. `_Convolution` sums the gradient of the output instead.
- A convolution to 3 channels takes as long as one to 8. `ToColours` computes four pixels at once.
"""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from models import precision


def to_blocks(x, weight, bias, stride, padding):
    """A transposed convolution as a convolution whose outputs are blocks of 2 x 2 pixels.

    stride: 1 or 2. The output must have exactly `stride` times the side of x.
    """
    c_out, taps = weight.shape[1], weight.shape[2] // stride
    flipped = weight.transpose(0, 1).flip(2, 3)
    kernels = weight.new_zeros(2, 2, c_out, len(weight), taps + 1, taps + 1)
    for row, column in product(range(2), range(2)):
        part = flipped[:, :, row % stride :: stride, column % stride :: stride]
        kernels[row, column, :, :, row : row + taps, column : column + taps] = part
    kernels = kernels.flatten(0, 2).contiguous(memory_format=torch.channels_last)
    blocks = F.conv2d(x, kernels, bias.repeat(4), 2 // stride, padding)
    blocks = blocks.permute(0, 2, 3, 1).unflatten(3, (2, 2, c_out))  # [B, H/2, W/2, 2, 2, c_out]
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """A convolution, transposed or not, whose bias gets its gradient from a sum."""

    @staticmethod
    def forward(ctx: Any, x, weight, bias, in_blocks, *shape):
        """shape: stride, padding, dilation, whether it is transposed, output padding, groups."""
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        if in_blocks:
            return to_blocks(x, weight, bias, shape[0][0], shape[1])
        return torch.convolution(x, weight, bias, *shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient):
        x, weight = ctx.saved_tensors
        needed = *ctx.needs_input_grad[:2], False
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, *ctx.shape, needed
        )
        return of_x, of_weight, gradient.sum((0, 2, 3)), None, *[None] * len(ctx.shape)


class Conv2d(precision.Conv2d):
    """nn.Conv2d with zeros as padding: [B, c_in, H, W] -> [B, c_out, H', W']."""

    def forward(self, input):
        if precision.dtype_of(self, input.dtype) != input.dtype:
            return super().forward(input)
        shape = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        return _Convolution.apply(input, self.weight, self.bias, False, *shape)


class ConvTranspose2d(precision.ConvTranspose2d):
    """nn.ConvTranspose2d: [B, c_in, H, W] -> [B, c_out, H', W']."""

    in_blocks = False

    def forward(self, input, output_size=None):
        if precision.dtype_of(self, input.dtype) != input.dtype:
            return super().forward(input)
        shape = self.stride, self.padding, self.dilation, True, self.output_padding, self.groups
        in_blocks = self.in_blocks and input.is_cpu
        return _Convolution.apply(input, self.weight, self.bias, in_blocks, *shape)


class ToColours(ConvTranspose2d):
    """A ConvTranspose2d to 3 channels, whose output has `stride` (1 or 2) times the side of x."""

    in_blocks = True
