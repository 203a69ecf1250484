"""What a run leaves on disk, in TensorBoard and on the terminal."""

import errno
import json
import os

import numpy as np
import pytest
import torch

import train_test
from data import pendulum
from data.batches import Batches
from models.annealing import Annealed
from tests.runs import NETWORKS, TERMS, checkpoint
from tests.tiny import TEST, TINY
from utils.plan import parse
from utils.step import learning_rate

# --- what a run leaves ---


def test_names_at_the_intervals(command, tmp_path):
    flags = [*TINY, "--epochs", 6, "--model_save_interval", 2, "--model_test_interval", 4]
    assert command(*flags).code == 0
    run = tmp_path / "runs" / "demo"
    stages = ("VDSM_EncDec", "VDSM_seq")
    expected = {f"{epoch}_{name}.pth" for epoch in (2, 4, 5) for name in stages} | {"config.txt"}
    expected |= {"5_VDSM_seq.fitted.npz"}  # what the last pictures drew from
    assert {path.name for path in (run / "checkpoints").iterdir()} == expected
    pictures = {path.name for path in (run / "images").iterdir()}
    for epoch in (0, 4, 5):
        expected = (
            "swap_ep_{}_rec.png train_{}_rec.png train_{}_targ.png seq_{}_rec.png seq_{}_gt.png "
            "vid_{}_gen.gif seq_swap_id_{}_gen.png vid_swap_{}_gen.gif"
        )
        assert set(expected.replace("{}", str(epoch)).split()) <= pictures
    assert not any(f"_{epoch}_" in name for name in pictures for epoch in (1, 2, 3))
    assert "continue_5_40.gif" in pictures and "config.txt" in pictures
    assert not list(run.rglob("*.part"))


def test_the_releases_folders(command, tmp_path):
    flags = [
        "--image_path",
        "images",
        "--model_save_path",
        "models",
        "--log_dir",
        "logs",
        "--tboard_log",
        "True",
    ]
    assert command(*TINY, "--epochs", 1, "--model_save_interval", 2, *flags).code == 0
    assert (tmp_path / "models" / "demo" / "0_VDSM_EncDec.pth").exists()
    assert (tmp_path / "models" / "demo" / "config.txt").exists()
    assert (tmp_path / "images" / "demo" / "swap_ep_0_rec.png").exists()
    assert list((tmp_path / "logs" / "demo").rglob("events*"))
    assert sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir()) == ["config.json"]
    assert "0_VDSM_seq.pth" in command(*TINY, "--epochs", 1, *TEST, *flags).out


def test_what_is_in_a_checkpoint(trained):
    for stage in NETWORKS:
        state = checkpoint(trained, stage, 3)
        assert (
            state["epoch"] == 4
            and {"model", "optimizer", "settings", "data", "rng"} <= state.keys()
        )
        settings = parse(TINY).stages[stage]
        assert state["settings"] == dict(vars(settings))
        assert json.loads((trained / "config.json").read_text())[stage]["epochs"] == 4


def test_a_disk_that_fills_up_at_a_checkpoint(command, refused, monkeypatch, tmp_path, trained):
    (trained / "checkpoints" / "3_VDSM_EncDec.pth").unlink()
    with monkeypatch.context() as patch:

        def full(state, file):
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(torch, "save", full)
        line = refused(*TINY)
    assert "No space left" in line and "3_VDSM_EncDec.pth" in line
    assert sorted(path.name for path in (trained / "checkpoints").glob("*EncDec*")) == [
        "1_VDSM_EncDec.pth", "2_VDSM_EncDec.pth"]  # fmt: skip
    assert command(*TINY).code == 0


def test_tensorboard(command, tmp_path, kill_at, events):
    flags = [*TINY, "--tboard_log", "True", "--model_save_interval", 2]
    kill_at("EncDec", 7)
    command(*flags)
    kill_at("EncDec", 6)
    command(*flags)
    assert command(*flags).code == 0
    for stage, terms in TERMS.items():
        scalars, pictures = events(tmp_path / "runs" / "demo" / "tensorboard" / stage)
        names = {
            "total loss",
            "id anneal",
            "zt anneal",
            "dynamics anneal",
            "id temp",
            "held out/ELBO",
        }
        names |= {
            f"{kind}/{term}" for kind in ("loss", "weighted loss", "held out") for term in terms
        }
        assert names <= scalars.keys()
        assert [step for step, _ in scalars["total loss"]] == [0, 1, 2, 3]
        assert all(np.isfinite(value) for values in scalars.values() for _, value in values)
        total = sum(scalars[f"weighted loss/{term}"][0][1] for term in terms)
        assert scalars["total loss"][0][1] == pytest.approx(total, rel=1e-5)
        held_out = sum(scalars[f"held out/{term}"][0][1] for term in terms)
        assert scalars["held out/ELBO"][0][1] == pytest.approx(-held_out, rel=1e-5)
        epochs, rates = zip(*scalars["training/learning rate"])
        base = {"EncDec": 0.002, "Seq": 0.003}[stage]
        assert epochs == (0, 1, 2, 3)
        # of the last step of epoch 0
        assert rates[0] == pytest.approx(learning_rate(base, 1, 8, 50, 0.1))
        assert all(value > 0 for _, value in scalars["training/gradient norm"])
        assert pictures and ("videos/vid_gen" in pictures) == (stage == "Seq")


def test_lines_without_a_terminal_and_quiet(command, tmp_path):
    out = command(*TINY, "--epochs", 1).out
    lines = [line for line in out.splitlines() if "epoch 1/1" in line]
    assert len(lines) == 2
    for line, terms in zip(lines, TERMS.values()):
        assert "steps/s" in line and "left" in line and " loss " in line
        below = out.splitlines()[out.splitlines().index(line) + 1]
        assert below.startswith("  epoch 1, nats per sequence: ") and " pixels " in below
        assert below.count("KL of ") == len(set(terms) - {"x", "foresight"})
        assert "(weighted " in below
    assert "validation: ELBO" in out
    quiet = command(*TINY, "--epochs", 1, "--RUN", "silent", "--quiet", "True")
    assert quiet.code == 0 and quiet.err == ""
    assert quiet.out == ""


def test_validation_losses_are_the_same_every_time():
    settings = parse(TINY).stages["EncDec"]
    dataset = pendulum.make(16, 0, {"train": 4, "val": 4, "test": 4})
    stage = train_test.build(settings, settings.info("EncDec"), None)
    batches = Batches(dataset.split("val"), torch.device("cpu"), 16, settings.bs)
    annealed = Annealed({"s": 0.3, "d": 1.0, "z": 5.0}, temperature=2.0)
    before = torch.get_rng_state()
    first = train_test.validation_loss(stage, batches, annealed)
    torch.rand(3)
    again = train_test.validation_loss(stage, batches, Annealed({"s": 1.0, "z": 1.0}, 2.0))
    assert first == again and set(first) == set(TERMS["EncDec"])
    torch.set_rng_state(before)
    train_test.validation_loss(stage, batches, annealed)
    assert torch.equal(torch.get_rng_state(), before)
