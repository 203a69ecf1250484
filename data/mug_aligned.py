"""MUG-FED from frames that OpenFace has cropped and aligned, for users of the database itself.

FOLDER holds one folder of pictures per clip (112x112, OpenFace's default size), named `CLIP` or
`CLIP_aligned`, and labels.csv with the header clip,identity,action. An action is the name of one of
the six expressions, or the authors' number, 0 to 8.
"""

import csv
from pathlib import Path

import numpy as np
from natsort import natsorted

from data.decoders import BadFile, picture
from utils.errors import UserError
from utils.files import LONGEST_TEXT, regular

LABELS, COLUMNS = "labels.csv", ("clip", "identity", "action")
PICTURES = {".bmp", ".png", ".jpg", ".jpeg"}


def read(folder: Path, actions: dict[int, str], size: int) -> tuple[list, np.ndarray]:
    """Clips, a list of lists of `Frame`, and labels int64 [n, 2]: identity, number of the action.

    actions: the six names by number. size: width and height of the frames, px. Raises UserError if
    the label file or the folder of a clip is wrong.
    """
    numbers = {name: number for number, name in actions.items()}
    clips, people, action_numbers = [], [], []
    for line, row in enumerate(_rows(folder / LABELS), 2):
        where, action = f"{folder / LABELS}, line {line}", row["action"].strip().lower()
        if action not in numbers and action not in map(str, range(9)):
            expected = f"expected {', '.join(numbers)} or 0 to 8"
            raise UserError(f"{where}: found action '{row['action']}', {expected}: correct it")
        clips.append([Frame(path, size) for path in _pictures(folder, row["clip"], where)])
        people.append(row["identity"].strip())
        action_numbers.append(numbers[action] if action in numbers else int(action))
    names = natsorted(set(people))
    numeric = all(map(str.isdecimal, names))
    identity = [int(name) if numeric else names.index(name) for name in people]
    return clips, np.array([identity, action_numbers], np.int64).T


def _rows(path):
    header = ",".join(COLUMNS)
    try:
        regular(path, LONGEST_TEXT)
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}): give it the header {header}") from None
    if not rows or any(row.get(name) is None for row in rows for name in COLUMNS):
        expected = f"expected the header {header} and one row per clip"
        raise UserError(f"{path} has no clip or lacks a column, {expected}: write it anew")
    return rows


def _pictures(folder, clip, where):
    if Path(clip).is_absolute() or ".." in Path(clip).parts or "\0" in clip:
        raise UserError(f"{where}: found clip '{clip}', expected the name of a folder in {folder}")
    for place in (folder / clip, folder / f"{clip}_aligned"):
        if place.is_dir():
            paths = [path for path in place.iterdir() if path.suffix.lower() in PICTURES]
            if paths:
                return natsorted(paths, key=str)
    raise UserError(f"{where}: found no pictures in {folder / clip} or {clip}_aligned")


class Frame:
    """A picture, uint8 [size, size, 3], that is read when NumPy converts it to an array."""

    def __init__(self, path, size):
        self.path, self.size = path, size

    def __array__(self, dtype=None, copy=None):
        try:
            pixels = picture(self.path, "RGB")
        except (BadFile, OSError) as error:
            raise UserError(f"cannot read {self.path} ({error}): make it again") from None
        if pixels.shape != (self.size, self.size, 3):
            height, width, size = *pixels.shape[:2], self.size
            problem = f"{self.path} is {width}x{height} pixels, expected {size}x{size}"
            raise UserError(f"{problem}: run OpenFace with -simsize {size}")
        return pixels


def stamp(folder: Path) -> dict[str, list[int]]:
    """Count, bytes and newest change of the files of a folder. Raises UserError."""
    labels = folder / LABELS
    if not labels.is_file():
        raise UserError(f"found no {labels}: --source takes a folder of frames with a label file")
    pictures = (path for path in folder.glob("*/*") if path.suffix.lower() in PICTURES)
    stats = [path.stat() for path in (*pictures, labels)]
    sizes, times = zip(*((stat.st_size, stat.st_mtime_ns) for stat in stats))
    return {str(folder): [len(stats), sum(sizes), max(times)]}
