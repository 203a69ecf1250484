"""The set on disk, as data/store.py keeps it; the split is stored by character."""

import numpy as np

from data import store
from data.base import SPLITS, fingerprint
from data.sprites.compose import ACTIONS, FACTORS, NUM_CHARACTERS
from data.store import FRAMES, METADATA  # noqa: F401, the names of the files
from utils.errors import UserError

VERSION = 1
# Name -> how many values.
LABELS = {name: len(names) for name, names in FACTORS.items()} | {
    "action": len(ACTIONS),
    "character": NUM_CHARACTERS,
}

SPLIT_SEED = 0
TEST_SHARE = 0.1  # 84 of 840 characters, as published
VAL_SHARE = (
    1 / 18
)  # of the other characters: 42 of 756, so that a recipe is never chosen on test clips


def draw_split(train, test=None):
    """Characters by split, each sorted: `train` less validation's draw, and `test` (drawn from train too if None).

    Seeded by SPLIT_SEED alone; at least one character each. Raises UserError if there are too few for that.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train = rng.permutation(np.unique(train))
    if test is None:
        count = max(1, round(len(train) * TEST_SHARE))
        test, train = train[:count], train[count:]
    count = max(1, round(len(train) * VAL_SHARE))
    split = {
        "train": np.sort(train[count:]),
        "val": np.sort(train[:count]),
        "test": np.unique(test),
    }
    if not all(len(characters) for characters in split.values()):
        raise UserError(
            "sprites: too few characters for training, validation and test: make the data again"
        )
    return split


def positions(characters, split):
    """Clip positions by split, int64: those whose character [n] is one of the split's."""
    return {name: np.flatnonzero(np.isin(characters, split[name])) for name in SPLITS}


def write(folder, shape, fill, origin):
    """Make the set in `folder`: fill(frames) fills a new memory map, uint8 `shape`, and returns (labels, split).

    labels: int64 [shape[0]] each, by name; split: see draw_split; origin: 'composed' or 'release'. Otherwise as
    data.store.write.
    """

    def whole(frames):
        labels, split = fill(frames)
        return {
            "version": VERSION,
            "origin": origin,
            "fingerprint": fingerprint(frames, labels, positions(labels["character"], split)),
            "split_seed": SPLIT_SEED,
            "split": split,
            "labels": labels,
        }

    store.write("sprites", folder, shape, whole)


def read(folder):
    """(metadata, frames memory-mapped) of the set in `folder`; metadata's labels and split are arrays. As
    data.store.read."""
    return store.read(folder, VERSION, _unpack)


def fault(folder):
    """None if the set in `folder` looks whole, else what is wrong with it, in a few words. Reads no frame."""
    return store.fault(folder, VERSION, _unpack)


def verify(folder):
    """Whether the set in `folder` is whole to the last pixel: its fingerprint is computed anew (seconds)."""
    if fault(folder):
        return False
    metadata, frames = read(folder)
    labels = metadata["labels"]
    return (
        fingerprint(frames, labels, positions(labels["character"], metadata["split"]))
        == metadata["fingerprint"]
    )


def _unpack(metadata, shape):
    metadata["labels"] = {name: np.array(metadata["labels"][name], np.int64) for name in LABELS}
    metadata["split"] = {name: np.array(metadata["split"][name], np.int64) for name in SPLITS}
    metadata["origin"]
    for name, values in metadata["labels"].items():
        if values.shape != shape[:1] or values.min() < 0 or values.max() >= LABELS[name]:
            raise ValueError(f"wrong label '{name}'")
