"""Checkpoints: written whole or not at all, read without running what they hold.

A checkpoint is a dict of types that `weights_only=True` loads:

    epoch      the next epoch to run; with the settings, it gives the position in every schedule
    model      state dict of the network
    optimizer  state dict of Adam, or {'moments': {name: Adam's state}} in an adopted checkpoint
    settings   of the stage, {flag: value}
    data       fingerprint of the data set
    rng        states of the random-number generators
    place      where training stands (see `Place`)

The checksum is that of the zip archive which torch writes: a CRC-32 per record, checked before a
tensor is used. A checkpoint of the authors' code is adopted by a function of the model. Its
'settings' are the sizes alone, and 'data' and 'rng' are None.
"""

import errno
import math
import threading
import zipfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from utils.errors import UserError
from utils.files import replacing
from utils.flags import shown

KEYS = {"epoch", "model", "optimizer", "settings", "rng"}


class Damaged(UserError):
    """A file that cannot be used: truncated, changed since it was written, or no checkpoint."""

    def __init__(self, path, why):
        super().__init__(f"{path} {why}: use another epoch's, or train it again")
        self.why = why


@dataclass
class Place:
    """Where the training of a stage stands, beside weights, optimiser and random numbers.

    step     optimiser steps done
    losses   {term: list of tensors [2]}, raw and weighted, of the steps done of the current epoch;
             in a checkpoint {term: tensor [steps, 2]}
    best     epoch of the best validation ELBO among the checkpoints, and that ELBO
    rate     learning rate that the flags gave; scale: what losses that were not finite left of it;
             retries: how often there was such a loss
    """

    step: int = 0
    losses: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    best: tuple[int, float] | None = None
    rate: float = math.nan
    scale: float = 1.0
    retries: int = 0

    @classmethod
    def of(cls, state: dict, bs_per_epoch: int, device: torch.device) -> "Place":
        """The place of a checkpoint. One that has none was written after an epoch."""
        saved = dict(state.get("place", {"step": state["epoch"] * bs_per_epoch}))
        losses = saved.pop("losses", {})
        if isinstance(losses, list):  # of an earlier version, which did not name the terms
            losses = {}
        losses = {term: list(values.to(device).unbind()) for term, values in losses.items()}
        return cls(**saved, losses=losses)

    def as_dict(self) -> dict:
        """What a checkpoint holds of it."""
        return {**vars(self), "losses": {t: torch.stack(v) for t, v in self.losses.items()}}

    def train_at(self, rate: float, lowered: "Place | None" = None) -> None:
        """Set the learning rate to `rate` of the flags, keeping `scale` unless the rate is new.

        lowered: the place whose lowered rate counts, after a loss that was not finite.
        """
        if lowered is not None:
            self.rate, self.scale, self.retries = lowered.rate, lowered.scale, lowered.retries
        elif rate != self.rate:
            self.rate, self.scale, self.retries = rate, 1.0, 0


# --- writing ---


class Saver:
    """Writes the checkpoints of a stage, one at a time, in a thread of its own.

    Training waits for a copy on the CPU and not for the disk. keep: how many checkpoints to keep
    (0: all). An error is raised by the next call, at the latest by `wait` or the end of the block.
    folder: a utils.run_folder.RunFolder.
    """

    def __init__(self, folder, stage: str, keep: int = 0):
        self.folder, self.stage, self.keep = folder, stage, keep
        self._thread = self._error = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
        except UserError:
            if kind is None:  # an error that is under way says more
                raise

    def save(self, path: Path, state: dict, spared: Iterable[int] = ()) -> None:
        """Write a copy of `state` to `path`, then prune all but the epochs `spared`."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(path, snapshot(state), spared))
        self._thread.start()

    def wait(self) -> None:
        """Wait until the file is on the disk. UserError if it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def check(self) -> None:
        """Raise an error of the thread, if it has ended, without waiting."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def _write(self, path, state, spared):
        try:
            save_checkpoint(path, state)
            self.folder.prune(self.stage, path, self.keep, spared)
        except BaseException as error:  # raised again by the thread that waits
            self._error = error


def snapshot(value):
    """A copy on the CPU of every tensor in nested dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(snapshot(part) for part in value)
    return value


def save_checkpoint(path: Path, state: dict) -> None:
    """Write `state` whole or not at all. UserError if the disk refuses; older files stay."""
    try:
        with replacing(path, sync=True) as beside, open(beside, "wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        while not isinstance(error, OSError) and error.__context__:
            error = error.__context__  # torch reports a full disk as an unfinished archive
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write {path} ({reason}): free some space; the older checkpoints are whole"
        ) from None


def state_of(stage, stepper, place: Place, fingerprint: str, device: torch.device) -> dict:
    """What a checkpoint of `stage` holds, without copying. fingerprint: of the data set."""
    return {
        "epoch": place.step // stage.settings.bs_per_epoch,
        "model": stage.network.state_dict(),
        "optimizer": stepper.adam.state_dict(),
        "settings": dict(vars(stage.settings)),
        "data": fingerprint,
        "rng": rng_state(device),
        "place": place.as_dict(),
    }


# --- reading ---


def load_checkpoint(
    path: Path, adopt: Callable[[dict], dict | None] | None = None, mapped: bool = False
) -> dict:
    """The checkpoint at `path`, on the CPU.

    adopt: turns what a file of the authors' code holds into a checkpoint of ours, returns None for
    other files, and raises ValueError for a file that does not fit. mapped: leave the tensors on
    disk until they are read, and skip the checksum. Raises `Damaged` for an unusable file.
    """
    state = read_checkpoint(path, mapped)
    try:
        adopted = adopt(state) if adopt else None
    except ValueError as error:
        raise Damaged(path, f"is no checkpoint that the release left ({error})") from None
    if adopted is not None:
        return adopted
    if not isinstance(state, dict) or not KEYS <= set(state):
        raise Damaged(path, "is not a checkpoint of this program")
    return state


def read_checkpoint(path: Path, mapped: bool = False):
    """What the file at `path` holds, on the CPU, without unpickling freely.

    Raises `Damaged` if the file cannot be understood, UserError if it cannot be read.
    """
    if not mapped:
        check_sum(path)
    try:
        mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote no zip archive
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # damaged bytes raise anything from the unpickler; a short file raises EINVAL from a seek
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise Damaged(path, "is truncated or not a checkpoint") from None


def check_sum(path: Path) -> None:
    """Raise `Damaged` unless every record of the archive at `path` has its CRC-32.

    A file of another kind passes: a file of torch before 1.6 has no checksum.
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


def check_sizes(state: dict, path: Path, settings, names: Iterable[str]) -> None:
    """Raise UserError unless the settings `names` of the checkpoint are those of `settings`."""
    saved = state["settings"]
    wrong = [n for n in names if n in saved and shown(saved[n]) != shown(getattr(settings, n))]
    if wrong:
        differing = ", ".join(
            f"--{n} is {shown(getattr(settings, n))} here and {shown(saved[n])} there"
            for n in wrong
        )
        flags = " ".join(
            f"no --{n}" if saved[n] is None else f"--{n} {shown(saved[n])}" for n in wrong
        )
        raise UserError(
            f"{path} is of another kind: {differing}: give the flags it was trained with: {flags}"
        )


# --- random numbers ---


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random-number generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Restore what `rng_state` gave. Without a state of the GPU, its generator stays as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def undisturbed(device: torch.device):
    """Restore the random-number generators at the end of the block."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)
