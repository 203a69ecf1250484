"""From values measured per clip to a figure and its spread."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrics.words import NOISE

RESAMPLES = 200
# One array per name of a factor, a label or a code.
Arrays = dict[str, np.ndarray]


class Measure(NamedTuple):
    """Values [n] or [n, ...], one row per clip, whose mean or median (`how`) over all is a figure.

    NaN marks a value that does not count.
    """

    values: np.ndarray
    how: str = "mean"

    def figure(self, rows=slice(None)) -> float:
        """The figure over the clips at `rows`; NaN if no value counts."""
        values = self.values[rows].astype(np.float64)
        values = values[~np.isnan(values)]
        return float(getattr(np, self.how)(values)) if values.size else float("nan")

    def resampled(self, times) -> np.ndarray:
        """The figure if clip i counts times[r, i] times: times int [R, n] -> [R]."""
        if self.how != "mean":
            clips = np.arange(len(self.values))
            return np.array([self.figure(np.repeat(clips, row)) for row in times])
        values = self.values.reshape(len(self.values), -1).astype(np.float64)
        counts = ~np.isnan(values)
        sums = np.where(counts, values, 0).sum(1)
        with np.errstate(invalid="ignore"):
            return (times @ sums) / (times @ counts.sum(1))


# One measure per name of a figure.
Measures = dict[str, Measure]
Figures = Mapping[str, Measure | float]


def figures(measures: Measures) -> dict[str, float]:
    """The figure of each measure, by name."""
    return {name: measure.figure() for name, measure in measures.items()}


def spreads(measures: Measures, units: np.ndarray | None = None, seed: int = 0) -> dict[str, float]:
    """The standard error of each figure, by bootstrap with RESAMPLES resamples.

    units [n]: a label of each clip. Clips of one unit, such as the nine of a character, are drawn
    together, because only units are independent. Default: each clip is a unit.
    """
    rng, errors, drawn = np.random.default_rng(seed), {}, {}
    for name, measure in measures.items():
        n = len(measure.values)
        if n not in drawn:
            member = np.arange(n) if units is None else np.unique(units, return_inverse=True)[1]
            count = member.max() + 1
            resamples = rng.integers(count, size=(RESAMPLES, count))
            drawn[n] = np.stack([np.bincount(row, minlength=count)[member] for row in resamples])
        resampled = measure.resampled(drawn[n])
        present = resampled[~np.isnan(resampled)]
        errors[name] = _spread(present) if present.size else float("nan")
    return errors


def _spread(values):
    """The standard deviation; 0 below NOISE, which rounding alone gives."""
    spread = float(np.std(values))
    return 0.0 if spread < NOISE else spread


class Outcome(NamedTuple):
    """The result of one protocol: figures by name, and notes for metrics.json ('warnings', ...).

    spread: standard error (see `spreads`); seed_spread: standard deviation over seeds.
    """

    figures: dict[str, float]
    spread: dict[str, float]
    seed_spread: dict[str, float]
    notes: dict


def over_seeds(
    rounds: Sequence[Mapping[str, Measure | float]], notes: dict, units: np.ndarray | None = None
) -> Outcome:
    """The `Outcome` of several seeds, each measured on the same clips; units: see `spreads`.

    The figure of a Measure is that of all seeds' values at once; numbers are averaged.
    """
    measures, means, seed_spread = {}, {}, {}
    for name in rounds[0]:
        results = [one_round[name] for one_round in rounds]
        parts = [result for result in results if isinstance(result, Measure)]
        if parts:
            measures[name] = Measure(np.stack([part.values for part in parts], 1), parts[0].how)
        values = [result.figure() if isinstance(result, Measure) else result for result in results]
        means[name], seed_spread[name] = float(np.mean(values)), _spread(values)
    return Outcome(means | figures(measures), spreads(measures, units), seed_spread, notes)
