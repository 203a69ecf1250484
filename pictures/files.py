"""PNG sheets and GIFs from uint8 arrays: frames [H, W, 3], rows and columns of them."""

import os

import imageio.v3 as iio
import numpy as np


def sheet(tiles, gap=1, shade=96):
    """tiles [rows, columns, H, W, 3] uint8 -> one picture, with `gap` px of grey between them."""
    rows, columns, height, width, _ = tiles.shape
    out = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), shade, np.uint8)
    for r in range(rows):
        for c in range(columns):
            out[
                r * (height + gap) : r * (height + gap) + height,
                c * (width + gap) : c * (width + gap) + width,
            ] = tiles[r, c]
    return out


def with_margins(inside, left, top):
    """A grid with its sources: inside [R, C, H, W, 3], left [R, H, W, 3], top [C, H, W, 3] -> [R + 1, C + 1, H, W, 3]."""
    rows, columns = inside.shape[:2]
    out = np.zeros((rows + 1, columns + 1, *inside.shape[2:]), np.uint8)
    out[1:, 1:], out[1:, 0], out[0, 1:] = inside, left, top
    return out


def save_png(path, picture):
    """Write the picture [H, W, 3] whole or not at all."""
    _replace(path, lambda beside: iio.imwrite(beside, picture, extension=".png"))


def save_gif(path, frames, fps):
    """Write frames [T, H, W, 3] as an endlessly looping GIF at `fps` frames a second."""
    _replace(
        path,
        lambda beside: iio.imwrite(beside, frames, extension=".gif", duration=1000 / fps, loop=0),
    )


def _replace(path, write):
    beside = path.with_name(path.name + ".part")
    write(beside)
    os.replace(beside, path)
