"""How well a model took pendula apart, measured on the pictures it makes: a reader of colour and angle, and figures from it.

The reader sees pixels alone. A frame that it cannot read counts as wrong: its colour is -1, its angle NaN, and an error over it
is taken as 180 degrees.

`with_swing` names the generating values, so that the protocols' factors are colour, amplitude and start, and `SwingReader` is
their judge: it measures, and nothing trains it.
"""

import dataclasses

import numpy as np

from data.pendulum import COLOURS, DAMPING, FRAME_TIME, GRAVITY, LENGTH, PALETTE, PIVOT, simulate
from metrics.summary import Measure

FAINTEST = 25.0  # sum of the frame's brightest channel in [0, 1] below which there is no pendulum (a whole one has about 115)
PERIODS = np.arange(1.0, 6.0, 0.02)  # s, the candidates of `period`
AMPLITUDES = {
    "small": 49.0,
    "middle": 76.0,
    "large": np.inf,
}  # up to so many degrees: thirds of the embedded set
STARTS = ("left, going left", "left, going right", "right, going left", "right, going right")
STENCIL = np.array([1, -8, 0, 8, -1]) / (
    12 * FRAME_TIME
)  # derivative at the middle of five frames, of fourth order
VOTES = 6  # frames whose state is carried back to the first one


def read(frames):
    """Colours and angles of frames [n, T, 64, 64, 3], uint8 or float in [0, 1]: colour index [n, T], angle [n, T] in rad.

    The angle is that of the centre of brightness seen from the pivot, the colour the palette's nearest hue.
    """
    frames = (
        frames.astype(np.float32) / 255
        if frames.dtype == np.uint8
        else np.asarray(frames, np.float32)
    )
    light = np.maximum(
        np.maximum(frames[..., 0], frames[..., 1]), frames[..., 2]
    )  # [n, T, 64, 64]; faster than max(-1)
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


def swing(angle, velocity):
    """Classes of a swing from its state at the first frame, rad and rad/s, [n]: indices into AMPLITUDES and STARTS."""
    height = (
        velocity**2 / 2 * LENGTH / GRAVITY + 1 - np.cos(angle)
    )  # of the turning point over the lowest one, in lengths
    peak = np.rad2deg(np.arccos(np.clip(1 - height, -1, 1)))
    return np.digitize(peak, list(AMPLITUDES.values())[:-1]), 2 * (angle > 0) + (velocity > 0)


def with_swing(dataset):
    """The pendula with two more categorical factors, dynamic ones, from their generating values: 'amplitude' and 'start'."""
    amplitude, start = swing(dataset.labels["angle"], dataset.labels["velocity"])
    return dataclasses.replace(
        dataset,
        labels=dataset.labels | {"amplitude": amplitude, "start": start},
        classes=dataset.classes | {"amplitude": tuple(AMPLITUDES), "start": STARTS},
        dynamic=("amplitude", "start"),
    )


def states(angle):
    """States at the first frame of clips of angles [n, T] in rad, as each of up to VOTES frames tells: rad, rad/s, each [n, V].

    The angle of frame t and its velocity, from the two frames before and after it, are carried back to frame 0 by physics
    (time runs backward where velocity and damping change their sign). NaN where an angle is; V is 0 if T < 5.
    """
    told = []
    for t in range(2, min(angle.shape[1] - 2, 2 + VOTES)):
        apart = (angle[:, t - 2 : t + 3] - angle[:, t : t + 1] + np.pi) % (2 * np.pi) - np.pi
        back, minus = simulate(angle[:, t], -(apart @ STENCIL), t + 1, damping=-DAMPING)
        told.append((back[:, -1], -minus[:, -1]))
    return tuple(np.reshape([part[i] for part in told], (-1, len(angle))).T for i in range(2))


class SwingReader:
    """A judge of colour, amplitude and start that measures them in the pictures: see `with_swing`.

    Every frame votes for a colour, and every state that `states` finds for an amplitude and a start; what cannot be read votes
    for every value alike.
    """

    classes = {"colour": len(COLOURS), "amplitude": len(AMPLITUDES), "start": len(STARTS)}

    def probabilities(self, frames):
        """{factor: share of the votes, float64 [n, C]} of clips [n, T, 64, 64, 3] uint8."""
        colour, angles = read(frames)
        angle, velocity = states(angles)
        unread = np.isnan(angle) | np.isnan(velocity)
        cast = {"colour": colour}
        for name, vote in zip(("amplitude", "start"), swing(angle, velocity)):
            cast[name] = np.where(unread, -1, vote)
        return {name: _shares(votes, self.classes[name]) for name, votes in cast.items()}


def _shares(votes, classes):
    """Votes [n, V], -1 for every value alike -> their shares [n, classes]."""
    ballots = np.concatenate(
        [np.eye(classes), np.full((1, classes), 1 / classes)]
    )  # -1 is the last
    return ballots[votes].mean(1) if votes.shape[1] else np.full((len(votes), classes), 1 / classes)


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


def continuation_measures(made, angle, velocity, first=16, **constants):
    """Measures of clips continued past their training length, made [n, T, 64, 64, 3], against the physics from the true state.

    angle, velocity [n]: rad and rad/s at frame 0; constants: length and damping, where they are not the usual ones (data/pendulum.py).
    Judged from frame `first` (0-based) on.

    amplitude_ok, period_ok: peak-to-peak 0.5 to 1.5 of the true one, period within 15 %; a clip with one unread frame fails both.
    frames_read: the share of frames that can be read.
    """
    true = simulate(angle, velocity, made.shape[1], **constants)[0][:, first:]
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
