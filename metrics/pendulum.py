"""How well a model took pendula apart, measured on the pictures it makes: a reader of colour and angle, and figures from it.

The reader sees pixels alone. A frame that it cannot read counts as wrong: its colour is -1, its angle NaN, and an error over it
is taken as 180 degrees.
"""

import numpy as np

from data.pendulum import FRAME_TIME, PALETTE, PIVOT, simulate
from metrics.summary import Measure

FAINTEST = (
    25.0  # sum of the frame's brightest channel in [0, 1] below which there is no pendulum (a whole one has about 115)
)
PERIODS = np.arange(1.0, 6.0, 0.02)  # s, the candidates of `period`


def read(frames):
    """Colours and angles of frames [n, T, 64, 64, 3], uint8 or float in [0, 1]: colour index [n, T], angle [n, T] in rad.

    The angle is that of the centre of brightness seen from the pivot, the colour the palette's nearest hue.
    """
    frames = frames.astype(np.float32) / 255 if frames.dtype == np.uint8 else np.asarray(frames, np.float32)
    light = frames.max(-1)  # [n, T, 64, 64]
    light = light * (light > 0.15)  # faint haze is not a pendulum
    rows, columns = np.mgrid[: light.shape[-2], : light.shape[-1]].astype(np.float32)
    down = (light * (rows - PIVOT[0])).sum((-2, -1))
    right = (light * (columns - PIVOT[1])).sum((-2, -1))
    colour = np.einsum("nthw,nthwc->ntc", light**2, frames)
    colour = colour / np.maximum(np.linalg.norm(colour, axis=-1, keepdims=True), 1e-9)
    palette = PALETTE / np.linalg.norm(PALETTE, axis=-1, keepdims=True)
    nearest = (colour @ palette.T).argmax(-1)
    unseen = light.sum((-2, -1)) < FAINTEST
    return np.where(unseen, -1, nearest), np.where(unseen, np.nan, np.arctan2(right, down))


def angle_error(angle, true):
    """Absolute difference in degrees, [n, T], 180 where `angle` could not be read."""
    difference = np.abs((np.asarray(angle) - true + np.pi) % (2 * np.pi) - np.pi)
    return np.rad2deg(np.where(np.isnan(difference), np.pi, difference))


def psnr(made, true):
    """Peak signal-to-noise ratio in dB over all pixels, arrays in [0, 1]; 100 at most, that of equal pictures."""
    error = np.mean((np.asarray(made, np.float64) - true) ** 2)
    return float(-10 * np.log10(max(error, 1e-10)))


def period(angles):
    """Period in s of each row of angles [n, T] in rad, frames FRAME_TIME apart: that of the best-fitting sine with an offset."""
    time = np.arange(angles.shape[1]) * FRAME_TIME
    best = np.full(len(angles), np.inf)
    found = np.full(len(angles), np.nan)
    for candidate in PERIODS:
        phase = 2 * np.pi * time / candidate
        basis = np.stack([np.ones_like(time), np.sin(phase), np.cos(phase)], 1)
        residual = angles - angles @ np.linalg.pinv(basis).T @ basis.T
        error = (residual**2).sum(1)
        found = np.where(error < best, candidate, found)
        best = np.fmin(best, error)
    return found


def swap_measures(made, pose_angles, pose_colour, identity_colour):
    """Measures of clips made [n, T, 64, 64, 3] from the poses of one clip and the identity of another.

    pose_angles [n, T] in rad and pose_colour [n] are the pose source's, identity_colour [n] the identity source's. Leakage is
    counted on pairs that differ.
    """
    colour, angle = read(made)
    leak = (colour == pose_colour[:, None]).mean(1)
    return {
        "identity_accuracy": Measure((colour == identity_colour[:, None]).mean(1)),
        "leak_accuracy": Measure(np.where(pose_colour != identity_colour, leak, np.nan)),
        "pose_error_deg": Measure(angle_error(angle, pose_angles), "median"),
    }


def continuation_measures(made, angle, velocity, first=16):
    """Measures of clips continued past their training length, made [n, T, 64, 64, 3], against the physics from the true state.

    angle, velocity [n]: rad and rad/s at frame 0. Judged from frame `first` (0-based) on.

    amplitude_ok, period_ok: peak-to-peak 0.5 to 1.5 of the true one, period within 15 %; a clip with one unread frame fails both.
    frames_read: the share of frames that can be read.
    """
    true = simulate(angle, velocity, made.shape[1])[0][:, first:]
    seen = read(made)[1][:, first:]
    unread = np.isnan(seen)
    path = np.unwrap(np.nan_to_num(seen), axis=1)
    swing = np.ptp(path, axis=1) / np.ptp(true, axis=1)
    beat = period(path) / period(true)
    whole = ~unread.any(1)
    return {
        "amplitude_ok": Measure(whole & (swing >= 0.5) & (swing <= 1.5)),
        "period_ok": Measure(whole & (np.abs(beat - 1) <= 0.15)),
        "frames_read": Measure(1 - unread.mean(1)),
        "pose_error_deg": Measure(angle_error(seen, true), "median"),
    }
