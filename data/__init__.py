"""Data sets by name. A new one is a module with `load(config) -> Dataset`, and perhaps `Flags`, and
one line in `utils.settings.DATASETS`."""

import importlib

from utils.settings import DATASETS


def load(config):
    """The data set `config.dataset_name` as a data.base.Dataset, or config.num_clips clips of it.

    config: the settings (utils.settings.RunSettings). Raises UserError if the data are not there.
    """
    dataset = importlib.import_module(DATASETS[config.dataset_name]).load(config)
    return dataset.subsample(config.num_clips, config.data_seed) if config.num_clips else dataset
