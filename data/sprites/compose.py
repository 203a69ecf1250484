"""The Sprites set of the VDSM paper (Table 'Sprites'), composed offline from LPC art: pixels and labels, no files written.

7 bodies x 4 shirts x 5 legs x 6 hair colours = 840 characters, 9 sequences each, 8 frames of 64x64. The layers are sheets of
13 x 21 cells of a clone of github.com/jrconway3/Universal-LPC-spritesheet (GPL 3.0 and CC-BY-SA 3.0). Pure NumPy and Pillow.

One slip of the earlier script that the release adapted is known and not repeated: it reads slash at rows 14, 15, 16, which are
slash front, slash right and the first row of shooting. Slash left, front, right are rows 13, 14, 15.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import UserError

CELL = 64
SHEET_ROWS, SHEET_COLUMNS = 21, 13
UPSTREAM = "github.com/jrconway3/Universal-LPC-spritesheet"

# Names and their order are the release's: a label is a position here, a character the mixed-radix number of its four.
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
# kind -> the sheet rows of left, front, right, and the columns of the 8 frames (a short action holds its last one).
KINDS = {
    "walk": ((9, 10, 11), (0, 1, 2, 3, 4, 5, 6, 7)),
    "spellcast": ((1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 6)),
    "slash": ((13, 14, 15), (0, 1, 2, 3, 4, 5, 5, 5)),
}

ACTIONS = tuple(f"{kind} {direction}" for kind in KINDS for direction in DIRECTIONS)
NUM_FRAMES = 8
NUM_CHARACTERS = int(np.prod([len(names) for names in FACTORS.values()]))
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)


def sheet_path(factor, name):
    """Where the layer `name` of `factor` lies in a clone, relative to its root."""
    return ROBE if name == "robe skirt" else SHEETS[factor].format(name)


def read_sheet(path, name="sprites", flag="--lpc", upstream=UPSTREAM):
    """One layer as uint8 RGBA [1344, 832, 4]; raises UserError, which begins with the set's name, if it is missing, no picture or of
    another size. flag: which takes the clone of `upstream`."""
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        raise UserError(
            f"{name}: found no {path}: {flag} takes the root of a clone of {upstream}"
        ) from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{name}: cannot read {path} ({error}): clone {upstream} again") from None
    want = (SHEET_ROWS * CELL, SHEET_COLUMNS * CELL)
    if sheet.shape[:2] != want:
        raise UserError(
            f"{name}: {path} is {sheet.shape[1]}x{sheet.shape[0]} pixels, expected {want[1]}x{want[0]}: "
            f"{flag} takes a clone of {upstream}"
        )
    return sheet


def cut(sheet):
    """The cells of the nine sequences, uint8 [9, 8, 64, 64, 4], from a sheet [1344, 832, 4]."""
    cells = sheet.reshape(SHEET_ROWS, CELL, SHEET_COLUMNS, CELL, 4).swapaxes(1, 2)
    rows = np.array([row for kind_rows, _ in KINDS.values() for row in kind_rows])
    columns = np.array([columns for _, columns in KINDS.values() for _ in DIRECTIONS])
    return cells[rows[:, None], columns]


class Layer:
    """A layer ready to be drawn: colour x alpha and 255 - alpha, uint16 [9, 8, 64, 64, 3]."""

    def __init__(self, cells):
        alpha = np.repeat(cells[..., 3:].astype(np.uint16), 3, axis=-1)
        self.colour = cells[..., :3] * alpha
        self.keep = 255 - alpha

    def over(self, below):
        """'Alpha over' an opaque picture: round((colour alpha + below (255 - alpha)) / 255), halves cannot occur.

        below and the result are uint8 [9, 8, 64, 64, 3]. The sum is at most 255 x 255 + 127, so that 16 bits hold it.
        """
        mixed = below * self.keep
        mixed += self.colour
        mixed += 127
        mixed //= 255
        return mixed.astype(np.uint8)


def character_number(body, shirt, legs, hair):
    """0..839, from the four static labels (integers or arrays), in the release's order of loops."""
    return ((body * len(FACTORS["shirt"]) + shirt) * len(FACTORS["legs"]) + legs) * len(
        FACTORS["hair"]
    ) + hair


def compose(clone, frames):
    """Fill frames, uint8 [7560, 8, 64, 64, 3] (an array or a memory map), over black; clip = 9 character + action.

    Each combination of lower layers is drawn once. Raises UserError if a sheet of the clone is missing or wrong.
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


def labels():
    """The labels of the composed set, int64 [7560] each: body, shirt, legs, hair, action and character."""
    values = [range(len(names)) for names in FACTORS.values()]
    table = np.array(list(itertools.product(*values, range(len(ACTIONS)))), np.int64)
    named = dict(zip([*FACTORS, "action"], np.ascontiguousarray(table.T), strict=True))
    return named | {"character": character_number(*(named[factor] for factor in FACTORS))}
