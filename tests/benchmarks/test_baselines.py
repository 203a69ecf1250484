"""make baselines: every model on the same data with the same seeds, in the folders that it then compares."""

import pytest

from benchmarks.baselines import PRESETS, commands
from utils.config import parse


@pytest.mark.parametrize("data", PRESETS)
def test_runs_of_all_models_on_the_same_data(data):
    asked = commands(data, [0, 1], ["--epochs", "1"])
    plans = [parse(words[1:]) for _, words in asked]
    assert [plan.first.RUN for plan in plans] == [run for run, _ in asked] and len(set(run for run, _ in asked)) == 6
    assert [plan.first.model for plan in plans] == 2 * ["vdsm", "dsa", "unordered"]
    assert len({list(plan.stages.values())[-1].evaluate for plan in plans}) == 1  # judged alike
    for plan in plans:
        assert plan.training == list(plan.stages)
        for settings in plan.stages.values():
            assert (settings.dataset_name, settings.epochs) == (data, 1)
            assert settings.seq_len == {"pendulum": 16, "sprites-li": 8}[data] and settings.seed in (0, 1)
