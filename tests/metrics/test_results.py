"""metrics/results.py: reasons for absent figures; which figures count as measured already."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from data.pendulum import make
from metrics import results
from metrics.evaluate import measured_already
from metrics.results import add, read, show
from metrics.summary import Measure, Outcome, over_seeds
from models.vdsm.settings import VDSMSettings
from utils.tensors import digest

CLIPS = {"data": "pendulum", "model": "vdsm", "split": "test", "n": 2, "epoch": 3}
NAN = float("nan")


def test_a_figure_without_value_has_a_reason(tmp_path, capsys):
    figures = {"swap_colour_leak": NAN, "swap_colour_accuracy": 0.5}
    spread = {"swap_colour_leak": NAN, "swap_colour_accuracy": 1.1e-16}
    outcomes = {"swap": Outcome(figures, spread, {"swap_colour_accuracy": NAN}, {"warnings": []})}
    show("pendulum", outcomes)
    printed = capsys.readouterr().out
    assert "nan" not in printed and "e-16" not in printed
    leak, accuracy = printed.splitlines()[-2:]
    assert leak.split()[:2] == ["swap_colour_leak", "-"]
    assert leak.endswith("no value: no two sources differ in it")
    assert accuracy.split() == ["swap_colour_accuracy", "0.5", "0"]
    path = tmp_path / "metrics.json"
    add(path, "EncDec", CLIPS, {}, outcomes)
    assert "nan" not in path.read_text().lower()
    assert "nan" not in path.with_suffix(".csv").read_text().lower()
    numbers, details = read(path)
    assert numbers == {"swap_colour_accuracy": 0.5}
    reasons = details["EncDec"]["protocols"]["swap"]["without value"]
    assert reasons == {"swap_colour_leak": "no two sources differ in it"}
    assert json.loads(path.read_text())["details"]["EncDec"]["spread"]["swap_colour_leak"] is None


def test_spreads_that_are_rounding_are_zero():
    rounds = [{"a": Measure(np.full(3, 1 / 3)), "b": 0.1 + i * 1e-16} for i in range(3)]
    outcome = over_seeds(rounds, {})
    assert outcome.seed_spread == {"a": 0.0, "b": 0.0} and outcome.spread == {"a": 0.0}


@pytest.fixture
def folder(tmp_path):
    last = tmp_path / "checkpoint.pth"
    last.touch()
    named = {"checkpoint": lambda *_: last, "newest": lambda *_: last}
    return SimpleNamespace(metrics=tmp_path / "metrics.json", root=tmp_path, **named)


def test_figures_of_another_checkpoint_or_judge_do_not_count(folder):
    pendula = make(clips={"train": 8, "val": 4, "test": 8})
    judge, last = folder.root / "judge.pth", folder.checkpoint()
    judge.write_bytes(b"first")
    settings = VDSMSettings(seq_len=16, evaluate="swap", epochs=4, judge=str(judge))
    clips = {"data": "pendulum", "split": "test", "n": 8, "epoch": 3, "checkpoint": digest(last)}
    files = {"warnings": []}, {"warnings": [], "files": results.files_of(settings)["swap"]}
    outcomes = {n: Outcome({}, {}, {}, f) for n, f in zip(("reconstruction", "swap"), files)}
    results.add(folder.metrics, "EncDec", clips | {"checkpoint": "another"}, {}, outcomes)
    results.add(folder.metrics, "Seq", clips, {}, outcomes)

    def measured(stage, settings=settings):
        return measured_already(settings, stage, pendula, folder)

    # metrics.json is newer than the checkpoints of both stages
    assert measured("Seq") and not measured("EncDec")
    assert not measured("Seq", dataclasses.replace(settings, judge=None))
    judge.write_bytes(b"other")
    assert not measured("Seq")
    judge.write_bytes(b"first")
    assert measured("Seq")
    last.write_bytes(b"trained again")
    assert not measured("Seq")


def test_published_figures_of_an_older_run_are_placed_as_today(folder):
    protocol = {"figures": ["transfer_prior_action_accuracy", "swap_action_accuracy"]}
    protocol |= {"seed spread": {}, "reported": {"swap_action_accuracy": {"SPYL": 1.0}}}
    notes = {"data": "sprites-li", "n": 8, "split": "test", "figures": [], "spread": {}}
    content = {"details": {"DSA": notes | {"protocols": {"swap": protocol}}}}
    folder.metrics.write_text(json.dumps(content))
    os.utime(folder.metrics, (1, 1))
    results.renew(folder.metrics)
    (renewed,) = results.read(folder.metrics)[1]["DSA"]["protocols"].values()
    assert list(renewed["reported"]) == ["transfer_prior_action_accuracy"]
    assert folder.metrics.stat().st_mtime == 1
    folder.metrics.write_text("[]")
    results.renew(folder.metrics)
    assert folder.metrics.read_text() == "[]"
