"""--export_codes True: a split's codes and pictures in files, as the release's README exports them for its notebooks.

One set of files a batch p of `num_test_ids` clips (the last may be smaller), in the data set's order, each clip's first
seq_len frames; float32 under the key arr_0 unless said otherwise, no pickles:

    id_{p}.npz              [n, 1, K] the static code: VDSM's mixing weights at temp_id_end
    dynamics_{p}.npz        [n, ...] the dynamic code: VDSM's locations of d, [n, dynamics_dim]
    labels_{p}.npz          integers [n, factors], a column a factor, the static ones first (MUG-FED: identity, action);
                            beside them every label under its own name, 'split' (text) and 'position' in the data set
    test_images_{p}.npz     [n, T, 3, 64, 64] in [0, 1]
    recon_images_{p}.npz    the same, decoded from the codes
    sampled_images_{p}.npz  as many clips, drawn from the priors
    codes.json              what it is an export of: data set, split, checkpoint, the columns' factors and values

`load_export` reads it back for the notebooks, divided so that no held-out clip or character trains a judge or a classifier.
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
from utils.errors import UserError
from utils.files import unused, write_text
from utils.frames import as_float, as_uint8
from utils.origin import commit
from utils.progress import Progress

MANIFEST = "codes.json"
SHARES = {
    "test": 0.25,
    "val": 0.1,
}  # of clips, or of groups of clips, where the export is of one split
PICTURES = 3  # arrays of frames: the clips', their reconstructions, samples


def bytes_a_clip(settings):
    """Bytes that one clip takes in all files, but for labels and headers."""
    frames = PICTURES * settings.seq_len * 3 * IMAGE_SIZE**2
    return 4 * (frames + settings.code_size)


def export(view, dataset, folder, settings, checkpoint):
    """Write the export of settings.split to folder.codes; an older one there is kept under a new name.

    view: the last stage as `models.view.VideoModel`; checkpoint: its path. The files stand in a folder beside until all are
    written, so that half an export is never taken for one. UserError if the disk is too full.
    """
    clips, codes = dataset.split(settings.split), folder.codes
    need = len(clips) * bytes_a_clip(settings)
    free = shutil.disk_usage(codes.parent).free
    if free < need:
        raise UserError(
            f"--export_codes: {codes.parent} has {free:,} bytes free, {len(clips)} clips need {need:,}: "
            "free some space, choose another --code_path or a smaller --split"
        )
    beside = codes.with_name(f".{codes.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # what a killed export left
    try:
        beside.mkdir()
        batches = _write(view, dataset, clips, beside, settings)
        write_text(
            beside / MANIFEST,
            json.dumps(_manifest(dataset, clips, settings, checkpoint, batches), indent=1) + "\n",
        )
        if codes.is_dir() and any(codes.iterdir()):
            kept = unused(codes)
            codes.rename(kept)
            print(f"kept the old export as {kept}")
        os.replace(beside, codes)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not settings.quiet:
        print(f"exported {len(clips)} clips ({settings.split}) in {batches} batches to {codes}")


def _write(view, dataset, clips, place, settings):
    """Write the batches' files into folder `place`; returns how many batches there are."""
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
            np.savez(place / f"{name}_{p}.npz", array.numpy(), allow_pickle=False)
        columns, named = _labels(dataset, clips, rows)
        np.savez(place / f"labels_{p}.npz", columns, allow_pickle=False, **named)
        progress.step()
    progress.close()
    return len(batches)


def _labels(dataset, clips, rows):
    """The factors as columns [n, factors], and every label by name, with 'split' and 'position'."""
    position, split = clips.index[rows], np.empty(len(rows), "<U5")
    for name, members in dataset.splits.items():
        split[np.isin(position, members)] = name
    named = {name: clips.label(name, rows) for name in dataset.labels}
    columns = (
        np.array([named[factor] for factor in _factors(dataset)], np.int64).reshape(-1, len(rows)).T
    )
    return columns, {**named, "split": split, "position": position}


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
    """n exported clips in order. about: the export's codes.json."""

    dataset: Dataset  # the real clips with their factors, divided
    codes: dict[str, np.ndarray]  # 'identity_code' [n, K], 'dynamics_code' [n, D]
    rebuilt: np.ndarray  # uint8 [n, T, 64, 64, 3]
    sampled: np.ndarray  # the same, from the priors
    about: dict

    def part(self, split):
        """The clips of a split: real, rebuilt [k, T, 64, 64, 3], {code: [k, ...]}, {factor: int64 [k]}."""
        clips = self.dataset.split(split)
        codes = {name: code[clips.index] for name, code in self.codes.items()}
        labels = {factor: clips.label(factor) for factor in self.dataset.classes}
        return clips.take(np.arange(len(clips))), self.rebuilt[clips.index], codes, labels


def load_export(folder, name, seed=0):
    """The `Export` in `folder`, of the data set `name`.

    An export of all splits (--split all) keeps them; one of a single split is divided anew, seeded, without replacement.
    Raises UserError if it is no export, one of another data set, not whole, or of too few clips to be divided.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / MANIFEST).read_text())
        batches, found, factors, group = (
            about[key] for key in ("batches", "data set", "factors", "group")
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder} holds no export: write one with --export_codes True --split all"
        ) from None
    if found != name:
        raise UserError(
            f"{folder} is an export of {found}, expected {name}: give the path of another"
        )
    read = {
        kind: [_read(folder / f"{kind}_{p}.npz") for p in range(batches)]
        for kind in ("id", "dynamics", "labels")
    }
    frames, rebuilt, sampled = (
        np.concatenate([_frames(folder / f"{kind}_images_{p}.npz") for p in range(batches)])
        for kind in ("test", "recon", "sampled")
    )
    codes = {
        kind: np.concatenate([part["arr_0"] for part in read[kind]]) for kind in ("id", "dynamics")
    }
    known = {
        key: np.concatenate([part[key] for part in read["labels"]]) for key in read["labels"][0]
    }
    counts = {len(part) for part in (frames, rebuilt, *codes.values(), *known.values())}
    if counts != {about["clips"]}:
        raise UserError(
            f"{folder} is not whole ({counts} clips for {about['clips']}): export again"
        )
    labels = {factor: known["arr_0"][:, column] for column, factor in enumerate(factors)}
    groups = known[group] if group else np.arange(len(frames))
    splits = {split: np.flatnonzero(known["split"] == split) for split in SPLITS}
    if not all(len(rows) for rows in splits.values()):
        splits = divide(groups, seed)
    stack, lengths = flat(frames)
    dataset = Dataset(
        name=name,
        frames=stack,
        lengths=lengths,
        labels=labels,
        classes={factor: tuple(values) for factor, values in factors.items()},
        splits=splits,
        static=tuple(factors),  # which of them move does not matter here
        dynamic=(),
        fingerprint=fingerprint(stack, labels, splits),
    )
    return Export(
        dataset,
        {"identity_code": codes["id"][:, 0], "dynamics_code": codes["dynamics"]},
        rebuilt,
        sampled,
        about,
    )


def divide(groups, seed=0):
    """Positions by split of clips of `groups` [n]: each group, and so each clip, on one side alone. UserError if there are fewer than
    three groups."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    if len(names) < len(SPLITS):
        raise UserError(
            f"found {len(names)} clips or characters, expected some for each split: export more (--split all)"
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


def _frames(path):
    """Frames [n, T, 3, 64, 64] in [0, 1] as uint8 [n, T, 64, 64, 3]."""
    return as_uint8(torch.from_numpy(_read(path)["arr_0"]))
