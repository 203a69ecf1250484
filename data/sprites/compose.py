"""The Sprites set of the VDSM paper, composed from LPC art: pixels, labels and split.

7 bodies x 4 shirts x 5 legs x 6 hair colours = 840 characters, 9 actions each, 8 frames of 64x64.
The layers are sheets of 13 x 21 cells (GPL 3.0 and CC-BY-SA 3.0).

The script that the authors adapted reads slash left, front, right from rows 14, 15, 16, which show
slash front, slash right and shooting. Here they are rows 13, 14, 15.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.base import SPLITS, Dataset
from data.decoders import BadFile, picture
from utils.errors import UserError
from utils.flags import flag
from utils.settings import DATA

CELL, SHEET_ROWS, SHEET_COLUMNS = 64, 21, 13
UPSTREAM = "github.com/jrconway3/Universal-LPC-spritesheet"
# Names and order are the authors': a label is a position in its tuple.
FACTORS = {
    "body": ("light", "dark", "dark2", "darkelf", "darkelf2", "tanned", "tanned2"),
    "shirt": ("brown", "teal", "maroon", "white"),
    "legs": ("magenta", "red", "teal", "white", "robe skirt"),
    "hair": ("green", "blue", "pink", "raven", "white", "dark-blonde"),
}
RELEASE_NAMES = {"legs": "pant"}  # the authors' word where it is another
DRAW_ORDER = ("body", "legs", "shirt", "hair")
SHEETS = {
    "body": "body/male/{}.png",
    "shirt": "torso/shirts/longsleeve/male/{}_longsleeve.png",
    "legs": "legs/pants/male/{}_pants_male.png",
    "hair": "hair/male/plain/{}.png",
}
ROBE = "legs/skirt/male/robe_skirt_male.png"
DIRECTIONS = ("left", "front", "right")
# kind -> sheet rows of left, front, right, and columns of the 8 frames
KINDS = {
    "walk": ((9, 10, 11), (0, 1, 2, 3, 4, 5, 6, 7)),
    "spellcast": ((1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 6)),
    "slash": ((13, 14, 15), (0, 1, 2, 3, 4, 5, 5, 5)),
}
ACTIONS = tuple(f"{kind} {direction}" for kind in KINDS for direction in DIRECTIONS)
NUM_FRAMES = 8
NUM_CHARACTERS = int(np.prod([len(names) for names in FACTORS.values()]))
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)
# As in the authors' code, a sample of stage 1 joins two clips of one character.
JOINED = {"group": "character", "clips_per_sample": 2}
FACTOR_COUNTS = {name: len(values) for name, values in FACTORS.items()}
COUNTS = FACTOR_COUNTS | {"action": len(ACTIONS), "character": NUM_CHARACTERS}
SPLIT_SEED = 0
TEST_SHARE = 0.1  # 84 of 840 characters, as published
PAIRS_SEED, PAIRS_SHARE = 1, 10  # --hold_out pairs: one pair in ten
VAL_SHARE = 1 / 18  # 42 of the other 756, so that settings are never chosen on test clips


@dataclass
class Flags:
    hold_out: str = flag("none", DATA, choices=("none", "pairs"))
    """pairs: a tenth of the pairs of character and action is in no training clip, the judge's
    included. --evaluate pairs measures these pairs."""


def sheet_path(factor: str, name: str) -> str:
    """The path of layer `name` of `factor` in a clone."""
    return ROBE if name == "robe skirt" else SHEETS[factor].format(name)


def read_sheet(path, upstream: str = UPSTREAM) -> np.ndarray:
    """The cells of a sheet, uint8 RGBA [21, 13, 64, 64, 4]. Raises UserError."""
    try:
        sheet = picture(path, "RGBA")
    except FileNotFoundError:
        raise UserError(f"found no {path}: give the root of a clone of {upstream}") from None
    except (BadFile, OSError) as error:
        raise UserError(f"cannot read {path} ({error}): clone {upstream} again") from None
    height, width = SHEET_ROWS * CELL, SHEET_COLUMNS * CELL
    if sheet.shape[:2] != (height, width):
        problem = f"{path} is {sheet.shape[1]}x{sheet.shape[0]} pixels, expected {width}x{height}"
        raise UserError(f"{problem}: give a clone of {upstream}")
    return sheet.reshape(SHEET_ROWS, CELL, SHEET_COLUMNS, CELL, 4).swapaxes(1, 2)


def cut(cells: np.ndarray) -> np.ndarray:
    """The cells of the nine actions, uint8 [9, 8, 64, 64, 4], from those of `read_sheet`."""
    rows = np.array([row for kind_rows, _ in KINDS.values() for row in kind_rows])
    columns = np.array([columns for _, columns in KINDS.values() for _ in DIRECTIONS])
    return cells[rows[:, None], columns]


class Layer:
    """A layer prepared for drawing: colour x alpha and 255 - alpha, uint16 [9, 8, 64, 64, 3]."""

    def __init__(self, cells):
        alpha = np.repeat(cells[..., 3:].astype(np.uint16), 3, axis=-1)
        self.colour = cells[..., :3] * alpha
        self.keep = 255 - alpha

    def over(self, below: np.ndarray) -> np.ndarray:
        """'Alpha over' an opaque picture: round((colour alpha + below (255 - alpha)) / 255).

        `below` and the result are uint8 [9, 8, 64, 64, 3]. Sums fit into 16 bits.
        """
        mixed = below * self.keep
        mixed += self.colour
        mixed += 127
        mixed //= 255
        return mixed.astype(np.uint8)


def character_number(labels: dict) -> np.ndarray:
    """The character 0..839 with these labels (integers or arrays), in the authors' loop order."""
    return np.ravel_multi_index([labels[name] for name in FACTORS], [*FACTOR_COUNTS.values()])


