"""--export_codes True: a split's codes and pictures in files, which `load_export` reads back.

The files are those that the release's README exports for its notebooks. There is one set of files
per batch p of `num_test_ids` clips (the last may be smaller), in the data set's order, with the
first seq_len frames of each clip. Arrays are float32 under the key arr_0 unless stated otherwise:

    id_{p}.npz              [n, 1, K] static code; VDSM: the mixing weights at temp_id_end
    dynamics_{p}.npz        [n, ...] dynamic code; VDSM: the locations of d, [n, dynamics_dim]
    labels_{p}.npz          integers [n, factors], one column per factor, static factors first
                            (MUG-FED: identity, action); also every label under its own name,
                            'split' (text) and 'position' in the data set
    test_images_{p}.npz     [n, T, 3, 64, 64] in [0, 1], the clips
    recon_images_{p}.npz    the same shape, decoded from the codes
    sampled_images_{p}.npz  the same shape, sampled from the priors
    codes.json              data set, split, checkpoint, factors (one per column) and their values
"""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.base import IMAGE_SIZE, SPLITS, Dataset, fingerprint, flat
from models.view import VideoModel
from utils.errors import UserError
from utils.files import PART, unused, write_text
from utils.frames import as_float, as_uint8
from utils.origin import commit
from utils.progress import Progress
from utils.run_folder import RunFolder
from utils.settings import RunSettings

MANIFEST = "codes.json"
# of the groups of clips, where the export is of one split
SHARES = {"test": 0.25, "val": 0.1}
FRAME_ARRAYS = 3  # the clips, their reconstructions, the samples


def bytes_a_clip(settings: RunSettings) -> int:
    """Bytes per clip in all files, without labels and headers."""
    numbers = FRAME_ARRAYS * settings.seq_len * 3 * IMAGE_SIZE**2 + settings.code_size
    return 4 * numbers


