"""The judge learns, repeats itself for a seed, and its file is used for its own data only."""

import itertools
import os

import numpy as np
import pytest
import torch

from data.base import Dataset, fingerprint, flat
from metrics import judge as judging
from utils.errors import UserError

QUICK = {"steps": 40, "batch": 32, "width": 8, "log": lambda line: None}
CLASSES = {"colour": ("red", "green", "blue"), "action": ("left", "right")}


def squares(clips=120, frames=4, classes=CLASSES):
    """Clips of a square of one of three colours that moves left or right from a random place."""
    rng = np.random.default_rng(0)
    number = np.arange(clips)
    labels = {"colour": number % 3, "action": number // 3 % 2, "speed": rng.random(clips)}
    video = np.zeros((clips, frames, 64, 64, 3), np.uint8)
    for clip, time in itertools.product(range(clips), range(frames)):
        x, y = rng.integers(0, 4, 2) + (24, 20)
        x += 6 * time * (2 * labels["action"][clip] - 1)
        video[clip, time, y : y + 16, x : x + 16, labels["colour"][clip]] = 255
    splits = dict(
        zip(("train", "val", "test"), np.split(number, [clips - 48, clips - 24]), strict=True)
    )
    mark = fingerprint(video, labels, splits)
    return Dataset(
        "squares", *flat(video), labels, classes, splits, ("colour",), ("action", "speed"), mark
    )


@pytest.fixture(scope="module")
def data():
    return squares()


@pytest.fixture(scope="module")
def trained(data):
    return judging.train_judge(data, **QUICK)


def test_shapes():
    judge = judging.Judge({"colour": 3, "action": 2}, width=4)
    logits = judge(torch.rand(5, 6, 3, 64, 64))
    assert {factor: tuple(values.shape) for factor, values in logits.items()} == {
        "colour": (5, 3),
        "action": (5, 2),
    }


def test_learns_and_reports_held_out_accuracy(data, trained):
    judge, report = trained
    assert report["accuracy"] == {"colour": 1.0, "action": 1.0, "joint": 1.0}
    assert report["clips"] == {"train": 72, "val": 24, "test": 24}
    # 'speed' has no classes.
    assert judge.classes == {"colour": 3, "action": 2}
    assert not judge.training


def test_probabilities_of_both_layouts_and_any_batch(data, trained):
    judge, _ = trained
    clips = data.split("test").take(range(24))
    floats = clips.transpose(0, 1, 4, 2, 3) / 255
    verdicts = judging.verdicts(judge.probabilities(clips))
    for factor in CLASSES:
        assert verdicts[factor].dtype == np.int64
        assert np.array_equal(verdicts[factor], data.split("test").label(factor))
    for frames, batch in (
        (floats, 7),
        (torch.tensor(floats), 24),
        (data.split("test").take(np.arange(24)), 1),
    ):
        again = judging.verdicts(judge.probabilities(frames, batch))
        assert all(np.array_equal(again[factor], verdicts[factor]) for factor in CLASSES)
    shares = judge.probabilities(clips)
    assert all(np.allclose(values.sum(1), 1, atol=1e-12) for values in shares.values())
    assert shares["colour"].shape == (24, 3)


def test_blurred_clips_stay_in_range():
    frames = torch.rand(3, 2, 3, 64, 64)
    soft = judging.blurred(frames, torch.Generator().manual_seed(0))
    assert soft.shape == frames.shape
    assert soft.min() >= 0
    assert soft.max() <= 1
    assert soft.std() < frames.std()


def test_the_channels_of_a_blurred_clip_shift_by_different_amounts():
    grey = torch.full((200, 2, 3, 64, 64), 0.5)
    soft = judging.blurred(grey, torch.Generator().manual_seed(0)).mean((1, 3, 4))  # [200, 3]
    apart = soft.amax(1) - soft.amin(1)
    assert judging.TINT < apart.max() < 2 * judging.TINT + 0.001
    assert torch.corrcoef(soft.T)[0, 1] < 0.6  # a change of brightness alone would give 1


def test_a_seed_repeats_the_judge_and_leaves_the_generator_alone(data):
    before = torch.get_rng_state()
    few = QUICK | {"steps": 3}
    first, second, other = (
        judging.train_judge(data, seed=seed, **few)[0].state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["heads.colour.weight"], other["heads.colour.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_keeps_the_state_that_is_best_on_validation(data, monkeypatch):
    shares = iter([0.5, 0.9, 0.3])
    states, real = [], judging.accuracy

    def fake(judge, clips, length):
        states.append({name: value.clone() for name, value in judge.state_dict().items()})
        return real(judge, clips, length) | {"joint": next(shares, 0.0)}

    monkeypatch.setattr(judging, "accuracy", fake)
    monkeypatch.setattr(judging, "CHECK_EVERY", 1)
    judge, report = judging.train_judge(data, **QUICK | {"steps": 3})
    assert report["val_accuracy"]["joint"] == 0.9
    assert all(torch.equal(value, states[1][name]) for name, value in judge.state_dict().items())
    assert not torch.equal(states[1]["heads.colour.weight"], states[2]["heads.colour.weight"])


def test_data_without_classes_are_refused():
    with pytest.raises(UserError, match="squares has no labelled factor"):
        judging.train_judge(squares(clips=60, classes={}))


def test_file_is_read_for_its_data_and_settings_only(data, tmp_path):
    lines = []
    settings = QUICK | {"steps": 2, "log": lines.append}
    path = tmp_path / "cache" / "judge.pt"

    def trains(dataset, **changes):
        lines.clear()
        judge, report = judging.load_or_train_judge(dataset, path, **settings | changes)
        return judge, report, any(line.startswith("judge: training") for line in lines)

    judge, report, anew = trains(data)
    assert anew
    kept, kept_report, anew = trains(data)
    assert not anew
    assert kept_report == report
    assert all(
        torch.equal(value, kept.state_dict()[name]) for name, value in judge.state_dict().items()
    )
    assert trains(data, seed=5)[2]
    assert "seed" in lines[0]
    before = path.read_bytes()
    with pytest.raises(UserError, match="the judge of another data set"):
        trains(squares(clips=60), seed=5)
    assert path.read_bytes() == before
    for harm in (b"", b"no torch file", path.read_bytes()[:2000]):
        path.write_bytes(harm)
        assert trains(data)[2]
        assert "cannot be read" in lines[0]
        assert not trains(data)[2]
    whole = torch.load(path, weights_only=True)
    named = dict.fromkeys(whole["state"], torch.tensor(torch.nan))
    weights = {name: value.expand(whole["state"][name].shape) for name, value in named.items()}
    running = {name: value for name, value in weights.items() if "running" in name}
    assert running
    states = [{"state": weights}, {"state": whole["state"] | running}]
    for harm in ({"key": None}, {"classes": {"x": 2}}, {"report": []}, *states):
        torch.save(whole | harm, path)
        assert trains(data)[2], harm
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a pipe, expected a regular file"):
        trains(data)
    path.unlink()
    trains(data)
    assert [file.name for file in path.parent.iterdir()] == ["judge.pt"]


def test_adapt_learns_reconstructions_and_leaves_the_judge_unchanged(data, trained):
    judge = trained[0]
    state = {name: value.clone() for name, value in judge.state_dict().items()}
    train = data.split("train")
    clips = train.take(np.arange(len(train)))
    labels = {factor: train.label(factor) for factor in CLASSES}
    # Reconstructions that show the complementary colour: red as cyan, and so on.
    cyan = np.where(clips.any(-1, keepdims=True), 255 - clips, 0)
    few = [
        judging.adapt(judge, clips, cyan, labels, steps=1, batch=8).state_dict() for _ in range(2)
    ]
    assert all(torch.equal(value, few[1][name]) for name, value in few[0].items())
    adapted = judging.adapt(judge, clips, cyan, labels, steps=120, batch=16)
    assert all(torch.equal(value, judge.state_dict()[name]) for name, value in state.items())
    for video in (clips, cyan):
        judged = judging.verdicts(adapted.probabilities(video))
        assert min((judged[factor] == labels[factor]).mean() for factor in CLASSES) > 0.8
    assert (judging.verdicts(judge.probabilities(cyan))["colour"] == labels["colour"]).mean() < 0.7


def test_a_weak_judge_gives_a_warning():
    assert judging.too_weak({"hair": 0.99, "joint": 0.5}) is None
    assert "hair 0.989" in judging.too_weak({"hair": 0.989, "action": 1.0})


def test_a_path_that_cannot_be_written_is_refused(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the judge") as error:
        judging.load_or_train_judge(data, tmp_path / "file" / "judge.pt", **QUICK | {"steps": 1})
    assert "\n" not in str(error.value)
