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


@pytest.mark.slow
@pytest.mark.parametrize(("module", "art"), [("sprites", "lpc"), ("sprites_li", "li_sprites")])
def test_the_reader_on_real_art(module, art, tmp_path):
    clone = Path(os.environ.get("VDSM_REAL_DATA", "")) / art
    if not os.environ.get("VDSM_REAL_DATA") or not clone.is_dir():
        pytest.skip(f"real art not checked: VDSM_REAL_DATA does not name a folder with {art}/")
    config = SimpleNamespace(data_dir=tmp_path, source=clone, hold_out="none", poses="actions")
    dataset = getattr(data, module).load(config)
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
