"""metrics.json: what oracles score, how stages and protocols add up, and what it refuses."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.base import Dataset, flat
from data.pendulum import PALETTE, make, render, simulate
from metrics import evaluate as module
from metrics.evaluate import evaluate
from metrics.pendulum import read, states
from metrics.published import reported
from metrics.weights import Missing
from models.vdsm.settings import VDSMSettings
from utils.errors import UserError
from utils.frames import as_float, as_uint8


@pytest.fixture(scope="module")
def pendula():
    return make(clips={"train": 40, "val": 8, "test": 24})


class Oracle:
    """Swaps perfectly: reads colour and state, and draws them by physics. swaps=False: it ignores the static code it is given."""

    def __init__(self, swaps=True):
        self.swaps = swaps

    def encode(self, frames):
        colour, angles = read(as_uint8(frames))
        dynamic = np.stack([*(told.mean(1) for told in states(angles)), colour[:, 0]], 1)
        return torch.from_numpy(colour[:, :1]), torch.from_numpy(dynamic)

    def decode(self, static, dynamic, frames):
        angles, _ = simulate(dynamic[:, 0].numpy(), dynamic[:, 1].numpy(), frames)
        colour = static[:, 0].numpy() if self.swaps else dynamic[:, 2].numpy().astype(int)
        drawn = render(angles.ravel(), np.repeat(PALETTE[colour], frames, 0))
        return as_float(torch.from_numpy(drawn.reshape(*angles.shape, 64, 64, 3)))

    def draw(self, clips, frames):
        return torch.randint(8, (clips, 1)), torch.rand(clips, 3).double() * torch.tensor(
            [1.5, 2, 0]
        )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return SimpleNamespace(metrics=tmp_path / "run" / "metrics.json", root=tmp_path / "run")


def _evaluate(dataset, model, stage, folder, *measured, epoch=None):
    settings = VDSMSettings(seq_len=16, evaluate=",".join(measured) or "none")
    return evaluate(model, stage, dataset, folder, settings, torch.device("cpu"), epoch)


def test_an_oracle_scores_1_and_a_model_that_ignores_its_static_code_0(pendula, folder, capsys):
    found = _evaluate(pendula, Oracle(), "EncDec", folder, "swap")
    assert found["swap_identity_accuracy"] == 1 and found["swap_leak_accuracy"] == 0
    assert (
        found["swap_pose_error_deg"] < 0.5
        and found["reconstruction_psnr"] > 30
        and found["reconstruction_ssim"] > 0.99
    )
    assert found["swap_amplitude_accuracy"] > 0.9 and found["swap_prior_colour_accuracy"] == 1
    assert found["swap_prior_variety"] > 0.8 and found["judge_colour_accuracy"] == 1
    found = _evaluate(pendula, Oracle(swaps=False), "Seq", folder, "swap")
    assert found["transfer_leak_accuracy"] == 1 and found["transfer_identity_accuracy"] < 0.3
    assert found["continuation_amplitude_ok"] == found["continuation_period_ok"] == 1
    saved = json.loads(folder.metrics.read_text())
    assert saved["swap_identity_accuracy"] == 1 and saved["transfer_leak_accuracy"] == 1
    notes = saved["details"]["EncDec"]
    assert notes["n"] == 24 and notes["spread"]["swap_identity_accuracy"] == 0
    assert (
        notes["protocols"]["swap"]["seeds"] == [0, 1, 2]
        and notes["protocols"]["swap"]["warnings"] == []
    )
    assert "swap_identity_accuracy" in capsys.readouterr().out


def test_protocols_add_up_and_the_same_seed_gives_the_same_figures(pendula, folder):
    first = _evaluate(pendula, Oracle(), "Seq", folder, "consistency", "dci", epoch=3)
    assert first["consistency_accuracy"] > 0.9 and first["consistency_real_joint"] > 0.95
    assert (
        first["consistency_identity_code_colour"] == 1
        and first["consistency_identity_code_start"] < 0.6
    )
    assert (
        first["consistency_dynamics_code_start"]
        > 0.7
        > first["consistency_dynamics_code_start_shuffled"]
    )
    assert 0 < first["consistency_intra_entropy"] < first["consistency_inter_entropy"]
    assert first["dci_informativeness_colour"] > 0.6
    before = torch.get_rng_state()
    assert _evaluate(pendula, Oracle(), "Seq", folder, "consistency", epoch=3) == {
        name: value for name, value in first.items() if not name.startswith("dci_")
    }
    assert torch.equal(before, torch.get_rng_state())
    saved = json.loads(folder.metrics.read_text())
    assert (
        saved["dci_disentanglement"] == first["dci_disentanglement"]
    )  # of the same epoch: it stays
    table = list(csv.DictReader(folder.metrics.with_suffix(".csv").open()))
    assert {row["figure"] for row in table} == set(saved) - {"details"}
    _evaluate(pendula, Oracle(), "Seq", folder, epoch=4)
    assert "dci_disentanglement" not in json.loads(
        folder.metrics.read_text()
    )  # of an older model: it goes


def test_without_weights_fid_is_left_out_and_the_others_go_on(pendula, folder, monkeypatch, capsys):
    def offline(*_):
        raise Missing("supply them with --fid_weights FILE")

    monkeypatch.setattr(module, "Features", offline)
    found = _evaluate(pendula, Oracle(), "Seq", folder, "fid", "dci")
    assert "fid" not in found and "dci_disentanglement" in found
    assert (
        "fid is left out: supply them with --fid_weights FILE"
        in capsys.readouterr().out.splitlines()
    )


def test_fid_of_prior_samples(pendula, folder, monkeypatch):
    monkeypatch.setattr(
        module,
        "Features",
        lambda *_: type(
            "F", (), {"name": "mean colour", "size": 3, "__call__": lambda _, c: c.mean((1, 2, 3))}
        )(),
    )
    found = _evaluate(pendula, Oracle(), "Seq", folder, "fid")
    assert found["fid"] > 0
    notes = json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]["fid"]
    assert (
        notes["network"] == "mean colour" and notes["clips"] == [24, 24] and notes["frames"] == 16
    )


def test_a_file_that_is_not_figures_is_left_alone(pendula, folder):
    folder.metrics.write_text("[1")
    with pytest.raises(UserError, match="move it away"):
        _evaluate(pendula, Oracle(), "EncDec", folder, "swap")
    assert folder.metrics.read_text() == "[1"


# --- a set with a judge that is a network: here one that reads a made set of coloured, moving squares ---


@pytest.fixture(scope="module")
def squares():
    """240 clips of 6 frames: a square of one of three colours that moves to one of two sides."""
    number = np.arange(240)
    labels = {"colour": number % 3, "action": number // 3 % 2}
    video = np.zeros((240, 6, 64, 64, 3), np.uint8)
    for clip in number:
        for time in range(6):
            x = 24 + 4 * time * (2 * labels["action"][clip] - 1)
            video[clip, time, 24:40, x : x + 16, labels["colour"][clip]] = 200 + clip % 50
    splits = dict(
        zip(
            ("train", "val", "test"),
            np.split(np.random.default_rng(0).permutation(240), [150, 180]),
        )
    )
    classes = {"colour": ("red", "green", "blue"), "action": ("left", "right")}
    return Dataset(
        "sprites", *flat(video), labels, classes, splits, ("colour",), ("action",), "f" * 64
    )


class Paints:
    """static: the colour; dynamic: which columns of a frame are lit. decode paints them. constant: any static code looks the same."""

    def __init__(self, constant=False):
        self.constant = constant

    def encode(self, frames):
        light = frames.amax(2, keepdim=True)
        return (frames / light.clamp_min(0.1)).amax((1, 3, 4)), light[:, :, 0].amax(2)

    def decode(self, static, dynamic, frames):
        static = static.roll(1, 1) * 0 + 1 if self.constant else static
        rows = torch.zeros(64, 1)
        rows[24:40] = 1
        return (dynamic[:, :frames, None, None] * rows * static[:, None, :, None, None]).clamp(0, 1)

    def draw(self, clips, frames):
        light = torch.zeros(clips, frames, 64)
        light[:, :, 24:40] = 1
        return torch.eye(3)[torch.randint(3, (clips,))], light


class Reads:
    classes = {"colour": 3, "action": 2}

    def probabilities(self, clips):
        light = clips.max(-1).astype(float)
        x = (light * np.arange(64)).sum((2, 3)) / light.sum((2, 3))
        colour = clips.reshape(len(clips), -1, 3).sum(1).argmax(1)
        return {"colour": np.eye(3)[colour], "action": np.eye(2)[(x[:, -1] > x[:, 0]).astype(int)]}


def test_a_set_with_a_trained_judge(squares, folder, monkeypatch, capsys):
    seen = {}

    def trained(dataset, path, length, device):
        seen["path"] = path
        return Reads(), {}

    def adapted(judge, real, rebuilt, labels):
        seen["held out"] = len(real), len(rebuilt), {tuple(clip[0, 30, 30]) for clip in real}
        return judge

    monkeypatch.setattr(module, "load_or_train_judge", trained)
    monkeypatch.setattr(module, "adapt", adapted)
    found = _evaluate(squares, Paints(), "Seq", folder, "default")
    assert seen["path"] == folder.root.parent / "judges" / "sprites-ffffffffffff-6.pth"
    assert seen["held out"][:2] == (150, 150)  # the training split, all of it reconstructed
    assert (
        found["consistency_accuracy"]
        == found["transfer_colour_accuracy"]
        == found["transfer_action_accuracy"]
        == 1
    )
    assert (
        found["consistency_identity_code_colour"] == 1
        and found["consistency_identity_code_action"] < 0.7
    )
    assert (
        found["consistency_dynamics_code_action"] == 1
        and found["consistency_dynamics_code_colour"] < 0.6
    )
    assert found["dci_subset_disentanglement"] > 0.9 and found[
        "transfer_action_inception_score"
    ] == pytest.approx(2)
    said = capsys.readouterr().out
    assert "reported" in said and "VDSM 0.9953" in said and "C-DSVAE 0.9999" in said
    saved = json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]
    assert saved["swap"]["reported"]["transfer_action_accuracy"]["S3VAE"] == 0.9949
    idle = _evaluate(squares, Paints(constant=True), "Seq", folder, "swap")
    assert (
        idle["transfer_colour_accuracy"] == pytest.approx(1 / 3, abs=0.15)
        and idle["transfer_prior_variety"] < 0.01
    )


def test_a_weak_judge_is_said_to_be_one(squares, folder, monkeypatch, capsys):
    blind = type(
        "Blind",
        (Reads,),
        {"probabilities": lambda self, clips: super(type(self), self).probabilities(clips * 0 + 1)},
    )
    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (blind(), {}))
    _evaluate(squares, Paints(), "Seq", folder, "swap")
    assert "warning: the judge is too weak to judge" in capsys.readouterr().out
    assert json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]["swap"]["warnings"]


def test_published_figures_stand_where_they_belong():
    assert reported("MUG-FED", "fid") == {"VDSM": 17.64} and reported("pendulum", "fid") == {}
    assert reported("sprites", "swap_prior_action_inception_score")["SPYL"] == 8.942
    assert reported("MUG-FED", "transfer_action_inter_entropy")["DBSE"] == 1.782
    assert reported("sprites", "transfer_hair_accuracy") == {}


def test_no_clip_is_on_both_sides(pendula, squares):
    for dataset in (pendula, squares):
        sides = [set(rows.tolist()) for rows in dataset.splits.values()]
        assert not (sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2])
