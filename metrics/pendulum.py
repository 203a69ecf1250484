"""How well a model separates the factors of pendula, measured on the pictures that it generates.

Colour and angle of a frame are read from its pixels alone. A frame that cannot be read counts as
wrong: its colour is -1, its angle NaN and its angle error 180 degrees.
"""

import dataclasses
import warnings

import numpy as np

from data import pendulum
from data.base import Dataset
from metrics.measurers import Measurer
from metrics.summary import Arrays, Figures, Measure, Measures

# The brightest channel, in [0, 1], sums to about 115 for a pendulum; a smaller sum shows none.
FAINTEST = 25.0
# Clips that are read at a time: the memory of more would leave the cache.
BLOCK = 4
# Candidates of `period`, in s.
PERIODS = np.arange(1.0, 6.0, 0.02)
# Upper limits in degrees, which divide the built-in data set in three.
AMPLITUDES = {"small": 49.0, "middle": 76.0, "large": np.inf}
STARTS = ("left, going left", "left, going right", "right, going left", "right, going right")
# Derivative at the middle of five frames, of fourth order.
STENCIL = np.array([1, -8, 0, 8, -1]) / (12 * pendulum.FRAME_TIME)
# At most so many frames give an estimate of the initial state.
ESTIMATES = 6
# `fit` of a swing:
ITERATIONS = 8
LONGEST_STEP = 0.5  # of one iteration, in rad and rad/s
OUTLIER = np.deg2rad(3)  # scale of Cauchy's weights: larger errors count less and less
DELTA = 1e-4  # difference for the derivatives, in rad and rad/s
SUBSTEPS = 4  # Runge-Kutta steps per frame: fewer than the renderer takes
# Each of so many states, drawn from the uncertainty of a fit, has a vote.
VOTES = 64
_TINY = 1e-12 * np.eye(2)  # keeps matrices invertible
# Length of continued clips, and the first frame (0-based) that is measured.
CONTINUE_TO, CONTINUE_FROM = 40, 16


