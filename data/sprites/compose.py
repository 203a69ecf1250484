"""The Sprites set of the VDSM paper, composed from LPC art: pixels, labels and split.

7 bodies x 4 shirts x 5 legs x 6 hair colours = 840 characters, 9 actions each, 8 frames of 64x64.
The layers are sheets of 13 x 21 cells from a clone of
github.com/jrconway3/Universal-LPC-spritesheet (GPL 3.0 and CC-BY-SA 3.0).

The earlier script that the authors adapted reads slash from rows 14, 15, 16, which show slash
front, slash right and the first row of shooting. Here slash left, front, right are rows 13, 14, 15.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.base import SPLITS
from utils.errors import UserError

CELL = 64
SHEET_ROWS, SHEET_COLUMNS = 21, 13
UPSTREAM = "github.com/jrconway3/Universal-LPC-spritesheet"

# Names and order are the authors': a label is a position in its tuple, and a character is the
# mixed-radix number of its four labels.
FACTORS = {
    "body": ("light", "dark", "dark2", "darkelf", "darkelf2", "tanned", "tanned2"),
    "shirt": ("brown", "teal", "maroon", "white"),
    "legs": ("magenta", "red", "teal", "white", "robe skirt"),
    "hair": ("green", "blue", "pink", "raven", "white", "dark-blonde"),
}
DRAW_ORDER = ("body", "legs", "shirt", "hair")
SHEETS = {
    "body": "body/male/{}.png",
    "shirt": "torso/shirts/longsleeve/male/{}_longsleeve.png",
    "legs": "legs/pants/male/{}_pants_male.png",
    "hair": "hair/male/plain/{}.png",
}
ROBE = "legs/skirt/male/robe_skirt_male.png"

DIRECTIONS = ("left", "front", "right")
# kind -> sheet rows of left, front, right, and columns of the 8 frames (short actions repeat the
# last column).
KINDS = {
    "walk": ((9, 10, 11), (0, 1, 2, 3, 4, 5, 6, 7)),
    "spellcast": ((1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 6)),
    "slash": ((13, 14, 15), (0, 1, 2, 3, 4, 5, 5, 5)),
}
ACTIONS = tuple(f"{kind} {direction}" for kind in KINDS for direction in DIRECTIONS)
NUM_FRAMES = 8
NUM_CHARACTERS = int(np.prod([len(names) for names in FACTORS.values()]))
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)
# The number of values of each label.
COUNTS = {name: len(values) for name, values in FACTORS.items()}
COUNTS |= {"action": len(ACTIONS), "character": NUM_CHARACTERS}

SPLIT_SEED = 0
# 84 of 840 characters, as published.
TEST_SHARE = 0.1
# 42 of the other 756, so that settings are never chosen on test clips.
VAL_SHARE = 1 / 18


def sheet_path(factor: str, name: str) -> str:
    """The path of layer `name` of `factor` in a clone."""
    return ROBE if name == "robe skirt" else SHEETS[factor].format(name)


def read_sheet(path, name="sprites", flag="--lpc", upstream=UPSTREAM) -> np.ndarray:
    """One layer as uint8 RGBA [1344, 832, 4].

    name: the data set; flag: the flag that takes a clone of `upstream`; both for messages. Raises
    UserError if the file is missing, not a picture or of another size.
    """
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        root = f"{flag} takes the root of a clone of {upstream}"
        raise UserError(f"{name}: found no {path}: {root}") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{name}: cannot read {path} ({error}): clone {upstream} again") from None
    height, width = SHEET_ROWS * CELL, SHEET_COLUMNS * CELL
    if sheet.shape[:2] != (height, width):
        problem = f"{path} is {sheet.shape[1]}x{sheet.shape[0]} pixels, expected {width}x{height}"
        raise UserError(f"{name}: {problem}: {flag} takes a clone of {upstream}")
    return sheet


def cut(sheet: np.ndarray) -> np.ndarray:
    """The cells of the nine actions, uint8 [9, 8, 64, 64, 4], from a sheet [1344, 832, 4]."""
    cells = sheet.reshape(SHEET_ROWS, CELL, SHEET_COLUMNS, CELL, 4).swapaxes(1, 2)
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

        `below` and the result are uint8 [9, 8, 64, 64, 3]. The sum is at most 255 x 255 + 127, so
        16 bits hold it. Halves cannot occur.
        """
        mixed = below * self.keep
        mixed += self.colour
        mixed += 127
        mixed //= 255
        return mixed.astype(np.uint8)


def character_number(body, shirt, legs, hair):
    """The character 0..839 of four labels (integers or arrays), in the authors' loop order."""
    shirts, leg_kinds, hairs = COUNTS["shirt"], COUNTS["legs"], COUNTS["hair"]
    return ((body * shirts + shirt) * leg_kinds + legs) * hairs + hair


def compose(clone, frames: np.ndarray) -> None:
    """Draw all clips over black into `frames`, uint8 [7560, 8, 64, 64, 3].

    The position of a clip is 9 character + action. Each combination of lower layers is drawn once.
    Raises UserError if a sheet of the clone is missing or wrong.
    """
    layers = {
        factor: [Layer(cut(read_sheet(Path(clone) / sheet_path(factor, name)))) for name in names]
        for factor, names in FACTORS.items()
    }
    black = np.zeros((len(ACTIONS), NUM_FRAMES, CELL, CELL, 3), np.uint8)

    def draw(below, undrawn, chosen):
        if not undrawn:
            start = len(ACTIONS) * character_number(**chosen)
            frames[start : start + len(ACTIONS)] = below
            return
        factor, *rest = undrawn
        for value, layer in enumerate(layers[factor]):
            draw(layer.over(below), rest, {**chosen, factor: value})

    draw(black, DRAW_ORDER, {})


def labels() -> dict[str, np.ndarray]:
    """Labels of the composed set, int64 [7560]: body, shirt, legs, hair, action, character."""
    values = [range(len(names)) for names in FACTORS.values()]
    table = np.array(list(itertools.product(*values, range(len(ACTIONS)))), np.int64)
    by_name = dict(zip([*FACTORS, "action"], np.ascontiguousarray(table.T), strict=True))
    return by_name | {"character": character_number(*(by_name[factor] for factor in FACTORS))}


def draw_split(train, test=None) -> dict[str, np.ndarray]:
    """Sorted characters by split, drawn by SPLIT_SEED.

    Validation is drawn from the characters `train`; so is test if it is not given. Raises UserError
    if a split is left without a character.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train = rng.permutation(np.unique(train))
    if test is None:
        count = max(1, round(len(train) * TEST_SHARE))
        test, train = train[:count], train[count:]
    count = max(1, round(len(train) * VAL_SHARE))
    split = {"train": train[count:], "val": train[:count], "test": test}
    if not all(len(characters) for characters in split.values()):
        problem = "found too few characters for training, validation and test"
        raise UserError(f"sprites: {problem}: make the data again")
    return {name: np.unique(characters) for name, characters in split.items()}


def positions(characters: np.ndarray, split: dict) -> dict[str, np.ndarray]:
    """Clip positions by split, int64, from the character of each clip [n] and those of a split."""
    return {name: np.flatnonzero(np.isin(characters, split[name])) for name in SPLITS}
