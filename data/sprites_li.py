"""Li & Mandt's Sprites (sprites-li): 1296 characters x 9 actions x 8 frames, 64x64.

DSA, S3VAE and later work use this set. It is made once:

    python main.py --dataset_name sprites-li --source CLONE    # of github.com/YingzhenLi/Sprites

Layers body, bottomwear, topwear, hair and shoes are drawn over black in that order. Sheet cells of
64x64 are numbered along rows of 13. Character c has body c // 216, bottomwear c // 36 % 6, topwear
c // 6 % 6, hair c % 6. The published split has 1000 characters for training and 296 for test, drawn
by NumPy's legacy generator; here 50 of the 1000 are held out for validation. The published arrays
(`npy/walk_front_frames_train.npy`, ...) load to the same clips.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from data.base import Dataset, fingerprint, flat
from data.sprites.compose import CELL, SHEET_COLUMNS, SHEET_ROWS, read_sheet
from data.store import Store, pack
from utils.errors import UserError

NAME, UPSTREAM = "sprites-li", "github.com/YingzhenLi/Sprites"
VERSION = 1
NUM_FRAMES = 8
# The number of values of each factor.
VALUES = 6
# In drawing order; shoes/1.png is drawn last.
FACTORS = ("body", "bottomwear", "topwear", "hair")
NUM_CHARACTERS = VALUES ** len(FACTORS)
# kind -> first cell of front, left and right, and the cells of the 8 frames, counted from it
CELLS = {
    "walk": ((131, 118, 144), (7, 0, 1, 2, 3, 4, 5, 6)),
    "spellcard": ((26, 13, 39), (0, 1, 2, 3, 4, 5, 4, 6)),
    "slash": ((182, 169, 195), (0, 1, 2, 3, 4, 5, 4, 0)),
}
ACTIONS = tuple(f"{kind} {direction}" for kind in CELLS for direction in ("front", "left", "right"))
# The position of a clip is 9 character + action.
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)
SPLIT_SEED, NUM_TRAIN, NUM_VAL = 423, 1000, 50
# Fingerprint of the array composed from the upstream art.
COMPOSED = "356bcab9e9d990a46c0ff715f2c32a0159069881b414e5fb163581cedbcd3a68"


def characters() -> np.ndarray:
    """The 1296 characters in the published order: the first 1000 train, the rest test."""
    return np.random.RandomState(SPLIT_SEED).permutation(NUM_CHARACTERS)


def labels() -> dict[str, np.ndarray]:
    """body, bottomwear, topwear, hair, action and character, int64 [11664] each."""
    values = [range(VALUES)] * len(FACTORS)
    table = np.array(list(itertools.product(*values, range(len(ACTIONS)))), np.int64)
    by_name = dict(zip((*FACTORS, "action"), np.ascontiguousarray(table.T), strict=True))
    return by_name | {"character": np.arange(len(table)) // len(ACTIONS)}


def splits() -> dict[str, np.ndarray]:
    """Clip positions by split; validation is the end of the published training characters."""
    parts = np.split(characters(), [NUM_TRAIN - NUM_VAL, NUM_TRAIN])
    character = np.arange(SHAPE[0]) // len(ACTIONS)
    return {
        name: np.flatnonzero(np.isin(character, part))
        for name, part in zip(("train", "val", "test"), parts, strict=True)
    }


def cells() -> np.ndarray:
    """The sheet cells of the nine actions' eight frames, int [72]."""
    return np.array(
        [first + k for firsts, frames in CELLS.values() for first in firsts for k in frames]
    )


def read_layer(path):
    """The 72 cells of one layer, one below the other: an RGBA picture of 64 x 4608 px.

    Raises UserError if the file is missing or not such a sheet.
    """
    sheet = read_sheet(path, NAME, "--source", UPSTREAM)
    grid = sheet.reshape(SHEET_ROWS, CELL, SHEET_COLUMNS, CELL, 4).swapaxes(1, 2)
    column = grid.reshape(-1, CELL, CELL, 4)[cells()].reshape(-1, CELL, 4)
    return Image.fromarray(np.ascontiguousarray(column))


