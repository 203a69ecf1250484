"""Data sets by name. A new one is a module with `load(config) -> Dataset` and one line in DATASETS."""

import importlib

from utils.errors import UserError

DATASETS = {
    "MUG-FED": "data.mug",
    "moving-mnist": "data.moving_mnist",
    "pendulum": "data.pendulum",
    "sprites": "data.sprites",
    "sprites-li": "data.sprites_li",
    "video-folder": "data.videos",
}


def load(config):
    """The data set that config.dataset_name names, as `data.base.Dataset`, or config.num_clips clips of it; raises
    UserError if it is unknown or not there."""
    if config.dataset_name not in DATASETS:
        known = ", ".join(DATASETS)
        raise UserError(
            f"unknown data set '{config.dataset_name}': --dataset_name is one of {known}"
        )
    dataset = importlib.import_module(DATASETS[config.dataset_name]).load(config)
    return dataset.subsample(config.num_clips, config.data_seed) if config.num_clips else dataset
