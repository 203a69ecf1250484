"""data/shapes: the full product of its factors, drawn as its labels say."""

import numpy as np
import pytest

from data import load, shapes
from utils.plan import parse

FRAMES = 4


@pytest.fixture(scope="module")
def made():
    return shapes.make(FRAMES, each=1)


def clips_of(dataset):
    return dataset.frames.reshape(-1, FRAMES, 64, 64, 3)


def test_every_combination_has_one_clip(made):
    table = np.stack([made.labels[name] for name in shapes.CLASSES], 1)
    assert len(table) == len(np.unique(table, axis=0)) == 3 * 4 * 2 * 3 * 2 * 3
    rows = np.concatenate([*made.splits.values()])
    assert sorted(rows) == list(range(len(table)))
    assert [len(made.splits[name]) for name in ("train", "val", "test")] == [281, 43, 108]
    for name, names in shapes.CLASSES.items():
        # Every value is in every split.
        for split in made.splits.values():
            assert set(made.labels[name][split]) == set(range(len(names))), name


def test_the_seed_decides(made):
    again, other = shapes.make(FRAMES, each=1), shapes.make(1, seed=1, each=1)
    assert again.fingerprint == made.fingerprint != other.fingerprint
    assert not np.array_equal(other.splits["test"], made.splits["test"])


def test_colour_and_size_are_read_from_the_pixels(made):
    clips = clips_of(made).astype(float)
    palette = np.array(list(shapes.COLOURS.values()))
    brightest = clips.reshape(len(clips), -1, 3)
    brightest = brightest[np.arange(len(clips)), brightest.sum(2).argmax(1)]
    apart = np.abs(brightest[:, None] - palette).sum(2)
    assert np.array_equal(apart.argmin(1), made.labels["colour"]) and apart.min(1).max() == 0
    cover = clips.sum(4) / palette[made.labels["colour"]].sum(1)[:, None, None, None]
    radius = np.array(list(shapes.SIZES.values()))[made.labels["size"]]
    # All shapes of one size have the same area.
    assert cover.sum((2, 3)) == pytest.approx(np.pi * radius[:, None] ** 2 * np.ones(4), rel=0.03)
    # No shape leaves the picture.
    assert clips[:, :, [0, -1]].max() == clips[:, :, :, [0, -1]].max() == 0


def test_shapes_move_as_their_labels_say(made):
    clips = clips_of(made).astype(float).sum(4)
    place = np.arange(64) - shapes.CENTRE
    total = clips.sum((2, 3))
    right, down = (clips.sum(2) @ place) / total, (clips.sum(3) @ place) / total
    expected = shapes.motion(made.labels, made.labels["start"], FRAMES)
    assert np.abs(right - expected[0]).max() < 0.1 and np.abs(down - expected[1]).max() < 0.1
    across = made.labels["path"] == shapes.PATHS.index("across")
    assert np.ptp(expected[1][across]) == 0 < np.ptp(expected[0][across])
    # The ellipse's long axis turns by 1/32 of a circle per frame, and not at all without rotation.
    ellipse = (made.labels["shape"] == 2) & (made.labels["size"] == 1)
    x, y = place - right[..., None], place - down[..., None]
    xx, yy = ((clips.sum(axis) * at**2).sum(2) for axis, at in ((2, x), (3, y)))
    xy = np.einsum("ntyx,ntx,nty->nt", clips, x, y)
    axis = np.arctan2(2 * xy, xx - yy) / 2
    turned = (np.diff(axis, axis=1) + np.pi / 2) % np.pi - np.pi / 2
    speeds = np.array(list(shapes.ROTATIONS.values()))[made.labels["rotation"]] * 2 * np.pi
    assert np.abs(turned - speeds[:, None])[ellipse].max() < 0.02


def test_it_is_loaded_by_its_name(monkeypatch):
    monkeypatch.setattr(shapes, "FRAMES", 2)
    flags = "--dataset_name shapes --seq_len 3 --shapes_per_combination 1 --num_clips 40"
    dataset = load(parse(flags.split()).first)
    assert dataset.name == "shapes" and dataset.split("all").num_frames == 3
    assert len(dataset.split("all")) == 40
