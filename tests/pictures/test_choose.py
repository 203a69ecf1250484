"""pictures/choose.py: the clips of a picture differ, and have names."""

import numpy as np

from data.base import Dataset, flat
from data.pendulum import make
from pictures.choose import distinct, names

CLIPS = {"train": 16, "val": 8, "test": 80}
ACTIONS = ("walk front", "walk left", "slash front")


def sprites(characters=12, **more):
    """Clips of a pretended set of sprites: every character in every action, as the test split."""
    character, action = np.divmod(np.arange(len(ACTIONS) * characters), len(ACTIONS))
    labels = {"character": character, "hair": character % 4, "action": action}
    frames = np.zeros((len(action) + 2, 3, 64, 64, 3), np.uint8)
    labels = {name: np.r_[values, 0, 0] for name, values in labels.items()}
    count = len(action)
    splits = {"train": np.array([count]), "val": np.array([count + 1]), "test": np.arange(count)}
    classes = {"hair": tuple("abcd"), "action": ACTIONS}
    given = {"static": ("hair",), "dynamic": ("action",), "group": "character"} | more
    return Dataset("s", *flat(frames), labels, classes, splits, fingerprint="0", **given)


def test_the_eight_pendula_have_eight_colours_and_motions_that_differ():
    dataset = make(16, 0, CLIPS)
    clips = dataset.split("test")
    rows = distinct(dataset, clips, 8)
    assert len(set(clips.label("colour", rows))) == 8
    # A smaller picture shows the first of the same clips.
    np.testing.assert_array_equal(distinct(dataset, clips, 6), rows[:6])

    def nearest(rows):
        angles = clips.label("angles", rows)
        apart = np.abs(angles[:, None] - angles).mean(-1)
        return np.min(apart[~np.eye(len(rows), dtype=bool)])

    some = [np.random.default_rng(seed).permutation(len(clips))[:8] for seed in range(20)]
    assert nearest(rows) > 1.5 * np.median([nearest(drawn) for drawn in some])


def test_characters_and_actions_repeat_as_little_as_they_can():
    dataset = sprites()
    rows = distinct(dataset, dataset.split("test"), 12)
    labels = {name: values[rows] for name, values in dataset.labels.items()}
    assert len(set(labels["character"])) == 12
    for start in range(0, 12, 4):
        assert len(set(labels["hair"][start : start + 4])) == 4
    for start in range(0, 12, 3):
        assert len(set(labels["action"][start : start + 3])) == 3


def test_a_set_with_fewer_clips_shows_all_of_them():
    dataset = sprites(2)
    rows = distinct(dataset, dataset.split("test"), 12)
    assert sorted(rows) == list(range(6))


def test_clips_of_which_nothing_is_known_are_told_apart_by_their_pixels():
    frames = np.zeros((40, 2, 64, 64, 3), np.uint8)
    frames[:38, 0] = np.repeat([0, 255], [30, 8])[:, None, None, None]
    splits = dict(zip(("train", "val", "test"), ([38], [39], range(38))))
    splits = {name: np.array(rows) for name, rows in splits.items()}
    dataset = Dataset("files", *flat(frames), {}, {}, splits, (), (), "0")
    first = dataset.split("test").take(distinct(dataset, dataset.split("test"), 4), 0, 1)
    assert len(set(first[:, 0, 0, 0, 0])) == 2
    assert names(dataset, dataset.split("test"), np.array([3])) == (["clip\u00a03"],) * 2


def test_clips_are_called_by_the_values_of_their_factors():
    dataset, clips = sprites(), sprites().split("test")
    assert names(dataset, clips, np.array([4, 36 - 1])) == (
        ["b", "d"],
        ["walk left", "slash front"],
    )
    two = sprites(static=("hair", "action"), dynamic=())
    identities, motions = names(two, clips, np.array([4]))
    assert identities == ["b\nwalk left"] and motions == ["clip\u00a04"]
