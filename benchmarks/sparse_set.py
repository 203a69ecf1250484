"""A data set of any size that takes no room on the disk: a file of holes, all frames black.

Reading it takes as much address space, time and page cache as reading a full file of that size.
"""

from pathlib import Path

import numpy as np

from data.base import IMAGE_SIZE, Dataset

FILE = "frames.bin"
FRAMES = 100
FRAME = (IMAGE_SIZE, IMAGE_SIZE, 3)


def write(folder: str | Path, clips: int, frames: int = FRAMES) -> np.ndarray:
    """Make the file of `clips` clips in `folder`; returns what `read` gives."""
    with open(Path(folder) / FILE, "wb") as file:
        file.truncate(clips * frames * int(np.prod(FRAME)))
    return read(folder)


def read(folder: str | Path) -> np.ndarray:
    """The frames of the file in `folder`, memory-mapped: uint8 [F, 64, 64, 3]."""
    return np.memmap(Path(folder) / FILE, np.uint8, "r").reshape(-1, *FRAME)


def load(settings) -> Dataset:
    """The file in --data_dir as a data set of clips of 100 frames, split 80, 10 and 10 %."""
    frames = read(settings.data_dir)
    clips = len(frames) // FRAMES
    parts = np.split(np.arange(clips), [int(0.8 * clips), int(0.9 * clips)])
    splits = dict(zip(("train", "val", "test"), parts))
    return Dataset(
        "larger-than-memory", frames, np.full(clips, FRAMES), {}, {}, splits, (), (), "0" * 64
    )
