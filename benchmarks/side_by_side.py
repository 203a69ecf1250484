"""The swaps of several runs in one GIF, a panel per run: each motion with each identity.

    python -m benchmarks.side_by_side RUN [RUN ...] --to FILE.gif [--runs_dir ./runs/] [--clips 4]

The runs must be of one data set; their newest checkpoints are read. Each panel has the model's name
as its title and shows the same clips.
"""

import sys
from pathlib import Path

import numpy as np

import data
from models.view import VideoModel
from pictures.drawing import swap_panel
from pictures.files import save_gif
from pictures.sheets import Sheet, beside
from utils import guards
from utils.errors import UserError, in_one_line
from utils.flags import OneLineParser
from utils.plan import parse
from utils.run_folder import RunFolder
from utils.settings import RunSettings

GAP = 24  # px between panels


def last_stage(folder: Path) -> tuple[VideoModel, RunSettings]:
    """The view of the newest checkpoint of the last stage of the run in `folder`, and its settings.

    Raises UserError if there is none.
    """
    plan = parse(["--config", str(folder / "config.json"), "--runs_dir", str(folder.parent)])
    run = RunFolder(plan.first)
    name, path = list(guards.to_test(plan, run).items())[-1]
    settings = plan.stages[name]
    stage = settings.info(name).stage().build(settings)
    stage.network.load_state_dict(run.load(path, name)["model"])
    stage.network.eval()
    return stage.view(), settings


def panels(folders: list[Path], clips: int) -> tuple[np.ndarray, float]:
    """The panels of the runs side by side as frames uint8 [T, H, W, 3], and frames per second."""
    loaded = [last_stage(folder) for folder in folders]
    names = {settings.dataset_name for _, settings in loaded}
    if len(names) > 1:
        problem = f"found runs on {' and '.join(sorted(names))}, expected one data set"
        raise UserError(f"{problem}: give runs on one of them")
    dataset = data.load(loaded[0][1])
    length = min(*(settings.seq_len for _, settings in loaded), dataset.split("test").num_frames)
    films = []
    for view, settings in loaded:
        model = settings.model.upper() if len(settings.model) < 5 else settings.model.capitalize()
        title = f"{model}: motion of the row, identity of the column"
        tiles, labels = swap_panel(view, dataset, clips, length, title)
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
    film, fps = panels([given.runs_dir / run for run in given.runs], given.clips)
    try:
        save_gif(given.to, film, fps)
    except OSError as error:
        raise UserError(f"cannot write {given.to} ({error.strerror}): change --to") from None
    print(f"wrote {given.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
