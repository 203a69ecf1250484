"""From what was seen clip by clip to a figure and its spread."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 200


class Measure(NamedTuple):
    """values [n] or [n, ...], one row a clip, NaN where a clip does not count; how: 'mean' or 'median' over all of them."""

    values: np.ndarray
    how: str = "mean"

    def figure(self, rows=slice(None)):
        """The figure over the clips at `rows`; NaN if none counts."""
        values = self.values[rows].astype(np.float64)
        values = values[~np.isnan(values)]
        return float(getattr(np, self.how)(values)) if values.size else float("nan")


def figures(measures):
    """{name: Measure} -> {name: number}."""
    return {name: measure.figure() for name, measure in measures.items()}


def spreads(measures, seed=0):
    """{name: Measure} -> {name: standard error}, by resampling clips with replacement 200 times (bootstrap)."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, measure in measures.items():
        n = len(measure.values)
        drawn = [measure.figure(rng.integers(n, size=n)) for _ in range(RESAMPLES)]
        found[name] = float(np.nanstd(drawn)) if not np.all(np.isnan(drawn)) else float("nan")
    return found


class Found(NamedTuple):
    """What a protocol found: figures {name: number}; spread {name: standard error over clips}; seed_spread {name: standard
    deviation over seeds}; notes for metrics.json: its seeds, judge, warnings."""

    figures: dict
    spread: dict
    seed_spread: dict
    notes: dict


def over_seeds(rounds, notes):
    """`Found` of one {name: Measure or number} a seed, in order, over the same clips: means over seeds.

    A Measure's figure is over all its seeds' values at once, its standard error by resampling clips; each figure has its
    deviation over the seeds beside it, numbers have that alone.
    """
    measures, found, seed_spread = {}, {}, {}
    for name, first in rounds[0].items():
        values = [each[name] for each in rounds]
        single = [
            value.figure() if isinstance(value, Measure) else float(value) for value in values
        ]
        found[name], seed_spread[name] = float(np.mean(single)), float(np.std(single))
        if isinstance(first, Measure):
            measures[name] = Measure(np.stack([value.values for value in values], 1), first.how)
            found[name] = measures[name].figure()
    return Found(found, spreads(measures), seed_spread, notes)
