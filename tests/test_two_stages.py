"""A second model with two stages works without a line of generic code that knows it."""

import json
import sys

import pytest
import torch

from tests import two_stages
from utils.settings import MODELS

FLAGS = (
    "--model two --RUN two --dataset_name pendulum --seq_len 16 --bs 4 --epochs 3 --bs_per_epoch 4 "
    "--model_save_interval 1 --model_test_interval 2 --num_test_ids 2 --device cpu --threads 1"
).split()
BOTH = ["--train_frames", "True", "--train_motion", "True"]


@pytest.fixture(autouse=True)
def two(monkeypatch):
    """Register the model."""
    monkeypatch.setitem(sys.modules, "models.two", two_stages)
    monkeypatch.setitem(MODELS, "two", ("tests.two_stages", "TwoSettings"))


def weights(run, name):
    return torch.load(run / "checkpoints" / name, weights_only=True)["model"]


def test_both_stages_train_resume_and_are_measured(command, tmp_path):
    trained = command(*FLAGS, *BOTH, "--evaluate", "swap", "--report", "True")
    assert trained.code == 0, trained.err
    run = tmp_path / "runs" / "two"
    names = {path.name for path in (run / "checkpoints").glob("*.pth")}
    assert names == {f"{epoch}_{suffix}.pth" for epoch in (1, 2) for suffix in ("frames", "motion")}
    first, second = weights(run, "2_frames.pth"), weights(run, "2_motion.pth")
    assert all(torch.equal(second[f"frames.{name}"], tensor) for name, tensor in first.items())
    pictures = {path.name for path in (run / "images").iterdir()}
    assert {"swap_ep_2_rec.png", "train_2_rec.png", "seq_2_rec.png", "transfer_2.png"} <= pictures
    figures = json.loads((run / "metrics.json").read_text())
    assert {"swap_colour_accuracy", "transfer_colour_accuracy"} <= figures.keys()
    assert set(figures["details"]) == {"Frames", "Motion"}
    assert (run / "report.html").exists()

    # stage 2 again, on the stage 1 that is there, from its first checkpoint
    (run / "checkpoints" / "2_motion.pth").unlink()
    resumed = command(*FLAGS, "--train_motion", "True")
    assert resumed.code == 0 and "stage 2: epoch 1 of 2 is done" in resumed.out
    again = weights(run, "2_motion.pth")
    assert all(torch.equal(again[name], tensor) for name, tensor in second.items())

    # --fresh keeps the stage 1 that stage 2 stands on
    fresh = command(*FLAGS, "--train_motion", "True", "--fresh", "True", "--lr_motion", 0.1)
    assert fresh.code == 0 and "stage 2 stands on runs/two/checkpoints/2_frames.pth" in fresh.out
    assert (run.with_name("two.kept1") / "checkpoints" / "1_motion.pth").exists()
    assert set(json.loads((run / "config.json").read_text())) == {"Frames", "Motion"}

    tested = command(*FLAGS, "--pretrained_frames", 2, "--export_codes", "True")
    assert tested.code == 0 and tested.out.count("tested ") == 2
    assert (run / "codes" / "codes.json").exists()


def test_refusals_name_its_own_flags(command, refused):
    line = refused(*FLAGS, "--train_motion", "True")
    assert "stage 2 needs a stage-1 checkpoint" in line and "--train_frames True" in line
    assert command(*FLAGS, "--train_frames", "True").code == 0
    assert "--size is 5 here and 4 there" in refused(*FLAGS, "--train_motion", "True", "--size", 5)
    line = refused(*FLAGS, "--train_motion", "True", "--pretrained_frames", 7)
    assert "7_frames.pth is not there" in line and "--pretrained_frames" in line
    line = refused(*FLAGS, *BOTH, "--pretrained_frames", 9)
    assert "--pretrained_frames 9: stage 1 of this command leaves 2" in line
    assert "--bs was 4 and is 5" in refused(*FLAGS, "--train_frames", "True", "--bs", 5)


def test_the_dry_run_counts_both_stages(command):
    out = command(*FLAGS, *BOTH, "--dry_run", "True").out
    assert "stage 1 (train on pendulum)" in out and "stage 2 (train on pendulum)" in out
    assert "12 (3 epochs of 4 batches)" in out and "frames" in out
