"""--transfer, --encode, --generate, --continue_to, --traverse: a trained model on a user's files.

What a user can mend is told before torch is imported. Nothing is written but the new file --out.
"""

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from data import one_clip
from data.base import Dataset
from pictures.files import save_gif, save_mp4, save_png, sheet
from utils import hub
from utils.errors import UserError
from utils.files import regular, replacing
from utils.flags import value_of
from utils.modules import module
from utils.run_folder import RunFolder
from utils.settings import DATASETS, FILES, RunSettings

SUFFIXES = ".gif", ".mp4", ".png", ".npz"
MOST = 20_000  # frames of one result
TASKS = "export_codes", "report"  # flags of what a command does after training or testing
MEASURES = "evaluate", "test_harness"


def use(settings: RunSettings, argv: list[str]) -> None:
    """Write what the flags ask for to settings.out, or raise UserError and write nothing.

    argv: the command's flags.
    """
    refuse_tasks(settings, argv, (*TASKS, *MEASURES))
    out = refuse_at_once(settings)
    path = trained(settings)

    import api
    from utils.step import choose_device

    device = choose_device(settings.device, settings.threads, settings.precision)
    model = api.load(path, device=device.type)
    # --draw_from has a default, and only the command's own word overrides that of the run
    given = settings.draw_from != "prior" or value_of(argv, "--draw_from")
    what, arrays, grid = result(model, settings, settings.draw_from if given else None)
    write(out, arrays, grid, rate_of(model.settings.dataset_name))
    if not settings.quiet:
        print(f"wrote {out}: {what} ({path})")


def trained(settings: RunSettings) -> Path | str:
    """The model that --weights names, else the checkpoint of --RUN that --select names.

    Raises UserError if there is none. A name on the Hub is not looked up.
    """
    if name := settings.weights:
        if settings.select == "best":
            raise UserError("--select best chooses a checkpoint of --RUN; --weights is one model")
        if not name.startswith(hub.PREFIX):
            if not Path(name).exists():
                raise UserError(f"--weights {name}: found no such file")
            regular(name)
        return name
    folder = RunFolder(settings)
    held = any(folder.checkpoints.glob("*.pth"))
    return RunFolder.at(folder.checkpoints if held else folder.root).select(settings.select)


def refuse_tasks(settings: RunSettings, argv: list[str], names: tuple[str, ...]) -> None:
    """Raise UserError if the command's flags `argv` also ask to train, or for one of `names`.

    What a preset asks for does not count: `--preset demo --generate 9` uses its trained run.
    """
    given = {part.split("=")[0] for part in argv}
    for name in (*(info.train for info in settings.STAGES), *names):
        if f"--{name}" in given and getattr(settings, name) not in (False, "none"):
            files = [f.name for f in fields(settings) if f.metadata["group"] == FILES]
            what = next(f"--{n}" for n in files if getattr(settings, n))
            raise UserError(f"found --{name} beside {what}: give each in a command of its own")


def refuse_at_once(settings: RunSettings) -> Path:
    """The path --out. Raises UserError for flags and files that the command cannot do with."""
    c = settings
    given = [f"--{n}" for n in ("transfer", "encode", "generate") if getattr(c, n) is not None]
    shared = [f"--{n}" for n in ("export_weights", "push_to", "show") if getattr(c, n)]
    if len(given) > 1 or shared:
        names = " and ".join([*(given or ["a command on files"]), *shared])
        raise UserError(f"found {names}: give one of them")
    if not given and not c.traverse:
        clips = "--encode PATH, --transfer A B or --generate N"
        raise UserError(f"--continue_to {c.continue_to} needs clips: add {clips}")
    if c.traverse and (c.transfer or (c.generate or 1) > 1 or c.continue_to):
        raise UserError("--traverse takes the one clip of --encode, or a new one: give no other")
    for path in [*(c.transfer or ()), *filter(None, [c.encode])]:
        one_clip.refuse_unreadable(path)
    if c.out is None:
        raise UserError(f"{' '.join(given) or '--traverse'} needs --out FILE: {_kinds()}")
    return new_file("--out", c.out, SUFFIXES)


