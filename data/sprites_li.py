"""Li & Mandt's Sprites (sprites-li): 1296 characters x 9 actions x 8 frames, 64x64.

DSA, S3VAE and later work use this set. It is made once:

    python main.py --dataset_name sprites-li --source CLONE    # of github.com/YingzhenLi/Sprites

Layers body, bottomwear, topwear, hair and shoes are drawn over black in that order. Character c has
body c // 216, bottomwear c // 36 % 6, topwear c // 6 % 6, hair c % 6. The published split has 1000
characters for training and 296 for test; here 50 of the 1000 are held out for validation. The
published arrays (`npy/walk_front_frames_train.npy`, ...) load to the same clips.

With --poses sheet, the set has one clip per character instead, of all 178 poses of a sheet. The art
of topwear 5 and bottomwear 5 lacks thrust and shoot: there a character is without that garment.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from data import arrays, sprites
from data.base import Dataset, fingerprint
from data.sprites import compose as sheets
from data.sprites.compose import CELL, SHEET_COLUMNS
from data.store import Store, dataset, pack
from utils.errors import UserError
from utils.flags import flag
from utils.settings import DATA

LICENCE = f"layers of github.com/YingzhenLi/Sprites: {sprites.LICENCE}"
NAME, VERSION = "sprites-li", 1
UPSTREAM = "github.com/YingzhenLi/Sprites"
NUM_FRAMES = 8
FACTORS = ("body", "bottomwear", "topwear", "hair")  # in drawing order
VALUES = 6  # of each factor
NUM_CHARACTERS = VALUES ** len(FACTORS)
# kind -> first cell of front, left and right, and the cells of the 8 frames, counted from it. Cells
# are numbered along the rows of a sheet.
CELLS = {
    "walk": ((131, 118, 144), (7, 0, 1, 2, 3, 4, 5, 6)),
    "spellcard": ((26, 13, 39), (0, 1, 2, 3, 4, 5, 4, 6)),
    "slash": ((182, 169, 195), (0, 1, 2, 3, 4, 5, 4, 0)),
}
ACTIONS = tuple(f"{kind} {direction}" for kind in CELLS for direction in ("front", "left", "right"))
SHOWN = [first + k for firsts, frames in CELLS.values() for first in firsts for k in frames]
# The cells of --poses sheet. Kind -> first row and length of its rows back, left, front, right;
# frames come in the order front, left, right, back. The last row shows one fall, from the front.
ROWS = {"walk": (8, 9), "spellcard": (0, 7), "thrust": (4, 8), "slash": (12, 6), "shoot": (16, 13)}
FALL_ROW, FALL_CELLS = 20, 6
SHEET = [
    (row + direction) * SHEET_COLUMNS + column
    for row, columns in ROWS.values()
    for direction in (2, 1, 3, 0)
    for column in range(columns)
] + [FALL_ROW * SHEET_COLUMNS + column for column in range(FALL_CELLS)]
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)
SPLIT_SEED, NUM_TRAIN, NUM_VAL = 423, 1000, 50
# Fingerprints of the arrays composed from the upstream art.
COMPOSED = "356bcab9e9d990a46c0ff715f2c32a0159069881b414e5fb163581cedbcd3a68"
COMPOSED_SHEETS = "9324be8796158154d7ab7736e9c8b17971dd95e522548a26b868e4e90752744d"
FRAMES, FACTS = "sheets.npy", "sheets.json"  # the files of --poses sheet


@dataclass
class Flags(sheets.Flags):
    poses: str = flag("actions", DATA, choices=("actions", "sheet"))
    """Clips: nine actions of 8 frames per character, or one clip of all 178 poses of its sheet,
    which are in no order of time."""


def characters() -> np.ndarray:
    """The 1296 characters in the published order: the first 1000 train, the rest test."""
    return np.random.RandomState(SPLIT_SEED).permutation(NUM_CHARACTERS)


def labels(whole: bool = False) -> dict[str, np.ndarray]:
    """body, bottomwear, topwear, hair, action and character, int64 [11664] each.

    whole: for clips of whole sheets, [1296] each, which have no action.
    """
    table = sheets.labels(dict.fromkeys(FACTORS, VALUES))
    if whole:
        del table["action"]
        return {name: values[:: len(ACTIONS)] for name, values in table.items()}
    return table


def splits(whole: bool = False) -> dict[str, np.ndarray]:
    """Positions of clips by split; validation is the end of the published training characters."""
    parts = np.split(characters(), [NUM_TRAIN - NUM_VAL, NUM_TRAIN])
    return sheets.positions(labels(whole)["character"], dict(zip(("train", "val", "test"), parts)))


def read_layer(path: Path, shown: Sequence[int]) -> Image.Image:
    """The cells `shown` of one layer, one below the other: RGBA, 64 px wide. Raises UserError."""
    cells = sheets.read_sheet(path, UPSTREAM).reshape(-1, CELL, CELL, 4)
    return Image.fromarray(cells[shown].reshape(-1, CELL, 4))


def compose(clone: Path, frames: np.ndarray, shown: Sequence[int] = SHOWN) -> None:
    """Draw all clips into `frames`, uint8 [11664, 8, 64, 64, 3]. Raises UserError.

    The position of a clip is 9 character + action. With other cells `shown`, a character has one
    clip: [1296, cells, 64, 64, 3]. Each combination of lower layers is drawn once.
    """
    if not clone.is_dir():
        raise UserError(f"found no folder {clone}: --source takes a clone of {UPSTREAM}")
    files = [[clone / factor / f"{value}.png" for value in range(VALUES)] for factor in FACTORS]
    layers = [[read_layer(path, shown) for path in paths] for paths in files]
    shoes, clips = read_layer(clone / "shoes" / "1.png", shown), len(frames) // NUM_CHARACTERS

    def draw(below, undrawn, character):
        if not undrawn:
            picture = np.asarray(Image.alpha_composite(below, shoes))[..., :3]
            own = slice(character * clips, (character + 1) * clips)
            frames[own] = picture.reshape(clips, *frames.shape[1:])
            return
        for value, layer in enumerate(undrawn[0]):
            draw(Image.alpha_composite(below, layer), undrawn[1:], character * VALUES + value)

    draw(Image.new("RGBA", shoes.size, "black"), layers, 0)


def find_published(folder) -> Path | None:
    """The folder of the published arrays: `folder` or its npy/, or None."""
    places = (Path(folder), Path(folder) / "npy")
    return next((p for p in places if _published(p, ACTIONS[0], "train").exists()), None)


def _published(folder, action, part):
    return folder / f"{action.replace(' ', '_')}_frames_{part}.npy"


def read_published(folder: Path, frames: np.ndarray) -> None:
    """Fill `frames`, uint8 [11664, 8, 64, 64, 3], from the published arrays.

    They are float, grey level / 256, characters in the order of the split. Raises UserError.
    """
    order = characters()
    for action, name in enumerate(ACTIONS):
        for part, chosen in (("train", order[:NUM_TRAIN]), ("test", order[NUM_TRAIN:])):
            path, shape = _published(folder, name, part), [len(chosen), *SHAPE[1:]]
            clips = arrays.mapped(path)
            if [*clips.shape] != shape or clips.dtype.kind != "f":
                kind = f"{clips.dtype} {[*clips.shape]}"
                raise UserError(f"{path} is {kind}, expected float32 {shape}: get it again")
            for clip, character in zip(clips, chosen):
                frames[character * len(ACTIONS) + action] = np.clip(np.rint(clip * 256), 0, 255)


def load(config) -> Dataset:
    """Load the set in config.data_dir/sprites-li, frames memory-mapped.

    A missing or damaged set is made first: from the published arrays in the same folder or in
    config.source, or from the clone config.source. Raises UserError if there is neither.
    """
    folder, whole = Path(config.data_dir) / NAME, config.poses == "sheet"
    stored = Store(folder, VERSION)
    if whole and config.hold_out != "none":
        problem = "--hold_out pairs: clips of --poses sheet show no single action"
        raise UserError(f"{problem}: leave one of the two out")
    if whole:
        stored = replace(stored, frames_file=FRAMES, metadata_file=FACTS)
    metadata, clips = stored.load(lambda problem: _make(stored, config.source, whole, problem))
    classes: dict[str, tuple] = dict.fromkeys(FACTORS, tuple(map(str, range(VALUES))))
    if whole:
        return dataset(NAME, metadata, clips, classes, static=FACTORS, dynamic=())
    factors = {"static": FACTORS, "dynamic": ("action",)}
    classes |= {"action": ACTIONS}
    clips = dataset(NAME, metadata, clips, classes, **factors, **sheets.JOINED)
    return sheets.held_out(clips, config.hold_out)


def _make(stored, source, whole, problem):
    # the published arrays lack the other poses of a sheet
    published = None if whole else find_published(source or stored.folder)
    shape = (NUM_CHARACTERS, len(SHEET), *SHAPE[2:]) if whole else SHAPE
    if not (published or source):
        how = f"give --source CLONE, a clone of {UPSTREAM}"
        how += "" if whole else f", or put its .npy files into {stored.folder}"
        raise UserError(f"{NAME}: {problem}: the set needs {np.prod(shape):,} bytes; {how}")
    work = "reading" if published else "composing the set from"
    print(f"{NAME}: {work} {published or source} once", flush=True)

    def fill(frames):
        if published:
            read_published(published, frames)
        else:
            compose(Path(source), frames, SHEET if whole else SHOWN)
        if fingerprint(frames, {}, {}) != (COMPOSED_SHEETS if whole else COMPOSED):
            problem = f"{NAME}: {published or source} gives other pixels than the art of {UPSTREAM}"
            if not published:
                raise UserError(f"{problem}: clone it again")
            print(problem, flush=True)
        return pack(frames, labels(whole), splits(whole))

    stored.write(shape, fill)
