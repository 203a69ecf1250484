"""One clip of a user, from a file, a folder of pictures or an array, as the data sets hold clips.

Frames of another size are cropped to their centre square and resized to 64x64, as data/videos.py
does with a folder of videos.
"""

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from data import arrays
from data.base import IMAGE_SIZE
from data.decoders import ANIMATIONS, LARGEST, VIDEOS, BadFile, decode, fit, parts
from utils.errors import UserError

ARRAY = ".npy"
EXPECTED = f"a video, a GIF, a folder of pictures or a {ARRAY} file"
SHAPE = "uint8 [T, H, W, 3], or floats of this shape from 0 to 1"


def refuse_unreadable(path: Path | str) -> None:
    """Raise UserError, without reading it, if `path` cannot be a clip."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"found no {path}: give {EXPECTED}")
    kind = path.suffix.lower()
    if path.is_dir():
        if not parts(path):
            raise UserError(f"{path} holds no pictures: give {EXPECTED}")
    elif kind not in VIDEOS | ANIMATIONS | {ARRAY}:
        raise UserError(f"{path} is no clip: give {EXPECTED}")


def read(source: Any, length: int | None = None, step: int = 1) -> np.ndarray:
    """The first `length` frames (default: all) of a clip: uint8 or float32 [T, 64, 64, 3].

    source: a path, of which every `step`-th frame is read, or an array. A clip may have fewer
    frames. Raises UserError for what is no clip, is damaged or is too large.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _fitted(np.asarray(source), length, "the clip")
    refuse_unreadable(source)
    path = Path(source)
    if path.suffix.lower() == ARRAY and path.is_file():
        frames = arrays.mapped(path)
        return _fitted(frames[::step] if frames.ndim else frames, length, str(path))
    try:
        frames = list(islice(decode(path, step), length))
    except BadFile as error:
        raise UserError(f"{path} cannot be read ({error}): give {EXPECTED}") from None
    if not frames:
        raise UserError(f"{path} has no frame in it: give {EXPECTED}")
    return np.stack(frames)


def _fitted(frames, length, name):
    """The first frames of an array, cropped and resized. name: of the clip, for messages."""
    found = f"{name} is {frames.dtype} {[*frames.shape]}"
    if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise UserError(f"{found}, expected {SHAPE}")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise UserError(f"{found}, expected {SHAPE}")
    if frames.shape[1] * frames.shape[2] > LARGEST:
        raise UserError(f"{found}, expected pictures of at most {LARGEST:,} pixels")
    frames = frames[:length]
    if frames.dtype != np.uint8:
        frames = frames.astype(np.float32)
        if not (frames.min() >= 0 and frames.max() <= 1):
            raise UserError(
                f"{name} has values from {frames.min()} to {frames.max()}: give {SHAPE}"
            )
    if frames.shape[1:3] == (IMAGE_SIZE, IMAGE_SIZE):
        return np.array(frames)
    if frames.dtype != np.uint8:
        frames = (frames * 255).round().astype(np.uint8)
    return np.stack([fit(frame) for frame in frames])
