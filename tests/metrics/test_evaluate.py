"""metrics.json: figures of perfect models, merging of stages and protocols, and refusals."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.base import Dataset, flat
from data.pendulum import PALETTE, make, render, simulate
from metrics import consistency, quality
from metrics import evaluate as module
from metrics.confusion import from_notes
from metrics.evaluate import evaluate
from metrics.measurers import Measurer, measurer_of
from metrics.pendulum import PendulumMeasurer, SwingReader, read, states
from models.vdsm.settings import VDSMSettings
from models.view import VideoModel
from utils.errors import UserError
from utils.frames import as_float, as_uint8
from utils.weights import Missing


@pytest.fixture(scope="module")
def pendula():
    return make(clips={"train": 40, "val": 8, "test": 24})


class Oracle(VideoModel):
    """Reads colour and state and draws them by physics, so that swaps are perfect.

    swaps=False: `decode` ignores the static code and takes the colour from the dynamic code.
    """

    def __init__(self, swaps=True):
        self.swaps = swaps

    def encode(self, frames):
        colour, angles = read(as_uint8(frames))
        dynamic = np.stack([*(part.mean(1) for part in states(angles)), colour[:, 0]], 1)
        return torch.from_numpy(colour[:, :1]), torch.from_numpy(dynamic)

    def decode(self, static, dynamic, frames):
        angles, _ = simulate(dynamic[:, 0].numpy(), dynamic[:, 1].numpy(), frames)
        colour = static[:, 0].numpy() if self.swaps else dynamic[:, 2].numpy().astype(int)
        drawn = render(angles.ravel(), np.repeat(PALETTE[colour], frames, 0))
        return as_float(torch.from_numpy(drawn.reshape(*angles.shape, 64, 64, 3)))

    def draw(self, clips, frames):
        colour, state = torch.randint(8, (clips, 1)), torch.rand(clips, 3).double()
        return colour, state * torch.tensor([1.5, 2, 0])


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "run"
    root.mkdir()
    (root / "checkpoint.pth").touch()
    return SimpleNamespace(
        metrics=root / "metrics.json",
        root=root,
        tensorboard=root / "tensorboard",
        checkpoint=lambda *_: root / "checkpoint.pth",
    )


def _evaluate(dataset, model, stage, folder, *measured, epoch=None):
    settings = VDSMSettings(seq_len=16, evaluate=",".join(measured) or "none")
    info = settings.info(stage)
    return evaluate(model, info, dataset, folder, settings, torch.device("cpu"), epoch)


def test_an_oracle_scores_1_and_a_model_that_ignores_its_static_code_0(pendula, folder, capsys):
    figures = _evaluate(pendula, Oracle(), "EncDec", folder, "swap")
    assert figures["swap_identity_accuracy"] == 1 and figures["swap_leak_accuracy"] == 0
    assert figures["reconstruction_psnr"] > 30 and figures["reconstruction_ssim"] > 0.99
    assert figures["swap_pose_error_deg"] < 0.5
    assert figures["swap_amplitude_accuracy"] > 0.9 and figures["swap_prior_colour_accuracy"] == 1
    assert figures["swap_prior_variety"] > 0.8 and figures["judge_colour_accuracy"] == 1
    figures = _evaluate(pendula, Oracle(swaps=False), "Seq", folder, "swap")
    assert figures["transfer_leak_accuracy"] == 1 and figures["transfer_identity_accuracy"] < 0.3
    assert figures["continuation_amplitude_ok"] == figures["continuation_period_ok"] == 1
    saved = json.loads(folder.metrics.read_text())
    assert saved["swap_identity_accuracy"] == 1 and saved["transfer_leak_accuracy"] == 1
    # The colour of the identity source, over three pairings; a model without a static code errs.
    for stage, right in (("EncDec", 1), ("Seq", 0)):
        counts, _ = from_notes(saved["details"][stage]["protocols"]["swap"]["confusion"])
        assert counts["colour"].sum() == 3 * len(pendula.split("test"))
        assert (np.trace(counts["colour"]) > 0.7 * counts["colour"].sum()) == right
    notes = saved["details"]["EncDec"]
    assert notes["n"] == 24 and notes["spread"]["swap_identity_accuracy"] == 0
    protocol = notes["protocols"]["swap"]
    assert protocol["seeds"] == [0, 1, 2] and protocol["warnings"] == []
    assert "swap_identity_accuracy" in capsys.readouterr().out


def test_protocols_are_merged_and_a_seed_repeats_its_figures(pendula, folder):
    first = _evaluate(pendula, Oracle(), "Seq", folder, "consistency", "dci", epoch=3)
    assert first["consistency_accuracy"] > 0.9 and first["consistency_real_joint"] > 0.95
    assert first["consistency_identity_code_colour"] == 1
    assert first["consistency_identity_code_start"] < 0.6
    assert first["consistency_dynamics_code_start"] > 0.7
    assert first["consistency_dynamics_code_start_shuffled"] < 0.7
    assert 0 <= first["consistency_intra_entropy"] < first["consistency_inter_entropy"]
    assert first["dci_informativeness_colour"] > 0.6
    before = torch.get_rng_state()
    assert _evaluate(pendula, Oracle(), "Seq", folder, "consistency", epoch=3) == {
        name: value for name, value in first.items() if not name.startswith("dci_")
    }
    assert torch.equal(before, torch.get_rng_state())
    saved = json.loads(folder.metrics.read_text())
    # Figures of the same epoch are kept.
    assert saved["dci_disentanglement"] == first["dci_disentanglement"]
    table = list(csv.DictReader(folder.metrics.with_suffix(".csv").open()))
    assert {row["figure"] for row in table} == set(saved) - {"details"}
    _evaluate(pendula, Oracle(), "Seq", folder, epoch=4)
    # Figures of another epoch are removed.
    assert "dci_disentanglement" not in json.loads(folder.metrics.read_text())


def test_without_weights_only_fid_is_left_out(pendula, folder, monkeypatch, capsys):
    def offline(*_):
        raise Missing("supply them with --fid_weights FILE")

    monkeypatch.setattr(module, "Features", offline)
    figures = _evaluate(pendula, Oracle(), "Seq", folder, "fid", "dci")
    assert "fid" not in figures and "dci_disentanglement" in figures
    line = "fid is left out: supply them with --fid_weights FILE"
    assert line in capsys.readouterr().out.splitlines()


class MeanColour:
    name, size = "mean colour", 3

    def __call__(self, clips):
        return clips.mean((1, 2, 3))


def test_fid_of_prior_samples(pendula, folder, monkeypatch):
    monkeypatch.setattr(module, "Features", lambda *_: MeanColour())
    figures = _evaluate(pendula, Oracle(), "Seq", folder, "fid")
    assert min(figures[f"fid{n}"] for n in ("", "_release_sampled")) > 0
    # The oracle rebuilds clips well.
    assert figures["fid_release_reconstructed"] < figures["fid_release_sampled"]
    notes = json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]["fid"]
    assert notes["network"] == "mean colour"
    assert notes["clips"] == [24, 24] and notes["frames"] == 16


def test_a_file_without_figures_is_refused_and_kept(pendula, folder):
    folder.metrics.write_text("[1")
    with pytest.raises(UserError, match="move it away"):
        _evaluate(pendula, Oracle(), "EncDec", folder, "swap")
    assert folder.metrics.read_text() == "[1"


# --- a data set without a measurer: its judge is a network, which a reader of squares replaces ---


@pytest.fixture(scope="module")
def squares():
    """240 clips of 6 frames: a square of one of three colours moves to one of two sides.

    No two clips are equal: brightness and height of the square are a clip's own.
    """
    number = np.arange(240)
    labels = {"colour": number % 3, "action": number // 3 % 2}
    video = np.zeros((240, 6, 64, 64, 3), np.uint8)
    for clip in number:
        for time in range(6):
            x = 24 + 4 * time * (2 * labels["action"][clip] - 1)
            bottom = 40 - clip % 2
            video[clip, time, 24:bottom, x : x + 16, labels["colour"][clip]] = 130 + clip // 2
    order = np.random.default_rng(0).permutation(240)
    splits = dict(zip(("train", "val", "test"), np.split(order, [150, 180])))
    classes = {"colour": ("red", "green", "blue"), "action": ("left", "right")}
    factors = ("colour",), ("action",)
    return Dataset("sprites", *flat(video), labels, classes, splits, *factors, "f" * 64)


class Paints(VideoModel):
    """static: the colour; dynamic: the lit columns of each frame. `decode` paints them.

    constant: `decode` paints every static code in the same colour.
    """

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


class Marks(Paints):
    """As `Paints`; the first number of a static code is the clip's position in the data set."""

    def __init__(self, dataset):
        super().__init__()
        every = dataset.split("all")
        self.position = {clip.tobytes(): i for i, clip in enumerate(every.take(range(240)))}

    def encode(self, frames):
        static, dynamic = super().encode(frames)
        position = [self.position[clip.tobytes()] for clip in as_uint8(frames)]
        return torch.cat([torch.tensor(position)[:, None], static], 1), dynamic

    def decode(self, static, dynamic, frames):
        return super().decode(static[:, -3:], dynamic, frames)


