"""make baselines: every model on the same data with the same seeds, and one table of all runs."""

import pytest

from benchmarks import baselines, sweep
from benchmarks.jobs import Ended
from utils.plan import parse

SEQ_LEN = {"pendulum": 16, "sprites-li": 8}


@pytest.fixture
def asked(monkeypatch):
    """The jobs that would run, {run: words}; each ends at once, without an error."""
    jobs = {}

    def here(given, at_a_time, ended):
        assert at_a_time == 2
        for job in given:
            jobs[job.run] = job.words
            ended(job, Ended(0, 1.0))

    monkeypatch.setattr(sweep, "here", here)
    return jobs


@pytest.mark.parametrize("dataset_name", baselines.PRESETS)
def test_runs_of_all_models_on_the_same_data(asked, tmp_path, capsys, dataset_name):
    flags = [dataset_name, "--seeds", "0,1", "--epochs", "1", "--runs_dir", str(tmp_path)]
    assert baselines.main(flags) == 0
    plans = [parse(words) for words in asked.values()]
    assert len(asked) == 6 and [plan.first.RUN for plan in plans] == list(asked)
    assert [plan.first.model for plan in plans] == 2 * ["vdsm", "dsa", "unordered"]
    assert [plan.first.seed for plan in plans] == 3 * [0] + 3 * [1]
    # All are measured with the same protocols.
    assert len({list(plan.stages.values())[-1].evaluate for plan in plans}) == 1
    for plan in plans:
        assert plan.training == list(plan.stages)
        for settings in plan.stages.values():
            assert (settings.dataset_name, settings.epochs) == (dataset_name, 1)
            assert (settings.seq_len, settings.seed) == (SEQ_LEN[dataset_name], plan.first.seed)
            assert (settings.threads, settings.quiet) == (1, True)
    written = (tmp_path / f"baselines-{dataset_name}.md").read_text()
    assert written.count("- `python main.py --preset ") == 6 and written in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--seeds x", "--jobs 0"])
def test_wrong_flags(capsys, flag):
    try:
        code = baselines.main(["pendulum", *flag.split()])
    except SystemExit as stop:
        code = stop.code
    assert code == 2 and "expected" in capsys.readouterr().err
