"""The set on disk: frames.npy (memory-mappable) and dataset.json (labels, split, sizes, fingerprint) in one folder.

No pickles. dataset.json is removed first and written last, each file beside its place and then renamed: a set with a
dataset.json is whole, one without was never finished.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from data.base import fingerprint
from data.sprites.compose import ACTIONS, FACTORS, NUM_CHARACTERS
from utils.errors import UserError

FRAMES, METADATA = "frames.npy", "dataset.json"
VERSION = 1
# Name -> how many values.
LABELS = {name: len(names) for name, names in FACTORS.items()} | {"action": len(ACTIONS), "character": NUM_CHARACTERS}
SPLITS = ("train", "val", "test")

SPLIT_SEED = 0
TEST_SHARE = 0.1  # 84 of 840 characters, as published
VAL_SHARE = 1 / 18  # of the other characters: 42 of 756, so that a recipe is never chosen on test clips


def draw_split(train, test=None):
    """Characters by split, each sorted: `train` less validation's draw, and `test` (drawn from train too if None).

    Seeded by SPLIT_SEED alone; at least one character each. Raises UserError if there are too few for that.
    """
    rng = np.random.default_rng(SPLIT_SEED)
    train = rng.permutation(np.unique(train))
    if test is None:
        count = max(1, round(len(train) * TEST_SHARE))
        test, train = train[:count], train[count:]
    count = max(1, round(len(train) * VAL_SHARE))
    split = {"train": np.sort(train[count:]), "val": np.sort(train[:count]), "test": np.unique(test)}
    if not all(len(characters) for characters in split.values()):
        raise UserError("sprites: too few characters for training, validation and test: make the data again")
    return split


def positions(characters, split):
    """Clip positions by split, int64: those whose character [n] is one of the split's."""
    return {name: np.flatnonzero(np.isin(characters, split[name])) for name in SPLITS}


def write(folder, shape, fill, origin):
    """Make the set in `folder`: fill(frames) fills a new memory map, uint8 `shape`, and returns (labels, split).

    labels: int64 [shape[0]] each, by name; split: see draw_split; origin: 'composed' or 'release'. Nothing is left behind if
    it fails, and an older set stays until the new frames are whole. Raises UserError if the disk is too full or refuses.
    """
    folder = Path(folder)
    part = folder / f"frames.{os.getpid()}.part.npy"
    part_metadata = part.with_suffix(".json")
    need = int(np.prod(shape))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Asked first: a disk that fills up under a memory map ends the process without a word.
        free = shutil.disk_usage(folder).free
        if free < need:
            raise UserError(
                f"sprites: {folder} has {free:,} bytes free, the set needs {need:,}: choose another --data_dir"
            )
        frames = np.lib.format.open_memmap(part, "w+", np.uint8, tuple(shape))
        labels, split = fill(frames)
        frames.flush()
        metadata = {
            "version": VERSION,
            "origin": origin,
            "shape": list(shape),
            "bytes": part.stat().st_size,
            "fingerprint": fingerprint(frames, labels, positions(labels["character"], split)),
            "split_seed": SPLIT_SEED,
            "split": {name: characters.tolist() for name, characters in split.items()},
            "labels": {name: values.tolist() for name, values in labels.items()},
        }
        (folder / METADATA).unlink(missing_ok=True)
        part.replace(folder / FRAMES)
        part_metadata.write_text(json.dumps(metadata))
        part_metadata.replace(folder / METADATA)
    except OSError as error:
        raise UserError(f"sprites: cannot write {folder} ({error.strerror}): choose another --data_dir") from None
    finally:
        for rest in (part, part_metadata):
            if rest.exists():  # unlink(missing_ok=True) fails where the folder itself could not be made
                rest.unlink()


def fault(folder):
    """None if the set in `folder` looks whole, else what is wrong with it, in a few words. Reads no frame."""
    try:
        read(folder)
    except UserError as error:
        return str(error)


def read(folder):
    """(metadata, frames memory-mapped) of the set in `folder`; metadata's labels and split are arrays.

    Cheap: sizes, shapes and ranges are checked, pixels are not (see `verify`). Raises UserError with what is wrong.
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except FileNotFoundError:
        raise UserError(f"no {METADATA} in {folder}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / METADATA} cannot be read ({error})") from None
    try:
        if metadata["version"] != VERSION:
            raise UserError(f"{folder / METADATA} is of version {metadata['version']}, expected {VERSION}")
        shape = tuple(metadata["shape"])
        metadata["labels"] = {name: np.array(metadata["labels"][name], np.int64) for name in LABELS}
        metadata["split"] = {name: np.array(metadata["split"][name], np.int64) for name in SPLITS}
        size = metadata["bytes"]
        metadata["origin"], metadata["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / METADATA} is not whole ({error!r})") from None
    for name, values in metadata["labels"].items():
        if values.shape != shape[:1] or values.min() < 0 or values.max() >= LABELS[name]:
            raise UserError(f"{folder / METADATA} has a wrong label '{name}'")
    return metadata, _map_frames(folder / FRAMES, shape, size)


def _map_frames(path, shape, size):
    try:
        found = path.stat().st_size
        if found != size:
            raise UserError(f"{path} has {found:,} bytes, expected {size:,}")
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None
    if frames.dtype != np.uint8 or frames.shape != shape:
        raise UserError(f"{path} is {frames.dtype} {list(frames.shape)}, expected uint8 {list(shape)}")
    return frames


def verify(folder):
    """Whether the set in `folder` is whole to the last pixel: its fingerprint is computed anew (seconds)."""
    if fault(folder):
        return False
    metadata, frames = read(folder)
    labels = metadata["labels"]
    return fingerprint(frames, labels, positions(labels["character"], metadata["split"])) == metadata["fingerprint"]
