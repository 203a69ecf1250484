"""--export_codes True: a split's codes and pictures in files, which `load_export` reads back.

The files are those that the release's README exports for its notebooks, one set per batch of
`num_test_ids` clips. docs/OUTPUT.md lists them with their shapes.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.arrays import load_all
from data.base import IMAGE_SIZE, SPLITS, Dataset, fingerprint, flat
from models.view import VideoModel
from utils.errors import UserError
from utils.files import read_json, replacing, sweep, unused, write_text
from utils.frames import as_float, as_uint8
from utils.origin import commit
from utils.progress import Progress
from utils.run_folder import RunFolder
from utils.settings import RunSettings

MANIFEST = "codes.json"
KINDS = ("test", "recon", "sampled")  # of frames
# shares of the clips, or of their groups, when an export of one split is divided
SHARES = {"test": 0.25, "val": 0.1}


def bytes_a_clip(settings: RunSettings) -> int:
    """Bytes per clip in all files, without labels and headers."""
    pixels = settings.seq_len * 3 * IMAGE_SIZE**2
    # the clips, their reconstructions and the samples; float32
    return 4 * (3 * pixels + settings.code_size)


def export(
    view: VideoModel, dataset: Dataset, folder: RunFolder, settings: RunSettings, checkpoint: Path
) -> None:
    """Write the export of settings.split to folder.codes; an older one is kept under a new name.

    view: of the model's last stage. checkpoint: path of the stage's weights, for the record. The
    export is whole or absent. Raises UserError if the disk is too full.
    """
    clips, codes = dataset.split(settings.split), folder.codes
    need, free = len(clips) * bytes_a_clip(settings), shutil.disk_usage(codes.parent).free
    if free < need:
        raise UserError(
            f"--export_codes: {codes.parent} has {free:,} bytes free, {len(clips)} clips need "
            f"{need:,}: free some space, or choose another --code_path or a smaller --split"
        )
    for name in (codes.name, f".{codes.name}"):  # what killed exports left, in two versions
        sweep(codes.parent, name)
    with replacing(codes, folder=True) as beside:
        batches = _write(view, dataset, clips, beside, settings)
        about = {
            "data set": dataset.name,
            "fingerprint": dataset.fingerprint,
            "split": settings.split,
            "clips": len(clips),
            "batches": batches,
            "factors": {factor: dataset.classes[factor] for factor in dataset.factors},
            "group": dataset.group,
            "checkpoint": str(checkpoint),
            "samples from": settings.draw_from,
            "temperature": getattr(settings, "temp_id_end", None),
            "commit": commit(),
        }
        write_text(beside / MANIFEST, json.dumps(about, indent=1) + "\n")
        if codes.is_dir() and any(codes.iterdir()):
            kept = unused(codes)
            codes.rename(kept)
            print(f"kept the old export as {kept}")
    if not settings.quiet:
        print(f"exported {len(clips)} clips ({settings.split}) in {batches} batches to {codes}")


def _write(view, dataset, clips, folder, settings):
    """Write the files of every batch into `folder`; returns the number of batches."""
    torch.manual_seed(settings.seed)
    order = np.arange(len(clips))
    batches = np.split(order, order[settings.num_test_ids :: settings.num_test_ids])
    progress = Progress("export", 0, len(batches), settings.quiet)
    for p, rows in enumerate(batches):
        frames = as_float(torch.from_numpy(clips.take(rows, 0, settings.seq_len)))
        static, dynamic = view.encode_clips(clips, rows, settings.seq_len)
        arrays = {
            "id": static[:, None],
            "dynamics": dynamic,
            "test_images": frames,
            "recon_images": view.decode(static, dynamic, settings.seq_len),
            "sampled_images": view.sample(len(rows), settings.seq_len),
        }
        for name, array in arrays.items():
            np.savez(folder / f"{name}_{p}.npz", array.numpy(), allow_pickle=False)
        labels = _labels(dataset, clips, rows)
        np.savez(folder / f"labels_{p}.npz", allow_pickle=False, **labels)
        # The authors' notebook wants a dictionary. An .npz file could hold it as a pickle only.
        named = {dataset.release_names.get(f, f): labels[f].tolist() for f in dataset.factors}
        write_text(folder / f"factors_{p}.json", json.dumps(named) + "\n")
        progress.step()
    progress.close()
    return len(batches)


def _labels(dataset, clips, rows):
    """Every label by name, with 'split' and 'position'; the factors as columns of 'arr_0'."""
    position, split = clips.index[rows], np.empty(len(rows), "<U5")
    for name, members in dataset.splits.items():
        split[np.isin(position, members)] = name
    labels = {name: clips.label(name, rows) for name in dataset.labels}
    factors = np.array([labels[factor] for factor in dataset.factors], np.int64)
    columns = factors.reshape(-1, len(rows)).T
    return {**labels, "split": split, "position": position, "arr_0": columns}


class Export(NamedTuple):
    """n exported clips in order."""

    dataset: Dataset  # the real clips and their factors, in splits
    codes: dict[str, np.ndarray]  # 'identity_code' [n, K], 'dynamics_code' [n, D]
    rebuilt: np.ndarray  # uint8 [n, T, 64, 64, 3], reconstructions
    sampled: np.ndarray  # uint8 [n, T, 64, 64, 3], from what --draw_from named
    about: dict  # codes.json

    def part(self, split: str) -> tuple[np.ndarray, np.ndarray, dict, dict]:
        """Of a split: real and reconstructed frames, codes by name and factors by name."""
        clips = self.dataset.split(split)
        codes = {name: code[clips.index] for name, code in self.codes.items()}
        labels = {factor: clips.label(factor) for factor in self.dataset.classes}
        return clips.take(np.arange(len(clips))), self.rebuilt[clips.index], codes, labels


def newest_export(runs_dir: Path | str, dataset_name: str) -> Path:
    """The folder of the newest export of a data set among the runs of a folder.

    Raises UserError if no run has one.
    """
    exports = []
    for path in Path(runs_dir).glob(f"*/codes/{MANIFEST}"):
        with suppress(UserError):  # an export of another data set
            _read_manifest(path.parent, dataset_name)
            exports.append(path)
    if not exports:
        problem = f"no run in {runs_dir} has exported codes of {dataset_name}"
        raise UserError(f"{problem}: write them with --export_codes True, or name their folder")
    return max(exports, key=lambda path: path.stat().st_mtime).parent


def load_export(folder: Path | str, dataset_name: str, seed: int = 0) -> Export:
    """Read the export in `folder`, in splits for training classifiers.

    An export of all splits (--split all) keeps them. An export of one split is divided with `seed`.
    Raises UserError if the folder holds no export, an export of another data set, an incomplete
    one, or too few clips to divide.
    """
    root = Path(folder)
    about = _read_manifest(root, dataset_name)

    def batches(kind):
        return (_read(root / f"{kind}_{p}.npz") for p in range(about["batches"]))

    def joined(kind, change=np.asarray):
        return np.concatenate([change(batch["arr_0"]) for batch in batches(kind)])

    try:
        static, dynamic, parts = joined("id"), joined("dynamics"), list(batches("labels"))
        labels = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        # The floats of a batch at a time: those of a whole split of sprites take 3 GB.
        real, rebuilt, sampled = (joined(f"{kind}_images", _frames) for kind in KINDS)
        counts = {len(part) for part in (real, rebuilt, sampled, static, dynamic, *labels.values())}
        if counts != {about["clips"]}:
            found = f"{counts} clips, expected {about['clips']}"
            raise UserError(f"{folder} is incomplete ({found}): export again")
        codes = {"identity_code": static[:, 0], "dynamics_code": dynamic}
        if not all(np.isfinite(code).all() for code in codes.values()):
            raise ValueError("a code is not finite")
        return Export(_exported_dataset(about, real, labels, seed), codes, rebuilt, sampled, about)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{folder} is damaged ({why}): export again") from None


def _frames(frames):
    """Exported frames, float [n, T, 3, 64, 64] in [0, 1], as uint8 [n, T, 64, 64, 3]."""
    picture, kind = (3, IMAGE_SIZE, IMAGE_SIZE), f"{frames.dtype} {[*frames.shape]}"
    if frames.dtype.kind != "f" or frames.ndim != 5 or frames.shape[2:] != picture:
        raise ValueError(f"frames are {kind}, expected float32 [clips, T, 3, 64, 64]")
    if not (frames.min() >= 0 and frames.max() <= 1):
        raise ValueError(f"frames are {frames.min()} to {frames.max()}, expected 0 to 1")
    return as_uint8(torch.from_numpy(frames))


def _read_manifest(folder, dataset_name):
    try:
        about = read_json(folder / MANIFEST)
        name, *counts = [about[key] for key in ("data set", "batches", "clips")]
        if not all(type(count) is int and count > 0 for count in counts):
            raise ValueError("counts")
        if not all(isinstance(names, list) for names in about["factors"].values()):
            raise ValueError("factors")
        if about["group"] is not None and not isinstance(about["group"], str):
            raise ValueError("group")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{folder} holds no export: write one with --export_codes True") from None
    if name != dataset_name:
        raise UserError(
            f"{folder} holds an export of {name}, expected {dataset_name}: give another path"
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
        # the classifiers do not ask which factors are dynamic
        static=tuple(factors),
        dynamic=(),
        fingerprint=fingerprint(stack, columns, splits),
    )


def divide(groups: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Positions of clips by split; no group of `groups` [n] is in two splits."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    if len(names) < len(SPLITS):
        found = f"found {len(names)} clips or characters, expected some for each split"
        raise UserError(f"{found}: export more (--split all)")
    counts = {split: max(1, round(len(names) * share)) for split, share in SHARES.items()}
    test, val = names[: counts["test"]], names[counts["test"] : counts["test"] + counts["val"]]
    side = np.select([np.isin(groups, test), np.isin(groups, val)], ["test", "val"], "train")
    return {split: np.flatnonzero(side == split) for split in SPLITS}


def _read(path):
    """The arrays of an exported file by name, of numbers or text."""
    try:
        content = load_all(path)
    except UserError:
        raise UserError(f"{path} is missing, truncated or no array file: export again") from None
    for key, array in content.items():
        if array.ndim == 0 or array.dtype.kind not in "iufU":
            raise ValueError(f"{path.name}: '{key}' is {array.dtype} {[*array.shape]}")
    return content
