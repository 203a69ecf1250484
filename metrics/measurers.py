"""The table of measurers: what a data set adds to the evaluation."""

from collections.abc import Callable

import numpy as np

from data.base import Dataset
from metrics.summary import Arrays, Figures, Measures
from utils.modules import module

# {data set: module:class}. A new measurer is one line here.
MEASURERS = {
    "pendulum": "metrics.pendulum:PendulumMeasurer",
    "sprites": "metrics.sprites:SpriteMeasurer",
    "sprites-li": "metrics.sprites:SpriteMeasurer",
}


class Measurer:
    """The additions of one data set. This base class adds nothing.

    dataset: the data set, perhaps with further factors; judge: one that needs no training, or None;
    continue_to: frames to which clips are continued, or None. made: generated clips, uint8
    [n, T, 64, 64, 3]; labels {name: [n, ...]}: those of the held-out clips.
    """

    judge = None
    continue_to: int | None = None

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def reconstructions(self, made: np.ndarray, labels: Arrays, frames_only: bool) -> Measures:
        """Measures of reconstructions, under their full names in metrics.json."""
        return {}

    def swaps(self, made: np.ndarray, labels: Arrays, partner: np.ndarray) -> Measures:
        """Measures of clips with the motion of clip i and the identity of clip partner[i]."""
        return {}

    def draws(self, decoded: Callable[[], np.ndarray]) -> Figures:
        """Measures of the clips `decoded()`, both of whose codes are drawn."""
        return {}

    def continuations(self, made: np.ndarray, labels: Arrays) -> Measures:
        """Measures of clips that were continued to `continue_to` frames."""
        return {}


def measurer_of(dataset: Dataset) -> Measurer:
    """The measurer of the data set: its entry in the table, or one that adds nothing."""
    if dataset.name not in MEASURERS:
        return Measurer(dataset)
    place, name = MEASURERS[dataset.name].split(":")
    return getattr(module(place), name)(dataset)
