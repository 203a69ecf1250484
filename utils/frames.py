"""Frames between arrays and tensors: uint8 [..., H, W, 3] and float [..., 3, H, W] in [0, 1]."""

import torch


def as_float(frames):
    """uint8 [..., 64, 64, 3] -> float [..., 3, 64, 64] in [0, 1]."""
    return frames.movedim(-1, -3).float().div_(255)


def as_uint8(frames):
    """float tensor [..., 3, 64, 64] in [0, 1] -> uint8 array [..., 64, 64, 3]."""
    return (frames.movedim(-3, -1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
