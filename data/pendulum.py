"""The embedded data set: swinging pendula of eight colours, made by physics, nothing to download.

    theta'' = -(g / l) sin(theta) - c theta'

from a random angle and angular velocity, 64x64, an anti-aliased rod and bob on black. Identity is the colour;
dynamics are amplitude, phase and speed of the swing. The generating values are kept as labels, so that everything a
model makes can be held against the truth, beyond the last training frame too. With several --pendulum_lengths the
rod's length l is a second factor of the identity, with several --pendulum_dampings c one of the dynamics.

    python -m data.pendulum FOLDER [--FLAG VALUE ...]    # clips.npy, labels.csv and angles.npy for other programs
"""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import data
from data.base import IMAGE_SIZE, Dataset, fingerprint, flat
from utils.errors import UserError, in_one_line
from utils.flags import flag, numbers
from utils.plan import parse
from utils.settings import DATA

COLOURS = {
    "red": (255, 40, 40),
    "orange": (255, 140, 20),
    "yellow": (250, 240, 60),
    "green": (50, 210, 60),
    "cyan": (50, 220, 230),
    "blue": (60, 90, 255),
    "purple": (165, 60, 230),
    "white": (235, 235, 235),
}
PALETTE = np.array(list(COLOURS.values()), np.float32)  # [8, 3], 0..255
CLIPS = {"train": 400, "val": 80, "test": 160}
FRAMES = 16
FRAME_TIME = 0.1  # s
LENGTH, GRAVITY, DAMPING = 1.0, 9.81, 0.05  # m, m/s^2, 1/s
LONGEST = 1.2  # m: a longer rod would leave the picture
MAX_ANGLE, MAX_VELOCITY = np.deg2rad(100), 3.0  # of the initial state: rad, rad/s
PIVOT = (26.0, 32.0)  # row, column in px
ROD, ROD_HALF_WIDTH, BOB_RADIUS = 22.0, 1.2, 5.0  # px
SUBSTEPS = 20  # Runge-Kutta steps a frame: angles to 1e-6 rad over 60 frames


@dataclass
class Flags:
    """The data set's own flags."""

    pendulum_lengths: tuple = flag(None, DATA, kind=numbers)
    """Lengths of the rods in m, joined by commas, as a factor of the identity. Default: all 1."""
    pendulum_dampings: tuple = flag(None, DATA, kind=numbers)
    """Dampings in 1/s, joined by commas, as a factor of the dynamics. Default: all 0.05."""


def simulate(angle, velocity, frames, length=LENGTH, damping=DAMPING):
    """Angles [n, frames] in rad (0 hangs down, positive to the right) and velocities [n, frames] in rad/s at 0, 0.1,
    ... s.

    angle, velocity [n]: the state at the first frame; length in m, damping in 1/s, scalars or [n].
    """

    def slope(state):
        theta, omega = state
        return np.stack([omega, -GRAVITY / length * np.sin(theta) - damping * omega])

    state = np.stack([np.asarray(angle, np.float64), np.asarray(velocity, np.float64)])
    path, h = [state], FRAME_TIME / SUBSTEPS
    for _ in range(frames - 1):
        for _ in range(SUBSTEPS):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(state)
    theta, omega = np.stack(path, -1)
    return theta, omega


