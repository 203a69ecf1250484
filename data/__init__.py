"""Data sets by name. A new one is a module with `load(config) -> Dataset` and one line in DATASETS."""

import importlib

from utils.errors import UserError

DATASETS = {
    "pendulum": "data.pendulum",
    "sprites": "data.sprites",
}
PLANNED = ("MUG-FED",)  # the release's default set, whose reader is still to come


def load(config):
    """The data set that config.dataset_name names, as `data.base.Dataset`; raises UserError if it is unknown or not there."""
    if config.dataset_name not in DATASETS:
        name = config.dataset_name
        found = f"{name} is not built in this version" if name in PLANNED else f"unknown data set '{name}'"
        raise UserError(f"{found}: --dataset_name is one of {', '.join(sorted(DATASETS))}")
    return importlib.import_module(DATASETS[config.dataset_name]).load(config)
