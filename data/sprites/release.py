"""The Sprites files of the authors' script: folders train/ and test/ of `1.sprite`, `2.sprite`...

The format is that of the authors' reader and of the public script that they adapted
(yatindandi/Disentangled-Sequential-Autoencoder): each file is a dict saved by torch, with integers
body, shirt, pant, hair and action, and with `sprite`, a float tensor [8, 3, 64, 64] in [-1, 1].
Nine files in a row show one character: walk, spellcast and slash in three directions each. `action`
is 0..8; in one version it is 0..2, the kind alone, and the file's number gives the direction. A
character is either in train/ (about 90 %) or in test/.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.sprites import compose
from data.sprites.compose import ACTIONS, CELL, DIRECTIONS, NUM_FRAMES
from utils.errors import UserError
from utils.files import MEBIBYTE
from utils.tensors import read_tensors

KEYS = {name: compose.RELEASE_NAMES.get(name, name) for name in (*compose.FACTORS, "action")}
SHAPE = (NUM_FRAMES, 3, CELL, CELL)
LARGEST = 16 * MEBIBYTE  # bytes of a file; the tensor takes 0.4 MB


def find(folder) -> Path | None:
    """The folder with train/ and test/: `folder`, or lpc-dataset/ in it (the earlier script's)."""
    for root in (Path(folder), Path(folder) / "lpc-dataset"):
        if all(any((root / part).glob("*.sprite")) for part in ("train", "test")):
            return root
    return None


def reader(root: Path) -> tuple[tuple, Callable]:
    """Shape and `fill` for data.sprites.write, from the files in `root`.

    Test characters are the authors'; validation is drawn from train/. Both raise UserError.
    """
    train_paths, test_paths = _numbered(root / "train"), _numbered(root / "test")
    paths = train_paths + test_paths
    numbers = np.array([int(path.stem) - 1 for path in paths])

    def fill(frames):
        labels = {name: np.zeros(len(paths), np.int64) for name in KEYS}
        for row, path in enumerate(paths):
            values, frames[row] = _read(path)
            for name in KEYS:
                labels[name][row] = values[name]
        labels["action"] = _directed(labels["action"], numbers % len(ACTIONS), root)
        character = compose.character_number(labels)
        train, test = np.split(character, [len(train_paths)])
        both = np.intersect1d(train, test)
        if len(both):
            problem = f"character {both[0]} is in both train/ and test/ of {root}"
            raise UserError(f"{problem}: make the files again")
        return labels | {"character": character}, compose.draw_split(train, test)

    return (len(paths), NUM_FRAMES, CELL, CELL, 3), fill


def _numbered(folder):
    paths = list(folder.glob("*.sprite"))
    for path in paths:
        if not path.stem.isdecimal():
            raise UserError(f"sprites: {path} is not called by a number: move it away")
    return sorted(paths, key=lambda path: int(path.stem))


def _read(path):
    """Labels and frames uint8 [8, 64, 64, 3] of one file. Unpickles only tensors and numbers."""
    import torch

    try:
        item = read_tensors(path, LARGEST)
        labels, sprite = {name: int(item[key]) for name, key in KEYS.items()}, item["sprite"]
        valid = (
            all(0 <= label < compose.COUNTS[name] for name, label in labels.items())
            and tuple(sprite.shape) == SHAPE
            and sprite.is_floating_point()
            and -1 <= sprite.min() < 0
            and sprite.max() <= 1
        )
    except UserError:
        raise
    except Exception:  # damaged content can raise any exception
        valid = False
    if not valid:
        content = f"integers {', '.join(KEYS.values())} and a float tensor sprite {[*SHAPE]}"
        advice = "make it again, or compose the set with data/sprites/create_lpc_dataset.py"
        raise UserError(f"{path} is not a dict of {content} in [-1, 1]: {advice}")
    frames = ((sprite + 1) * 127.5).round().to(torch.uint8)
    return labels, frames.permute(0, 2, 3, 1).numpy()


def _directed(action, by_number, root):
    """Actions 0..8 [n]: as stored, or `by_number` [n] if only 0..2 are stored."""
    if action.max() >= len(ACTIONS) // len(DIRECTIONS):
        return action
    if not np.array_equal(action, by_number // len(DIRECTIONS)):
        problem = f"{root} has actions 0..2 that do not follow the files' numbers"
        raise UserError(f"{problem}: make the files again")
    return by_number