class Reads:
    """A judge of squares that measures colour and direction."""

    classes = {"colour": 3, "action": 2}

    def probabilities(self, clips):
        light = clips.max(-1).astype(float)
        x = (light * np.arange(64)).sum((2, 3)) / light.sum((2, 3))
        colour = clips.reshape(len(clips), -1, 3).sum(1).argmax(1)
        return {"colour": np.eye(3)[colour], "action": np.eye(2)[(x[:, -1] > x[:, 0]).astype(int)]}


def test_a_set_with_a_trained_judge(squares, folder, monkeypatch, capsys):
    given = {}

    def trained(dataset, path, length, device):
        given["path"] = path
        return Reads(), {}

    def adapted(judge, real, rebuilt, labels):
        given["real"], given["rebuilt"] = real, rebuilt
        return judge

    monkeypatch.setattr(module, "load_or_train_judge", trained)
    monkeypatch.setattr(module, "adapt", adapted)
    figures = _evaluate(squares, Paints(), "Seq", folder, "default")
    assert given["path"] == folder.root.parent / "judges" / "sprites-ffffffffffff-6.pth"
    # The judge learns from the training split, all of it, and from no other clip.
    train = {clip.tobytes() for clip in squares.split("train").take(range(150))}
    assert {clip.tobytes() for clip in given["real"]} == train
    assert len(train) == len(given["rebuilt"]) == 150
    perfect = "consistency_accuracy", "transfer_colour_accuracy", "transfer_action_accuracy"
    assert [figures[name] for name in perfect] == [1, 1, 1]
    assert figures["consistency_identity_code_colour"] == 1
    assert figures["consistency_identity_code_action"] < 0.7
    assert figures["consistency_dynamics_code_action"] == 1
    assert figures["consistency_dynamics_code_colour"] < 0.6
    assert figures["dci_subset_disentanglement"] > 0.9
    assert figures["transfer_action_inception_score"] == pytest.approx(2)
    out = capsys.readouterr().out
    # The family's figures are of other characters.
    assert "reported" in out and "VDSM 0.9953" in out and "S3VAE 0.99" not in out
    saved = json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]
    assert saved["consistency"]["reported"]["consistency_accuracy"] == {"VDSM": 0.9953}
    assert saved["swap"]["reported"] == {}
    idle = _evaluate(squares, Paints(constant=True), "Seq", folder, "swap")
    assert idle["transfer_colour_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert idle["transfer_prior_variety"] < 0.01


def test_the_standard_error_is_over_what_is_independent(squares, folder, monkeypatch):
    """Nine clips of one character are no nine observations."""
    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (Reads(), {}))
    character = np.arange(240) // 9
    labels = squares.labels | {"character": character}
    characters = dataclasses.replace(squares, labels=labels, group="character")
    seen = []

    def spreads(measures, units):
        seen.append(units)
        return {}

    monkeypatch.setattr(module, "spreads", spreads)
    _evaluate(characters, Paints(), "Seq", folder)
    assert np.array_equal(seen[0], character[squares.splits["test"]])
    notes = json.loads(folder.metrics.read_text())["details"]["Seq"]
    assert notes["spread is"] == "standard error over characters, bootstrap"
    people = dataclasses.replace(squares, labels=squares.labels | {"identity": character})
    _evaluate(people, Paints(), "Seq", folder)
    assert np.array_equal(seen[1], seen[0])
    _evaluate(squares, Paints(), "Seq", folder)
    assert seen[2] is None


