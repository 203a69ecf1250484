"""MUG-FED in the release's files: faces of 112x112 that make an expression, cropped and aligned by the user under the
database's licence (see the README). `python -m data.mug PATH` says whether the files in a folder are right.

MUG_0-255_OF_112x112_color.npz holds `arr_0`, an object array of clips [T_i, 112, 112, 3] uint8; labels.npz holds
`arr_0` [n, 2], identity and action. As in the release: of each clip frames 0, 2, 4, ..., each zero-padded to 160x160
around its centre and resized to 64x64 by PIL, bilinear, in uint8, so that a copy of the results loses nothing; it is
made once, beside the files, and memory-mapped. Split by clip as the release does, or 85/15 by person (--split_by
identity), with a tenth of what trains set apart for validation. Users who have the database itself give a folder of
aligned frames instead (data/mug_aligned.py).
"""

import argparse
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data import arrays, mug_aligned
from data.base import IMAGE_SIZE, Dataset, fingerprint
from utils.errors import UserError
from utils.flags import flag
from utils.settings import DATA, RunSettings

NAME = "MUG-FED"
CLIPS, LABELS = "MUG_0-255_OF_112x112_color.npz", "labels.npz"
COPY, ABOUT = "frames_64x64.npy", "frames_64x64.json"
VERSION = 1
SIZE, PADDED, STRIDE = 112, 160, 2
# The file's numbers in the order of ours: the release drops 2, 5 and 6 and has 7 and 8 fill 2 and 5. The files hold no names; these
# take 0 to 8 for the database's folders in alphabetical order, where neutral and mixed ones are not of the six expressions.
ACTIONS = {0: "anger", 1: "disgust", 7: "sadness", 3: "fear", 4: "happiness", 8: "surprise"}
DROPPED = (2, 5, 6)
TEST_SHARE = {"clip": 0.25, "identity": 0.15}  # the release's; of the people
VAL_SHARE = 0.1  # of the training clips, so that a recipe is never chosen on test clips
MOST = 5  # faults of one kind that are told one by one


@dataclass
class Flags:
    """The data set's own flags."""

    split_by: str = flag("clip", DATA, choices=("clip", "identity"))
    """What is held out: clips, or all clips of some people."""


def load(config):
    """The set in config.data_dir/MUG-FED as `data.base.Dataset`, frames memory-mapped, split by config.seed.
    config.source, or the same folder, may hold aligned frames instead of the release's files.

    Clips of fewer than config.seq_len frames are skipped, with one line that counts them. Raises UserError if the
    files are not there or not right, or if a split has no clip left.
    """
    folder = Path(config.data_dir) / NAME
    own = (folder / mug_aligned.LABELS).exists() and not (folder / CLIPS).exists()
    frames, about = _copy(folder, Path(config.source) if config.source else folder if own else None)
    lengths, labels = np.array(about["lengths"]), np.array(about["labels"])
    splits, short = usable(lengths, labels, config.seq_len, config.seed, config.split_by)
    if short and not config.quiet:
        print(
            f"{NAME}: {short} clips are shorter than --seq_len {config.seq_len} and skipped",
            flush=True,
        )
    people, identity = np.unique(labels[:, 0], return_inverse=True)
    action = np.full(len(labels), -1)
    for place, number in enumerate(ACTIONS):
        action[labels[:, 1] == number] = place
    named = {"identity": identity, "action": action}
    digest = np.frombuffer(bytes.fromhex(about["sha256"]), np.uint8)
    return Dataset(
        name=NAME,
        frames=frames,
        lengths=lengths,
        labels=named,
        classes={"identity": tuple(map(str, people)), "action": tuple(ACTIONS.values())},
        splits=splits,
        static=("identity",),
        dynamic=("action",),
        fingerprint=fingerprint(digest, named, splits),
        fps=16,
        flips=True,
        split_flag="seed",
    )


def usable(lengths, labels, seq_len, seed, by="clip"):
    """Positions of the clips by split, of the six actions and of seq_len frames or more, and how many of the six are
    too short.

    labels [n, 2]: identity, action. by 'clip': test is the release's, scikit-learn's split over all clips of the
    file, before any is dropped; by 'identity': the same with 15 % of the people. Raises UserError if a split is left
    without a clip.
    """
    units = np.arange(len(lengths)) if by == "clip" else np.unique(labels[:, 0])
    if len(units) < 3:
        found = f"{len(units)} {'clips' if by == 'clip' else 'people'}"
        raise UserError(f"{NAME}: found {found}, expected enough for three splits: give more clips")
    from sklearn.model_selection import train_test_split  # slow to import

    train, test = train_test_split(units, test_size=TEST_SHARE[by], random_state=seed)
    val, train = np.split(train, [max(1, round(len(train) * VAL_SHARE))])
    kept, enough = np.isin(labels[:, 1], list(ACTIONS)), lengths >= seq_len
    splits = {"train": train, "val": val, "test": test}
    if by == "identity":
        splits = {
            name: np.flatnonzero(np.isin(labels[:, 0], people)) for name, people in splits.items()
        }
    splits = {name: rows[(kept & enough)[rows]] for name, rows in splits.items()}
    empty = [name for name, rows in splits.items() if len(rows) == 0]
    if empty:
        raise UserError(
            f"{NAME}: found {(kept & enough).sum()} clips of {len(lengths)} that have {seq_len} frames (--seq_len, after "
            f"every second one is left out) and one of the six actions, none of them in {' and '.join(empty)}: "
            "give a smaller --seq_len, or more clips"
        )
    return splits, int((kept & ~enough).sum())


