"""MUG-FED: faces of 112x112 that make one of six expressions, in the authors' files.

Users crop and align the frames themselves, under the licence of the database (docs/DATA.md).
`python -m data.mug FOLDER` checks the two files:

    MUG_0-255_OF_112x112_color.npz   `arr_0`, an object array of clips [T_i, 112, 112, 3] uint8
    labels.npz                       `arr_0` [n, 2]: identity, action

As in the authors' code, every second frame is kept, zero-padded to 160x160 around its centre and
resized to 64x64 by PIL, bilinear, as uint8. The results are stored beside the files. Instead of the
files, users of the database may give folders of aligned frames (data/mug_aligned.py).
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data import arrays, mug_aligned
from data.base import IMAGE_SIZE, Dataset, fingerprint
from data.store import Store
from utils.errors import UserError, in_one_line
from utils.flags import flag, number
from utils.plan import parse
from utils.settings import DATA

LICENCE = "MUG-FED, on request from its owners: check their terms before you pass on a model"
NAME = "MUG-FED"
CLIPS, LABELS = "MUG_0-255_OF_112x112_color.npz", "labels.npz"
COPY, ABOUT, VERSION = "frames_64x64.npy", "frames_64x64.json", 1
SIZE, PADDED, STRIDE = 112, 160, 2
# The files' numbers in the order of our labels: the authors drop 2, 5 and 6, and renumber 7 and 8
# as 2 and 5. The files hold no names; these assume that the numbers count the database's folders
# in alphabetical order.
ACTIONS = {0: "anger", 1: "disgust", 7: "sadness", 3: "fear", 4: "happiness", 8: "surprise"}
DROPPED = (2, 5, 6)
FIELDS: dict[str, Any] = {"static": ("identity",), "dynamic": ("action",)}
FIELDS |= {"fps": 16, "flips": True, "split_flag": "seed"}
TEST_SHARE = {"clip": 0.25, "identity": 0.15}  # the authors' share of the clips, ours of the people
VAL_SHARE = 0.1  # of the training part, so that settings are never chosen on test clips
LISTED = 5  # problems of one kind that are listed at most


@dataclass
class Flags:
    split_by: str = flag("clip", DATA, choices=("clip", "identity"))
    """What is held out: clips, or all clips of some people."""
    test_share: float = flag(None, DATA, kind=number, low=0.01, high=0.9)
    """Share of the clips, or of the people, that is held out for test. Default: 0.25 of the clips,
    as in the release, or 0.15 of the people."""


def load(config) -> Dataset:
    """Load the set in config.data_dir/MUG-FED, frames memory-mapped, split by config.seed.

    config.source, or the same folder, may hold aligned frames instead of the authors' files. Clips
    of fewer than config.seq_len frames are skipped. Raises UserError if files are missing or wrong.
    """
    folder, aligned = Path(config.data_dir) / NAME, config.source and Path(config.source)
    if not aligned and (folder / mug_aligned.LABELS).exists() and not (folder / CLIPS).exists():
        aligned = folder
    metadata, frames = _copy(folder, aligned)
    lengths, numbers = metadata["lengths"], metadata["labels"]
    splits, short = usable(lengths, numbers, config)
    if short and not config.quiet:
        print(f"{NAME}: {short} clips are shorter than --seq_len {config.seq_len} and skipped")
    people, identity = np.unique(numbers[:, 0], return_inverse=True)
    action = np.full(len(numbers), -1)
    for label, in_file in enumerate(ACTIONS):
        action[numbers[:, 1] == in_file] = label
    labels = {"identity": identity, "action": action}
    classes = {"identity": tuple(map(str, people)), "action": tuple(ACTIONS.values())}
    digest = fingerprint(metadata["digest"], labels, splits)
    fields: dict[str, Any] = FIELDS | {"fingerprint": digest, "verify": metadata["verify"]}
    return Dataset(NAME, frames, lengths, labels, classes, splits, **fields)


def usable(lengths: np.ndarray, labels: np.ndarray, config) -> tuple[dict[str, np.ndarray], int]:
    """Positions by split of the clips with one of the six actions and at least seq_len frames.

    Also returns how many clips of the six actions are shorter. labels [n, 2]: identity, action.
    config has seq_len, seed, split_by and test_share. As in the authors' code, scikit-learn splits
    all clips (or people) before clips are dropped. Raises UserError if a split has no clip left.
    """
    from sklearn.model_selection import train_test_split  # takes seconds

    by_clip, seq_len = config.split_by == "clip", config.seq_len
    units = np.arange(len(lengths)) if by_clip else np.unique(labels[:, 0])
    if len(units) < 3:
        count = f"{len(units)} {'clips' if by_clip else 'people'}"
        raise UserError(f"{NAME}: found {count}, expected 3 or more: give more clips")
    share = config.test_share or TEST_SHARE[config.split_by]
    train, test = train_test_split(units, test_size=share, random_state=config.seed)
    if len(train) < 2:
        problem = f"--test_share {share} of {len(units)} leaves {len(train)} for training"
        raise UserError(f"{NAME}: {problem} and validation: give a smaller one")
    val, train = np.split(train, [max(1, round(len(train) * VAL_SHARE))])
    kept, enough = np.isin(labels[:, 1], list(ACTIONS)), lengths >= seq_len
    splits = {}
    for name, chosen in {"train": train, "val": val, "test": test}.items():
        rows = chosen if by_clip else np.flatnonzero(np.isin(labels[:, 0], chosen))
        splits[name] = rows[(kept & enough)[rows]]
    empty = [name for name, rows in splits.items() if len(rows) == 0]
    if empty:
        where, length = " and ".join(empty), f"{seq_len} frames (every second one counts)"
        problem = f"found no clip of the six actions with {length} in {where}"
        raise UserError(f"{NAME}: {problem}: give a smaller --seq_len, or more clips")
    return splits, int((kept & ~enough).sum())


def small(frame: np.ndarray) -> np.ndarray:
    """A frame uint8 [112, 112, 3] padded and resized to [64, 64, 3], to the bit as the authors'."""
    edge = (PADDED - SIZE) // 2
    padded = Image.fromarray(np.pad(frame, ((edge, edge), (edge, edge), (0, 0))))
    return np.asarray(padded.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Clips, uint8 arrays [T_i, 112, 112, 3], and labels, int64 [n, 2]. Raises UserError."""
    clips, labels = arrays.load(folder / CLIPS), arrays.load(folder / LABELS)
    for problem in problems_of(clips, labels):
        raise UserError(f"{NAME}: {problem} (python -m data.mug {folder} lists all problems)")
    return clips, labels.astype(np.int64)


def problems_of(clips: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    """What is wrong with the two arrays, one line each; nothing if they are right."""
    count, expected = len(clips) if clips.ndim else 0, "uint8 [frames, 112, 112, 3]"
    if count == 0 or (clips.dtype != object and clips.ndim != 5):
        yield f"{CLIPS}: found {_kind(clips)}, expected an object array of clips, each {expected}"
        count = 0
    yield from _first(
        f"clip {i} of {CLIPS} is {_kind(clip)}, expected {expected}"
        for i, clip in enumerate(clips[:count])
        if not isinstance(clip, np.ndarray)
        or (clip.dtype, clip.ndim, clip.shape[1:]) != (np.uint8, 4, (SIZE, SIZE, 3))
        or len(clip) == 0
    )
    try:
        with np.errstate(invalid="ignore"):
            whole = bool((labels.astype(np.int64) == labels).all())
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or labels.ndim != 2 or labels.shape[1] != 2 or len(labels) == 0:
        expected = "expected whole numbers [clips, 2], identity and action"
        yield f"{LABELS}: found {_kind(labels)}, {expected}"
        return
    if count and len(labels) != count:
        yield f"{LABELS} has labels for {len(labels)} clips, expected {count}, the clips of {CLIPS}"
    yield from _first(
        f"clip {i} has action {action} in {LABELS}, expected 0 to 8"
        for i, action in enumerate(labels[:, 1].astype(np.int64).tolist())
        if action not in ACTIONS and action not in DROPPED
    )


def _first(problems):
    problems = list(problems)
    yield from problems[:LISTED]
    if len(problems) > LISTED:
        yield f"... and {len(problems) - LISTED} more clips like these"


def _kind(value):
    array = isinstance(value, np.ndarray)
    return f"{value.dtype} {[*value.shape]}" if array else type(value).__name__


def _copy(folder, aligned):
    """Metadata and frames [F, 64, 64, 3] of the copy in `folder` of its files or of `aligned`.

    Metadata: lengths [n], labels [n, 2], digest (SHA-256 of frames and lengths, uint8 [32]). A copy
    that is missing, damaged, or of other files is made first.
    """
    try:
        if aligned:
            source = mug_aligned.stamp(aligned)
        else:
            stats = {name: (folder / name).stat() for name in (CLIPS, LABELS)}
            source = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    except OSError as error:
        advice = f"--data_dir holds {NAME}/ with {CLIPS} and {LABELS} (docs/DATA.md)"
        raise UserError(f"{NAME}: found no {error.filename}: {advice}") from None

    def unpack(metadata, frames):
        if metadata["source"] != source:
            raise UserError(f"{folder / COPY} was made from other files")
        digest = np.frombuffer(bytes.fromhex(metadata["sha256"]), np.uint8)
        lengths, labels = np.array(metadata["lengths"]), np.array(metadata["labels"])
        metadata.update(lengths=lengths, labels=labels, digest=digest)
        if lengths.dtype.kind != "i" or lengths.min() < 1 or lengths.sum() != len(frames):
            raise ValueError("lengths")
        if labels.dtype.kind != "i" or labels.shape != (len(lengths), 2):
            raise ValueError("labels")

    def matches(metadata, frames):
        made = fingerprint(frames, {"lengths": metadata["lengths"]}, {})
        return made == metadata["sha256"]

    def make(_):
        print(f"{NAME}: reading the files in {aligned or folder} once", flush=True)
        clips, labels = mug_aligned.read(aligned, ACTIONS, SIZE) if aligned else read(folder)
        lengths = np.array([len(clip[::STRIDE]) for clip in clips])

        def fill(frames):
            kept = (frame for clip in clips for frame in clip[::STRIDE])
            for position, frame in enumerate(kept):
                frames[position] = small(np.asarray(frame))
            digest = fingerprint(frames, {"lengths": lengths}, {})
            return {"source": source, "sha256": digest, "lengths": lengths, "labels": labels}

        stored.write((int(lengths.sum()), IMAGE_SIZE, IMAGE_SIZE, 3), fill)

    stored = Store(folder, VERSION, unpack, COPY, ABOUT, matches)
    return stored.load(make)


def facts(clips: np.ndarray, labels: np.ndarray, settings) -> Iterator[str]:
    """Lines of text on right files. Raises UserError if a split has no clip."""
    lengths = np.array([len(clip[::STRIDE]) for clip in clips])
    labels = labels.astype(np.int64)
    people, actions = labels.T
    yield (
        f"{len(lengths)} clips of {len(np.unique(people))} identities; {lengths.min()} to "
        f"{lengths.max()} frames (median {np.median(lengths):g}), every second one of the file"
    )
    counts = ", ".join(f"{name} {(actions == i).sum()}" for i, name in ACTIONS.items())
    dropped = np.isin(actions, DROPPED).sum()
    yield f"actions: {counts}; left out: {dropped} of the numbers 2, 5 and 6"
    splits, short = usable(lengths, labels, settings)
    parts = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    given = f"--seq_len {settings.seq_len}, --seed {settings.seed}"
    yield f"{given}: {parts} clips, {short} too short and skipped"


@in_one_line
def main(argv: list[str]) -> int:
    """Check files; the exit status is 0 if they are right, else 2 with the problems on stderr."""
    if not argv or argv[0].startswith("-"):
        where = f"FOLDER holds {CLIPS} and {LABELS}, or {NAME}/ with them"
        raise UserError(f"usage: python -m data.mug FOLDER [--seq_len N] [--seed N]; {where}")
    settings, folder = parse([*argv[1:], "--dataset_name", NAME]).first, Path(argv[0])
    folder = folder.parent if folder.is_file() else folder
    folder = folder / NAME if (folder / NAME).is_dir() else folder
    loaded, problems = [], []
    for name in (CLIPS, LABELS):
        try:
            loaded.append(arrays.load(folder / name))
        except UserError as error:
            problems.append(str(error))
    try:
        problems = problems or list(problems_of(*loaded))
        for line in () if problems else facts(*loaded, settings):
            print(line)
    except UserError as error:
        problems.append(str(error))
    for line in problems:
        print(" ".join(line.split()), file=sys.stderr)
    verdict = f"{len(problems)} problems" if problems else "the files are right"
    print(f"{folder}: {verdict}", file=sys.stderr if problems else sys.stdout)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
