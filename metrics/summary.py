"""From what was seen clip by clip to a figure and its spread."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 200


class Measure(NamedTuple):
    """values [n] or [n, T], one row a clip, NaN where a clip does not count; how: 'mean' or 'median' over all of them."""

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