def compose(clone, frames: np.ndarray) -> None:
    """Draw all clips into `frames`, uint8 [11664, 8, 64, 64, 3], with Pillow's alpha_composite.

    Each combination of lower layers is drawn once. Raises UserError if the art is missing or wrong.
    """
    clone = Path(clone)
    if not clone.is_dir():
        raise UserError(f"{NAME}: found no folder {clone}: --source takes a clone of {UPSTREAM}")
    layers = [
        [read_layer(clone / factor / f"{value}.png") for value in range(VALUES)]
        for factor in FACTORS
    ]
    shoes = read_layer(clone / "shoes" / "1.png")

    def draw(below, undrawn, character):
        if not undrawn:
            start = character * len(ACTIONS)
            picture = np.asarray(Image.alpha_composite(below, shoes))[..., :3]
            frames[start : start + len(ACTIONS)] = picture.reshape(len(ACTIONS), *SHAPE[1:])
            return
        for value, layer in enumerate(undrawn[0]):
            draw(Image.alpha_composite(below, layer), undrawn[1:], character * VALUES + value)

    draw(Image.new("RGBA", shoes.size, "black"), layers, 0)


def find_published(folder) -> Path | None:
    """The folder of the published arrays: `folder` or its npy/, or None."""
    for place in (Path(folder), Path(folder) / "npy"):
        if (place / _published_name(ACTIONS[0], "train")).exists():
            return place
    return None


def _published_name(action, part):
    return f"{action.replace(' ', '_')}_frames_{part}.npy"


def read_published(folder: Path, frames: np.ndarray) -> None:
    """Fill `frames`, uint8 [11664, 8, 64, 64, 3], from the published arrays.

    They are float, grey level / 256, characters in the split's order. Raises UserError if one is
    missing or of another shape or type.
    """
    order = characters()
    for action, name in enumerate(ACTIONS):
        for part, chosen in (("train", order[:NUM_TRAIN]), ("test", order[NUM_TRAIN:])):
            path, shape = folder / _published_name(name, part), [len(chosen), *SHAPE[1:]]
            try:
                clips = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                what = "put all 18 published arrays there"
                raise UserError(f"{NAME}: found no {path}: {what}") from None
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"{NAME}: cannot read {path} ({error}): get it again") from None
            if [*clips.shape] != shape or clips.dtype.kind != "f":
                problem = f"{path} is {clips.dtype} {[*clips.shape]}, expected float32 {shape}"
                raise UserError(f"{NAME}: {problem}: get it again")
            for clip, character in zip(clips, chosen):
                frames[character * len(ACTIONS) + action] = np.clip(np.rint(clip * 256), 0, 255)


def load(config) -> Dataset:
    """Load the set in config.data_dir/sprites-li, frames memory-mapped.

    A missing or damaged set is made first: from the published arrays in the same folder or in
    config.source, or from the clone config.source. Raises UserError if there is neither, or if the
    clone's art gives other pixels.
    """
    stored = Store(NAME, Path(config.data_dir) / NAME, VERSION)
    metadata, clips = stored.load(lambda problem: _make(stored, config.source, problem))
    frames, lengths = flat(clips)
    return Dataset(
        name=NAME,
        frames=frames,
        lengths=lengths,
        labels=metadata["labels"],
        classes={name: tuple(map(str, range(VALUES))) for name in FACTORS} | {"action": ACTIONS},
        splits=metadata["splits"],
        static=FACTORS,
        dynamic=("action",),
        fingerprint=metadata["fingerprint"],
        group="character",
        # As in the VDSM paper's Sprites, stage 1 joins two clips of one character.
        clips_per_sample=2,
    )


def _make(stored, source, problem):
    published = find_published(source or stored.folder)
    if not (published or source):
        raise UserError(
            f"{NAME}: {problem}: the set needs {np.prod(SHAPE):,} bytes; give --source CLONE, a "
            f"clone of {UPSTREAM}, or put its published .npy files into {stored.folder}"
        )
    work = "reading" if published else "composing the set from"
    print(f"{NAME}: {work} {published or source} once", flush=True)

    def fill(frames):
        read_published(published, frames) if published else compose(source, frames)
        if fingerprint(frames, {}, {}) != COMPOSED:
            problem = f"{NAME}: {published or source} gives other pixels than the art of {UPSTREAM}"
            if not published:
                raise UserError(f"{problem}: clone it again")
            print(problem, flush=True)
        return pack(frames, labels(), splits())

    stored.write(SHAPE, fill)