def small(frame):
    """A frame [112, 112, 3] uint8 as the model sees it, [64, 64, 3] uint8, to the last bit of the release's."""
    edge = (PADDED - SIZE) // 2
    padded = np.pad(frame, ((edge, edge), (edge, edge), (0, 0)))
    return np.asarray(
        Image.fromarray(padded).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    )


def read(folder):
    """The user's files in `folder`: clips (an array of [T_i, 112, 112, 3] uint8 arrays) and labels int64 [n, 2].

    Raises UserError with the first of their faults.
    """
    clips, labels = arrays.load(folder / CLIPS), arrays.load(folder / LABELS)
    for fault in faults(clips, labels):
        raise UserError(f"{NAME}: {fault} (python -m data.mug {folder} lists all that is wrong)")
    return clips, labels.astype(np.int64)


def faults(clips, labels):
    """What is wrong with the two arrays, one line each; none if they are right."""
    n = len(clips) if clips.ndim else 0
    if n == 0 or (clips.dtype != object and clips.ndim != 5):
        yield f"{CLIPS}: found {_kind(clips)}, expected an object array of clips, one uint8 [frames, 112, 112, 3] each"
        n = 0
    want = (SIZE, SIZE, 3)
    wrong = [
        (i, c)
        for i, c in enumerate(clips[:n])
        if not isinstance(c, np.ndarray)
        or c.dtype != np.uint8
        or c.ndim != 4
        or c.shape[1:] != want
        or len(c) == 0
    ]
    yield from _some(
        wrong,
        lambda i, c: f"clip {i} of {CLIPS} is {_kind(c)}, expected uint8 [frames, 112, 112, 3]",
    )
    try:
        with np.errstate(invalid="ignore"):
            numbers = labels.astype(np.int64)
        sound = (
            labels.ndim == 2
            and labels.shape[1] == 2
            and len(labels) > 0
            and bool((numbers == labels).all())
        )
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        yield f"{LABELS}: found {_kind(labels)}, expected whole numbers [clips, 2], identity and action"
        return
    if n and len(labels) != n:
        yield f"{LABELS} has labels for {len(labels)} clips, {CLIPS} has {n} clips: expected as many"
    unknown = [
        (i, a)
        for i, a in enumerate(numbers[:, 1].tolist())
        if a not in ACTIONS and a not in DROPPED
    ]
    yield from _some(unknown, lambda i, a: f"clip {i} has action {a} in {LABELS}, expected 0 to 8")


def _some(found, say):
    for item in found[:MOST]:
        yield say(*item)
    if len(found) > MOST:
        yield f"... and {len(found) - MOST} clips more like these"


def _kind(value):
    return (
        f"{value.dtype} {list(value.shape)}"
        if isinstance(value, np.ndarray)
        else type(value).__name__
    )


def _copy(folder, aligned=None):
    """The memory-mapped copy in `folder` of the set there, or of the aligned frames in folder `aligned`, made if it
    is not there, not whole or not of these files: frames [F, 64, 64, 3] and what is said of them, 'lengths' [n],
    'labels' [n][2], 'sha256' (of frames and lengths)."""
    try:
        source = (
            mug_aligned.stamp(aligned)
            if aligned
            else {
                name: [(folder / name).stat().st_size, (folder / name).stat().st_mtime_ns]
                for name in (CLIPS, LABELS)
            }
        )
    except OSError as error:
        raise UserError(
            f"{NAME}: found no {error.filename}: --data_dir names the folder that holds {NAME}/ with {CLIPS} and {LABELS}; "
            "the README says how to make them"
        ) from None
    made = _whole(folder, source)
    if made is None:
        print(f"{NAME}: reading the files in {aligned or folder} once", flush=True)
        _write(
            folder, source, *(mug_aligned.read(aligned, ACTIONS, SIZE) if aligned else read(folder))
        )
        made = _whole(folder, source)
    if made is None:
        raise UserError(f"{NAME}: the files in {folder} changed while they were read: start again")
    return made