def render(angles, colours, length=LENGTH):
    """Pictures of pendula: angles [m] in rad, colours [m, 3] in 0..255, length in m, scalar or [m] -> uint8 [m, 64,
    64, 3]."""
    rods = np.broadcast_to(np.float32(ROD) * np.asarray(length, np.float32), len(angles))  # px
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    rows, columns = rows - PIVOT[0], columns - PIVOT[1]
    out = np.empty((len(angles), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for block in range(0, len(angles), 512):
        theta = np.asarray(angles[block : block + 512], np.float32)[:, None, None]
        down, right = np.cos(theta), np.sin(theta)  # the rod's direction
        rod = rods[block : block + 512, None, None]
        along = np.clip(rows * down + columns * right, 0, rod)
        to_rod = np.hypot(rows - along * down, columns - along * right)
        to_bob = np.hypot(rows - rod * down, columns - rod * right)
        cover = np.clip(0.5 + np.maximum(ROD_HALF_WIDTH - to_rod, BOB_RADIUS - to_bob), 0, 1)
        colour = np.asarray(colours[block : block + 512], np.float32)[:, None, None]
        out[block : block + 512] = np.rint(cover[..., None] * colour)
    return out


def make(frames=FRAMES, seed=0, clips=CLIPS, lengths=None, dampings=None):
    """The set as `Dataset`: sum(clips.values()) clips of `frames` frames, deterministic from the seed.

    Labels: colour (class), initial angle (rad) and velocity (rad/s), angles [n, frames] (rad); with lengths (m) or
    dampings (1/s) also length, damping (class). All classes are in every split, initial states in one alone.
    """
    total = sum(clips.values())
    draw = np.random.default_rng(seed)
    angle = draw.uniform(-MAX_ANGLE, MAX_ANGLE, total)
    velocity = draw.uniform(-MAX_VELOCITY, MAX_VELOCITY, total)
    starts = np.cumsum([0, *clips.values()])
    splits = {name: np.arange(a, b) for name, a, b in zip(clips, starts[:-1], starts[1:])}
    values = {"colour": tuple(COLOURS), "length": lengths, "damping": dampings}
    values = {factor: tuple(map(str, each)) for factor, each in values.items() if each}
    labels = {
        factor: np.concatenate([draw.permutation(np.arange(n) % len(each)) for n in clips.values()])
        for factor, each in values.items()
    }
    physics = constants(labels, values)
    labels |= {"angle": angle, "velocity": velocity}
    labels["angles"], _ = simulate(angle, velocity, frames, **physics)
    each_frame = [
        np.repeat(each, frames, 0) for each in (PALETTE[labels["colour"]], physics["length"])
    ]
    pictures = render(labels["angles"].ravel(), *each_frame).reshape(
        total, frames, IMAGE_SIZE, IMAGE_SIZE, 3
    )
    flat_frames, frame_counts = flat(pictures)
    return Dataset(
        name="pendulum",
        frames=flat_frames,
        lengths=frame_counts,
        labels=labels,
        classes=values,
        splits=splits,
        static=tuple(factor for factor in values if factor != "damping"),
        dynamic=tuple(factor for factor in values if factor == "damping"),
        fingerprint=fingerprint(pictures, labels, splits),
        continuations=(40, 60),
    )


def constants(labels, classes):
    """{'length': m, 'damping': 1/s}, float [n] each, of clips with these labels [n] (the set's `classes`)."""
    fixed = {"length": LENGTH, "damping": DAMPING}
    return {
        name: np.array(classes[name], float)[labels[name]]
        if name in classes
        else np.full(len(labels["colour"]), one)
        for name, one in fixed.items()
    }


def load(config):
    """The set with clips of at least config.seq_len frames, from config.data_seed, with config's lengths and
    dampings."""
    lengths = config.pendulum_lengths
    if lengths and max(lengths) > LONGEST:
        raise UserError(
            f"found --pendulum_lengths {max(lengths)}, expected {LONGEST} m at most: shorten the rod"
        )
    further = {"lengths": lengths, "dampings": config.pendulum_dampings}
    return make(
        max(FRAMES, config.seq_len),
        config.data_seed,
        **{name: each for name, each in further.items() if each},
    )


def export(dataset, folder):
    """Write the set for other programs into `folder`: clips.npy uint8 [n, T, 64, 64, 3], angles.npy float64 [n, T]
    (rad), labels.csv (one row a clip: split, colour, length in m, damping in 1/s, and angle in rad and velocity in
    rad/s at its first frame)."""
    split = {row: name for name, rows in dataset.splits.items() for row in rows.tolist()}
    rows, clips = (
        sorted(split),
        dataset.frames.reshape(len(dataset.lengths), -1, *dataset.frames.shape[1:]),
    )
    colour = np.array(dataset.classes["colour"])[dataset.labels["colour"]]
    columns = {"colour": colour, **constants(dataset.labels, dataset.classes)}
    columns |= {name: dataset.labels[name] for name in ("angle", "velocity")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "clips.npy", clips[rows])
        np.save(folder / "angles.npy", dataset.labels["angles"][rows])
        with open(folder / "labels.csv", "w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("split", *columns))
            table.writerows(
                (split[row], *(column[row] for column in columns.values())) for row in rows
            )
    except OSError as error:
        raise UserError(
            f"pendulum: cannot write {folder} ({error.strerror}): give another folder"
        ) from None


@in_one_line
def main(argv):
    """`python -m data.pendulum`; the exit status, 2 for a mistake of the user's."""
    if not argv or argv[0].startswith("-"):
        raise UserError(
            "usage: python -m data.pendulum FOLDER [--FLAG VALUE ...], with the flags of main.py"
        )
    export(data.load(parse([*argv[1:], "--dataset_name", "pendulum"]).first), Path(argv[0]))
    print(f"wrote clips.npy, angles.npy and labels.csv to {argv[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
