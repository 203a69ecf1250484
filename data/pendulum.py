"""The embedded data set: swinging pendula of eight colours, made by physics, nothing to download.

    theta'' = -(g / l) sin(theta) - c theta'

from a random angle and angular velocity, 64x64, an anti-aliased rod and bob on black. Identity is the colour; dynamics are
amplitude, phase and speed of the swing. The generating values are kept as labels, so that everything a model makes can be held
against the truth, beyond the last training frame too.
"""

import numpy as np

from data.base import IMAGE_SIZE, Dataset, fingerprint, flat

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
MAX_ANGLE, MAX_VELOCITY = np.deg2rad(100), 3.0  # of the initial state: rad, rad/s
PIVOT = (26.0, 32.0)  # row, column in px
ROD, ROD_HALF_WIDTH, BOB_RADIUS = 22.0, 1.2, 5.0  # px
SUBSTEPS = 20  # Runge-Kutta steps a frame: angles to 1e-6 rad over 60 frames


def simulate(angle, velocity, frames, length=LENGTH, damping=DAMPING):
    """Angles [n, frames] in rad (0 hangs down, positive to the right) and velocities [n, frames] in rad/s at 0, 0.1, ... s.

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


def render(angles, colours):
    """Pictures of pendula: angles [m] in rad, colours [m, 3] in 0..255 -> uint8 [m, 64, 64, 3]."""
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.float32)
    rows, columns = rows - PIVOT[0], columns - PIVOT[1]
    out = np.empty((len(angles), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for block in range(0, len(angles), 512):
        theta = np.asarray(angles[block : block + 512], np.float32)[:, None, None]
        down, right = np.cos(theta), np.sin(theta)  # the rod's direction
        along = np.clip(rows * down + columns * right, 0, ROD)
        to_rod = np.hypot(rows - along * down, columns - along * right)
        to_bob = np.hypot(rows - ROD * down, columns - ROD * right)
        cover = np.clip(0.5 + np.maximum(ROD_HALF_WIDTH - to_rod, BOB_RADIUS - to_bob), 0, 1)
        colour = np.asarray(colours[block : block + 512], np.float32)[:, None, None]
        out[block : block + 512] = np.rint(cover[..., None] * colour)
    return out


def make(frames=FRAMES, seed=0, clips=CLIPS):
    """The set as `Dataset`: sum(clips.values()) clips of `frames` frames, deterministic from the seed.

    Labels: colour (class), initial angle (rad) and velocity (rad/s), angles [n, frames] (rad). All colours are in every
    split, initial states in one alone.
    """
    total = sum(clips.values())
    draw = np.random.default_rng(seed)
    angle = draw.uniform(-MAX_ANGLE, MAX_ANGLE, total)
    velocity = draw.uniform(-MAX_VELOCITY, MAX_VELOCITY, total)
    starts = np.cumsum([0, *clips.values()])
    splits = {name: np.arange(a, b) for name, a, b in zip(clips, starts[:-1], starts[1:])}
    colour = np.concatenate([draw.permutation(np.arange(n) % len(COLOURS)) for n in clips.values()])
    angles, _ = simulate(angle, velocity, frames)
    pictures = render(angles.ravel(), np.repeat(PALETTE[colour], frames, 0))
    labels = {"colour": colour, "angle": angle, "velocity": velocity, "angles": angles}
    pictures = pictures.reshape(total, frames, IMAGE_SIZE, IMAGE_SIZE, 3)
    flat_frames, lengths = flat(pictures)
    return Dataset(
        name="pendulum",
        frames=flat_frames,
        lengths=lengths,
        labels=labels,
        classes={"colour": tuple(COLOURS)},
        splits=splits,
        static=("colour",),
        dynamic=(),
        fingerprint=fingerprint(pictures, labels, splits),
        continuations=(40, 60),
    )


def load(config):
    """The set with clips of at least config.seq_len frames, from config.data_seed."""
    return make(max(FRAMES, config.seq_len), config.data_seed)
