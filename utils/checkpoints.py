"""Files of a run: where they lie, checkpoints written whole or not at all, the saved configuration.

A checkpoint is a dict of 'epoch' (the next one to run, which with the settings gives every schedule's position), 'model',
'optimizer' (as the release's) and beside them 'settings', 'data' (the data set's fingerprint), 'rng' (the state of the
noise's generators) and 'place' (see `Place`), all of types that `weights_only=True` loads. Its checksum is that of the zip
archive that torch writes: a CRC-32 a record, which is checked before a tensor is used. Released checkpoints are read too:
`load_checkpoint` turns them into ours, where 'settings' are the sizes alone and 'data' and 'rng' None, for they hold no more.

`{e}_VDSM_*.pth` is written after epoch e; `step_{e}_{k}_VDSM_*.pth` after k steps of epoch e, and the next one replaces it.
"""

import errno
import json
import os
import re
import shutil
import threading
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from models.vdsm import release
from utils.config import shown
from utils.errors import UserError

RELEASE_MODELS = Path("models")  # where the release keeps checkpoints
PART = ".part"  # of a file that is being written


class Damaged(UserError):
    """A file that cannot be used: truncated, changed since it was written, or no checkpoint at all."""

    def __init__(self, path, why):
        super().__init__(f"{path} {why}: use another epoch's, or train it again")
        self.why = why


