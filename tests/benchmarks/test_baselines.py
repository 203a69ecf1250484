"""make baselines: every model on the same data with the same seeds, and one table of all runs."""

from types import SimpleNamespace

import pytest

from benchmarks import baselines
from benchmarks.baselines import PRESETS, commands
from utils.plan import parse

SEQ_LEN = {"pendulum": 16, "sprites-li": 8}


@pytest.mark.parametrize("dataset_name", PRESETS)
def test_runs_of_all_models_on_the_same_data(dataset_name):
    runs = commands(dataset_name, [0, 1], ["--epochs", "1"])
    plans = [parse(words[1:]) for words in runs.values()]
    assert len(runs) == 6 and [plan.first.RUN for plan in plans] == list(runs)
    assert [plan.first.model for plan in plans] == 2 * ["vdsm", "dsa", "unordered"]
    assert [plan.first.seed for plan in plans] == 3 * [0] + 3 * [1]
    # All are measured with the same protocols.
    assert len({list(plan.stages.values())[-1].evaluate for plan in plans}) == 1
    for plan in plans:
        assert plan.training == list(plan.stages)
        for settings in plan.stages.values():
            assert (settings.dataset_name, settings.epochs) == (dataset_name, 1)
            assert (settings.seq_len, settings.seed) == (SEQ_LEN[dataset_name], plan.first.seed)


@pytest.fixture
def asked(monkeypatch):
    """Record commands instead of running them; each ends with `asked.code` and prints 'table'."""
    record = SimpleNamespace(commands=[], code=0)

    def run(words, **_):
        record.commands.append([str(word) for word in words[1:]])
        return SimpleNamespace(returncode=record.code, stdout="table")

    monkeypatch.setattr(baselines.subprocess, "run", run)
    return record


@pytest.mark.parametrize("code", [2, -9])
def test_no_run_starts_after_one_has_failed(asked, tmp_path, code):
    asked.code = code
    assert baselines.main(["pendulum", "--jobs", "1", "--runs_dir", str(tmp_path)]) == code
    assert len(asked.commands) == 1 and not list(tmp_path.iterdir())


def test_the_table_compares_every_run(asked, tmp_path, capsys):
    flags = ["pendulum", "--seeds", "0,3", "--runs_dir", str(tmp_path), "--epochs", "1"]
    assert baselines.main(flags) == 0
    *training, compare = asked.commands
    runs = commands("pendulum", [0, 3])
    assert len(training) == 6 and all("--epochs" in words for words in training)
    assert compare[:2] == ["-m", "metrics.compare"] and compare[2:8] == list(runs)
    written = (tmp_path / "baselines-pendulum.md").read_text()
    assert written.startswith("table\n") and written.count("- `python main.py --preset demo") == 6
    assert written in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--seeds x", "--jobs 0"])
def test_wrong_flags(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        baselines.main(["pendulum", *flag.split()])
    assert stop.value.code == 2 and "expected" in capsys.readouterr().err
