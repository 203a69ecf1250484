"""The colours of generated sprites, read from their pixels: figures that need no trained judge.

A sprite is drawn from layers, and its data set holds every combination of them. What a swap should
show is therefore a clip of the set: the character of one source in the action of the other. Clips
of the same character and action that differ in one layer alone (hair, shirt, ...) show at which
pixels that layer lies: its mask. There the generated clip is compared with each value of the layer.
"""

import numpy as np

from data.base import Dataset
from metrics.measurers import Measurer
from metrics.summary import Arrays, Measure, Measures

# At most so many pairs are read, evenly spread over the held-out clips.
PAIRS = 240


class Layers:
    """The clips of a set of sprites by the values of their factors, and the masks of its layers."""

    def __init__(self, dataset: Dataset):
        self.factors, self.frames = dataset.static, dataset.frames
        self.first = np.cumsum(dataset.lengths) - dataset.lengths
        names = (*self.factors, *dataset.dynamic)
        # The position of the clip with these values; -1: the set lacks it.
        self.position = np.full([len(dataset.classes[name]) for name in names], -1)
        self.position[tuple(dataset.labels[name] for name in names)] = np.arange(len(self.first))
        # Whether there is one clip of each combination of values and actions.
        whole = self.position.size == len(self.first) and self.position.min() >= 0
        self.complete = bool(dataset.dynamic) and whole

    def values_of(self, factor: str, character: list[int], action: int, length: int) -> np.ndarray:
        """Clips of a character in an action with each value of the factor: uint8 [V, T, 64, 64, 3].

        character: its value of each factor of `factors`.
        """
        at = [*character, action]
        at[self.factors.index(factor)] = slice(None)
        first = self.first[self.position[tuple(at)]]
        return self.frames[first[:, None] + np.arange(length)]

    def read(self, clip: np.ndarray, factor: str, character: list[int], action: int) -> np.ndarray:
        """How far a clip [T, 64, 64, 3] is from each value of a factor, float [V].

        The mean absolute difference at the mask, in grey levels (0 to 255). NaN if no pixel shows
        the factor.
        """
        values = self.values_of(factor, character, action, len(clip))
        differ = np.bitwise_or.reduce(values ^ values[0])  # [T, 64, 64, 3]
        mask = np.flatnonzero(differ[..., 0] | differ[..., 1] | differ[..., 2])
        if not len(mask):
            return np.full(len(values), np.nan)
        seen = clip.reshape(-1, 3)[mask].astype(np.int16)
        return np.abs(values.reshape(len(values), -1, 3)[:, mask] - seen).mean((1, 2))


class SpriteMeasurer(Measurer):
    """Hair, shirt, legs and body of generated sprites, by `Layers`.

    Adds nothing if the set lacks a combination of values.
    """

    def __init__(self, dataset: Dataset):
        super().__init__(dataset)
        self.layers = Layers(dataset)

    def reconstructions(self, made: np.ndarray, labels: Arrays, frames_only: bool) -> Measures:
        prefix = "reconstruction_" if frames_only else "seq_reconstruction_"
        measures = self.swaps(made, labels, np.arange(len(made)))
        return {prefix + name: measure for name, measure in measures.items()}

    def swaps(self, made: np.ndarray, labels: Arrays, partner: np.ndarray) -> Measures:
        """{factor}_pixels_right: the nearest value is that of the identity source.

        {factor}_pixels_apart: the distance from this value, in grey levels.
        """
        if not self.layers.complete:
            return {}
        n, action, measures = len(made), labels[self.dataset.dynamic[0]], {}
        chosen = np.unique(np.linspace(0, n - 1, min(n, PAIRS)).astype(int))
        for place, factor in enumerate(self.layers.factors):
            right, apart = np.full((2, n), np.nan)
            for i in chosen:
                character = [int(labels[name][partner[i]]) for name in self.layers.factors]
                distance = self.layers.read(made[i], factor, character, int(action[i]))
                if not np.isnan(distance).any():
                    right[i] = distance.argmin() == character[place]
                    apart[i] = distance[character[place]]
            measures[f"{factor}_pixels_right"] = Measure(right)
            measures[f"{factor}_pixels_apart"] = Measure(apart)
        return measures