def _whole(folder, source):
    """(frames, about) of a whole copy of `source`, else None."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        if (about["version"], about["source"], about["bytes"]) != (
            VERSION,
            source,
            (folder / COPY).stat().st_size,
        ):
            return None
        frames = np.load(folder / COPY, mmap_mode="r", allow_pickle=False)
        return (frames, about) if len(frames) == sum(about["lengths"]) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(folder, source, clips, labels):
    """Make the copy of clips (each a sequence of frames) and labels [n, 2]. What says that it is whole is removed
    first and written last; each file is written beside its place."""
    lengths = [len(clip[::STRIDE]) for clip in clips]
    part = folder / f"{COPY}.{os.getpid()}.part.npy"
    about = part.with_suffix(".json")
    need = sum(lengths) * IMAGE_SIZE**2 * 3
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(
            folder
        ).free  # asked first: a disk that fills up under a memory map ends the process
        if free < need:
            raise UserError(
                f"{NAME}: {folder} has {free:,} bytes free, the copy needs {need:,}: make room there"
            )
        frames = np.lib.format.open_memmap(
            part, "w+", np.uint8, (sum(lengths), IMAGE_SIZE, IMAGE_SIZE, 3)
        )
        place = 0
        for clip in clips:
            for frame in clip[::STRIDE]:
                frames[place] = small(np.asarray(frame))
                place += 1
        frames.flush()
        said = {
            "version": VERSION,
            "source": source,
            "bytes": part.stat().st_size,
            "sha256": fingerprint(frames, {"lengths": np.array(lengths)}, {}),
            "lengths": lengths,
            "labels": labels.tolist(),
        }
        (folder / ABOUT).unlink(missing_ok=True)
        part.replace(folder / COPY)
        about.write_text(json.dumps(said))
        about.replace(folder / ABOUT)
    except OSError as error:
        raise UserError(
            f"{NAME}: cannot write a copy of the frames to {folder} ({error.strerror}): make the folder writable"
        ) from None
    finally:
        for rest in (part, about):
            if rest.exists():
                rest.unlink()


def check(folder, seq_len, seed):
    """Lines on the files in `folder`: what they hold, and what is wrong with them (none if they are right)."""
    said, wrong, found = [], [], {}
    for name in (CLIPS, LABELS):
        try:
            found[name] = arrays.load(folder / name)
        except UserError as error:
            wrong.append(str(error))
    if not wrong:
        clips, labels = found[CLIPS], found[LABELS]
        wrong += faults(clips, labels)
    if not wrong:
        lengths = np.array([len(clip[::STRIDE]) for clip in clips])
        people, actions = labels.astype(np.int64).T
        counts = ", ".join(
            f"{name} {(actions == number).sum()}" for number, name in ACTIONS.items()
        )
        said.append(
            f"{len(clips)} clips of {len(np.unique(people))} identities; {lengths.min()} to {lengths.max()} frames "
            f"(median {np.median(lengths):g}), every second one of the file's"
        )
        said.append(
            f"actions: {counts}; left out: {np.isin(actions, DROPPED).sum()} of the numbers 2, 5 and 6"
        )
        try:
            splits, short = usable(lengths, labels.astype(np.int64), seq_len, seed)
            parts = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
            said.append(
                f"with --seq_len {seq_len} and --seed {seed}: {parts} clips, {short} too short and skipped"
            )
        except UserError as error:
            wrong.append(str(error))
    return said, wrong


def main(arguments=None):
    """The checker: exit status 0 if the files are right, 2 with what is wrong on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m data.mug", description=f"Check the {NAME} files in a folder."
    )
    parser.add_argument(
        "path",
        help=f"the folder that holds {CLIPS} and {LABELS}, one of the two, or the folder that holds {NAME}/",
    )
    parser.add_argument(
        "--seq_len", type=int, default=RunSettings.seq_len, help="frames a sequence [%(default)s]"
    )
    parser.add_argument(
        "--seed", type=int, default=RunSettings.seed, help="seed of the split [%(default)s]"
    )
    options = parser.parse_args(arguments)
    if options.seq_len < 1 or not 0 <= options.seed < 2**31:
        parser.error("expected --seq_len of at least 1 and a --seed of 0 to 2147483647")
    folder = Path(options.path)
    if folder.is_file():
        folder = folder.parent
    if (folder / NAME).is_dir():
        folder = folder / NAME
    said, wrong = check(folder, options.seq_len, options.seed)
    for line in said:
        print(line)
    for line in wrong:
        print(" ".join(line.split()), file=sys.stderr)
    print(
        f"{folder}: {f'{len(wrong)} faults' if wrong else 'the files are right'}",
        file=sys.stderr if wrong else sys.stdout,
    )
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
