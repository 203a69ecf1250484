"""Moving shapes, made on the spot: every factor is labelled, and every combination occurs.

Shape, colour and size stay; path, speed and rotation move. A clip shows one anti-aliased shape on
black, 64x64. The set is the full product of its factors: each combination has equally many clips.
The seed decides where on its path, and at which angle, a clip starts, and which clips are in which
split.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from data.base import IMAGE_SIZE, Dataset, fingerprint, flat
from utils.flags import flag
from utils.settings import DATA, DRAWN

LICENCE = "drawn by this program, under its MIT licence"
COLOURS = {
    "red": (255, 60, 50),
    "yellow": (250, 220, 60),
    "green": (60, 210, 80),
    "blue": (70, 110, 255),
}
SIZES = {"small": 6.0, "large": 10.0}  # px, radius of the circle of the same area
PATHS = ("circle", "across", "up and down")
SPEEDS = {"slow": 1 / 16, "fast": 1 / 8}  # rounds of the path per frame
ROTATIONS = {"left": -1 / 32, "none": 0.0, "right": 1 / 32}  # turns per frame
# Half sides and similar, for a radius of 1, so that all shapes have the area pi.
SQUARE, TRIANGLE = np.sqrt(np.pi) / 2, np.sqrt(np.pi / np.sqrt(27.0))
FRAMES, CENTRE, REACH = 16, (IMAGE_SIZE - 1) / 2, 14.0  # px; REACH: from the centre to the path
SHARES = {"val": 0.1, "test": 0.25}
BLOCK = 64  # frames that are drawn at a time, so that they stay in the cache


@dataclass
class Flags:
    shapes_per_combination: int = flag(2, DATA, low=1, high=20)
    """Clips of each of the 432 combinations of factors. They differ in where they start."""
    IDLE: ClassVar = {"source": DRAWN}


def inside_square(x, y):
    return SQUARE - np.maximum(np.abs(x), np.abs(y))


def inside_triangle(x, y):
    return TRIANGLE - np.maximum(y, np.abs(x) * np.sqrt(0.75) - y / 2)


def inside_ellipse(x, y):
    """Axes of 1.6 and 1 / 1.6, so that its rotation shows."""
    return (1 - np.hypot(x / 1.6, y * 1.6)) / 1.6


# How far a point is inside a shape of radius 1, about: negative outside.
SHAPES = {"square": inside_square, "triangle": inside_triangle, "ellipse": inside_ellipse}
CLASSES = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "path": PATHS,
    "speed": tuple(SPEEDS),
    "rotation": tuple(ROTATIONS),
}
STATIC, DYNAMIC = ("shape", "colour", "size"), ("path", "speed", "rotation")


def motion(labels: dict, start: np.ndarray, frames: int) -> tuple[np.ndarray, ...]:
    """Position right and down of the centre (px) and angle (rad), each [n, frames].

    start [n, 2]: where on the path, and at which angle, the clip starts, both in turns.
    """
    time = np.arange(frames)
    speed = np.array(list(SPEEDS.values()))[labels["speed"], None]
    turn = np.array(list(ROTATIONS.values()))[labels["rotation"], None]
    phase = 2 * np.pi * (start[:, :1] + speed * time)
    path = np.asarray(labels["path"])[:, None]
    right = np.where(path == PATHS.index("up and down"), 0, np.cos(phase))
    down = np.where(path == PATHS.index("circle"), np.sin(phase), 0)
    down = np.where(path == PATHS.index("up and down"), np.cos(phase), down)
    return REACH * right, REACH * down, 2 * np.pi * (start[:, 1:] + turn * time)


def render(labels: dict, right, down, angle) -> np.ndarray:
    """Pictures uint8 [m, 64, 64, 3] of shapes with labels [m] at positions and angles [m]."""
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32) - CENTRE
    palette = np.array(list(COLOURS.values()), np.float32)[labels["colour"]]
    radius = np.array(list(SIZES.values()), np.float32)[labels["size"]]
    out = np.empty((len(radius), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for block in range(0, len(out), BLOCK):
        part = slice(block, block + BLOCK)
        across, upright, theta, r = (
            np.asarray(values[part], np.float32)[:, None, None]
            for values in (right, down, angle, radius)
        )
        x, y = (columns - across) / r, (rows - upright) / r
        x, y = x * np.cos(theta) + y * np.sin(theta), y * np.cos(theta) - x * np.sin(theta)
        inside = np.select(
            [np.asarray(labels["shape"][part])[:, None, None] == i for i in range(len(SHAPES))],
            [depth(x, y) for depth in SHAPES.values()],
        )
        cover = np.clip(0.5 + inside * r, 0, 1)
        out[part] = np.rint(cover[..., None] * palette[part, None, None])
    return out


def make(frames: int = FRAMES, seed: int = 0, each: int = 2) -> Dataset:
    """All combinations, `each` clips of every one, of `frames` frames."""
    draw, counts = np.random.default_rng(seed), [len(names) for names in CLASSES.values()]
    table = np.repeat(np.indices(counts).reshape(len(counts), -1), each, 1)
    labels: dict = dict(zip(CLASSES, table, strict=True))
    total = table.shape[1]
    start = draw.random((total, 2))
    paths = motion(labels, start, frames)
    by_frame = {name: np.repeat(values, frames) for name, values in labels.items()}
    pictures = render(by_frame, *(path.ravel() for path in paths))
    pictures = pictures.reshape(total, frames, *pictures.shape[1:])
    order, ends = draw.permutation(total), np.cumsum([round(s * total) for s in SHARES.values()])
    val, test, train = (np.sort(part) for part in np.split(order, ends))
    splits = {"train": train, "val": val, "test": test}
    labels |= {"start": start}
    return Dataset(
        "shapes",
        *flat(pictures),
        labels=labels,
        classes=CLASSES,
        splits=splits,
        static=STATIC,
        dynamic=DYNAMIC,
        fingerprint=fingerprint(pictures, labels, splits),
        continuations=(40,) if frames < 40 else (),
    )


def load(config) -> Dataset:
    """The set of config.data_seed and its own flag, in clips of config.seq_len frames or more."""
    each = config.shapes_per_combination
    return make(max(FRAMES, config.seq_len), config.data_seed, each)
