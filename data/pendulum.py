"""The built-in data set: swinging pendula of eight colours, simulated, nothing to download.

    theta'' = -(g / l) sin(theta) - c theta'

Each clip starts from a random angle and angular velocity, and shows an anti-aliased rod and bob on
black, 64x64. Identity is the colour; dynamics are amplitude, phase and speed of the swing. The
generating values are labels, so that generated clips can be compared with the true motion, also
beyond the training length. With several --pendulum_lengths the length l is a second factor of the
identity; with several --pendulum_dampings the damping c is a factor of the dynamics.

    python -m data.pendulum FOLDER [--FLAG VALUE ...]    # files for other programs, see `export`
"""

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

import data
from data.base import IMAGE_SIZE, Dataset, consecutive, fingerprint, flat
from utils.errors import UserError, in_one_line
from utils.files import replacing, write_text
from utils.flags import flag, numbers
from utils.limits import human, memory
from utils.plan import parse
from utils.settings import DATA, DRAWN

LICENCE = "drawn by this program, under its MIT licence"
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
PALETTE = np.array(list(COLOURS.values()), np.float32)  # [8, 3] in 0..255
CLIPS = {"train": 400, "val": 80, "test": 160}
FRAMES, FRAME_TIME = 16, 0.1  # frames per clip, seconds per frame
LENGTH, GRAVITY, DAMPING = 1.0, 9.81, 0.05  # m, m/s^2, 1/s
LONGEST = 1.2  # m: a longer rod would leave the picture
MAX_ANGLE, MAX_VELOCITY = np.deg2rad(100), 3.0  # of the initial state, rad and rad/s
PIVOT = (26.0, 32.0)  # row and column, px
ROD, ROD_HALF_WIDTH, BOB_RADIUS = 22.0, 1.2, 5.0  # px; ROD: as a rod of 1 m is drawn
BLOCK = 32  # frames that are drawn at a time, so that they stay in the cache
SUBSTEPS = 20  # Runge-Kutta steps per frame: angles are exact to 1e-6 rad over 60 frames


@dataclass
class Flags:
    pendulum_lengths: tuple = flag(None, DATA, kind=numbers)
    """Lengths of the rods in m, joined by commas, as a factor of the identity. Default: all 1."""
    pendulum_dampings: tuple = flag(None, DATA, kind=numbers)
    """Dampings in 1/s, joined by commas, as a factor of the dynamics. Default: all 0.05."""
    IDLE: ClassVar = {"source": DRAWN}


