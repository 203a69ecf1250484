"""Data sets by name. docs/ADDING_A_DATA_SET.md says what a module of this folder holds."""

import importlib

from data.base import Dataset
from utils.settings import DATASETS, RunSettings


def load(config: RunSettings) -> Dataset:
    """The data set config.dataset_name, or config.num_clips clips of it. Raises UserError."""
    dataset = importlib.import_module(DATASETS[config.dataset_name]).load(config)
    return dataset.subsample(config.num_clips, config.data_seed) if config.num_clips else dataset
