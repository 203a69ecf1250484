"""python -m pictures.look NAME [--FLAG VALUE ...]: pictures of some clips with their labels.

Writes NAME.png (one row per clip) and NAME.gif into runs_dir/look. The flags are main.py's.
"""

import sys
from pathlib import Path

import numpy as np

from data.base import IMAGE_SIZE, SPLITS, Dataset
from data.info import dataset_of
from pictures.choose import distinct
from pictures.files import save_gif, save_png, sheet
from pictures.sheets import LINE, Labels, Sheet, text, wrap
from utils.errors import UserError, in_one_line

CLIPS, COLUMNS = 4, 12  # clips per split, and frames per row at most
LONGEST = 100  # frames of the GIF at most


def choose(dataset: Dataset) -> list[tuple[str, int]]:
    """Split and row of a few clips of each split that differ, always the same ones."""
    rows = {name: distinct(dataset, dataset.split(name), CLIPS) for name in SPLITS}
    return [(name, int(row)) for name in SPLITS for row in rows[name]]


def caption(dataset: Dataset, split: str, row: int) -> list[str]:
    """Split and row of a clip, then its labels in words."""
    clips, words = dataset.split(split), [f"{split} {row}"]
    for factor in dataset.factors:
        words.append(f"{factor} {dataset.classes[factor][clips.label(factor, row)]}")
    return words


def whole_clip(dataset: Dataset, split: str, row: int) -> np.ndarray:
    """All frames of a clip, not copied: uint8 [T, 64, 64, 3]."""
    clips = dataset.split(split)
    start, length = clips.first[row], clips.lengths[clips.index[row]]
    return clips.frames[start : start + length]


def contact_sheet(dataset: Dataset, chosen: list) -> np.ndarray:
    """One row per clip below its labels, up to COLUMNS numbered frames of it: uint8 [H, W, 3]."""
    clips, pieces = [whole_clip(dataset, *place) for place in chosen], []
    columns = min(COLUMNS, max(map(len, clips)))
    for place, clip in zip(chosen, clips):
        times = np.unique(np.linspace(0, len(clip) - 1, columns).round().astype(int))
        numbers = [str(t + 1) for t in times] + [""] * (columns - len(times))
        blank = [(0, column) for column in range(len(times), columns)]
        labels = Labels(", ".join(caption(dataset, *place)), columns=numbers, blank=blank)
        pieces.append(Sheet(1, columns, IMAGE_SIZE, labels).filled(clip[times][None]))
    return np.concatenate(pieces)


def film(dataset: Dataset, chosen: list) -> np.ndarray:
    """The clips side by side, one row per split, their labels above them: uint8 [T, H, W, 3].

    T is the length of the longest clip, at most LONGEST. Shorter clips repeat.
    """
    clips = [whole_clip(dataset, *place)[:LONGEST] for place in chosen]
    captions = [caption(dataset, *place) for place in chosen]
    # Frames are shown at twice their size, so that the text fits.
    lines, width = max(map(len, captions)), 2 * IMAGE_SIZE
    height, times = LINE * lines + width, np.arange(max(map(len, clips)))
    tiles = np.zeros((len(times), len(SPLITS), CLIPS, height, width, 3), np.uint8)
    column = dict.fromkeys(SPLITS, 0)
    for (split, _), words, clip in zip(chosen, captions, clips):
        tile = tiles[:, SPLITS.index(split), column[split]]
        column[split] += 1
        words = [line for word in words for line in wrap(word, width, 1)]
        tile[:, : LINE * lines] = text(words + [""] * (lines - len(words)), width)
        tile[:, LINE * lines :] = clip.repeat(2, 1).repeat(2, 2)[times % len(clip)]
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
