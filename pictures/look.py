"""python -m pictures.look NAME [--FLAG VALUE ...]: pictures of some clips with their labels.

Writes NAME.png (one row per clip) and NAME.gif into runs_dir/look. The flags are main.py's.
"""

import sys
from pathlib import Path

import numpy as np

from data.base import IMAGE_SIZE, SPLITS, Dataset
from data.info import dataset_of
from pictures.files import save_gif, save_png, sheet
from utils.errors import UserError, in_one_line

CLIPS, COLUMNS = 4, 12  # clips per split, and frames per row at most
LONGEST = 100  # frames of the GIF at most
STRIP = 14  # height of a line of text, px


def choose(dataset: Dataset) -> list[tuple[str, int]]:
    """Split and row of a few clips of each split, always the same ones."""
    rng = np.random.default_rng(0)
    rows = {name: rng.permutation(len(dataset.splits[name]))[:CLIPS] for name in SPLITS}
    return [(name, int(row)) for name in SPLITS for row in np.sort(rows[name])]


def caption(dataset: Dataset, split: str, row: int) -> list[str]:
    """Split and row of a clip, then its labels in words."""
    clips, words = dataset.split(split), [f"{split} {row}"]
    for factor in dataset.factors:
        words.append(f"{factor} {dataset.classes[factor][clips.label(factor, row)]}")
    return words


def draw_text(lines: list[str], width: int) -> np.ndarray:
    """Lines of text as a picture uint8 [STRIP len(lines), width, 3]."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width, STRIP * len(lines)))
    for i, line in enumerate(lines):
        ImageDraw.Draw(picture).text((2, STRIP * i + 1), line, (230, 230, 230))
    return np.asarray(picture)


def whole_clip(dataset: Dataset, split: str, row: int) -> np.ndarray:
    """All frames of a clip, not copied: uint8 [T, 64, 64, 3]."""
    clips = dataset.split(split)
    start, length = clips.first[row], clips.lengths[clips.index[row]]
    return clips.frames[start : start + length]


def contact_sheet(dataset: Dataset, chosen: list) -> np.ndarray:
    """One row per clip with its labels above it, up to COLUMNS frames evenly spaced: [H, W, 3]."""
    clips, pieces = [whole_clip(dataset, *place) for place in chosen], []
    columns = min(COLUMNS, max(map(len, clips)))
    for place, clip in zip(chosen, clips):
        times = np.unique(np.linspace(0, len(clip) - 1, columns).round().astype(int))
        tiles = np.zeros((1, columns, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        tiles[0, : len(times)] = clip[times]
        frames = sheet(tiles)
        pieces += [draw_text(["  ".join(caption(dataset, *place))], frames.shape[1]), frames]
    return np.concatenate(pieces)


def film(dataset: Dataset, chosen: list) -> np.ndarray:
    """The clips side by side, one row per split, their labels above them: uint8 [T, H, W, 3].

    T is the length of the longest clip, at most LONGEST. Shorter clips repeat.
    """
    clips = [whole_clip(dataset, *place)[:LONGEST] for place in chosen]
    captions = [caption(dataset, *place) for place in chosen]
    # Frames are shown at twice their size, so that the text fits.
    lines, width = max(map(len, captions)), 2 * IMAGE_SIZE
    height, times = STRIP * lines + width, np.arange(max(map(len, clips)))
    tiles = np.zeros((len(times), len(SPLITS), CLIPS, height, width, 3), np.uint8)
    column = dict.fromkeys(SPLITS, 0)
    for (split, _), words, clip in zip(chosen, captions, clips):
        tile = tiles[:, SPLITS.index(split), column[split]]
        column[split] += 1
        tile[:, : STRIP * lines] = draw_text(words + [""] * (lines - len(words)), width)
        tile[:, STRIP * lines :] = clip.repeat(2, 1).repeat(2, 2)[times % len(clip)]
    return np.stack([sheet(picture) for picture in tiles])


@in_one_line
def main(argv: list[str]) -> int:
    """Write the pictures; the exit status is 2 if the set, a flag or the disk is at fault."""
    dataset, settings = dataset_of(argv, "python -m pictures.look")
    folder, chosen = Path(settings.runs_dir) / "look", choose(dataset)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_png(folder / f"{dataset.name}.png", contact_sheet(dataset, chosen))
        save_gif(folder / f"{dataset.name}.gif", film(dataset, chosen), dataset.fps)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): change --runs_dir") from None
    print(f"wrote {folder / dataset.name}.png and .gif: {len(chosen)} clips with their labels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
