"""Li & Mandt's Sprites (sprites-li): 1296 characters x 9 actions x 8 frames, 64x64.

DSA, S3VAE and later work use this set. It is made once:

    python main.py --dataset_name sprites-li --source CLONE    # of github.com/YingzhenLi/Sprites

Layers body, bottomwear, topwear, hair and shoes are drawn over black in that order. Character c has
body c // 216, bottomwear c // 36 % 6, topwear c // 6 % 6, hair c % 6. The published split has 1000
characters for training and 296 for test; here 50 of the 1000 are held out for validation. The
published arrays (`npy/walk_front_frames_train.npy`, ...) load to the same clips.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from data import arrays
from data.base import Dataset, fingerprint
from data.sprites import compose as sheets
from data.sprites.compose import CELL
from data.store import Store, dataset, pack
from utils.errors import UserError

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
SHAPE = (NUM_CHARACTERS * len(ACTIONS), NUM_FRAMES, CELL, CELL, 3)
SPLIT_SEED, NUM_TRAIN, NUM_VAL = 423, 1000, 50
# Fingerprint of the array composed from the upstream art.
COMPOSED = "356bcab9e9d990a46c0ff715f2c32a0159069881b414e5fb163581cedbcd3a68"


def characters() -> np.ndarray:
    """The 1296 characters in the published order: the first 1000 train, the rest test."""
    return np.random.RandomState(SPLIT_SEED).permutation(NUM_CHARACTERS)


def labels() -> dict[str, np.ndarray]:
    """body, bottomwear, topwear, hair, action and character, int64 [11664] each."""
    return sheets.labels(dict.fromkeys(FACTORS, VALUES))


def splits() -> dict[str, np.ndarray]:
    """Positions of clips by split; validation is the end of the published training characters."""
    parts = np.split(characters(), [NUM_TRAIN - NUM_VAL, NUM_TRAIN])
    return sheets.positions(labels()["character"], dict(zip(("train", "val", "test"), parts)))


def read_layer(path: Path) -> Image.Image:
    """The 72 cells of one layer, one below the other: RGBA, 64 x 4608 px. Raises UserError."""
    cells = sheets.read_sheet(path, UPSTREAM).reshape(-1, CELL, CELL, 4)
    shown = [first + k for firsts, frames in CELLS.values() for first in firsts for k in frames]
    return Image.fromarray(cells[shown].reshape(-1, CELL, 4))


def compose(clone: Path, frames: np.ndarray) -> None:
    """Draw all clips into `frames`, uint8 [11664, 8, 64, 64, 3]. Raises UserError.

    The position of a clip is 9 character + action. Each combination of lower layers is drawn once.
    """
    if not clone.is_dir():
        raise UserError(f"found no folder {clone}: --source takes a clone of {UPSTREAM}")
    files = [[clone / factor / f"{value}.png" for value in range(VALUES)] for factor in FACTORS]
    layers = [[read_layer(path) for path in paths] for paths in files]
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
    stored = Store(Path(config.data_dir) / NAME, VERSION)
    metadata, clips = stored.load(lambda problem: _make(stored, config.source, problem))
    classes = dict.fromkeys(FACTORS, tuple(map(str, range(VALUES)))) | {"action": ACTIONS}
    factors = {"static": FACTORS, "dynamic": ("action",)}
    return dataset(NAME, metadata, clips, classes, **factors, **sheets.JOINED)


def _make(stored, source, problem):
    published = find_published(source or stored.folder)
    if not (published or source):
        how = f"give --source CLONE, a clone of {UPSTREAM}, or put its .npy files into"
        size = f"{np.prod(SHAPE):,} bytes"
        raise UserError(f"{NAME}: {problem}: the set needs {size}; {how} {stored.folder}")
    work = "reading" if published else "composing the set from"
    print(f"{NAME}: {work} {published or source} once", flush=True)

    def fill(frames):
        read_published(published, frames) if published else compose(Path(source), frames)
        if fingerprint(frames, {}, {}) != COMPOSED:
            problem = f"{NAME}: {published or source} gives other pixels than the art of {UPSTREAM}"
            if not published:
                raise UserError(f"{problem}: clone it again")
            print(problem, flush=True)
        return pack(frames, labels(), splits())

    stored.write(SHAPE, fill)