class Blind(Reads):
    def probabilities(self, clips):
        return super().probabilities(clips * 0 + 1)


def test_a_weak_judge_gives_a_warning(squares, folder, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (Blind(), {}))
    _evaluate(squares, Paints(), "Seq", folder, "swap")
    assert "warning: the judge is too weak" in capsys.readouterr().out
    assert json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]["swap"]["warnings"]


def test_classifiers_learn_from_no_held_out_clip(squares, folder, monkeypatch):
    sides = {}

    def table(train, train_labels, test, *_):
        sides["table"] = train["identity_code"], test["identity_code"]
        return {}

    def scores(train, train_labels, test, *_):
        sides["dci"] = train[0], test[0]
        return {}

    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (Reads(), {}))
    monkeypatch.setattr(module, "adapt", lambda judge, *_: judge)
    monkeypatch.setattr(consistency, "code_table", table)
    monkeypatch.setattr(module, "dci", scores)
    _evaluate(squares, Marks(squares), "Seq", folder, "consistency", "dci")
    for name in ("table", "dci"):
        for codes, split in zip(sides[name], ("train", "test"), strict=True):
            assert sorted(codes[:, 0].tolist()) == sorted(squares.splits[split]), name


# --- the table of measurers ---


def test_a_data_set_without_a_measurer(squares, folder, monkeypatch):
    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (Reads(), {}))
    unknown = dataclasses.replace(squares, name="squares")
    measurer = measurer_of(unknown)
    assert type(measurer) is Measurer and measurer.dataset is unknown
    figures = _evaluate(unknown, Paints(), "Seq", folder, "swap")
    assert {"seq_reconstruction_psnr", "transfer_colour_accuracy"} <= set(figures)
    added = ("identity_accuracy", "pose_error_deg", "leak_accuracy")
    assert not [name for name in figures if name.endswith(added) or "continuation" in name]


