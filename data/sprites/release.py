"""The release's own Sprites files: folders train/ and test/ of `1.sprite`, `2.sprite`, ...

Facts, from the public script that the release's was adapted from (yatindandi/Disentangled-Sequential-Autoencoder) and from
the release's reader: each file is a torch-saved dict of integers body, shirt, pant, hair and action and of `sprite`, a float
tensor [8, 3, 64, 64] in [-1, 1]. Nine files in a row are one character's: walk, spellcast, slash, three directions each.
action is 0..8, or 0..2 (the direction dropped) in one version: then the file's number tells it. A character is wholly in
train/ (about 90 %) or in test/.
"""

import pickle
from pathlib import Path

import numpy as np
import torch

from data.sprites import store
from data.sprites.compose import ACTIONS, CELL, DIRECTIONS, FACTORS, NUM_FRAMES, character_number
from utils.errors import UserError

KEYS = {"body": "body", "shirt": "shirt", "legs": "pant", "hair": "hair", "action": "action"}
SHAPE = (NUM_FRAMES, 3, CELL, CELL)


def find(folder):
    """The folder that holds train/ and test/ with `.sprite` files, or None: `folder` itself, or its lpc-dataset/
    (where the earlier script wrote)."""
    for root in (Path(folder), Path(folder) / "lpc-dataset"):
        if all(any((root / part).glob("*.sprite")) for part in ("train", "test")):
            return root
    return None


def convert(root, folder):
    """Write the release's files below `root` into `folder` as store.py's set, once; test stays test, validation is
    drawn from train's characters. Raises UserError if a file is not what the header of this module says."""
    files = {part: _numbered(root / part) for part in ("train", "test")}
    paths = files["train"] + files["test"]
    numbers = np.array([int(path.stem) - 1 for path in paths])

    def fill(frames):
        labels = {name: np.zeros(len(paths), np.int64) for name in KEYS}
        for row, path in enumerate(paths):
            found, frames[row] = _read(path)
            for name in KEYS:
                labels[name][row] = found[name]
        labels["action"] = _directed(labels["action"], numbers % len(ACTIONS), root)
        labels["character"] = character_number(*(labels[factor] for factor in FACTORS))
        train, test = np.split(labels["character"], [len(files["train"])])
        both = np.intersect1d(train, test)
        if len(both):
            raise UserError(
                f"sprites: character {both[0]} is in both train/ and test/ of {root}: make the files again"
            )
        return labels, store.draw_split(train, test)

    store.write(folder, (len(paths), NUM_FRAMES, CELL, CELL, 3), fill, "release")


def _numbered(folder):
    paths = list(folder.glob("*.sprite"))
    odd = [path for path in paths if not path.stem.isdecimal()]
    if odd:
        raise UserError(
            f"sprites: {odd[0]} is not a number, expected 1.sprite, 2.sprite, ...: move it away"
        )
    return sorted(paths, key=lambda path: int(path.stem))


def _read(path):
    """(labels, frames uint8 [8, 64, 64, 3]) of one file; nothing but tensors and numbers is unpickled."""
    try:
        item = torch.load(path, map_location="cpu", weights_only=True)
        labels = {name: int(item[key]) for name, key in KEYS.items()}
        sprite = item["sprite"]
        known = all(
            0 <= labels[name] < len(names)
            for name, names in (FACTORS | {"action": ACTIONS}).items()
        )
        sound = (
            tuple(sprite.shape) == SHAPE
            and sprite.is_floating_point()
            and -1 <= sprite.min() < 0
            and sprite.max() <= 1
        )
    except (
        pickle.UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ):
        known = sound = False
    if not (known and sound):
        raise UserError(
            f"sprites: {path} is not the release's dict of integers {', '.join(KEYS.values())} and a float tensor sprite "
            f"{list(SHAPE)} in [-1, 1]: make it again, or compose the set with data/sprites/create_lpc_dataset.py"
        )
    frames = ((sprite + 1) * 127.5).round().to(torch.uint8)
    return labels, frames.permute(0, 2, 3, 1).numpy()


def _directed(action, expected, root):
    """Actions 0..8, [n]: as stored, or from the files' numbers (`expected` [n]) where only 0..2 were stored."""
    if action.max() >= len(ACTIONS) // len(DIRECTIONS):
        return action
    if not np.array_equal(action, expected // len(DIRECTIONS)):
        raise UserError(
            f"sprites: {root} has actions 0..2 that do not follow the files' numbers: make the files again"
        )
    return expected
