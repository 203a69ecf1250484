"""MUG-FED from a folder of frames that OpenFace has cropped and aligned, with a label file: for users who have the
database itself.

FOLDER holds a folder of pictures a clip (112x112, OpenFace's size by default; `CLIP` or, as OpenFace names it,
`CLIP_aligned`) and labels.csv with the header clip,identity,action. An action is one of the six expressions' names or
the release's number; numbers that the release drops are dropped here.
"""

import csv
from pathlib import Path

import numpy as np
from natsort import natsorted
from PIL import Image, UnidentifiedImageError

from utils.errors import UserError

LABELS, COLUMNS = "labels.csv", ("clip", "identity", "action")
PICTURES = {".bmp", ".png", ".jpg", ".jpeg"}


def read(folder, actions, size):
    """Clips, a list of lists of `Frame`, and their labels int64 [n, 2] (identity, the release's number of the action).

    actions: number -> name of the six; size: of the frames, px. Raises UserError if the label file or a clip's folder
    is not right.
    """
    folder, numbers = Path(folder), {name: number for number, name in actions.items()}
    clips, people, acts = [], [], []
    for line, row in enumerate(_rows(folder / LABELS), 2):
        act = row["action"].strip().lower()
        if act not in numbers and act not in map(str, range(9)):
            found = f"{folder / LABELS}, line {line}: found action '{row['action']}'"
            raise UserError(f"{found}, expected {', '.join(numbers)} or 0 to 8")
        clips.append([Frame(path, size) for path in frames(folder, row["clip"], line)])
        people.append(row["identity"].strip())
        acts.append(numbers[act] if act in numbers else int(act))
    names = natsorted(set(people))
    who = [int(name) if all(map(str.isdecimal, names)) else names.index(name) for name in people]
    return clips, np.stack([np.array(who, np.int64), np.array(acts, np.int64)], 1)


def _rows(path):
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"cannot read {path} ({error}): write it with the header {','.join(COLUMNS)}"
        ) from None
    if not rows or any(row.get(name) is None for row in rows for name in COLUMNS):
        raise UserError(
            f"{path} has no clip or lacks a column, expected the header {','.join(COLUMNS)} and a row a clip"
        )
    return rows


def frames(folder, clip, line):
    """The pictures of a clip in natural order; UserError if there are none."""
    for place in (folder / clip, folder / f"{clip}_aligned"):
        if place.is_dir():
            found = natsorted(
                (path for path in place.iterdir() if path.suffix.lower() in PICTURES), key=str
            )
            if found:
                return found
    raise UserError(
        f"{folder / LABELS}, line {line}: found no pictures in {folder / clip} or {clip}_aligned: put them there"
    )


class Frame:
    """A picture that is opened when NumPy asks for it: uint8 [size, size, 3]. A set of them does not fill the
    memory."""

    def __init__(self, path, size):
        self.path, self.size = path, size

    def __array__(self, dtype=None, copy=None):
        try:
            with Image.open(self.path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"cannot read {self.path} ({error}): make it again") from None
        if pixels.shape != (self.size, self.size, 3):
            found = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise UserError(
                f"{self.path} is {found} pixels, expected {self.size}x{self.size}: run OpenFace with -simsize 112"
            )
        return pixels


def stamp(folder):
    """What tells one state of the folder from another: count, bytes and newest change of its files. UserError if
    there is no label file."""
    if not (Path(folder) / LABELS).is_file():
        raise UserError(
            f"found no {Path(folder) / LABELS}: --source takes a folder of aligned frames with this label file"
        )
    stats = [path.stat() for path in Path(folder).glob("*/*") if path.suffix.lower() in PICTURES]
    stats.append((Path(folder) / LABELS).stat())
    return {
        str(folder): [len(stats), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]
    }
