"""Pendula far beyond the training length, and what their codes know (--evaluate long).

After Figures 3 to 5 of the supplementary, which show clips of 16 frames continued to 40 and 60
frames, and motions transferred over 60:

- test clips are continued to 160 frames, ten times the training length, with their own identity
  (`continued`) and with that of another clip (`transferred`); colour and angle are read from the
  pixels and compared with the physics;
- identity, amplitude, phase and speed of held-out clips are regressed from each code.
"""

import numpy as np

from data import pendulum
from metrics.pendulum import CONTINUE_FROM, angle_error, path_measures, peak, read
from metrics.summary import Arrays, Measure, Measures, Outcome, figures, spreads
from metrics.swap import SEEDS, pairing
from models.view import BLOCK

LENGTHS = 40, 60, 160  # frames to which clips are continued; the figures are of frames 17 to these
WIDTHS, RIDGES = (0.1, 1, 10), (1e-4, 1e-2, 1)  # squared width of the kernel per dimension; ridges
FOLDS = 5


def seen(decode, static, dynamic, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """`read` of clips of so many frames, decoded a few at a time, which together need too much."""
    blocks = zip(static.split(BLOCK), dynamic.split(BLOCK))
    parts = [read(decode(*block, frames)) for block in blocks]
    colour, angle = (np.concatenate(part) for part in zip(*parts))
    return colour, angle


def windows(colour, angle, identity, true) -> Measures:
    """The measures of frames CONTINUE_FROM to each of LENGTHS.

    colour, angle [n, T]: as read from generated clips; true [n, T]: the angles of the physics, rad;
    identity [n]: the colours that the clips should have.
    """
    measures = {}
    for until in LENGTHS:
        window = slice(CONTINUE_FROM, until)
        right = (colour[:, window] == identity[:, None]).mean(1)
        part = path_measures(angle[:, window], true[:, window])
        part["identity_accuracy"] = Measure(right)
        measures |= {f"{name}_{until}": measure for name, measure in part.items()}
    return measures


def by_frame(colour, angle, identity, true) -> dict[str, list[float]]:
    """The same figures frame by frame: median error of the angle, and share of right colours."""
    errors, right = angle_error(angle, true), colour == identity[:, None]
    return {
        "pose_error_deg": np.median(errors, 0).round(3).tolist(),
        "identity_accuracy": right.mean(0).round(4).tolist(),
    }


def factors(labels: Arrays, length) -> Arrays:
    """What is regressed: colour [n, 8], amplitude, phase and speed [n, 1 or 2], of `labels`.

    Amplitude in degrees; phase as sine and cosine of its angle; speed: the angular velocity of the
    first frame, rad/s. length: of the rods, m, [n].
    """
    angle, velocity = labels["angle"], labels["velocity"]
    # A swing to the right that starts at rest has phase 0.
    phase = np.arctan2(-velocity / np.sqrt(pendulum.GRAVITY / length), angle)
    return {
        "colour": np.eye(len(pendulum.COLOURS))[labels["colour"]],
        "amplitude": peak(angle, velocity, length)[:, None],
        "phase": np.stack([np.sin(phase), np.cos(phase)], 1),
        "speed": velocity[:, None],
    }


def regressed(train, train_factors: Arrays, test, test_factors: Arrays) -> dict[str, float]:
    """How well a code tells each factor: the share of right colours, and R^2 of the others.

    train, test: codes [n, ...] of training and of held-out clips. By kernel ridge regression with a
    Gaussian kernel. The width of the kernel and the ridge are chosen for each factor by
    cross-validation of the training clips. A code that knows nothing scores about 1/8 and 0.
    """
    train, test = (np.asarray(code, float).reshape(len(code), -1) for code in (train, test))
    centre, spread = train.mean(0), np.maximum(train.std(0), 1e-9)
    train, test = (train - centre) / spread, (test - centre) / spread
    targets = np.concatenate([*train_factors.values()], 1)
    columns = np.repeat(np.arange(len(train_factors)), [v.shape[1] for v in train_factors.values()])
    fold, losses = np.arange(len(train)) % FOLDS, []
    for width in WIDTHS:
        missed = np.zeros((len(RIDGES), targets.shape[1]))
        for left_out in range(FOLDS):
            kept, other = fold != left_out, fold == left_out
            told = _predicted(train[kept], targets[kept], train[other], width)
            missed += ((told - targets[other]) ** 2).sum(1)
        losses.append(missed)
    told = [_predicted(train, targets, test, width) for width in WIDTHS]
    scores = {}
    for place, (name, true) in enumerate(test_factors.items()):
        loss = np.stack(losses)[..., columns == place].sum(-1)
        width, ridge = np.unravel_index(loss.argmin(), loss.shape)
        values = told[width][ridge][:, columns == place]
        if name == "colour":
            scores[name] = float((values.argmax(1) == true.argmax(1)).mean())
        else:
            missed = ((values - true) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
            scores[name] = float(1 - missed.mean())
    return scores


def _predicted(train, targets, test, width):
    """Targets [RIDGES, m, D] of the codes test [m, C] by the regression on train [n, C]."""
    from scipy.spatial.distance import cdist  # slow to import

    scale, mean = width * train.shape[1], targets.mean(0)
    values, vectors = np.linalg.eigh(np.exp(-cdist(train, train, "sqeuclidean") / scale))
    shares = vectors.T @ (targets - mean)
    weights = [vectors @ (shares / (values + ridge)[:, None]) for ridge in RIDGES]
    return mean + np.exp(-cdist(test, train, "sqeuclidean") / scale) @ np.stack(weights)


def measured(task) -> Outcome:
    """The outcome of the protocol for a metrics.evaluate.Evaluation of pendula."""
    held, known, classes = task.held_out, task.training, task.dataset.classes
    sides = []
    for part in (known, held):
        physics = pendulum.constants(part.labels, classes)
        sides.append((part, factors(part.labels, physics["length"])))
    (_, known_factors), (_, held_factors) = sides
    numbers, errors, curves = {}, {}, {}
    for code in ("static", "dynamic"):
        given = getattr(known, code), known_factors, getattr(held, code), held_factors
        scores = regressed(*given)
        name = {"static": "identity_code", "dynamic": "dynamics_code"}[code]
        numbers |= {f"{name}_{factor}": score for factor, score in scores.items()}
    if task.continued_to:
        labels, physics = held.labels, pendulum.constants(held.labels, classes)
        start = labels["angle"], labels["velocity"]
        true, _ = pendulum.simulate(*start, max(LENGTHS), **physics)
        partner = pairing(len(held.frames), SEEDS[0])
        sources = {"continued": np.arange(len(partner)), "transferred": partner}
        for kind, source in sources.items():
            paths = seen(task.view.decode_uint8, held.static[source], held.dynamic, max(LENGTHS))
            clips = *paths, labels["colour"][source], true
            measures = {f"{kind}_{name}": measure for name, measure in windows(*clips).items()}
            numbers |= figures(measures)
            errors |= spreads(measures, task.units)
            curves[kind] = by_frame(*clips)
        plot(curves, task.folder.metrics.with_name("drift.png"))
    return Outcome(numbers, errors, {}, {"by frame": curves, "seed": SEEDS[0], "warnings": []})


def plot(curves: dict[str, dict[str, list[float]]], path) -> None:
    """Draw the figures of `by_frame` over the frames, of each kind of clip, as a PNG at `path`."""
    from utils.style import Plot, in_style  # matplotlib is slow to import

    titles = {
        "pose_error_deg": "error of the angle, degrees (median over clips)",
        "identity_accuracy": "share of clips of the right colour",
    }
    with in_style():
        drawn = Plot(7, 5)
        for axis, (name, title) in zip(drawn.subplots(2, 1, sharex=True), titles.items()):
            for kind, values in curves.items():
                axis.plot(1 + np.arange(len(values[name])), values[name], label=f"{kind} clips")
            end = "end of the clip encoded"
            axis.axvline(CONTINUE_FROM, color="grey", linestyle="--", label=end)
            axis.set(title=title, ylim=(0, 1.02) if name == "identity_accuracy" else (0, None))
            axis.grid()
            axis.legend()
        axis.set_xlabel("frame")
        drawn.save(path)
