"""The folders and files of one run: saved settings and checkpoints.

`{e}_{suffix}.pth` is written after epoch e, `step_{e}_{k}_{suffix}.pth` after k steps of epoch e.
The suffix is that of the stage's `utils.settings.StageInfo`.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from utils.checkpoints import Damaged, check_sum, load_checkpoint
from utils.errors import UserError
from utils.files import read_json, replacing, sweep, unused, write_text
from utils.limits import out_of_memory
from utils.plan import of_today
from utils.settings import MODELS, RunSettings, settings_class

RELEASE_MODELS = Path("models")  # where the authors' code keeps checkpoints
CONFIG_TEXT = "config.txt"  # the flags, beside pictures and checkpoints as in the authors' code


class RunFolder:
    """The folders of one run: runs/RUN, or RUN in the folders that the path flags name."""

    def __init__(self, settings: RunSettings):
        self.settings = settings  # of any stage
        self.stages = {info.name: info for info in settings.STAGES}
        self.root = Path(settings.runs_dir) / settings.RUN
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.json"
        self.report = self.root / "report.html"
        self.log = self.root / "log.txt"  # warnings

        def place(path_flag, name):
            return Path(path_flag) / settings.RUN if path_flag else self.root / name

        self.images = place(settings.image_path, "images")
        self.checkpoints = place(settings.model_save_path, "checkpoints")
        self.tensorboard = place(settings.log_dir, "tensorboard")
        self.codes = place(settings.code_path, "codes")
        self.damaged = {}  # {path: why the checkpoint cannot be used}; such a file is passed over
        self._checked = set()  # checkpoints that hold what they must
        # a run that the authors' code began is resumed in its folder
        release = RELEASE_MODELS / settings.RUN
        if not settings.model_save_path and not any(self.checkpoints.glob("*.pth")):
            if any(self.stage_of(path) for path in release.glob("*.pth")):
                self.checkpoints = release

    @classmethod
    def at(cls, root: Path) -> RunFolder:
        """The run in the folder `root`, wherever it was written; also a folder of checkpoints.

        The names of the checkpoints tell the model. Raises UserError if there is none.
        """
        for place, model in itertools.product(_checkpoint_folders(root), MODELS):
            run = cls(settings_class(model)(RUN=root.name, runs_dir=str(root.parent)))
            run.checkpoints = place
            if any(run.places(name) for name in run.stages):
                return run
        raise UserError(
            f"found no checkpoint in {root}: give the folder of a run, such as runs/demo"
        )

    def make(self, codes: bool = False) -> None:
        """Create the folders, with that of the codes if asked; UserError if one is not writable."""
        folders = [self.root, self.images, self.checkpoints, self.tensorboard]
        for folder in [*folders, self.codes] if codes else folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / ".writable"
                probe.write_text("")
                probe.unlink()
            except OSError as error:
                raise UserError(
                    f"cannot write to {folder} ({error.strerror}): choose another --runs_dir or "
                    "path flag"
                ) from None

    @property
    def outermost(self) -> list[Path]:
        """The folders of the run that lie in no other of them."""
        folders = self.root, self.images, self.checkpoints, self.tensorboard, self.codes
        return [f for f in dict.fromkeys(folders) if not any(g in f.parents for g in folders)]

    def set_aside(self, keep: Path | None = None) -> list[str]:
        """Rename the folders of the run (--fresh) and return the new names. Nothing is deleted.

        keep: a checkpoint of an earlier stage that the new run stands on. The new run begins with a
        copy of it, and with the settings of that stage. The new folders are made beside the old
        ones before these are renamed, so that `finish_set_aside` can go on after a kill.
        """
        for folder in self.outermost:
            shutil.rmtree(_beside(folder), ignore_errors=True)
        if keep:
            self._make_beside(keep)
        names = []
        for folder in self.outermost:
            if folder.is_dir() and any(folder.iterdir()):
                new = unused(folder)
                folder.rename(new)
                names.append(str(new))
            self._put_in_place(folder)
        self.damaged = {}  # the damaged files went with the folders
        return names

    def _make_beside(self, keep):
        """Make the folders of a run that holds `keep` and its settings, under other names."""

        def beside(path):
            folder = next(f for f in self.outermost if f in path.parents)
            new = _beside(folder) / path.relative_to(folder)
            new.parent.mkdir(parents=True, exist_ok=True)
            return new

        saved, stage_name = self.saved_settings(), self.stage_of(keep)
        kept = {name: values for name, values in saved.items() if name == stage_name}
        write_text(beside(self.config), json.dumps(kept, indent=1) + "\n")
        with replacing(beside(keep), sync=True) as copy:
            shutil.copy2(keep, copy)

    def unfinished(self) -> bool:
        """Whether a kill may have interrupted `set_aside`."""
        return any(_beside(folder).is_dir() for folder in self.outermost)

    def finish_set_aside(self) -> None:
        """Go on where a kill interrupted `set_aside`; nobody else may write to the folders."""
        for folder in self.outermost:
            if folder.is_dir() and any(folder.iterdir()):
                # it was not renamed yet, or another run has begun in it since
                shutil.rmtree(_beside(folder), ignore_errors=True)
            self._put_in_place(folder)

    def _put_in_place(self, folder):
        """Give `folder`, absent or empty, what was made beside it, if there is anything."""
        if _beside(folder).is_dir():
            if folder.is_dir():
                folder.rmdir()
            _beside(folder).rename(folder)

    def saved_settings(self) -> dict[str, dict]:
        """The saved configuration, {stage: {flag: value}}; {} if there is none."""
        try:
            saved = read_json(self.config)
            if not isinstance(saved, dict) or not all(isinstance(v, dict) for v in saved.values()):
                raise ValueError("not {stage: {flag: value}}")
            return saved
        except FileNotFoundError:
            return {}
        except (ValueError, OSError):
            raise UserError(
                f"{self.config} cannot be read: --fresh True starts over and keeps the old folder"
            ) from None

    def save_settings(self, stages: dict[str, RunSettings]) -> None:
        """Write config.json, and config.txt beside pictures and checkpoints as the release does."""
        saved = self.saved_settings() | {name: asdict(s) for name, s in stages.items()}
        write_text(self.config, json.dumps(saved, indent=1) + "\n")
        lines = []
        for name, values in saved.items():
            lines += [f"[{name}]\n", *(f"{flag}: {value}\n" for flag, value in values.items())]
        for folder in (self.images, self.checkpoints):
            write_text(folder / CONFIG_TEXT, "".join(lines))

    def stage_of(self, path: Path) -> str | None:
        """Name of the stage whose checkpoint `path` is; None if it is another file."""
        names = (n for n, i in self.stages.items() if path.name.endswith(f"_{i.suffix}.pth"))
        return next(names, None)

    def load(self, path: Path, stage: str, mapped: bool = False) -> dict:
        """The checkpoint `path` of `stage`, its settings under the flags of today.

        Raises `Damaged` if it cannot be read, or is not what its name and the stage say.
        """
        from utils.schema import check  # imports torch

        state, info = load_checkpoint(path, self.settings.adopt, mapped), self.stages[stage]
        try:
            state = {**state, "settings": of_today(state["settings"], stage)}
            if path not in self._checked:
                check(state, info, self.settings, self._place(path, info))
                self._checked.add(path)
        except Exception as error:  # wrong types raise anything
            if out_of_memory(error):
                raise  # the file may be whole
            why = str(error) if isinstance(error, ValueError) else repr(error)
            number = self.settings.number(stage)
            raise Damaged(path, f"is no checkpoint of stage {number} ({why})") from None
        return state

    def places(self, stage: str) -> list[tuple[tuple[int, int], Path]]:
        """The checkpoints of a stage, oldest first: ((epochs done, steps of the next), path)."""
        info, places = self.stages[stage], []
        for path in self.checkpoints.glob(f"*_{info.suffix}.pth"):
            place = self._place(path, info)
            if place and path not in self.damaged:
                places.append((place, path))
        return sorted(places)

    def _place(self, path, info):
        """(epochs done, steps of the next) by the name of a checkpoint; None for another name."""
        match = re.fullmatch(rf"(?:(\d+)|step_(\d+)_(\d+))_{info.suffix}\.pth", path.name, re.ASCII)
        if match is None:
            return None
        after, epoch, step = match.groups()
        return (int(after) + 1, 0) if after else (int(epoch), int(step))

    def epochs(self, stage: str) -> list[int]:
        """The epochs after which there is a checkpoint of the stage, ascending."""
        places = ((epoch - 1, path) for (epoch, _), path in self.places(stage))
        return [epoch for epoch, path in places if path == self.checkpoint(stage, epoch)]

    def checkpoint(self, stage: str, epoch: int) -> Path:
        """Path of the checkpoint of the stage after `epoch`."""
        return self.checkpoints / f"{epoch}_{self.stages[stage].suffix}.pth"

    def checkpoint_at(self, stage: str, epoch: int, step: int) -> Path:
        """Path of the checkpoint of the stage after `step` steps of `epoch`."""
        return self.checkpoints / f"step_{epoch}_{step}_{self.stages[stage].suffix}.pth"

    @staticmethod
    def densities(checkpoint: Path) -> Path:
        """Path of the densities that are fitted to the codes of a checkpoint, beside it."""
        return checkpoint.with_suffix(".fitted.npz")

    def choose(self, stage: str, wanted: int | None = None) -> Path | None:
        """Path of the checkpoint after epoch `wanted`, by default the newest after an epoch.

        None if there is no checkpoint. Raises UserError if there is none of epoch `wanted`.
        """
        epochs = self.epochs(stage)
        if wanted is None:
            return self.checkpoint(stage, epochs[-1]) if epochs else None
        path = self.checkpoint(stage, wanted)
        if wanted not in epochs:
            if path in self.damaged:
                raise Damaged(path, self.damaged[path])
            there = "there is none; train that stage first"
            if epochs:
                there = f"there are {', '.join(map(str, epochs))}"
            raise UserError(f"{path} is not there ({there}): see --{self.stages[stage].pretrained}")
        return path

    def select(self, which: str = "last", number: int | None = None) -> Path:
        """Path of the 'last' or the 'best' checkpoint of a stage, by default of the last stage.

        number: of the stage. Raises UserError if there is none.
        """
        if which not in ("last", "best"):
            raise UserError(f"found '{which}', expected 'last' or 'best'")
        names = [n for n in self.stages if number in (None, self.settings.number(n))]
        there = [name for name in names if self.places(name)]
        if not there:
            stage = f"of stage {number} " if number else ""
            raise UserError(f"found no checkpoint {stage}in {self.checkpoints}: train one first")
        path = self.best(there[-1]) if which == "best" else self.choose(there[-1])
        return path or self.places(there[-1])[-1][1]

    def best(self, stage: str) -> Path:
        """Path of the checkpoint of the stage with the best validation ELBO.

        Raises UserError if none was validated, or if the best one is not there.
        """
        newest = self.newest(stage)
        place = self.load(newest, stage, mapped=True).get("place", {}) if newest else {}
        if not place.get("best"):
            number = self.settings.number(stage)
            found = f"no checkpoint of stage {number} in {self.checkpoints} has a validation ELBO"
            raise UserError(f"{found}: give --select last")
        path = self.choose(stage, place["best"][0])
        assert path is not None
        return path

    def newest(self, stage: str) -> Path | None:
        """Path of the newest checkpoint of the stage, also within an epoch, or None."""
        places = self.places(stage)
        return places[-1][1] if places else None

    def left_by_signals(self, stage: str) -> list[Path]:
        """The newest checkpoints of the stage that a run without signals would not have written."""
        c, places, left = self.settings, self.places(stage), []
        at = [place for place, _ in places]
        for (epoch, step), path in reversed(places):
            steps = epoch * c.bs_per_epoch + step
            due = c.save_every_steps and steps % c.save_every_steps == 0
            retry = (
                steps == 0 or at.count((epoch, step)) > 1
            )  # of the place beside it, or the start
            if due or retry or not path.name.startswith("step_"):
                break
            left.append(path)
        return left

    def inspect(self) -> None:
        """Find the damaged ones among the newest checkpoints; see `damaged`.

        Reads each stage's checkpoints back to the newest whole one written after an epoch.
        """
        for stage in self.stages:
            for _, path in reversed(self.places(stage)):
                try:
                    check_sum(path)
                    self.load(path, stage, mapped=True)
                    if path == self.choose(stage):
                        break
                except Damaged as error:
                    self.damaged[path] = error.why

    def put_away(self, show: Callable[[str], None]) -> None:
        """Rename the damaged checkpoints. show: function that prints a line about each."""
        for path, why in self.damaged.items():
            new = unused(path, "damaged")
            path.rename(new)
            show(f"{path} {why}: kept as {new.name}")
        self.damaged = {}

    def sweep(self) -> None:
        """Remove what killed runs left half-written, but nothing that a living process writes."""
        for info in self.stages.values():
            sweep(self.checkpoints, f"*_{info.suffix}.pth")
            sweep(self.checkpoints, f"*_{info.suffix}.fitted.npz")
        sweep(self.checkpoints, CONFIG_TEXT)
        for folder in (self.root, self.images):
            sweep(folder)

    def prune(self, stage: str, written: Path, keep: int, spared: Iterable[int] = ()) -> None:
        """Remove the stage's checkpoints that the new checkpoint `written` makes superfluous.

        These are all others within an epoch and, with keep > 0, all after an epoch but the newest
        `keep` and those of the epochs `spared`.
        """
        newest = self.epochs(stage)[-keep:] if keep else []
        kept = {written, *(self.checkpoint(stage, epoch) for epoch in (*newest, *spared))}
        for _, path in self.places(stage):
            if path not in kept and (keep or path.name.startswith("step_")):
                path.unlink(missing_ok=True)
                self.densities(path).unlink(missing_ok=True)


def _checkpoint_folders(root):
    """Where the run in the folder `root` may have its checkpoints."""
    yield from (root / "checkpoints", root)
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        for values in read_json(root / "config.json").values():
            if flag := values["model_save_path"]:
                # a path flag is relative to the folder that the run was started in
                for start in (*root.resolve().parents, Path()):
                    yield start / flag / values["RUN"]


def _beside(folder):
    """Where a folder of a new run is made while the old one is still in its place."""
    return folder.with_name(f".{folder.name}.fresh")