def read(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour index [n, T] and angle [n, T] in rad of frames [n, T, 64, 64, 3], uint8 or float.

    The colour is the nearest hue of the palette, the angle that of the centre of brightness seen
    from the pivot.
    """
    full = np.float32(255 if frames.dtype == np.uint8 else 1)
    rows, columns = np.mgrid[: frames.shape[2], : frames.shape[3]].astype(np.float32)
    from_pivot = rows - pendulum.PIVOT[0], columns - pendulum.PIVOT[1], np.ones_like(rows)
    weights = np.stack(from_pivot, -1).reshape(-1, 3)
    moments, colours = [], []
    for block in np.array_split(frames, max(1, len(frames) // BLOCK)):
        planes = np.ascontiguousarray(np.moveaxis(block, -1, 2)).reshape(-1, 3, rows.size)
        light = np.maximum(np.maximum(planes[:, 0], planes[:, 1]), planes[:, 2]) / full
        # Faint haze is not a pendulum.
        light *= light > 0.15  # [frames, 64 * 64]
        moments.append(light @ weights)
        colours.append(np.matmul(planes.astype(np.float32), (light**2)[..., None])[..., 0])
    down, right, total = np.moveaxis(np.concatenate(moments).reshape(*frames.shape[:2], 3), -1, 0)
    colour = np.concatenate(colours).reshape(*frames.shape[:2], 3)
    palette = pendulum.PALETTE / np.linalg.norm(pendulum.PALETTE, axis=-1, keepdims=True)
    # The length of a frame's colour does not matter to its nearest hue.
    nearest, unseen = (colour @ palette.T).argmax(-1), total < FAINTEST
    return np.where(unseen, -1, nearest), np.where(unseen, np.nan, np.arctan2(right, down))


def angle_error(angle: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Absolute difference of angles in rad, in degrees [n, T]; 180 where `angle` is NaN."""
    difference = np.abs((np.asarray(angle) - true + np.pi) % (2 * np.pi) - np.pi)
    return np.rad2deg(np.where(np.isnan(difference), np.pi, difference))


def period(angles: np.ndarray) -> np.ndarray:
    """Period in s of each row of angles [n, T] in rad, by the best-fitting sine with offset."""
    time = np.arange(angles.shape[1]) * pendulum.FRAME_TIME
    least, periods = np.full(len(angles), np.inf), np.full(len(angles), np.nan)
    for candidate in PERIODS:
        phase = 2 * np.pi * time / candidate
        basis = np.stack([np.ones_like(time), np.sin(phase), np.cos(phase)], 1)
        residual = angles - angles @ np.linalg.pinv(basis).T @ basis.T
        error = (residual**2).sum(1)
        periods = np.where(error < least, candidate, periods)
        least = np.fmin(least, error)
    return periods


def peak(angle: np.ndarray, velocity: np.ndarray, length=pendulum.LENGTH) -> np.ndarray:
    """Amplitude in degrees of swings that start at this angle (rad) and velocity (rad/s).

    length: of the rods, in m.
    """
    # Height of the turning point above the lowest point, in rod lengths.
    height = velocity**2 / 2 * length / pendulum.GRAVITY + 1 - np.cos(angle)
    return np.rad2deg(np.arccos(np.clip(1 - height, -1, 1)))


def swing(angle: np.ndarray, velocity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices into AMPLITUDES and STARTS of swings that start at this angle (rad) and velocity."""
    peaks = np.digitize(peak(angle, velocity), list(AMPLITUDES.values())[:-1])
    return peaks, 2 * (angle > 0) + (velocity > 0)


def with_swing(dataset: Dataset) -> Dataset:
    """The pendula with two further dynamic factors, 'amplitude' and 'start' (see `swing`)."""
    amplitude, start = swing(dataset.labels["angle"], dataset.labels["velocity"])
    labels = dataset.labels | {"amplitude": amplitude, "start": start}
    classes = dataset.classes | {"amplitude": tuple(AMPLITUDES), "start": STARTS}
    factors = ("amplitude", "start")
    return dataclasses.replace(dataset, labels=labels, classes=classes, dynamic=factors)


def states(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates [n, E <= ESTIMATES] of angle and velocity at frame 0, from angle [n, T] in rad.

    The velocity of a frame comes from the two frames before and after it. The state is then
    simulated back to frame 0, where velocity and damping have the opposite sign. E is 0 if T < 5.
    """
    times = np.arange(2, min(angle.shape[1] - 2, 2 + ESTIMATES))
    if not len(times):
        return np.empty((len(angle), 0)), np.empty((len(angle), 0))
    velocities = []
    for t in times:
        apart = (angle[:, t - 2 : t + 3] - angle[:, t : t + 1] + np.pi) % (2 * np.pi) - np.pi
        velocities.append(apart @ STENCIL)
    starts = angle.T[times].ravel(), -np.ravel(velocities)
    # All estimates are simulated together; each is read at its own time.
    paths = pendulum.simulate(*starts, times[-1] + 1, damping=-pendulum.DAMPING)
    votes = np.arange(len(times))
    back, minus = (path.reshape(len(times), len(angle), -1)[votes, :, times] for path in paths)
    return back.T, -minus.T


def fit(angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The swing that is closest to angle [n, T] in rad, NaN where a frame could not be read.

    Gauss-Newton iterations start at the median of `states` and minimise the squared errors of all
    readable frames, with Cauchy's weights, so that a broken frame counts little. Returns the angle
    (rad) and velocity (rad/s) at frame 0, [n, 2], and their covariance [n, 2, 2], estimated from
    the remaining errors; NaN without five readable frames in a row among the first ten.
    """
    count, frames = angle.shape
    with warnings.catch_warnings():
        # A clip without any estimate stays NaN.
        warnings.filterwarnings("ignore", "All-NaN slice|Mean of empty slice", RuntimeWarning)
        state = np.stack([np.nanmedian(part, axis=1) for part in states(angle)], 1)
    known, seen = np.isfinite(state).all(1), np.isfinite(angle)
    state[~known], target = 0, np.where(seen, angle, 0)
    moves = np.array([[0, 0], [DELTA, 0], [0, DELTA]])
    for iteration in range(ITERATIONS + 1):
        angles, velocities = (state + moves[:, None]).reshape(-1, 2).T
        path, _ = pendulum.simulate(angles, velocities, frames, substeps=SUBSTEPS)
        path = path.reshape(3, count, frames)
        error = (target - path[0] + np.pi) % (2 * np.pi) - np.pi
        slope = np.moveaxis(path[1:] - path[0], 0, -1) / DELTA
        weights = seen / (1 + (error / OUTLIER) ** 2)
        inverse = np.linalg.inv(np.einsum("nt,nti,ntj->nij", weights, slope, slope) + _TINY)
        if iteration < ITERATIONS:  # the last pass is for the uncertainty
            step = np.einsum("nij,nt,nt,ntj->ni", inverse, weights, error, slope)
            state += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
    variance = (weights * error**2).sum(1) / np.maximum(weights.sum(1) - 2, 1)
    state[~known] = np.nan
    return state, variance[:, None, None] * inverse


class SwingReader:
    """A judge of colour, amplitude and start (see `swing`) that measures and is not trained.

    Each frame votes for a colour. States drawn from the uncertainty of `fit` vote for an amplitude
    and a start. A frame that cannot be read votes for all values equally.
    """

    classes = {"colour": len(pendulum.COLOURS), "amplitude": len(AMPLITUDES), "start": len(STARTS)}

    def probabilities(self, frames: np.ndarray) -> Arrays:
        """{factor: share of the votes, float64 [n, C]} for clips uint8 [n, T, 64, 64, 3]."""
        colour, angles = read(frames)
        state, covariance = fit(angles)
        draws = np.random.default_rng(0).standard_normal((VOTES, 2))
        spread = np.linalg.cholesky(covariance + _TINY)
        angle, velocity = np.einsum("nij,vj->inv", spread, draws) + state.T[:, :, None]
        unread = np.isnan(angle)
        amplitude, start = (np.where(unread, -1, votes) for votes in swing(angle, velocity))
        share = np.isfinite(angles).mean(1, keepdims=True)
        shares = {"colour": _shares(colour, self.classes["colour"])}
        for name, votes in {"amplitude": amplitude, "start": start}.items():
            classes = self.classes[name]
            shares[name] = share * _shares(votes, classes) + (1 - share) / classes
        return shares


def _shares(votes, classes):
    """Shares [n, classes] of votes [n, V]; -1 (cannot be read) is a vote for all values equally."""
    # Index -1 is the last row.
    ballots = np.concatenate([np.eye(classes), np.full((1, classes), 1 / classes)])
    return ballots[votes].mean(1)


def swap_measures(made: np.ndarray, pose_angles, pose_colour, identity_colour) -> Measures:
    """Measures of clips made [n, T, 64, 64, 3] from the poses of one clip, the identity of another.

    pose_angles [n, T] in rad and pose_colour [n] are those of the pose source. leak_accuracy: how
    often its colour appears, on pairs whose colours differ.
    """
    colour, angle = read(made)
    leak = (colour == pose_colour[:, None]).mean(1)
    return {
        "identity_accuracy": Measure((colour == identity_colour[:, None]).mean(1)),
        "leak_accuracy": Measure(np.where(pose_colour != identity_colour, leak, np.nan)),
        "pose_error_deg": Measure(angle_error(angle, pose_angles), "median"),
    }


def continuation_measures(made: np.ndarray, angle, velocity, **physics) -> Measures:
    """Measures of continued clips made [n, T, 64, 64, 3], from frame CONTINUE_FROM on.

    The true motion is simulated from angle [n] (rad) and velocity [n] (rad/s) at frame 0; physics:
    its length and damping.
    """
    true = pendulum.simulate(angle, velocity, made.shape[1], **physics)[0]
    return path_measures(read(made)[1][:, CONTINUE_FROM:], true[:, CONTINUE_FROM:])


def path_measures(seen: np.ndarray, true: np.ndarray) -> Measures:
    """Measures of angles [n, T] in rad, as read from generated clips, beside the true ones.

    amplitude_ok: the peak-to-peak angle is 0.5 to 1.5 of the true one. period_ok: the period is
    within 15 %. A clip with an unreadable frame fails both.
    """
    unread = np.isnan(seen)
    path = np.unwrap(np.nan_to_num(seen), axis=1)
    amplitude = np.ptp(path, axis=1) / np.ptp(true, axis=1)
    beat = period(path) / period(true)
    whole = ~unread.any(1)
    return {
        "amplitude_ok": Measure(whole & (amplitude >= 0.5) & (amplitude <= 1.5)),
        "period_ok": Measure(whole & (np.abs(beat - 1) <= 0.15)),
        "frames_read": Measure(1 - unread.mean(1)),
        "pose_error_deg": Measure(angle_error(seen, true), "median"),
    }


def draw_measures(made: np.ndarray, true: np.ndarray) -> Figures:
    """Measures of drawn clips made [n, T, 64, 64, 3] beside real ones of angles true [m, T] (rad).

    frames_read, one_colour: whether every frame of a clip shows a pendulum, and one of one colour.
    {amplitude, period}_ks, _ks_p: Kolmogorov-Smirnov's statistic and p for drawn and real clips.
    """
    from scipy.stats import ks_2samp

    colour, seen = read(made)
    whole = np.isfinite(seen.sum(1))
    measures: dict = {
        "frames_read": Measure(whole),
        "one_colour": Measure(whole & (colour == colour[:, :1]).all(1)),
    }
    drawn, real = (np.unwrap(angles, axis=1) for angles in (seen[whole], true))
    for name, of in (("amplitude", lambda a: peak(*fit(a)[0].T)), ("period", period)):
        test = ks_2samp(of(drawn), of(real)) if len(drawn) else (np.nan, np.nan)
        measures |= {f"{name}_ks": float(test[0]), f"{name}_ks_p": float(test[1])}
    return measures


class PendulumMeasurer(Measurer):
    """Colour and angle from pixels. A judge is trained only for several rod lengths or dampings."""

    continue_to = CONTINUE_TO

    def __init__(self, dataset: Dataset):
        usual = set(dataset.classes) == {"colour"}
        super().__init__(with_swing(dataset) if usual else dataset)
        self.judge = SwingReader() if usual else None

    def reconstructions(self, made, labels, frames_only):
        measures = self.swaps(made, labels, np.arange(len(made)))
        # Two prefixes, because files of older runs have these names.
        identity, pose = ("", "stage1_") if frames_only else ("seq_", "")
        return {
            f"{identity}reconstruction_identity_accuracy": measures["identity_accuracy"],
            f"{pose}reconstruction_pose_error_deg": measures["pose_error_deg"],
        }

    def swaps(self, made, labels, partner):
        angles, colour = labels["angles"][:, : made.shape[1]], labels["colour"]
        return swap_measures(made, angles, colour, colour[partner])

    def draws(self, decoded):
        made = decoded()
        # What is drawn follows the training clips, which chance sets apart from the held-out ones.
        angles = self.dataset.split("train").label("angles")
        return draw_measures(made, angles[:, : made.shape[1]])

    def continuations(self, made, labels):
        physics = pendulum.constants(labels, self.dataset.classes)
        return continuation_measures(made, labels["angle"], labels["velocity"], **physics)
