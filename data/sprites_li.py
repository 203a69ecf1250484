"""Sprites as Li & Mandt made them (sprites-li): 1296 characters x 9 sequences x 8 frames, 64x64; the set of DSA,
S3VAE, followers.

    python main.py --dataset_name sprites-li --source CLONE    # a clone of github.com/YingzhenLi/Sprites, read once

Layers body, bottomwear, topwear, hair and shoes lie over black in that order; cells of 64x64 are numbered along rows
of 13. Character c has body c // 216, bottomwear c // 36 % 6, topwear c // 6 % 6, hair c % 6. The published split is
1000 characters for training and 296 for test, by numpy's legacy generator; 50 of the 1000 are set apart for
validation. The published arrays (`npy/walk_front_frames_train.npy`, ...), if a user has them, load to the same clips.
"""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from data import store
from data.base import Dataset, fingerprint, flat
from data.sprites.compose import CELL, SHEET_COLUMNS, SHEET_ROWS, read_sheet
from utils.errors import UserError

NAME, UPSTREAM = "sprites-li", "github.com/YingzhenLi/Sprites"
VERSION = 1
NUM_FRAMES = 8
VALUES = 6  # of each factor
FACTORS = (
    "body",
    "bottomwear",
    "topwear",
    "hair",
)  # the drawing order too; shoes/1.png lie over them
NUM_CHARACTERS = VALUES ** len(FACTORS)
CELLS = {  # kind -> the first cell of front, left and right, and the cells of the 8 frames counted from it
    "walk": ((131, 118, 144), (7, 0, 1, 2, 3, 4, 5, 6)),
    "spellcard": ((26, 13, 39), (0, 1, 2, 3, 4, 5, 4, 6)),
    "slash": ((182, 169, 195), (0, 1, 2, 3, 4, 5, 4, 0)),
}
ACTIONS = tuple(f"{kind} {direction}" for kind in CELLS for direction in ("front", "left", "right"))
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)  # clip = 9 character + action
SPLIT_SEED, NUM_TRAIN, NUM_VAL = 423, 1000, 50
# Fingerprint of the composed array: made from upstream's art, looked at, every cell checked against its number.
COMPOSED = "356bcab9e9d990a46c0ff715f2c32a0159069881b414e5fb163581cedbcd3a68"


def characters():
    """The 1296 characters in the published order: the first 1000 train, the rest test."""
    return np.random.RandomState(SPLIT_SEED).permutation(NUM_CHARACTERS)