def export(
    view: VideoModel, dataset: Dataset, folder: RunFolder, settings: RunSettings, checkpoint: Path
) -> None:
    """Write the export of settings.split to folder.codes; an older one is kept under a new name.

    view: of the model's last stage. checkpoint: path of the stage's weights, for the record. The
    export is written beside its place and renamed when it is whole. Raises UserError if the disk
    is too full.
    """
    clips, codes = dataset.split(settings.split), folder.codes
    _need_space(codes.parent, clips, settings)
    beside = codes.with_name(f".{codes.name}{PART}")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed export left
    try:
        beside.mkdir()
        batches = _write(view, dataset, clips, beside, settings)
        manifest = _manifest(dataset, clips, settings, checkpoint, batches)
        write_text(beside / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        if codes.is_dir() and any(codes.iterdir()):
            kept = unused(codes)
            codes.rename(kept)
            print(f"kept the old export as {kept}")
        os.replace(beside, codes)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not settings.quiet:
        print(f"exported {len(clips)} clips ({settings.split}) in {batches} batches to {codes}")


def _need_space(folder, clips, settings):
    need, free = len(clips) * bytes_a_clip(settings), shutil.disk_usage(folder).free
    if free < need:
        raise UserError(
            f"--export_codes: {folder} has {free:,} bytes free, {len(clips)} clips need {need:,}: "
            "free some space, choose another --code_path or a smaller --split"
        )


def _write(view, dataset, clips, folder, settings):
    """Write the files of every batch into `folder`; returns the number of batches."""
    torch.manual_seed(settings.seed)  # of the samples
    order = np.arange(len(clips))
    batches = np.split(order, order[settings.num_test_ids :: settings.num_test_ids])
    progress = Progress("export", 0, len(batches), settings.quiet)
    for p, rows in enumerate(batches):
        frames = as_float(torch.from_numpy(clips.take(rows, 0, settings.seq_len)))
        static, dynamic = view.encode(frames)
        arrays = {
            "id": static[:, None],
            "dynamics": dynamic,
            "test_images": frames,
            "recon_images": view.decode(static, dynamic, settings.seq_len),
            "sampled_images": view.sample(len(rows), settings.seq_len),
        }
        for name, array in arrays.items():
            np.savez(folder / f"{name}_{p}.npz", array.numpy(), allow_pickle=False)
        columns, labels = _labels(dataset, clips, rows)
        np.savez(folder / f"labels_{p}.npz", columns, allow_pickle=False, **labels)
        progress.step()
    progress.close()
    return len(batches)


def _labels(dataset, clips, rows):
    """The factors as columns [n, factors]; every label by name, with 'split' and 'position'."""
    position, split = clips.index[rows], np.empty(len(rows), "<U5")
    for name, members in dataset.splits.items():
        split[np.isin(position, members)] = name
    labels = {name: clips.label(name, rows) for name in dataset.labels}
    factors = np.array([labels[factor] for factor in _factors(dataset)], np.int64)
    columns = factors.reshape(-1, len(rows)).T
    return columns, {**labels, "split": split, "position": position}


def _factors(dataset):
    return (*dataset.static, *dataset.dynamic)


def _manifest(dataset, clips, settings, checkpoint, batches):
    return {
        "data set": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": settings.split,
        "clips": len(clips),
        "batches": batches,
        "factors": {factor: dataset.classes[factor] for factor in _factors(dataset)},
        "group": dataset.group,
        "checkpoint": str(checkpoint),
        "temperature": getattr(settings, "temp_id_end", None),
        "commit": commit(),
    }


class Export(NamedTuple):
    """n exported clips in order."""

    dataset: Dataset  # the real clips and their factors, in splits
    codes: dict[str, np.ndarray]  # 'identity_code' [n, K], 'dynamics_code' [n, D]
    rebuilt: np.ndarray  # uint8 [n, T, 64, 64, 3], reconstructions
    sampled: np.ndarray  # uint8 [n, T, 64, 64, 3], from the priors
    about: dict  # codes.json

    def part(self, split: str) -> tuple[np.ndarray, np.ndarray, dict, dict]:
        """The k clips of a split: real and reconstructed frames, codes and factors by name.

        Frames are uint8 [k, T, 64, 64, 3], codes [k, ...], factors int64 [k].
        """
        clips = self.dataset.split(split)
        codes = {name: code[clips.index] for name, code in self.codes.items()}
        labels = {factor: clips.label(factor) for factor in self.dataset.classes}
        return clips.take(np.arange(len(clips))), self.rebuilt[clips.index], codes, labels


def load_export(folder: Path | str, dataset_name: str, seed: int = 0) -> Export:
    """Read the export in `folder`, for classifiers that no test clip or character may train.

    An export of all splits (--split all) keeps them. An export of one split is divided with `seed`,
    without replacement. Raises UserError if the folder holds no export, an export of another data
    set, an incomplete one, or too few clips to divide.
    """
    folder = Path(folder)
    about = _read_manifest(folder, dataset_name)

    def arrays(kind):
        return (_read(folder / f"{kind}_{p}.npz") for p in range(about["batches"]))

    def frames(kind):
        return np.concatenate([_uint8(batch["arr_0"]) for batch in arrays(f"{kind}_images")])

    static, dynamic = (
        np.concatenate([batch["arr_0"] for batch in arrays(kind)]) for kind in ("id", "dynamics")
    )
    batches = list(arrays("labels"))
    labels = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    real, rebuilt, sampled = frames("test"), frames("recon"), frames("sampled")
    counts = {len(part) for part in (real, rebuilt, static, dynamic, *labels.values())}
    if counts != {about["clips"]}:
        raise UserError(
            f"{folder} is incomplete ({counts} clips, expected {about['clips']}): export again"
        )
    dataset = _exported_dataset(about, real, labels, seed)
    codes = {"identity_code": static[:, 0], "dynamics_code": dynamic}
    return Export(dataset, codes, rebuilt, sampled, about)


def _read_manifest(folder, dataset_name):
    try:
        about = json.loads((folder / MANIFEST).read_text())
        name, *_ = (about[key] for key in ("data set", "batches", "clips", "factors", "group"))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} holds no export: write one with --export_codes True --split all"
        ) from None
    if name != dataset_name:
        raise UserError(
            f"{folder} is an export of {name}, expected {dataset_name}: give another path"
        )
    return about


def _exported_dataset(about, frames, labels, seed):
    """The exported clips [n, T, 64, 64, 3] as a data set."""
    factors = about["factors"]
    groups = labels[about["group"]] if about["group"] else np.arange(len(frames))
    splits = {split: np.flatnonzero(labels["split"] == split) for split in SPLITS}
    if not all(len(rows) for rows in splits.values()):
        splits = divide(groups, seed)
    stack, lengths = flat(frames)
    columns = {factor: labels["arr_0"][:, column] for column, factor in enumerate(factors)}
    return Dataset(
        name=about["data set"],
        frames=stack,
        lengths=lengths,
        labels=columns,
        classes={factor: tuple(values) for factor, values in factors.items()},
        splits=splits,
        static=tuple(factors),  # the classifiers do not ask which factors move
        dynamic=(),
        fingerprint=fingerprint(stack, columns, splits),
    )


def divide(groups: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Positions of clips by split, with each group of `groups` [n] in a single split.

    Raises UserError if there are fewer than three groups.
    """
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    if len(names) < len(SPLITS):
        raise UserError(
            f"found {len(names)} clips or characters, expected some for each split: "
            "export more (--split all)"
        )
    counts = {split: max(1, round(len(names) * share)) for split, share in SHARES.items()}
    test, val = names[: counts["test"]], names[counts["test"] : counts["test"] + counts["val"]]
    side = np.select([np.isin(groups, test), np.isin(groups, val)], ["test", "val"], "train")
    return {split: np.flatnonzero(side == split) for split in SPLITS}


def _read(path):
    """The arrays of an .npz file by key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} is missing, truncated or no array file: export again") from None


def _uint8(frames):
    """Frames [n, T, 3, 64, 64] in [0, 1] as uint8 [n, T, 64, 64, 3]."""
    return as_uint8(torch.from_numpy(frames))
