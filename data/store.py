"""A made set on disk: frames.npy (memory-mappable) and dataset.json (labels, split, sizes, fingerprint) in one folder.

No pickles. dataset.json is removed first and written last, each file beside its place and then renamed: a set with a
dataset.json is whole, one without was never finished.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np

from data.base import fingerprint
from utils.errors import UserError

FRAMES, METADATA = "frames.npy", "dataset.json"


def pack(frames, labels, splits, **facts):
    """The metadata of a set, for `write`: labels [n, ...] and splits (positions [n_split]) by name, their
    fingerprint, facts."""
    return {
        **facts,
        "fingerprint": fingerprint(frames, labels, splits),
        "splits": splits,
        "labels": labels,
    }


def write(name, folder, shape, fill):
    """Make the set in `folder`: fill(frames) fills a new memory map, uint8 `shape`, and returns the metadata, a dict
    for JSON (arrays become lists).

    Nothing is left behind if it fails, and an older set stays until the new frames are whole. Raises UserError,
    beginning with `name`, if the disk is too full or refuses.
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
                f"{name}: {folder} has {free:,} bytes free, the set needs {need:,}: choose another --data_dir"
            )
        frames = np.lib.format.open_memmap(part, "w+", np.uint8, tuple(shape))
        metadata = fill(frames) | {"shape": list(shape)}
        frames.flush()
        metadata["bytes"] = part.stat().st_size
        (folder / METADATA).unlink(missing_ok=True)
        part.replace(folder / FRAMES)
        part_metadata.write_text(json.dumps(metadata, default=np.ndarray.tolist))
        part_metadata.replace(folder / METADATA)
    except OSError as error:
        raise UserError(
            f"{name}: cannot write {folder} ({error.strerror}): choose another --data_dir"
        ) from None
    finally:
        for rest in (part, part_metadata):
            if (
                rest.exists()
            ):  # unlink(missing_ok=True) fails where the folder itself could not be made
                rest.unlink()


def read(folder, version, unpack=None):
    """(metadata, frames memory-mapped) of the set in `folder`; unpack(metadata, shape) puts arrays in the place of
    lists, by default those of `pack`, and raises KeyError, TypeError or ValueError where they are not whole.

    Cheap: sizes and shapes are checked, pixels are not. Raises UserError with what is wrong.
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except FileNotFoundError:
        raise UserError(f"no {METADATA} in {folder}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / METADATA} cannot be read ({error})") from None
    try:
        if metadata["version"] != version:
            raise UserError(
                f"{folder / METADATA} is of version {metadata['version']}, expected {version}"
            )
        shape = tuple(metadata["shape"])
        (unpack or _unpack)(metadata, shape)
        size = metadata["bytes"]
        metadata["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / METADATA} is not whole ({error!r})") from None
    return metadata, _map_frames(folder / FRAMES, shape, size)


def fault(folder, version, unpack=None):
    """None if the set in `folder` looks whole, else what is wrong with it, in a few words. Reads no frame."""
    try:
        read(folder, version, unpack)
    except UserError as error:
        return str(error)


def _unpack(metadata, shape):
    metadata["labels"] = {name: np.array(values) for name, values in metadata["labels"].items()}
    metadata["splits"] = {
        name: np.array(rows, np.int64) for name, rows in metadata["splits"].items()
    }
    if any(len(values) != shape[0] for values in metadata["labels"].values()):
        raise ValueError("labels")
    if any(rows.min() < 0 or rows.max() >= shape[0] for rows in metadata["splits"].values()):
        raise ValueError("splits")


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
        raise UserError(
            f"{path} is {frames.dtype} {list(frames.shape)}, expected uint8 {list(shape)}"
        )
    return frames
