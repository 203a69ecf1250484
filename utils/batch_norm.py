"""Batch norms whose statistics are those of a batch that several processes share out.

Torch's SyncBatchNorm needs a GPU. This form is the same on every device and backend.
"""

from functools import partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from utils.distributed import processes, sharing, total


def over_processes(network: torch.nn.Module) -> None:
    """Let the batch norms of `network` take, in a shared training step, the whole batch's rows."""
    layers: Any = network.modules()
    for layer in layers:
        if isinstance(layer, _BatchNorm):
            layer.forward = partial(_forward, layer)


def _forward(layer, x):
    if not (sharing() and layer.training):
        return type(layer).forward(layer, x)
    return _Norm.apply(x, layer.weight, layer.bias, layer)


class _Norm(torch.autograd.Function):
    """The batch norm `layer` of x [B, C, ...] in training; updates the running statistics."""

    @staticmethod
    def forward(ctx, x, weight, bias, layer):
        count = x.numel() // x.shape[1] * processes()
        # in float32, sums over so many pixels would be the least exact part of a step
        mean = total(_sums(x)) / count
        centred = x - _like(mean, x)
        variance = total(_sums(centred.square())) / count
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean.to(x), layer.momentum)
        layer.running_var.lerp_((variance * (count / (count - 1))).to(x), layer.momentum)
        rate = (variance + layer.eps).rsqrt()
        normed = centred.mul_(_like(rate, x))
        ctx.save_for_backward(normed, weight, rate)
        ctx.count = count
        return normed * _like(weight, x) + _like(bias, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        (grad,), (normed, weight, rate) = grads, ctx.saved_tensors
        own = torch.stack([_sums(grad), _sums(grad * normed)])  # gradients of bias and weight
        shift, tilt = (total(own.clone()) / ctx.count).unbind()
        grad_x = grad - _like(shift, grad) - normed * _like(tilt, grad)
        grad_x *= _like(weight * rate, grad)
        return grad_x, own[1].to(weight), own[0].to(weight), None


def _sums(x):
    """The sum of each channel of x [B, C, ...] over this process's rows, in float64."""
    return x.sum([d for d in range(x.dim()) if d != 1], dtype=torch.float64)


def _like(channels, x):
    """One number per channel [C], to be broadcast over x [B, C, ...]."""
    return channels.to(x.dtype).view(-1, *[1] * (x.dim() - 2))
