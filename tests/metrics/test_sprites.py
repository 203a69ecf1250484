"""The colours of sprites from pixels: exact on true clips, chance on grey ones.

The real art is used if VDSM_REAL_DATA names a folder that holds lpc/ and li_sprites/.
"""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import data.sprites
import data.sprites_li
from data.base import Dataset, flat
from metrics.judge import train_judge
from metrics.measurers import measurer_of
from metrics.sprites import SpriteMeasurer
from metrics.swap import pairing

HAIR, LEGS, ACTIONS = 3, 4, 2


@pytest.fixture(scope="module")
def figures():
    """Every combination of hair and legs, two bars of grey that move with the action."""
    hair, legs, action = np.indices((HAIR, LEGS, ACTIONS)).reshape(3, -1)
    video = np.zeros((len(hair), 3, 64, 64, 3), np.uint8)
    for clip, time in np.ndindex(*video.shape[:2]):
        left = 4 + 10 * time * action[clip]
        video[clip, time, 4:20, left : left + 10] = 60 * (1 + hair[clip])
        video[clip, time, 40:60, left : left + 10] = 50 * (1 + legs[clip])
    labels = {"hair": hair, "legs": legs, "action": action}
    classes = {name: tuple(map(str, range(values.max() + 1))) for name, values in labels.items()}
    splits = {"train": np.arange(2), "val": np.arange(2, 4), "test": np.arange(4, len(hair))}
    factors = ("hair", "legs"), ("action",)
    return Dataset("sprites", *flat(video), labels, classes, splits, *factors, "f" * 64)


def swapped(dataset, partner, clips):
    """The true clips of a swap: the identity of clip partner[i], the action of clip i."""
    measurer = SpriteMeasurer(dataset)
    labels = {name: clips.label(name) for name in clips.labels}
    at = (*(labels[name][partner] for name in dataset.static), labels["action"])
    first = measurer.layers.first[measurer.layers.position[at]]
    made = dataset.frames[first[:, None] + np.arange(clips.num_frames)]
    return measurer, labels, made


def shares(measures):
    return {name: measure.figure() for name, measure in measures.items()}


def test_true_swaps_are_right_and_nothing_apart(figures):
    clips = figures.split("all")
    partner = pairing(len(clips), 0)
    measurer, labels, made = swapped(figures, partner, clips)
    found = shares(measurer.swaps(made, labels, partner))
    assert found == {
        f"{factor}_pixels_{name}": value
        for factor in ("hair", "legs")
        for name, value in (("right", 1), ("apart", 0))
    }
    # Five grey levels too bright where it is lit: at the masks, and nowhere else.
    brighter = shares(measurer.swaps(made + 5 * (made > 0), labels, partner))
    assert brighter["hair_pixels_right"] == 1 and brighter["hair_pixels_apart"] == 5
    own = shares(measurer.swaps(clips.take(range(len(clips))), labels, partner))
    same = (labels["hair"] == labels["hair"][partner]).mean()
    assert own["hair_pixels_right"] == pytest.approx(same)
    rebuilt = shares(measurer.reconstructions(clips.take(range(len(clips))), labels, False))
    assert rebuilt["seq_reconstruction_legs_pixels_right"] == 1


def test_a_grey_clip_gives_chance(figures):
    clips = figures.split("all")
    partner = pairing(len(clips), 0)
    measurer, labels, made = swapped(figures, partner, clips)
    found = shares(measurer.swaps(np.full_like(made, 128), labels, partner))
    assert found["hair_pixels_right"] == pytest.approx(1 / HAIR)
    assert found["legs_pixels_right"] == pytest.approx(1 / LEGS)
    assert found["hair_pixels_apart"] == pytest.approx((68 + 8 + 52) / 3)


def test_a_set_that_lacks_a_combination_adds_nothing(figures):
    assert type(measurer_of(figures)) is SpriteMeasurer
    labels = figures.labels | {"hair": figures.labels["hair"] * 0}
    measurer = SpriteMeasurer(dataclasses.replace(figures, labels=labels))
    assert measurer.swaps(figures.frames[None], labels, np.zeros(1, int)) == {}


def load_real(module, art, folder):
    """The data set that data/{module}.py makes from real art, written to `folder`."""
    clone = Path(os.environ.get("VDSM_REAL_DATA", "")) / art
    if not os.environ.get("VDSM_REAL_DATA") or not clone.is_dir():
        pytest.skip(f"real art not checked: VDSM_REAL_DATA does not name a folder with {art}/")
    config = SimpleNamespace(data_dir=folder, source=clone, hold_out="none", poses="actions")
    return getattr(data, module).load(config)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "art"), [("sprites", "lpc"), ("sprites_li", "li_sprites")])
def test_the_reader_on_real_art(module, art, tmp_path):
    dataset = load_real(module, art, tmp_path)
    clips = dataset.split("test")
    partner = pairing(len(clips), 0)
    measurer, labels, made = swapped(dataset, partner, clips)
    noisy = made + np.random.default_rng(0).normal(0, 30, made.shape)
    grey = np.full_like(made, 128)
    for pictures, real in (
        (made, True),
        (noisy.clip(0, 255).astype(np.uint8), True),
        (grey, False),
    ):
        found = shares(measurer.swaps(pictures, labels, partner))
        for factor in dataset.static:
            chance = 1 / len(dataset.classes[factor])
            share = found[f"{factor}_pixels_right"]
            assert share >= 0.99 if real else share == pytest.approx(chance, abs=0.1), factor


@pytest.mark.slow
def test_the_judge_names_a_tone_that_is_12_grey_levels_off(tmp_path):
    dataset = load_real("sprites", "lpc", tmp_path)
    layers, clips = SpriteMeasurer(dataset).layers, dataset.split("val")
    judge, _ = train_judge(dataset, 8)
    rng = np.random.default_rng(5)
    for place, factor in enumerate(dataset.static):
        made, right = [], []
        for row in range(0, len(clips), 3):
            named = [int(clips.label(name, [row])[0]) for name in dataset.static]
            values = layers.values_of(factor, named, int(clips.label("action", [row])[0]), 8)
            mask = np.bitwise_or.reduce(values ^ values[0]).any(-1)
            shift = rng.normal(size=3)
            clip = values[named[place]].astype(float)
            clip[mask] += 12 * shift / np.linalg.norm(shift)
            tones = values[:, mask].astype(float).mean(1)  # [V, 3]
            apart = np.linalg.norm(tones - clip[mask].mean(0), axis=1)
            if apart.argmin() == named[place]:  # no other tone is nearer
                made.append(clip.clip(0, 255).round().astype(np.uint8))
                right.append(named[place])
        verdict = judge.probabilities(np.stack(made))[factor].argmax(1)
        assert (verdict == right).mean() >= 0.98, factor