class RunFolder:
    """The folders of one run: runs/RUN and below, or where the release's path flags say, under RUN."""

    def __init__(self, settings):
        self.stages = {info.name: info for info in settings.STAGES}
        self.root = Path(settings.runs_dir) / settings.RUN
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.json"
        self.report = self.root / "report.html"
        self.log = self.root / "log.txt"  # warnings

        def place(flag, name):
            return Path(flag) / settings.RUN if flag else self.root / name

        self.images = place(settings.image_path, "images")
        self.checkpoints = place(settings.model_save_path, "checkpoints")
        left = RELEASE_MODELS / settings.RUN
        if (
            not settings.model_save_path
            and not any(self.checkpoints.glob("*.pth"))
            and any(left.glob("*_VDSM_*.pth"))
        ):
            self.checkpoints = left  # a run of the release's is gone on with where it lies
        self.tensorboard = place(settings.log_dir, "tensorboard")
        self.codes = place(settings.code_path, "codes")
        self.damaged = {}  # path: why it cannot be used; such a checkpoint is passed over

    def make(self, codes=False):
        """Create the folders, that of `codes` too if wanted; UserError, before any training, if one cannot be written."""
        for folder in (
            self.root,
            self.images,
            self.checkpoints,
            self.tensorboard,
            *([self.codes] if codes else []),
        ):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / ".writable"
                probe.write_text("")
                probe.unlink()
            except OSError as error:
                raise UserError(
                    f"cannot write to {folder} ({error.strerror}): choose another --runs_dir or path flag"
                ) from None

    def set_aside(self, keep=None):
        """Rename the run's folders (--fresh): nothing is deleted. Returns the new names.

        keep: a stage-1 checkpoint that stage 2 alone starts from again: it is copied, with its settings, into the new run.
        """
        saved, names = self.saved_settings() if keep else {}, []
        try:
            for folder in dict.fromkeys(
                (self.root, self.images, self.checkpoints, self.tensorboard, self.codes)
            ):
                inside = folder != self.root and self.root in folder.parents
                if inside or not folder.is_dir() or not any(folder.iterdir()):
                    continue
                new = unused(folder)
                folder.rename(new)
                names.append(str(new))
                if keep and folder in keep.parents:
                    keep, original = new / keep.relative_to(folder), keep
            if keep:
                original.parent.mkdir(parents=True, exist_ok=True)
                beside = original.with_name(original.name + PART)
                shutil.copy2(keep, beside)
                os.replace(beside, original)
                self.root.mkdir(parents=True, exist_ok=True)
                write_text(
                    self.config,
                    json.dumps({k: v for k, v in saved.items() if k == "EncDec"}, indent=1) + "\n",
                )
        except OSError as error:
            raise UserError(
                f"cannot set {error.filename} aside ({error.strerror}): move it away or choose another --RUN"
            ) from None
        self.damaged = {}  # what there was went with the folders
        return names

    def saved_settings(self):
        """The configuration that the folder holds, {stage: dict}, or {}."""
        try:
            return json.loads(self.config.read_text())
        except FileNotFoundError:
            return {}
        except (ValueError, OSError):
            raise UserError(
                f"{self.config} cannot be read: --fresh True starts over and keeps the old folder"
            ) from None

    def save_settings(self, stages):
        """Write config.json, and config.txt beside the pictures and the checkpoints as the release does. stages: {stage: settings}."""
        saved = self.saved_settings() | {
            stage: asdict(settings) for stage, settings in stages.items()
        }
        write_text(self.config, json.dumps(saved, indent=1) + "\n")
        lines = [
            f"[{stage}]\n" + "\n".join(f"{k}: {v}" for k, v in values.items())
            for stage, values in saved.items()
        ]
        for folder in (self.images, self.checkpoints):
            write_text(folder / "config.txt", "\n".join(lines) + "\n")

    def places(self, stage):
        """The stage's checkpoints, oldest first: ((epoch, step), path) where `step` steps of epoch `epoch` are done."""
        found = []
        ending = f"_{self.stages[stage].suffix}.pth"
        for path in self.checkpoints.glob(f"*{ending}"):
            number = path.name.removesuffix(ending)
            if path in self.damaged or not (
                match := re.fullmatch("([0-9]+)|step_([0-9]+)_([0-9]+)", number)
            ):
                continue
            after, epoch, step = match.groups()
            found.append(((int(after) + 1, 0) if after else (int(epoch), int(step)), path))
        return sorted(found)

    def epochs(self, stage):
        """Epochs of the stage's checkpoints that were written after an epoch, ascending."""
        return [
            epoch - 1
            for (epoch, _), path in self.places(stage)
            if path == self.checkpoint(stage, epoch - 1)
        ]

    def checkpoint(self, stage, epoch):
        """Path of the stage's checkpoint of `epoch`."""
        return self.checkpoints / f"{epoch}_{self.stages[stage].suffix}.pth"

    def checkpoint_at(self, stage, epoch, step):
        """Path of the stage's checkpoint where `step` steps of `epoch` are done."""
        return self.checkpoints / f"step_{epoch}_{step}_{self.stages[stage].suffix}.pth"

    def choose(self, stage, wanted=None):
        """Path of the checkpoint of epoch `wanted`, else of the newest; None if there is none. UserError if `wanted` is not there."""
        epochs = self.epochs(stage)
        if wanted is not None and wanted not in epochs:
            path = self.checkpoint(stage, wanted)
            if path in self.damaged:
                raise Damaged(path, self.damaged[path])
            there = (
                f"there are {', '.join(map(str, epochs))}"
                if epochs
                else "there is none; train that stage first"
            )
            raise UserError(f"{path} is not there ({there}): see --{self.stages[stage].pretrained}")
        return self.checkpoint(stage, epochs[-1] if wanted is None else wanted) if epochs else None

    def newest(self, stage):
        """Path of the stage's newest checkpoint, in the middle of an epoch too, or None."""
        places = self.places(stage)
        return places[-1][1] if places else None

    def inspect(self):
        """Read the newest checkpoints, down to the first whole one of a finished epoch; those passed over go into `damaged`."""
        for stage in self.stages:
            for _, path in reversed(self.places(stage)):
                try:
                    check_sum(path)
                    load_checkpoint(path, mapped=True)
                    if path == self.choose(stage):
                        break
                except Damaged as error:
                    self.damaged[path] = error.why

    def put_away(self):
        """Rename what was found damaged: nothing is deleted. Returns lines that say so."""
        lines = []
        for path, why in self.damaged.items():
            new = unused(path, "damaged")
            try:
                path.rename(new)
            except OSError as error:
                raise UserError(
                    f"{path} {why}, and cannot be renamed ({error.strerror}): move it away"
                ) from None
            lines.append(f"{path} {why}: kept as {new.name}")
        self.damaged = {}
        return lines

    def sweep(self):
        """Remove the checkpoints that a killed run left half written: only where no other run writes."""
        for info in self.stages.values():
            for path in self.checkpoints.glob(f"*_{info.suffix}.pth{PART}"):
                path.unlink()

    def prune(self, stage, written, keep, spared=()):
        """Once the checkpoint `written` is whole, remove the stage's others of the middle of an epoch and, with keep > 0, all but the
        newest `keep` of those after an epoch and those of the epochs `spared`."""
        kept = {
            written,
            *(self.checkpoint(stage, epoch) for epoch in (*self.epochs(stage)[-keep:], *spared)),
        }
        for _, path in self.places(stage):
            if path not in kept and (keep or path.name.startswith("step_")):
                path.unlink(missing_ok=True)


def unused(path, word="kept"):
    """The name under which `path` is kept when another takes its place: {name}.kept1, or the first number that is free."""
    number = 1
    while (new := path.with_name(f"{path.name}.{word}{number}")).exists():
        number += 1
    return new


def write_text(path, text):
    """Write `text` whole or not at all: beside the place, then renamed."""
    beside = path.with_name(path.name + PART)
    beside.write_text(text)
    os.replace(beside, path)


@dataclass
class Place:
    """Where a stage stands: what the loop knows beside weights, optimiser and noise.

    step     optimiser steps done
    losses   of the steps done of the epoch under way, each [2 * terms] as the loop made them
    best     epoch of the best held-out ELBO among the checkpoints, and that ELBO
    rate     the learning rate that the flags gave, scale: what non-finite losses left of it, retries: how often they did
    """

    step: int = 0
    losses: list = field(default_factory=list)
    best: tuple | None = None
    rate: float | None = None
    scale: float = 1.0
    retries: int = 0

    @classmethod
    def of(cls, state, settings, device):
        """That of the checkpoint `state`; one without it, of the release or of an older version, stands after an epoch."""
        place = cls(**state.get("place", {"step": state["epoch"] * settings.bs_per_epoch}))
        place.losses = [part.to(device) for part in place.losses]
        return place

    def train_at(self, rate, lowered):
        """Take the flags' learning rate. What is left of it stays, unless the rate is a new one; `lowered` (a Place) says what is left
        after a loss that was not finite."""
        if lowered is not None:
            self.rate, self.scale, self.retries = lowered.rate, lowered.scale, lowered.retries
        elif rate != self.rate:
            self.rate, self.scale, self.retries = rate, 1.0, 0


