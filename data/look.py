"""python -m data.look NAME [--FLAG VALUE ...]: a contact sheet and a GIF of a data set's clips with their labels.

Writes runs_dir/look/NAME.png (a row a clip, its frames from left to right) and NAME.gif (the same clips moving). The
flags are main.py's.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data.base import IMAGE_SIZE, SPLITS
from data.info import dataset_of
from pictures.files import save_gif, save_png, sheet
from utils.errors import UserError, in_one_line

CLIPS, COLUMNS = 4, 12  # clips a split; frames a row at most
LONGEST = 100  # frames of the GIF
STRIP = 14  # px of text above a clip


def choose(dataset):
    """[(split, row)]: a few clips of each split, the same ones every time."""
    rng = np.random.default_rng(0)
    return [
        (name, int(row))
        for name in SPLITS
        for row in np.sort(rng.permutation(len(dataset.splits[name]))[:CLIPS])
    ]


def caption(dataset, split, row):
    """A clip's labels in words, one string each, its split and number first."""
    clips, words = dataset.split(split), [f"{split} {row}"]
    for factor in (*dataset.static, *dataset.dynamic):
        words.append(f"{factor} {dataset.classes[factor][clips.label(factor, row)]}")
    return words


def written(lines, width):
    """Text, one line in each strip of STRIP px, as a picture uint8 [STRIP len(lines), width, 3]."""
    picture = Image.new("RGB", (width, STRIP * len(lines)))
    for i, line in enumerate(lines):
        ImageDraw.Draw(picture).text((2, STRIP * i + 1), line, (230, 230, 230))
    return np.asarray(picture)


def frame_counts(dataset, chosen):
    """The frames of each chosen clip, integers."""
    return [int(dataset.split(split).lengths[dataset.splits[split][row]]) for split, row in chosen]


def contact_sheet(dataset, chosen):
    """A row a clip, its labels above it, as many frames as there are up to COLUMNS, evenly over the clip: [H, W, 3]."""
    lengths, pieces = frame_counts(dataset, chosen), []
    columns = min(COLUMNS, max(lengths))
    for (split, row), length in zip(chosen, lengths):
        times = np.unique(np.linspace(0, length - 1, columns).round().astype(int))
        tiles = np.zeros((1, columns, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        for column, time in enumerate(times):
            tiles[0, column] = dataset.split(split).take([row], time, 1)[0, 0]
        frames = sheet(tiles)
        pieces += [written(["  ".join(caption(dataset, split, row))], frames.shape[1]), frames]
    return np.concatenate(pieces)


def film(dataset, chosen):
    """The clips side by side, a row a split, labels below each other above them, repeated for as long as the longest
    of them, LONGEST frames at most: [T, H, W, 3]."""
    lengths = [min(length, LONGEST) for length in frame_counts(dataset, chosen)]
    words = [caption(dataset, *clip) for clip in chosen]
    lines, width = (
        max(map(len, words)),
        2 * IMAGE_SIZE,
    )  # text needs room: frames are shown twice as large
    tiles = np.zeros((max(lengths), len(SPLITS), CLIPS, STRIP * lines + width, width, 3), np.uint8)
    column = dict.fromkeys(SPLITS, 0)
    for (split, row), text, length in zip(chosen, words, lengths):
        large = dataset.split(split).take([row], 0, length)[0].repeat(2, 1).repeat(2, 2)
        place = SPLITS.index(split), column[split]
        column[split] += 1
        tiles[:, *place, : STRIP * lines] = written(text + [""] * (lines - len(text)), width)
        tiles[:, *place, STRIP * lines :] = large[np.arange(len(tiles)) % length]
    return np.stack([sheet(each) for each in tiles])


@in_one_line
def main(argv):
    """The exit status: 0, or 2 with one line on stderr where the set is not there, a flag is wrong or the disk
    refuses."""
    dataset, settings = dataset_of(argv, "python -m data.look")
    folder, chosen = Path(settings.runs_dir) / "look", choose(dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_png(folder / f"{dataset.name}.png", contact_sheet(dataset, chosen))
        save_gif(folder / f"{dataset.name}.gif", film(dataset, chosen), dataset.fps)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}): choose another --runs_dir"
        ) from None
    print(f"wrote {folder / dataset.name}.png and .gif: {len(chosen)} clips with their labels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
