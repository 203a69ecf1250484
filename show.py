"""--show: swaps, transfers and samples of the models in weights/, in seconds, into runs/show."""

from pathlib import Path

import numpy as np
import torch

import api
import share
from pictures.drawing import Shown, swap_grid, swap_labels
from pictures.files import Album
from pictures.sheets import Labels
from utils import hub
from utils.errors import UserError
from utils.settings import RunSettings
from utils.step import choose_device
from utils.weights_file import SUFFIX

FOLDER = "show"  # in --runs_dir
SAMPLES = 3, 6  # rows and columns
LONGER = 2.5  # how much longer than in training a transferred motion is, if the model can


def show(settings: RunSettings) -> None:
    """Draw each model of the folder weights, or --weights, and print what the pictures are."""
    device = choose_device(settings.device, settings.threads, settings.precision)
    files = [settings.weights] if settings.weights else sorted(share.ALL_MODELS.glob(f"*{SUFFIX}"))
    if not files:
        raise UserError(f"found no {SUFFIX} file in {share.ALL_MODELS}: give --weights FILE")
    folder = Path(settings.runs_dir) / FOLDER
    if (folder / "config.json").exists():
        raise UserError(f"{folder} is the folder of a run: give another --runs_dir")
    for file in files:
        model = api.load(file, device=device.type)
        if model.clips is None:
            raise UserError(f"--weights {file} is no {SUFFIX} file: export it first")
        folder.mkdir(parents=True, exist_ok=True)
        name = str(file).removeprefix(hub.PREFIX).replace("/", "-")
        draw(model, folder, name if str(file).startswith(hub.PREFIX) else Path(file).stem)


def draw(model: api.Model, folder: Path, name: str) -> None:
    """Write the pictures of a model into `folder`, under names that begin with `name`."""
    assert model.clips is not None and model.card is not None
    static, dynamic = (torch.from_numpy(code) for code in model.clips)
    clips = model.decode(*model.clips)
    identities, motions = (list(part) for part in zip(*model.card["clips"]))
    shown = Shown(static, dynamic, clips, np.arange(len(clips)), identities, motions)
    length = clips.shape[1]
    album = Album(folder, 0, model.card["data"]["fps"], lambda *_: None)

    def write(kind, tiles, labels, trained=None):
        """Write tiles [rows, columns, T, 64, 64, 3] as a GIF, and their middle frame."""
        album.gif(f"{name}_{kind}.gif", tiles, labels, trained)
        album.png(f"{name}_{kind}.png", (tiles[:, :, tiles.shape[2] // 2], labels))
        print(f"{folder / name}_{kind}.gif: {labels.title}")

    swaps = swap_grid(model.view, shown).transpose(1, 2, 0, 3, 4, 5)
    write("swap", swaps, swap_labels(shown, "pose" if model.frames_only else "motion"))
    frames = int(length * LONGER) if model.continues else length
    moved = model.decode(static.roll(-1, 0), dynamic, frames)
    source = model.decode(static, dynamic, frames)
    still = np.broadcast_to(np.roll(clips, -1, 0)[:, :1], source.shape)
    title = "Transfer: the motion of one clip, the identity of another"
    if frames > length:
        title += f"; {frames} frames of a model that was trained on {length}"
    labels = Labels(title, rows=["motion of", "identity of", "result"], columns=motions)
    write("transfer", np.stack([source, still, moved]), labels, length)
    rows, columns = SAMPLES
    drawn = model.sample(rows * columns, seed=0)
    grid = drawn.reshape(rows, columns, *drawn.shape[1:])
    write("samples", grid, Labels("Clips whose codes are drawn: the model has invented them"))
