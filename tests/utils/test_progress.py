"""utils/progress.py: a bar on a terminal, lines elsewhere, only warnings with --quiet."""

import re
import sys

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from utils import progress
from utils.progress import Progress, log_figures, tensorboard, turn_of

LOSSES = {"s": (3.6, 0.54), "x": (7000.0, 7000.0)}


def run(quiet=False, epochs=3):
    shown = Progress("stage 1", 2, 2 + 2 * epochs, quiet, terms={"s": "KL of identity s"})
    for epoch in range(epochs):
        shown.step(), shown.step()
        shown.epoch(epoch + 1, epochs, LOSSES)
    shown.say("a word")
    shown.close()


def test_lines_without_a_terminal(capsys):
    run()
    out, err = capsys.readouterr()
    # the line of epoch 2 is left out: it came within SECONDS_BETWEEN_LINES
    first, terms, last, _, word = out.splitlines()
    assert "epoch 1/3" in first and "epoch 3/3" in last and word == "a word" and err == ""
    # the weighted value is shown only if it differs
    parts = "KL of identity s 3.6 (weighted 0.5), x 7000.0"
    assert terms == f"  epoch 1, nats per sequence: {parts}"
    assert "steps/s" in first and last.endswith("0:00:00 left  loss 7000.5")


@pytest.mark.parametrize("resumed", [False, True])
def test_speed_and_time_left_count_only_the_steps_of_this_process(capsys, monkeypatch, resumed):
    clock = iter([0.0, 100.0, 110.0] if resumed else [100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = Progress("stage 1", 0 if resumed else 50, 100)
    if resumed:
        shown.step()
        shown.begin(50)
    for _ in range(5):
        shown.step()
    shown.epoch(1, 9, LOSSES)
    assert "0.50 steps/s  0:01:30 left" in capsys.readouterr().out


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80"), monkeypatch.setenv("LINES", "24")
    shown = Progress("stage 1", 0, 200)
    many = LOSSES | {name: (30000.0, 10000.0) for name in ("first pose", "poses", "dynamics")}
    for epoch in range(100):
        shown.step(), shown.step()
        shown.epoch(epoch + 1, 100, many)
    shown.say("a word")
    shown.close()
    out, err = capsys.readouterr()
    *_, bar = (line for line in re.split("[\r\n]", err) if "loss" in line)
    assert re.fullmatch(
        r"stage 1  epoch 100/100 \|█{5,}\| .* steps/s, 00:00 left, loss 37000.5 *", bar
    )
    assert len(bar) <= 80
    lines = [line.strip("\r") for line in out.splitlines()]
    assert max(map(len, lines)) <= 80 and "a word" in lines
    assert sum("nats per sequence: s 3.6 (weighted 0.5), x 7000.0" in line for line in lines) == 2


def test_quiet(capsys):
    run(quiet=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_warning_is_printed_when_it_begins_and_logged(
    capsys, monkeypatch, tmp_path, terminal, quiet
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    shown = Progress("stage 1", 0, 4, quiet, tmp_path / "log.txt")
    begins, continues = {"one expert": "expert 3 has it all"}, {"one expert": "expert 3 has still"}
    for warnings in (begins, continues, {}, begins):
        shown.trouble(warnings)
        shown.epoch(1, 4, LOSSES)
    out, err = capsys.readouterr()
    assert err.count("stage 1: expert 3 has it all") == 2 and "still" not in err
    count = (err if terminal else out).count("! one expert")
    assert count == 0 if quiet else count >= 3
    log = (tmp_path / "log.txt").read_text()
    assert log.count("stage 1: expert 3 has it all") == 2 and "still" not in log


def test_figures_stand_beside_the_hyperparameters(tmp_path, events):
    for epoch in (3, 5):
        settings = {"lr": 0.1, "model": "dsa", "lengths": (1, 2), "judge": None}
        with tensorboard(tmp_path, True, None, {}) as log:
            log_figures(log, epoch, {"swap_accuracy": 0.5 + epoch}, settings)
    assert events(tmp_path)[0] == {"figures/swap_accuracy": [(3, 3.5), (5, 5.5)]}
    last = max(tmp_path.glob("events*"), key=turn_of)
    named = [v for event in EventFileLoader(str(last)).Load() for v in event.summary.value]
    values = [HParamsPluginData.FromString(v.metadata.plugin_data.content) for v in named]
    (given,) = [v.session_start_info.hparams for v in values if v.HasField("session_start_info")]
    assert given["lr"].number_value == 0.1 and given["lengths"].string_value == "(1, 2)"
    (shown,) = [v.experiment.metric_infos for v in values if v.HasField("experiment")]
    assert [info.name.tag for info in shown] == ["figures/swap_accuracy"]
