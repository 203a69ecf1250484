"""Held-out pairs: in no training clip, and a judge that only knows seen pairs is unmasked."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.base import Dataset, flat
from data.sprites import compose
from metrics import evaluate as module
from metrics.evaluate import evaluate, need_labels
from metrics.pairs import sources
from models.vdsm.settings import VDSMSettings
from models.view import VideoModel
from utils.errors import UserError

CHARACTERS, ACTIONS, FRAMES = 80, 9, 2


@pytest.fixture(scope="module")
def whole():
    """Characters in red, actions in green: every pair once. The hair is one of two colours."""
    character, action = np.indices((CHARACTERS, ACTIONS)).reshape(2, -1)
    video = np.zeros((len(action), FRAMES, 64, 64, 3), np.uint8)
    video[..., 0] = 3 * character[:, None, None, None]
    video[..., 1] = 28 * action[:, None, None, None]
    labels = {"hair": character % 2, "action": action, "character": character}
    classes = {"hair": ("dark", "fair"), "action": compose.ACTIONS}
    parts = np.split(np.arange(CHARACTERS), [60, 70])
    splits = compose.positions(character, dict(zip(("train", "val", "test"), parts)))
    return Dataset(
        "sprites",
        *flat(video),
        labels,
        classes,
        splits,
        ("hair",),
        ("action",),
        "f" * 64,
        group="character",
    )


@pytest.fixture(scope="module")
def held(whole):
    return compose.held_out(whole, "pairs")


def pairs_of(dataset, rows):
    return set(zip(dataset.labels["character"][rows], dataset.labels["action"][rows]))


def test_a_tenth_of_the_pairs_is_in_no_training_clip(whole, held):
    train, pairs = held.splits["train"], held.pairs
    assert not pairs_of(held, train) & pairs_of(held, pairs)
    assert sorted([*train, *pairs]) == whole.splits["train"].tolist()
    assert len(pairs) / len(whole.splits["train"]) == pytest.approx(0.1, abs=0.03)
    for name in ("character", "action"):
        # Either half of each pair is in training.
        assert set(held.labels[name][pairs]) <= set(held.labels[name][train])
    assert np.bincount(held.labels["character"][pairs]).max() == 1
    for name in ("val", "test"):
        assert np.array_equal(held.splits[name], whole.splits[name])
    assert held.fingerprint != whole.fingerprint
    assert compose.held_out(whole, "none") is whole and len(whole.split("pairs")) == 0
    # The pairs are fixed, and those of characters that --num_clips leaves out go.
    assert np.array_equal(compose.held_out(whole, "pairs").pairs, pairs)
    few = held.subsample(200, 0)
    known = set(few.labels["character"][few.splits["train"]])
    assert 0 < len(few.pairs) < len(pairs) and set(few.labels["character"][few.pairs]) <= known


def test_sources_are_training_clips_of_either_half(held):
    identity, motion = sources(held, 0)
    train, pairs = held.split("train"), held.split("pairs")
    assert np.array_equal(train.label("character", identity), pairs.label("character"))
    assert np.array_equal(train.label("action", motion), pairs.label("action"))
    assert (train.label("character", motion) != pairs.label("character")).all()


class Colours(VideoModel):
    """static: the level of red, dynamic: that of green in each frame. A perfect model."""

    def encode(self, frames):
        return frames[:, 0, 0, :1, 0], frames[:, :, 1, 0, 0]

    def decode(self, static, dynamic, frames):
        red = static[:, None].expand(-1, frames, -1)
        colour = torch.cat([red, dynamic[:, :frames, None], 0 * red], 2)
        return colour[..., None, None].expand(-1, -1, -1, 64, 64)


class Sees:
    """A judge that reads hair and action from the colours."""

    def probabilities(self, clips):
        colour = clips[:, 0, 0, 0].astype(int)
        hair, action = colour[:, 0] // 3 % 2, colour[:, 1] // 28
        return {"hair": np.eye(2)[hair], "action": np.eye(9)[action]}


class Remembers(Sees):
    """As `Sees`, but of pairs outside the training clips it says the next action."""

    def __init__(self, dataset):
        clips = dataset.split("train")
        self.known = {clip.tobytes() for clip in clips.take(range(len(clips)))}

    def probabilities(self, clips):
        shares = super().probabilities(clips)
        unknown = np.array([clip.tobytes() not in self.known for clip in clips])
        shares["action"][unknown] = np.roll(shares["action"][unknown], 1, 1)
        return shares


def measured(dataset, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_or_train_judge", lambda *_, **__: (judge, {}))
    (tmp_path / "run").mkdir(exist_ok=True)
    folder = SimpleNamespace(metrics=tmp_path / "run" / "metrics.json", root=tmp_path / "run")
    settings = VDSMSettings(seq_len=FRAMES, evaluate="pairs")
    info = settings.info("Seq")
    found = evaluate(Colours(), info, dataset, folder, settings, torch.device("cpu"))
    notes = json.loads(folder.metrics.read_text())["details"]["Seq"]["protocols"]["pairs"]
    return {n: v for n, v in found.items() if n.startswith("pairs_")}, notes


def test_a_perfect_model_and_a_judge_that_is_right_on_seen_pairs_only(held, tmp_path, monkeypatch):
    found, notes = measured(held, Sees(), tmp_path, monkeypatch)
    assert found.pop("pairs_psnr") == 100 and set(found.values()) == {1} and len(found) == 6
    assert notes["warnings"] == [] and notes["clips of pairs"] == len(held.pairs)
    judge = Remembers(held)
    train = held.split("train")
    seen = judge.probabilities(train.take(range(len(train))))["action"].argmax(1)
    assert np.array_equal(seen, train.label("action"))
    found, notes = measured(held, judge, tmp_path, monkeypatch)
    # The figures of the judge come first.
    assert next(iter(found)).startswith("pairs_judge_")
    assert found["pairs_judge_hair_accuracy"] == 1
    assert found["pairs_judge_action_accuracy"] == found["pairs_action_accuracy"] == 0
    assert "misreads real clips of pairs that it never saw" in notes["warnings"][0]


def test_without_pairs_the_protocol_is_refused(whole):
    settings = VDSMSettings(evaluate="pairs")
    with pytest.raises(UserError, match="holds out no pairs .* --hold_out pairs"):
        need_labels(settings, whole)
    need_labels(settings, dataclasses.replace(whole, pairs=np.arange(3)))
