"""The swaps of several runs in one GIF, a panel per run: each motion with each identity.

    python -m benchmarks.side_by_side RUN [RUN ...] --to FILE.gif [--runs_dir ./runs/] [--clips 4]

The runs must be of one data set; their newest checkpoints are read. Each panel has the model's name
as its title and shows the same clips.
"""

import sys
from pathlib import Path

import numpy as np

import api
import data
from pictures.drawing import swap_panel
from pictures.files import save_gif
from pictures.sheets import Sheet, beside
from utils.errors import UserError, in_one_line
from utils.flags import OneLineParser

GAP = 24  # px between panels


def panels(folders: list[Path], clips: int) -> tuple[np.ndarray, float]:
    """The panels of the runs side by side as frames uint8 [T, H, W, 3], and frames per second."""
    loaded = [api.load(folder, device="cpu") for folder in folders]
    names = {model.settings.dataset_name for model in loaded}
    if len(names) > 1:
        problem = f"found runs on {' and '.join(sorted(names))}, expected one data set"
        raise UserError(f"{problem}: give runs on one of them")
    dataset = data.load(loaded[0].settings)
    length = min(*(model.seq_len for model in loaded), dataset.split("test").num_frames)
    films = []
    for model in loaded:
        name = model.settings.model
        name = name.upper() if len(name) < 5 else name.capitalize()
        title = f"{name}: motion of the row, identity of the column"
        tiles, labels = swap_panel(model.view, dataset, clips, length, title)
        sheet = Sheet(*tiles.shape[:2], tiles.shape[3], labels, clocked=True)
        films.append(sheet.film(tiles, None))
    return beside(films, GAP), dataset.fps


@in_one_line
def main(argv: list[str]) -> int:
    """Write the GIF; the exit status is 2 if a run, a flag or the disk is at fault."""
    parser = OneLineParser("python -m benchmarks.side_by_side", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs on one data set")
    parser.add_argument("--to", type=Path, required=True, help="the file to write")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--clips", type=int, default=4, help="clips per panel (default: 4)")
    given = parser.parse_args(argv)
    if given.clips < 1:
        parser.error(f"found --clips {given.clips}, expected a positive integer")
    if given.to.suffix.lower() != ".gif" or not given.to.parent.is_dir():
        raise UserError(
            f"cannot write {given.to}: give a name that ends in .gif, in a folder that is there"
        )
    film, fps = panels([given.runs_dir / run for run in given.runs], given.clips)
    try:
        save_gif(given.to, film, fps)
    except OSError as error:
        raise UserError(f"cannot write {given.to} ({error.strerror}): change --to") from None
    print(f"wrote {given.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