class Saver:
    """Writes the checkpoints of a stage, one at a time, in a thread of its own: training waits for a copy on the CPU, not for the disk.

    keep: how many to keep (0: all). What goes wrong is raised by the next call, at the latest by `wait` or the end of the block.
    """

    def __init__(self, folder, stage, keep=0):
        self.folder, self.stage, self.keep = folder, stage, keep
        self._thread = self._error = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
        except UserError:
            if kind is None:  # what is under way says more
                raise

    def save(self, path, state, spared=()):
        """Write a copy of `state` to `path`, then remove what is not to be kept; never those of the epochs `spared`."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(path, snapshot(state), spared))
        self._thread.start()

    def wait(self):
        """Until what is being written is on the disk. UserError if it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def check(self):
        """Raise what went wrong since, without waiting."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def _write(self, path, state, spared):
        try:
            save_checkpoint(path, state)
            self.folder.prune(self.stage, path, self.keep, spared)
        except BaseException as error:  # the thread that waits raises it
            self._error = error


def snapshot(value):
    """A copy on the CPU of every tensor in a nest of dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(part) for key, part in value.items()}
    return (
        type(value)(snapshot(part) for part in value) if isinstance(value, (list, tuple)) else value
    )


def save_checkpoint(path, state):
    """Write `state` whole or not at all (flushed to disk, then renamed). A full disk is a UserError; older files stay."""
    beside = path.with_name(path.name + PART)
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):  # a read-only disk has none, and lets none be removed
            beside.unlink()
        while (
            not isinstance(error, OSError) and error.__context__
        ):  # torch adds that the archive is unfinished
            error = error.__context__
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write {path} ({reason}): free some space; the older checkpoints are whole"
        ) from None


def load_checkpoint(path, mapped=False):
    """The checkpoint at `path`, on CPU; a released one comes back as ours (see `models.vdsm.release.to_ours`). `Damaged` if it is
    truncated, has changed, or is neither.

    mapped: leave the tensors on disk until they are read, where only a look at the settings is wanted; no checksum then.
    """
    state = read_checkpoint(path, mapped)
    if release.stage_of(state):
        try:
            return release.to_ours(state)
        except ValueError as error:
            raise Damaged(path, f"is no checkpoint that the release left ({error})") from None
    if not isinstance(state, dict) or not {"epoch", "model", "optimizer", "settings", "rng"} <= set(
        state
    ):
        raise Damaged(path, "is not a checkpoint of this program")
    return state


def read_checkpoint(path, mapped=False):
    """What the file at `path` holds, on CPU, whoever wrote it; never unpickled freely. `Damaged` if it cannot be understood,
    UserError if it cannot be read."""
    if not mapped:
        check_sum(path)
    try:
        mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote no zip
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged bytes raise anything from the unpickler, a short file a seek to before its start
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise Damaged(path, "is truncated or not a checkpoint") from None


def check_sum(path):
    """Raise `Damaged` unless every record of the archive at `path` has the CRC-32 that was written with it.

    A file of another kind is left to `load_checkpoint`: what an old torch wrote has no checksum.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            if bad is not None:
                raise zipfile.BadZipFile
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # damaged bytes raise anything from the reader
        raise Damaged(path, "has changed since it was written (checksum)") from None


def check_sizes(state, path, settings, names):
    """Raise UserError, naming the flags that differ, unless the checkpoint's settings `names` are those of `settings`."""
    saved = state["settings"]
    wrong = [n for n in names if n in saved and shown(saved[n]) != shown(getattr(settings, n))]
    if wrong:
        said = ", ".join(
            f"--{n} is {shown(getattr(settings, n))} here and {shown(saved[n])} there"
            for n in wrong
        )
        flags = " ".join(
            f"no --{n}" if saved[n] is None else f"--{n} {shown(saved[n])}" for n in wrong
        )
        raise UserError(
            f"{path} is of another kind: {said}: give the flags it was trained with: {flags}"
        )


def state_of(stage, stepper, place, fingerprint, device):
    """What a checkpoint holds of a stage at `place`, on its data set's fingerprint. Not a copy."""
    return {
        "epoch": place.step // stage.settings.bs_per_epoch,
        "model": stage.network.state_dict(),
        "optimizer": stepper.adam.state_dict(),
        "settings": dict(vars(stage.settings)),
        "data": fingerprint,
        "rng": rng_state(device),
        "place": dict(vars(place)),
    }


def rng_state(device):
    """The noise's generators as tensors."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state, device):
    """Put back what `rng_state` gave (a run that moves between CPU and GPU goes on from the seed's stream)."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def undisturbed(device):
    """What is drawn inside leaves the noise as it was."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)
