"""The Sprites set of the VDSM paper: 840 characters x 9 actions x 8 frames, 64x64.

`create_lpc_dataset.py` downloads the art (download.py), or takes it from --lpc CLONE, and composes
the set into data_dir/sprites/ (compose.py: pixels, labels and split). release.py reads the folders
that the authors' script writes instead.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.base import Dataset, fingerprint
from data.sprites import compose
from data.store import Store, dataset, unpack
from utils.errors import UserError

Flags = compose.Flags
LICENCE = (
    "Liberated Pixel Cup art of the Universal LPC Spritesheet, CC-BY-SA 3.0 and GPL 3.0 at your "
    "choice, as is what a model of it draws. Authors: Stephen Challener (Redshrike), "
    "Johannes Sjölund (wulax), Marcel van de Steeg, Mark Weyer, Nila122, "
    "Joe White, Matthew Krohn, Luke Mehl, JRConway3, "
    "Lanea Zimmerman (Sharm), Manuel Riecke (MrBeast), Thane Brimhall (pennomi), Daniel Eddeland, "
    "Shaun Williams, Lori Angela Nagel, Barbara Rivera, JaidynReiman, neo4cat6"
)
VERSION = 1
COMMAND = "python data/sprites/create_lpc_dataset.py"
RELEASE_NOTE = (
    "sprites: the script behind the authors' files may have cut slash from rows 14 to 16 of the "
    "sheets: then slash 'left', 'front', 'right' show slash front, slash right and another action"
)


def stored(folder: Path) -> Store:
    """The set in `folder`, whose metadata hold the characters of each split."""
    return Store(folder, VERSION, _unpack)


def _unpack(metadata, frames):
    labels = {name: np.array(metadata["labels"][name]) for name in compose.COUNTS}
    for name, values in labels.items():
        if values.min() < 0 or values.max() >= compose.COUNTS[name]:
            raise ValueError(f"label '{name}'")
    metadata["splits"] = compose.positions(labels["character"], metadata["split"])
    unpack(metadata, frames)


def write(folder: Path, shape: tuple[int, ...], fill: Callable, origin: str) -> None:
    """Write the set into `folder`. origin: 'composed' or 'release'. Raises UserError.

    fill(frames) fills uint8 `shape` and returns labels, int64 [n] by name, and characters by split.
    """

    def fill_and_describe(frames):
        labels, split = fill(frames)
        digest = fingerprint(frames, labels, compose.positions(labels["character"], split))
        facts = {"origin": origin, "split_seed": compose.SPLIT_SEED, "split": split}
        return facts | {"labels": labels, "fingerprint": digest}

    stored(folder).write(shape, fill_and_describe)


def make(clone, folder: Path) -> None:
    """Compose the set into `folder`. Raises UserError if the art or the disk is at fault."""
    if not Path(clone).is_dir():
        raise UserError(f"found no folder {clone}: give a clone of {compose.UPSTREAM}")

    def fill(frames):
        compose.compose(Path(clone), frames)
        labels = compose.labels()
        return labels, compose.draw_split(labels["character"])

    write(folder, compose.SHAPE, fill, "composed")


def load(config) -> Dataset:
    """Load the set in config.data_dir/sprites, frames memory-mapped.

    A missing or damaged set is made first: from the authors' folders in the same place, or from
    the clone `config.source`. Raises UserError, with the command to run, if there is neither.
    """
    folder = Path(config.data_dir) / "sprites"
    metadata, clips = stored(folder).load(lambda problem: _make(folder, config.source, problem))
    classes = compose.FACTORS | {"action": compose.ACTIONS}
    factors = {"static": tuple(compose.FACTORS), "dynamic": ("action",)}
    names = {"release_names": compose.RELEASE_NAMES}
    whole = dataset("sprites", metadata, clips, classes, **factors, **names, **compose.JOINED)
    return compose.held_out(whole, config.hold_out)


def _make(folder, clone, problem):
    from data.sprites import release

    root = release.find(folder)
    if root:
        print(f"sprites: reading the authors' files in {root} once", flush=True)
        write(folder, *release.reader(root), "release")
        print(RELEASE_NOTE, flush=True)
    elif clone:
        print(f"sprites: composing the set from {clone} once", flush=True)
        make(clone, folder)
    else:
        how = f"`{COMMAND} --data_dir {folder.parent}`, which downloads the art of"
        size = f"{np.prod(compose.SHAPE):,} bytes"
        problem = f"sprites: {problem}: the set needs {size}; make it with {how}"
        raise UserError(f"{problem} {compose.UPSTREAM}, or give a clone with --source CLONE")
