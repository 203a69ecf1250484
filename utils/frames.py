"""Frames as arrays, uint8 [..., H, W, 3], and as tensors, float [..., 3, H, W] in [0, 1]."""

import numpy as np
import torch


def as_float(frames: torch.Tensor) -> torch.Tensor:
    """uint8 [..., 64, 64, 3] -> float [..., 3, 64, 64] in [0, 1]."""
    return frames.movedim(-1, -3).float().div_(255)


def as_uint8(frames: torch.Tensor) -> np.ndarray:
    """float [..., 3, 64, 64] in [0, 1] -> uint8 array [..., 64, 64, 3]."""
    rounded = frames.mul(255).round_().clamp_(0, 255).cpu().numpy()
    # NumPy converts floats to integers several times as fast as torch.
    return np.moveaxis(rounded.astype(np.uint8), -3, -1)
