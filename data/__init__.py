"""Data sets by name. A new one is a module with `load(config) -> Dataset` and a line here."""

import importlib
from typing import TYPE_CHECKING

from utils.errors import UserError

# Not imported otherwise: `--help` needs the names below, and no NumPy.
if TYPE_CHECKING:
    from data.base import Dataset

DATASETS = {
    "MUG-FED": "data.mug",
    "moving-mnist": "data.moving_mnist",
    "pendulum": "data.pendulum",
    "sprites": "data.sprites",
    "sprites-li": "data.sprites_li",
    "video-folder": "data.videos",
}


def load(config) -> "Dataset":
    """Load the data set `config.dataset_name`; only `config.num_clips` of its clips if that is set.

    Raises UserError if the name is unknown or the files are missing.
    """
    if config.dataset_name not in DATASETS:
        known = ", ".join(DATASETS)
        raise UserError(
            f"unknown data set '{config.dataset_name}': --dataset_name is one of {known}"
        )
    dataset = importlib.import_module(DATASETS[config.dataset_name]).load(config)
    return dataset.subsample(config.num_clips, config.data_seed) if config.num_clips else dataset
