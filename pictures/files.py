"""PNG and GIF files from uint8 arrays, and the layout of frames [H, W, 3] as a sheet."""

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from utils.files import replacing


def sheet(tiles: np.ndarray, gap: int = 1, shade: int = 96) -> np.ndarray:
    """One picture of tiles uint8 [rows, columns, H, W, 3], separated by `gap` pixels of grey."""
    rows, columns, height, width, _ = tiles.shape
    down, across = height + gap, width + gap
    picture = np.full((rows * down - gap, columns * across - gap, 3), shade, np.uint8)
    for r in range(rows):
        for c in range(columns):
            top, left = r * down, c * across
            picture[top : top + height, left : left + width] = tiles[r, c]
    return picture


def with_margins(inside: np.ndarray, left: np.ndarray, top: np.ndarray) -> np.ndarray:
    """A grid of results with its sources in the first column and row; the corner is black.

    inside [R, C, H, W, 3], left [R, H, W, 3], top [C, H, W, 3] -> [R + 1, C + 1, H, W, 3]
    """
    rows, columns = inside.shape[:2]
    grid = np.zeros((rows + 1, columns + 1, *inside.shape[2:]), np.uint8)
    grid[1:, 1:], grid[1:, 0], grid[0, 1:] = inside, left, top
    return grid


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write the picture uint8 [H, W, 3], whole or not at all."""
    with replacing(path) as beside:
        iio.imwrite(beside, picture, extension=".png")


def save_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames uint8 [T, H, W, 3], whole or not at all, as an endless GIF of `fps` frames/s."""
    with replacing(path) as beside:
        iio.imwrite(beside, frames, extension=".gif", duration=1000 / fps, loop=0)


class Album:
    """Writes the pictures of one stage after `epoch` into `folder`.

    A picture is named by its key in `pictures.drawing.CAPTIONS`, with the fields of the key beside
    {e} as keyword arguments. log(tag, picture, epoch) is given the pictures that ask for it.
    """

    def __init__(self, folder: Path, epoch: int, fps: float, log: Callable):
        self.folder, self.epoch, self.fps, self.log = folder, epoch, fps, log

    def path(self, name: str, **fields) -> Path:
        """Where the picture `name` is written."""
        return self.folder / name.format(e=self.epoch, **fields)

    def png(self, name: str, tiles: np.ndarray, log: bool = False, **fields) -> None:
        """Write tiles [rows, columns, H, W, 3] as a sheet, and log it too if `log`."""
        self.picture(name, sheet(tiles), log, **fields)

    def picture(self, name: str, picture: np.ndarray, log: bool = False, **fields) -> None:
        """Write a picture [H, W, 3], and log it too if `log`."""
        save_png(self.path(name, **fields), picture)
        if log:
            tag = name.replace("_{e}", "").removesuffix(".png").format(**fields)
            self.log(tag, picture, self.epoch)

    def gif(self, name: str, clips: np.ndarray, **fields) -> None:
        """Write clips [rows, columns, T, H, W, 3] as one animated sheet."""
        frames = np.stack([sheet(clips[:, :, t]) for t in range(clips.shape[2])])
        save_gif(self.path(name, **fields), frames, self.fps)
