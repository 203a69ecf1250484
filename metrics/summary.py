"""From values measured per clip to a figure and its spread."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

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

    def resampled(self, rows) -> np.ndarray:
        """The figure over each row of `rows` [R, n], positions of clips."""
        if self.how != "mean":
            return np.array([self.figure(of_one) for of_one in rows])
        values = self.values.reshape(len(self.values), -1).astype(np.float64)
        counts = ~np.isnan(values)
        sums = np.where(counts, values, 0).sum(1)
        with np.errstate(invalid="ignore"):
            return sums[rows].sum(1) / counts.sum(1)[rows].sum(1)


# One measure per name of a figure.
Measures = dict[str, Measure]
Figures = Mapping[str, Measure | float]


def figures(measures: Measures) -> dict[str, float]:
    """The figure of each measure, by name."""
    return {name: measure.figure() for name, measure in measures.items()}


def spreads(measures: Measures, seed: int = 0) -> dict[str, float]:
    """The standard error of each figure: clips are resampled RESAMPLES times (bootstrap)."""
    rng = np.random.default_rng(seed)
    errors = {}
    for name, measure in measures.items():
        n = len(measure.values)
        resampled = measure.resampled(rng.integers(n, size=(RESAMPLES, n)))
        all_missing = np.all(np.isnan(resampled))
        errors[name] = float("nan") if all_missing else float(np.nanstd(resampled))
    return errors


class Outcome(NamedTuple):
    """The result of one protocol: figures by name, and notes for metrics.json ('warnings', ...).

    spread: standard error over clips; seed_spread: standard deviation over seeds.
    """

    figures: dict[str, float]
    spread: dict[str, float]
    seed_spread: dict[str, float]
    notes: dict


def over_seeds(rounds: Sequence[Mapping[str, Measure | float]], notes: dict) -> Outcome:
    """The `Outcome` of several seeds, each measured on the same clips.

    The figure of a Measure is that of all seeds' values at once; numbers are averaged.
    """
    measures, means, seed_spread = {}, {}, {}
    for name in rounds[0]:
        results = [one_round[name] for one_round in rounds]
        parts = [result for result in results if isinstance(result, Measure)]
        if parts:
            measures[name] = Measure(np.stack([part.values for part in parts], 1), parts[0].how)
        values = [result.figure() if isinstance(result, Measure) else result for result in results]
        means[name], seed_spread[name] = float(np.mean(values)), float(np.std(values))
    return Outcome(means | figures(measures), spreads(measures), seed_spread, notes)
