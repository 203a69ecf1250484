"""make baselines: every model on the same data with the same seeds, in the folders that it then compares."""

from types import SimpleNamespace

import pytest

from benchmarks import baselines
from benchmarks.baselines import PRESETS, commands
from utils.settings import parse


@pytest.mark.parametrize("data", PRESETS)
def test_runs_of_all_models_on_the_same_data(data):
    asked = commands(data, [0, 1], ["--epochs", "1"])
    plans = [parse(words[1:]) for _, words in asked]
    assert [plan.first.RUN for plan in plans] == [run for run, _ in asked] and len(
        set(run for run, _ in asked)
    ) == 6
    assert [plan.first.model for plan in plans] == 2 * ["vdsm", "dsa", "unordered"]
    assert len({list(plan.stages.values())[-1].evaluate for plan in plans}) == 1  # judged alike
    for plan in plans:
        assert plan.training == list(plan.stages)
        for settings in plan.stages.values():
            assert (settings.dataset_name, settings.epochs) == (data, 1)
            assert settings.seq_len == {"pendulum": 16, "sprites-li": 8}[
                data
            ] and settings.seed in (0, 1)


@pytest.mark.parametrize("code", [2, -9])
def test_no_run_is_begun_after_one_has_stopped(monkeypatch, code):
    asked = []
    monkeypatch.setattr(
        baselines.subprocess,
        "run",
        lambda words, **_: asked.append(words) or SimpleNamespace(returncode=code),
    )
    assert baselines.main(["pendulum", "--jobs", "1"]) == code and len(asked) == 1


@pytest.mark.parametrize("flag", ["--seeds x", "--jobs 0"])
def test_wrong_flags(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        baselines.main(["pendulum", *flag.split()])
    assert stop.value.code == 2 and "expected" in capsys.readouterr().err