def new_file(flag: str, name: str, suffixes: tuple[str, ...]) -> Path:
    """The path `name`. Raises UserError if it is there, lies in no folder or ends otherwise."""
    path = Path(name)
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{flag} {path}: {_kinds(suffixes)}")
    if os.path.lexists(path):  # also a link that leads nowhere
        raise UserError(f"{flag} {path} is already there: give another name, or move it away")
    if not path.parent.is_dir():
        raise UserError(f"{flag} {path}: found no folder {path.parent}: make it first")
    return path


def _kinds(suffixes=SUFFIXES):
    return f"expected a name that ends in {', '.join(suffixes)}".replace(", .npz", " or .npz")


def result(
    model: Any, settings: RunSettings, draw_from: str | None
) -> tuple[str, dict[str, np.ndarray], np.ndarray]:
    """A line of text, arrays by name, and uint8 [rows, columns, T, 64, 64, 3] to show.

    model: an api.Model. draw_from: see its `sample`.
    """
    c = settings
    frames = c.continue_to or model.seq_len
    if (count := frames * (c.generate or 1)) > MOST:
        found = f"--generate and --continue_to ask for {count:,} frames"
        raise UserError(f"{found}, expected at most {MOST:,}: lower one of them")
    if c.traverse:
        clip = c.encode or model.sample(1, seed=c.seed, draw_from=draw_from)[0]
        arrays = model.traverse(clip, c.seed)
        longest = max(tiles.shape[2] for tiles in arrays.values())
        rows = [np.repeat(t, longest // t.shape[2], 2) for t in arrays.values()]
        names = ", ".join(f"{len(tiles)} of {name}" for name, tiles in arrays.items())
        return f"{c.encode or 'a new clip'}, by row: {names}", arrays, np.concatenate(rows)
    if c.generate:
        made = model.sample(c.generate, frames, c.seed, draw_from)
        columns = math.ceil(math.sqrt(len(made)))
        empty = np.zeros((-len(made) % columns, *made.shape[1:]), np.uint8)
        grid = np.concatenate([made, empty]).reshape(-1, columns, *made.shape[1:])
        number = "1 new clip" if len(made) == 1 else f"{len(made)} new clips"
        return f"{number} of {frames} frames", {"frames": made}, grid
    motion, identity = c.transfer or (c.encode, c.encode)
    dynamic, static = model.encode(motion).dynamic, model.encode(identity).static
    made = model.decode(static, dynamic, c.continue_to)
    what = f"{len(made)} frames of {motion}"
    if c.transfer:
        what = f"{len(made)} frames, the motion of {motion} on the identity of {identity}"
    return what, {"static": static, "dynamic": dynamic, "frames": made}, made[None, None]


def rate_of(dataset_name: str) -> int:
    """Frames per second of the clips of a data set, which need not be there."""
    return getattr(module(DATASETS[dataset_name]), "FIELDS", {}).get("fps", Dataset.fps)


def write(out: Path, arrays: dict[str, np.ndarray], grid: np.ndarray, fps: int) -> None:
    """Write the arrays (.npz), or the pictures of `grid`, to the new file `out`.

    grid: uint8 [rows, columns, T, 64, 64, 3]. fps: frames per second of a GIF or MP4.
    """
    kind = out.suffix.lower()
    if kind == ".npz":
        with replacing(out) as beside, open(beside, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    elif kind == ".png":
        # one row per clip; of a traversal the last frame, where clips of other motions differ most
        frames = arrays.get("frames")
        tiles = grid[:, :, -1] if frames is None else frames.reshape(-1, *grid.shape[2:])
        save_png(out, sheet(tiles))
    else:
        frames = np.stack([sheet(grid[:, :, t]) for t in range(grid.shape[2])])
        (save_gif if kind == ".gif" else save_mp4)(out, frames, fps)
