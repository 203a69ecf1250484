"""utils/tracking.py: what --track sends to trackio and to W&B, whose place a stand-in takes."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.tiny import STAGE_1, TINY
from utils import tracking
from utils.errors import UserError
from utils.plan import parse
from utils.progress import Progress
from utils.run_folder import RunFolder

NAMES = "trackio", "wandb"
STAND_IN = """
import sys, warnings

calls, broken = [], set()

def call(kind, given):
    print(kind, "to stdout"), print(kind, "to stderr", file=sys.stderr)
    if kind in broken:
        raise OSError(f"no network\\nin {kind}")
    calls.append((kind, given))

class Settings:
    model_fields = {"silent": None, "console": None}

    def __init__(self, silent, console):
        self.silent = silent

class Run:
    def __init__(self, id):
        self.id = id or f"made{len(calls)}"

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, row, step):
        if "log" in broken:
            raise OSError("no network\\nin log")
        calls.append(("log", (step, row)))

def finish():
    call("finish", None)

def init(**given):
    call("init", given)
    if "told" in broken:
        warnings.warn("no place to write to")
    return Run(given.get("id"))
"""


@pytest.fixture(params=NAMES)
def tracker(request, tmp_path, monkeypatch):
    """The stand-in as an installed package; its `calls`, and which kinds are `broken`."""
    installed = tmp_path / "installed" / request.param
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(installed.parent)
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    return __import__(request.param)


def settings_of(*flags):
    return parse([*TINY, *map(str, flags)]).stages["EncDec"]


@pytest.fixture
def sinks(tmp_path):
    """sinks(settings, *more): the log of stage 1 of a run in tmp_path."""

    def give(settings, *more):
        settings.runs_dir = str(tmp_path / "runs")
        folder = RunFolder(settings)
        folder.make()
        return tracking.sinks(folder, "EncDec", settings, Progress("stage 1", 0, 0), *more)

    return give


def of(kind, tracker):
    return [given for name, given in tracker.calls if name == kind]


def test_one_row_per_epoch_and_the_settings(sinks, tracker, capsys, tmp_path):
    settings = settings_of("--track", tracker.__name__, "--data_dir", tmp_path, "--RUN", "mine")
    with sinks(settings, 0) as log:
        for epoch in (0, 1):
            log("total loss", torch.tensor(2.5), epoch)
            log("lr", np.float32(0.25), epoch)
            log("picture", np.zeros((4, 4, 3), np.uint8), epoch)
            log("animation", b"GIF89a", epoch)
            log("hparams", {"bs": 2}, epoch)
            log.flush()
            assert len(of("log", tracker)) == epoch + 1  # not only when the next epoch has ended
    (given,) = of("init", tracker)
    assert (given["project"], given["name"], given["group"]) == (
        "vdsm-in-practice", "mine-EncDec", "mine",
    )  # fmt: skip
    assert given["config"]["enc_widths"] == [4, 4, 4, 4, 8] and given["config"]["source"] is None
    assert given["config"]["data_dir"] == tmp_path.name
    assert str(tmp_path) not in json.dumps(given["config"])
    row, wandb = {"total loss": 2.5, "lr": 0.25}, tracker.__name__ == "wandb"
    rows = [(e, row | ({"epoch": e} if wandb else {})) for e in (0, 1)]
    assert of("log", tracker) == rows
    json.dumps(of("log", tracker))  # no numbers of torch or numpy
    if wandb:
        assert given["settings"].silent and given["dir"] == str(tmp_path / "runs" / "mine")
    out, err = capsys.readouterr()
    assert err == "" and out.count("\n") == 1 and "mine-EncDec" in out
    assert tracker.calls[-1] == ("finish", None)


def test_a_resumed_run_continues_in_the_tracker_without_a_step_twice(sinks, tracker):
    settings = settings_of("--track", tracker.__name__)
    for first, last in ((0, 3), (2, 5)):  # killed after epoch 2, whose checkpoint was not written
        with sinks(settings, first) as log:
            for epoch in range(first, last):
                log("total loss", 1.0, epoch)
                log.flush()
    with sinks(settings) as log:  # figures, at an epoch that was logged
        log("figures/psnr", 30.0, 4)
    first, second, third = of("init", tracker)
    assert first["resume"] == "never" and second["resume"] == third["resume"] == "allow"
    *rows, figures = of("log", tracker)
    assert [step for step, _ in rows] == [0, 1, 2, 3, 4]
    assert figures[1]["figures/psnr"] == 30.0
    if tracker.__name__ == "wandb":
        assert first["id"] is None and second["id"] == third["id"] == "made1"
        assert figures[0] == 5 and figures[1]["epoch"] == 4  # W&B takes rising steps alone
    else:
        assert figures[0] == 4


@pytest.mark.parametrize("kind", ["init", "log", "finish", "told"])
def test_a_tracker_that_fails_is_told_once_and_stops_nothing(sinks, tracker, capsys, kind):
    settings = settings_of("--track", tracker.__name__, "--quiet")
    tracker.broken.add(kind)
    for begin in (0, 2, None):
        with sinks(settings, begin) as log:
            for epoch in (2, 3):
                log("total loss", 1.0, epoch)
                log.flush()
    out, err = capsys.readouterr()
    why = "RuntimeError: no place" if kind == "told" else f"OSError: no network in {kind}"
    assert err.count("\n") == 1 and f"--track {tracker.__name__}: {why}" in err


@pytest.mark.parametrize("text", ["[1]", "{", '{"epoch": "two"}'])
def test_a_damaged_account_of_what_was_sent_stops_nothing(sinks, tracker, capsys, tmp_path, text):
    logging = sinks(settings_of("--track", tracker.__name__, "--quiet"), 0)
    (tmp_path / "runs" / "demo" / f"{tracker.__name__}_EncDec.json").write_text(text)
    with logging as log:
        log("total loss", 1.0, 0), log("lr", 1.0, 0)
        log.flush()
    out, err = capsys.readouterr()
    assert not of("log", tracker) and err.count("goes on without it") == err.count("\n") == 1


def test_a_process_that_does_not_write_tracks_nothing(sinks, tracker):
    with sinks(settings_of("--track", tracker.__name__), 0, {}, False) as log:
        log("total loss", 1.0, 0)
        log.flush()
    assert not tracker.calls


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)], ids=["absent", "a folder"])
def test_a_package_that_is_not_installed(refused, monkeypatch, tmp_path, spec):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    for name in NAMES:
        with pytest.raises(UserError, match=f"found no such package: .* pip install {name}"):
            parse([*TINY, "--track", name])  # imports no torch
        assert f"pip install {name}" in refused(*TINY, "--track", name)
    assert not os.listdir(tmp_path)


def test_nothing_is_imported_by_default(sinks, tracker, monkeypatch):
    monkeypatch.delitem(sys.modules, tracker.__name__)
    with sinks(settings_of(), 0) as log:
        log("total loss", 1.0, 0)
        log.flush()
    assert tracker.__name__ not in sys.modules


@pytest.mark.parametrize("tracker", ["wandb"], indirect=True)
@pytest.mark.parametrize("measured", ["none", pytest.param("swap", marks=pytest.mark.slow)])
def test_a_run_sends_what_tensorboard_gets(
    command, tracker, kill_at, events, tmp_path, no_pictures, measured
):
    flags = [*TINY, *STAGE_1, "--epochs", 2, "--track", "wandb", "--tboard_log", "True"]
    flags += ["--evaluate", measured]
    kill_at("EncDec", 3)
    assert command(*flags).code == 130
    said = command(*flags, "--quiet")
    assert (said.code, said.err) == (0, "")
    assert "to stdout" not in said.out
    sent = {}
    for step, row in of("log", tracker):
        epoch = int(row.pop("epoch", step))
        for tag, value in row.items():
            sent.setdefault(tag, []).append((epoch, pytest.approx(value, rel=1e-6)))
    scalars, _ = events(tmp_path / "runs" / "demo" / "tensorboard" / "EncDec")
    assert {"total loss", "training/learning rate", "training/gradient norm"} <= sent.keys()
    assert "held out/ELBO" in sent
    assert ("figures/swap_identity_accuracy" in sent) == (measured == "swap")
    assert scalars == sent
