"""Data sets by name. docs/ADDING_A_DATA_SET.md says what a module of this folder holds."""

from collections.abc import Mapping
from typing import Any

from data.base import Dataset
from utils.modules import module
from utils.settings import DATASETS, RunSettings


def load(config: RunSettings) -> Dataset:
    """The data set config.dataset_name, or config.num_clips clips of it. Raises UserError."""
    dataset = module(DATASETS[config.dataset_name]).load(config)
    return dataset.subsample(config.num_clips, config.data_seed) if config.num_clips else dataset


def load_stages(stages: Mapping[str, RunSettings]) -> dict[str, Dataset]:
    """The data set of each stage, {stage name: Dataset}, long enough for what the stage reads.

    Stages share one Dataset if the settings that it was loaded with are equal. Raises UserError.
    """
    datasets, loaded, said = {}, [], set()
    for name, settings in stages.items():
        for read, known in loaded:
            if all(getattr(settings, flag) == value for flag, value in read.items()):
                dataset = known
                break
        else:
            noted: Any = _Noted(settings, said)
            dataset = load(noted)
            loaded.append((noted.read, dataset))
        if settings.clips_per_sample_of(name, dataset) == 1:
            dataset.need_frames(settings.seq_len)
        datasets[name] = dataset
    return datasets


class _Noted:
    """Settings that note in `read` which of them are read, {flag: value}.

    said: the lines that loading has printed, so that a second stage does not repeat them.
    """

    def __init__(self, settings, said):
        self._settings, self.read, self.said = settings, {}, said

    def __getattr__(self, flag):
        value = self.read[flag] = getattr(self._settings, flag)
        return value
