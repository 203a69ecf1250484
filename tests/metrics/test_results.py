"""metrics/results.py: no figure without a value stands there without a reason."""

import json

import numpy as np

from metrics.results import add, read, show
from metrics.summary import Measure, Outcome, over_seeds

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