def simulate(
    angle, velocity, frames: int, length=LENGTH, damping=DAMPING, substeps=SUBSTEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Angles (rad) and angular velocities (rad/s), float64 [n, frames] each, every FRAME_TIME.

    angle, velocity [n]: the state at the first frame; 0 hangs down, positive is to the right.
    length (m), damping (1/s): scalars or [n]. substeps: Runge-Kutta steps per frame.
    """

    def slope(state):
        theta, omega = state
        return np.stack([omega, -GRAVITY / length * np.sin(theta) - damping * omega])

    state = np.array([angle, velocity], np.float64)
    path, h = [state], FRAME_TIME / substeps
    for _ in range(frames - 1):
        for _ in range(substeps):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(state)
    theta, omega = np.stack(path, -1)
    return theta, omega


def render(angles: np.ndarray, colours: np.ndarray, length=LENGTH) -> np.ndarray:
    """Pictures of pendula, uint8 [m, 64, 64, 3].

    angles [m] (rad), colours [m, 3] (0..255), length (m): a scalar or [m].
    """
    rods = np.broadcast_to(np.float32(ROD) * np.asarray(length, np.float32), len(angles))
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    rows, columns = rows - PIVOT[0], columns - PIVOT[1]
    out = np.zeros((len(angles), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for block in range(0, len(angles), BLOCK):
        theta = np.asarray(angles[block : block + BLOCK], np.float32)[:, None, None]
        down, right = np.cos(theta), np.sin(theta)
        rod = rods[block : block + BLOCK, None, None]
        along = np.clip(rows * down + columns * right, 0, rod)
        to_rod = rows - along * down, columns - along * right
        to_bob = rows - rod * down, columns - rod * right
        # Distances are slow to compute, and 19 of 20 pixels are black.
        near = to_rod[0] ** 2 + to_rod[1] ** 2 < (ROD_HALF_WIDTH + 1) ** 2
        near |= to_bob[0] ** 2 + to_bob[1] ** 2 < (BOB_RADIUS + 1) ** 2
        rod_distance, bob_distance = (
            np.hypot(down_by[near], right_by[near]) for down_by, right_by in (to_rod, to_bob)
        )
        depth = np.maximum(ROD_HALF_WIDTH - rod_distance, BOB_RADIUS - bob_distance)
        cover = np.clip(0.5 + depth, 0, 1)
        colour = np.asarray(colours[block : block + BLOCK], np.float32)[near.nonzero()[0]]
        out[block : block + BLOCK][near] = np.rint(cover[:, None] * colour)
    return out


def make(frames=FRAMES, seed=0, clips=CLIPS, lengths=None, dampings=None) -> Dataset:
    """Simulate and draw `clips` clips by split, of `frames` frames, from the seed.

    Labels: colour (class), initial angle (rad) and velocity (rad/s), angles [n, frames] (rad); with
    lengths (m) or dampings (1/s) also length or damping (class). Every split has all classes; no
    initial state is in two splits.
    """
    total, draw = sum(clips.values()), np.random.default_rng(seed)
    angle = draw.uniform(-MAX_ANGLE, MAX_ANGLE, total)
    velocity = draw.uniform(-MAX_VELOCITY, MAX_VELOCITY, total)
    values = {"colour": tuple(COLOURS), "length": lengths, "damping": dampings}
    classes = {factor: tuple(map(str, given)) for factor, given in values.items() if given}
    labels = {}
    for factor, names in classes.items():
        by_split = [draw.permutation(np.arange(count) % len(names)) for count in clips.values()]
        labels[factor] = np.concatenate(by_split)
    physics = constants(labels, classes)
    labels |= {"angle": angle, "velocity": velocity}
    labels["angles"], _ = simulate(angle, velocity, frames, **physics)
    colours = PALETTE[labels["colour"]]
    pictures, splits = _drawn(labels["angles"], colours, physics["length"]), consecutive(clips)

    def beyond(clip, longer):
        given = {name: values[clip] for name, values in physics.items()}
        angles, _ = simulate(angle[clip], velocity[clip], longer, **given)
        return _drawn(angles, colours[clip], given["length"])

    return Dataset(
        "pendulum",
        *flat(pictures),
        labels=labels,
        classes=classes,
        splits=splits,
        static=tuple(factor for factor in classes if factor != "damping"),
        dynamic=tuple(factor for factor in classes if factor == "damping"),
        fingerprint=fingerprint(pictures, labels, splits),
        continuations=tuple(length for length in (40, 60) if length > frames),
        beyond=beyond,
    )


def _drawn(angles, colours, length):
    """Clips uint8 [n, T, 64, 64, 3] of angles [n, T] (rad), colours [n, 3] and lengths [n] (m)."""
    frames = angles.shape[1]
    by_frame = (np.repeat(values, frames, 0) for values in (colours, length))
    pictures = render(angles.ravel(), *by_frame)
    return pictures.reshape(*angles.shape, *pictures.shape[1:])


def constants(labels: dict, classes: dict) -> dict[str, np.ndarray]:
    """'length' (m) and 'damping' (1/s) of the clips of a set, float [n] each."""
    count = len(labels["colour"])
    values = {"length": np.full(count, LENGTH), "damping": np.full(count, DAMPING)}
    for name in values.keys() & classes.keys():
        values[name] = np.array(classes[name], float)[labels[name]]
    return values


def load(config) -> Dataset:
    """The set of config.data_seed and its own flags, in clips of config.seq_len frames or more.

    Raises UserError if a rod is too long, or if the frames need more memory than there is.
    """
    lengths, dampings = config.pendulum_lengths, config.pendulum_dampings
    if lengths and max(lengths) > LONGEST:
        longest = f"found {max(lengths)} m in --pendulum_lengths"
        raise UserError(f"{longest}, expected {LONGEST} m at most: shorten the rod")
    frames, (limit, place) = max(FRAMES, config.seq_len), memory()
    size = sum(CLIPS.values()) * frames * IMAGE_SIZE**2 * 3
    if size > limit:
        needs = f"pendula of --seq_len {config.seq_len} need {human(size)} of memory"
        raise UserError(f"{needs} and {place} has {human(limit)}: lower --seq_len")
    given = {"lengths": lengths, "dampings": dampings}
    factors = {name: values for name, values in given.items() if values}
    return make(frames, config.data_seed, **factors)


def export(dataset: Dataset, folder: Path) -> None:
    """Write the set into `folder` for other programs. Raises UserError if the disk refuses.

    clips.npy: uint8 [n, T, 64, 64, 3]. angles.npy: float64 [n, T], rad. labels.csv: one row per
    clip with split, colour, length (m), damping (1/s), initial angle (rad) and velocity (rad/s).
    """
    split = {row: name for name, rows in dataset.splits.items() for row in rows.tolist()}
    rows = sorted(split)
    clips = dataset.frames.reshape(len(dataset.lengths), -1, *dataset.frames.shape[1:])
    colour = np.array(dataset.classes["colour"])[dataset.labels["colour"]]
    columns = {"colour": colour, **constants(dataset.labels, dataset.classes)}
    columns |= {name: dataset.labels[name] for name in ("angle", "velocity")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (("clips", clips), ("angles", dataset.labels["angles"])):
            with replacing(folder / f"{name}.npy") as beside, open(beside, "wb") as file:
                np.save(file, array[rows])
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(("split", *columns))
        for row in rows:
            table.writerow((split[row], *(column[row] for column in columns.values())))
        write_text(folder / "labels.csv", text.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): give another") from None


@in_one_line
def main(argv: list[str]) -> int:
    """Write the set's files; the exit status is 2 if a flag or the folder is wrong."""
    if not argv or argv[0].startswith("-"):
        raise UserError(
            "usage: python -m data.pendulum FOLDER [--FLAG VALUE ...]; see main.py --help"
        )
    export(data.load(parse([*argv[1:], "--dataset_name", "pendulum"]).first), Path(argv[0]))
    print(f"wrote clips.npy, angles.npy and labels.csv to {argv[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