def compose(clone: Path, frames: np.ndarray) -> None:
    """Draw all clips over black into `frames`, uint8 [7560, 8, 64, 64, 3]. Raises UserError.

    The position of a clip is 9 character + action. Each combination of lower layers is drawn once.
    """
    layers = {
        factor: [Layer(cut(read_sheet(clone / sheet_path(factor, name)))) for name in names]
        for factor, names in FACTORS.items()
    }
    black = np.zeros((len(ACTIONS), NUM_FRAMES, CELL, CELL, 3), np.uint8)

    def draw(below, undrawn, chosen):
        if not undrawn:
            start = len(ACTIONS) * character_number(chosen)
            frames[start : start + len(ACTIONS)] = below
            return
        factor, *rest = undrawn
        for value, layer in enumerate(layers[factor]):
            draw(layer.over(below), rest, {**chosen, factor: value})

    draw(black, DRAW_ORDER, {})


def labels(counts: dict[str, int] = FACTOR_COUNTS) -> dict[str, np.ndarray]:
    """Labels, int64 [clips] by name, of every combination of values; actions change fastest."""
    table = np.indices((*counts.values(), len(ACTIONS)), np.int64).reshape(len(counts) + 1, -1)
    by_name = dict(zip((*counts, "action"), table, strict=True))
    return by_name | {"character": np.arange(table.shape[1]) // len(ACTIONS)}


def draw_split(train, test=None) -> dict[str, np.ndarray]:
    """Sorted characters by split: validation, and test if it is not given, are drawn from `train`.

    Raises UserError if a split has no character.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train = rng.permutation(np.unique(train))
    if test is None:
        count = max(1, round(len(train) * TEST_SHARE))
        test, train = train[:count], train[count:]
    count = max(1, round(len(train) * VAL_SHARE))
    split = {"train": train[count:], "val": train[:count], "test": test}
    if not all(map(len, split.values())):
        raise UserError("sprites: found too few characters for three splits: make the data again")
    return {name: np.unique(characters) for name, characters in split.items()}


def positions(characters: np.ndarray, split: dict) -> dict[str, np.ndarray]:
    """Positions of clips by split, from the character of each clip and the characters by split."""
    return {name: np.flatnonzero(np.isin(characters, split[name])) for name in SPLITS}


def held_out(dataset: Dataset, hold_out: str) -> Dataset:
    """The set as --hold_out says: with 'pairs', without a tenth of the training clips.

    The pair of character and action of these clips, `Dataset.pairs`, is in no training clip. Each
    character loses one action at most. Validation and test clips stay.
    """
    if hold_out == "none":
        return dataset
    # 1296 characters are enough for both sets.
    order = np.random.default_rng(PAIRS_SEED).permutation(1296)
    chosen = order[dataset.labels["character"]] % PAIRS_SHARE == dataset.labels["action"]
    train = dataset.splits["train"]
    splits = dataset.splits | {"train": train[~chosen[train]]}
    new, *former = (
        hashlib.sha256(f"{old} without pairs".encode()).hexdigest()
        for old in (dataset.fingerprint, *dataset.former)
    )
    pairs = train[chosen[train]]
    return replace(dataset, splits=splits, pairs=pairs, fingerprint=new, former=tuple(former))