def test_the_measurer_of_pendula(pendula):
    measurer = measurer_of(pendula)
    assert type(measurer) is PendulumMeasurer and type(measurer.judge) is SwingReader
    assert measurer.dataset.dynamic == ("amplitude", "start")
    # With rods of two lengths nothing but a trained judge can tell the factors.
    rods = measurer_of(make(clips={"train": 4, "val": 4, "test": 4}, lengths=(0.6, 1.2)))
    assert rods.judge is None and set(rods.dataset.classes) == {"colour", "length"}


FACTORS = ("colour", "amplitude", "start")
ENTROPIES = ("intra_entropy", "inter_entropy", "inception_score")


def keys(protocol_prefix, swap):
    """The keys of metrics.json for one stage of pendula, as runs of this program have them."""
    code = [f"{c}_code_{f}" for c in ("identity", "dynamics") for f in FACTORS]
    agreement = [f"{kind}{f}" for kind in ("", "real_", "rebuilt_") for f in FACTORS]
    consistent = ["inter_entropy", "intra_entropy", "kl", "accuracy", "real_inter_entropy"]
    consistent += agreement + ["real_joint", "rebuilt_joint", "accuracy_per_factor"]
    consistent += code + [f"{name}_shuffled" for name in code]
    consistent += [f"majority_{f}" for f in FACTORS]
    swaps = ["identity_accuracy", "leak_accuracy", "pose_error_deg"]
    swaps += [f"{f}_{name}" for f in FACTORS for name in ("accuracy", "leak", "leak_excess")]
    swaps += [f"{p}{f}_{e}" for p in ("", "prior_") for f in FACTORS[1:] for e in ENTROPIES]
    swaps += [f"prior_{f}_accuracy" for f in FACTORS] + ["prior_colour_variety", "prior_variety"]
    scores = ["disentanglement", "completeness", "informativeness"]
    scores += [f"informativeness_{f}" for f in FACTORS]
    scores += ["subset_disentanglement", "subset_completeness"]
    judged = [f"judge_{f}_accuracy" for f in (*FACTORS, "joint")]
    named = [f"consistency_{name}" for name in consistent] + [f"dci_{name}" for name in scores]
    return {protocol_prefix + name for name in named} | {f"{swap}_{n}" for n in swaps} | {*judged}


def test_the_keys_of_pendula_stay(pendula, folder, monkeypatch):
    monkeypatch.setattr(consistency, "STEPS", 1)
    monkeypatch.setattr(quality, "LPIPS", lambda: quality.squared_error)
    first = "psnr ssim lpips identity_accuracy".split()
    ahead = "amplitude_ok period_ok frames_read pose_error_deg".split()
    stage_1 = keys("stage1_", "swap") | {f"reconstruction_{name}" for name in first}
    stage_1 |= {"stage1_reconstruction_pose_error_deg"}
    stage_2 = keys("", "transfer") | {f"seq_reconstruction_{name}" for name in first}
    stage_2 |= {"reconstruction_pose_error_deg"} | {f"continuation_{name}" for name in ahead}
    of_draws = "frames_read one_colour amplitude_ks amplitude_ks_p period_ks period_ks_p".split()
    stage_2 |= {f"transfer_prior_{name}" for name in of_draws}
    assert set(_evaluate(pendula, Oracle(), "EncDec", folder, "default")) == stage_1
    assert set(_evaluate(pendula, Oracle(), "Seq", folder, "default")) == stage_2
    saved = json.loads(folder.metrics.read_text())
    assert set(saved) == stage_1 | stage_2 | {"details"} and len(saved) == 163
