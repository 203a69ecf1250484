"""Schedules: one value per epoch. No checkpoint stores them, because the epoch gives them.

`cosine_ramp` and `quadratic_spline` are those of the authors' code.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LOWEST, HIGHEST = 0.005, 80.0  # bounds of the spline in the authors' code


class Annealed(NamedTuple):
    """The values of the schedules at one step: numbers, or tensors without dimensions."""

    weights: dict[str, Any]  # KL weight of each latent variable
    temperature: Any = None  # of the mixing weights, if the model has any

    def unweighted(self) -> "Annealed":
        """The same values, with every KL weight 1."""
        return self._replace(weights=dict.fromkeys(self.weights, 1.0))

    def values(self) -> list:
        """The weights, then the temperature if there is one."""
        return [*self.weights.values(), *([] if self.temperature is None else [self.temperature])]

    def with_values(self, values: Sequence) -> "Annealed":
        """The same names with other values, in the order of `values()`."""
        weights = dict(zip(self.weights, values))
        return Annealed(weights, None if self.temperature is None else values[len(weights)])


class Schedules(NamedTuple):
    """The schedules of a stage, each an array [epochs that they span]."""

    weights: dict[str, np.ndarray]  # KL weight of each latent variable
    temperature: np.ndarray | None = None

    def at(self, epoch: int) -> Annealed:
        """The values of one epoch; after the last epoch of the schedules, those of the last."""
        weights = {
            name: float(curve[min(epoch, len(curve) - 1)]) for name, curve in self.weights.items()
        }
        temperature = self.temperature
        if temperature is not None:
            temperature = float(temperature[min(epoch, len(temperature) - 1)])
        return Annealed(weights, temperature)


def cosine_ramp(
    start: float, end: float, frac: int, epochs: int, ahead: bool = False
) -> np.ndarray:
    """[epochs] values: a half cosine from start to end over the first epochs / frac, then end.

    ahead: where frac does not divide the epochs, the ramp runs one epoch ahead, as that of lambda_d
    does in the authors' code.
    """
    ramp = epochs // frac if ahead else math.ceil(epochs / frac)
    cosine = np.cos(np.pi * (ramp - 1 - np.arange(ramp)) / (epochs / frac))
    rising = start + (end - start) * (1 + cosine) / 2
    return np.concatenate([rising, np.full(epochs - ramp, end, float)])


def _nodes(values, midfracs, epochs):
    """Epochs and values of the four nodes of lambda_z, in the order of the epochs."""
    epoch = np.array([0, epochs * midfracs[0], epochs * midfracs[1], epochs - 1], float)
    order = np.argsort(epoch, kind="stable")
    return epoch[order], np.asarray(values, float)[order]


def quadratic_spline(values: Sequence[float], midfracs: Sequence[float], epochs: int) -> np.ndarray:
    """[epochs] values: a quadratic spline through four nodes, clipped to [0.005, 80].

    The nodes are (0, v0), (midfrac1 epochs, v1), (midfrac2 epochs, v2) and (epochs - 1, v3). If two
    nodes of a very short run coincide, the curve is linear.
    """
    nodes, times = _nodes(values, midfracs, epochs), np.arange(epochs)
    if np.diff(nodes[0]).min() > 0:
        from scipy.interpolate import interp1d  # slow to import

        curve = interp1d(*nodes, kind="quadratic")(times)
    else:
        curve = np.interp(times, *nodes)
    return np.clip(curve, LOWEST, HIGHEST)


def half_cosines(values: Sequence[float], midfracs: Sequence[float], epochs: int) -> np.ndarray:
    """[epochs] values: a half cosine between each two of the nodes of `quadratic_spline`."""
    nodes, levels = _nodes(values, midfracs, epochs)
    place = np.interp(
        np.arange(epochs), nodes, np.arange(len(nodes))
    )  # 1.5: half way from v1 to v2
    passed = np.floor(place)
    return np.interp(passed + (1 - np.cos(np.pi * (place - passed))) / 2, range(len(nodes)), levels)


def geometric(values: Sequence[float], fracs: Sequence[float], epochs: int) -> np.ndarray:
    """[epochs] values: v[i] at the share fracs[i] of the epochs, geometric between them."""
    share = np.arange(epochs) / max(epochs - 1, 1)
    return np.exp(np.interp(share, fracs, np.log(values)))