def labels():
    """body, bottomwear, topwear, hair, action and character, int64 [11664] each."""
    table = np.array(
        list(itertools.product(*[range(VALUES)] * len(FACTORS), range(len(ACTIONS)))), np.int64
    )
    named = dict(zip((*FACTORS, "action"), np.ascontiguousarray(table.T), strict=True))
    return named | {"character": np.arange(len(table)) // len(ACTIONS)}


def splits():
    """Clip positions by split: the published one, validation taken from the end of its training characters."""
    order = characters()
    parts = np.split(order, [NUM_TRAIN - NUM_VAL, NUM_TRAIN])
    of = np.arange(SHAPE[0]) // len(ACTIONS)
    return {
        name: np.flatnonzero(np.isin(of, part))
        for name, part in zip(("train", "val", "test"), parts, strict=True)
    }


def cells():
    """The sheet's cells, int [72]: of the nine actions' eight frames in order."""
    return np.array(
        [first + k for firsts, frames in CELLS.values() for first in firsts for k in frames]
    )


def read_layer(path):
    """The 72 cells of one layer below each other, an RGBA picture of 64 x 4608 px. UserError if it is missing or no
    such sheet."""
    sheet = read_sheet(path, NAME, "--source", UPSTREAM)
    grid = (
        sheet.reshape(SHEET_ROWS, CELL, SHEET_COLUMNS, CELL, 4)
        .swapaxes(1, 2)
        .reshape(-1, CELL, CELL, 4)
    )
    return Image.fromarray(np.ascontiguousarray(grid[cells()].reshape(-1, CELL, 4)))


def compose(clone, frames):
    """Fill frames, uint8 [11664, 8, 64, 64, 3], as upstream does (Pillow's alpha_composite). Each combination of
    lower layers is drawn once."""
    clone = Path(clone)
    if not clone.is_dir():
        raise UserError(f"{NAME}: found no folder {clone}: --source takes a clone of {UPSTREAM}")
    layers = [
        [read_layer(clone / factor / f"{value}.png") for value in range(VALUES)]
        for factor in FACTORS
    ]
    shoes = read_layer(clone / "shoes" / "1.png")

    def draw(below, undrawn, number):
        if not undrawn:
            clip = number * len(ACTIONS)
            picture = np.asarray(Image.alpha_composite(below, shoes))[..., :3]
            frames[clip : clip + len(ACTIONS)] = picture.reshape(len(ACTIONS), *SHAPE[1:])
            return
        for value, layer in enumerate(undrawn[0]):
            draw(Image.alpha_composite(below, layer), undrawn[1:], number * VALUES + value)

    draw(Image.new("RGBA", shoes.size, "black"), layers, 0)


def find_published(folder):
    """The folder of the published arrays: `folder` or its npy/, or None."""
    for place in (Path(folder), Path(folder) / "npy"):
        if (place / f"{_stem(ACTIONS[0])}_train.npy").exists():
            return place
    return None


def _stem(action):
    return f"{action.replace(' ', '_')}_frames"


def read_published(folder, frames):
    """Fill frames, uint8 [11664, 8, 64, 64, 3], from the published float arrays (a grey level / 256, characters in
    the split's order). UserError if one is missing or is something else."""
    order = characters()
    for action, name in enumerate(ACTIONS):
        for part, chosen in (("train", order[:NUM_TRAIN]), ("test", order[NUM_TRAIN:])):
            path, want = folder / f"{_stem(name)}_{part}.npy", (len(chosen), *SHAPE[1:])
            try:
                found = np.load(path, mmap_mode="r", allow_pickle=False)
            except FileNotFoundError:
                raise UserError(
                    f"{NAME}: found no {path}: put all 18 published arrays there"
                ) from None
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"{NAME}: cannot read {path} ({error}): get it again") from None
            if found.shape != want or found.dtype.kind != "f":
                raise UserError(
                    f"{NAME}: {path} is {found.dtype} {list(found.shape)}, expected float32 {list(want)}"
                )
            for row, character in enumerate(chosen):
                frames[character * len(ACTIONS) + action] = np.clip(
                    np.rint(found[row] * 256), 0, 255
                )


def load(config):
    """The set in config.data_dir/sprites-li as `data.base.Dataset`, frames memory-mapped.

    If it is not there (or not whole) it is made once, from the published arrays in the same folder or in
    config.source, or from the clone that config.source names. Raises UserError if there is neither, or if the clone's
    art gives other pixels.
    """
    folder = Path(config.data_dir) / NAME
    wrong = store.fault(folder, VERSION)
    if wrong:
        _make(folder, config.source, wrong)
    metadata, clips = store.read(folder, VERSION)
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
        clips_per_sample=2,  # as the other sprites: stage 1 joins two sequences of one character
    )


def _make(folder, source, wrong):
    published = find_published(source or folder)
    if not (published or source):
        raise UserError(
            f"{NAME}: {wrong}: the set needs {np.prod(SHAPE):,} bytes; give --source CLONE, a clone of {UPSTREAM}, "
            f"or put its published .npy files into {folder}"
        )
    print(
        f"{NAME}: {'reading' if published else 'composing the set from'} {published or source} once",
        flush=True,
    )

    def fill(frames):
        read_published(published, frames) if published else compose(source, frames)
        if fingerprint(frames, {}, {}) != COMPOSED:
            if not published:
                raise UserError(
                    f"{NAME}: {source} gives other pixels than {UPSTREAM} does: clone it again"
                )
            print(
                f"{NAME}: the arrays in {published} are not those that {UPSTREAM}'s art gives",
                flush=True,
            )
        return store.pack(frames, labels(), splits(), version=VERSION)

    store.write(NAME, folder, SHAPE, fill)
