"""Checkpoints: written whole or not at all, read without running what they hold.

A checkpoint is a dict (see `state_of`) of types that `weights_only=True` loads, in torch's zip
archive, which holds a CRC-32 per record. A checkpoint of the authors' code is adopted by a function
of the model. Its 'settings' are the sizes alone, its 'data' and 'rng' are None, and its 'optimizer'
is {'moments': {parameter name: Adam's state}}.

Torch is imported by the functions that need it, so that a folder can be looked at without it.
"""

from __future__ import annotations

import errno
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.files import regular, replacing
from utils.flags import shown
from utils.limits import out_of_memory

if TYPE_CHECKING:
    import torch

KEYS = {"epoch", "model", "optimizer", "settings", "rng"}


class Damaged(UserError):
    """A file that is truncated, changed since it was written, or no checkpoint."""

    def __init__(self, path, why):
        super().__init__(f"{path} {why}: use another epoch's, or train it again")
        self.why = why


@dataclass
class Place:
    """Where the training of a stage stands, beside weights, optimiser and random numbers."""

    step: int = 0  # optimiser steps done
    # {term: [raw, weighted] of each step of the current epoch}; in a checkpoint tensors [steps, 2]
    losses: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    best: tuple[int, float] | None = None  # epoch and validation ELBO of the best checkpoint
    rate: float = math.nan  # learning rate that the flags gave
    scale: float = 1.0  # factor on the rate, lowered after each loss that was not finite
    retries: int = 0  # how often a loss was not finite

    @classmethod
    def of(cls, state: dict, bs_per_epoch: int, device: torch.device) -> Place:
        """The place of a checkpoint. A checkpoint without a place was written after an epoch."""
        saved = dict(state.get("place", {"step": state["epoch"] * bs_per_epoch}))
        losses = saved.pop("losses", {})
        if isinstance(losses, list):  # an earlier version did not name the terms
            losses = {}
        losses = {term: list(values.to(device).unbind()) for term, values in losses.items()}
        return cls(**saved, losses=losses)

    def as_dict(self) -> dict:
        """The place as a checkpoint holds it."""
        import torch

        return {**vars(self), "losses": {t: torch.stack(v) for t, v in self.losses.items()}}

    def train_at(self, rate: float, lowered: Place | None = None) -> None:
        """Take `rate` from the flags; a new rate resets `scale`.

        lowered: after a loss that was not finite, the place whose rate and scale count instead.
        """
        if lowered is not None:
            self.rate, self.scale, self.retries = lowered.rate, lowered.scale, lowered.retries
        elif rate != self.rate:
            self.rate, self.scale, self.retries = rate, 1.0, 0


class Saver:
    """Writes the checkpoints of a stage, one at a time, in a thread of its own.

    Training waits for a copy on the CPU and not for the disk. keep: how many checkpoints to keep
    (0: all). An error is raised by the next call, at the latest at the end of the block. folder: a
    utils.run_folder.RunFolder.
    """

    def __init__(self, folder, stage_name: str, keep: int = 0):
        self.folder, self.stage_name, self.keep = folder, stage_name, keep
        self._thread, self._writing = ThreadPoolExecutor(1), None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.wait()
        except UserError:
            if kind is None:  # otherwise an earlier error is on its way
                raise

    def save(self, path: Path, state: dict, spared: Iterable[int] = ()) -> None:
        """Write a copy of `state` to `path`, then prune all but the epochs `spared`."""
        self.wait()
        self._writing = self._thread.submit(self._write, path, snapshot(state), spared)

    def wait(self) -> None:
        """Wait until the file is on the disk. UserError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise the error of a write that has ended, without waiting for one that has not."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _write(self, path, state, spared):
        save_checkpoint(path, state)
        self.folder.prune(self.stage_name, path, self.keep, spared)


def snapshot(value):
    """A copy on the CPU of every tensor in nested dicts, lists and tuples."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: snapshot(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(snapshot(part) for part in value)
    return value


def save_checkpoint(path: Path, state: dict) -> None:
    """Write `state` whole or not at all. UserError if the disk refuses; older files stay."""
    import torch

    try:
        with replacing(path, sync=True) as beside, open(beside, "wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        while not isinstance(error, OSError) and error.__context__:
            error = error.__context__  # torch reports a full disk as an unfinished archive
        reason = getattr(error, "strerror", None) or error
        todo = "free some space; the older checkpoints are whole"
        raise UserError(f"cannot write {path} ({reason}): {todo}") from None


def state_of(stage, stepper, place: Place, fingerprint: str, device: torch.device) -> dict:
    """The checkpoint of `stage`, without copying tensors. fingerprint: of the data set."""
    return {
        "epoch": place.step // stage.settings.bs_per_epoch,  # the next epoch to run
        "model": stage.network.state_dict(),
        "optimizer": stepper.adam.state_dict(),
        "settings": dict(vars(stage.settings)),
        "data": fingerprint,
        "rng": rng_state(device),
        "place": place.as_dict(),
    }


def load_checkpoint(
    path: Path, adopt: Callable[[dict], dict | None] | None = None, mapped: bool = False
) -> dict:
    """The checkpoint at `path`, on the CPU. Raises `Damaged` for an unusable file.

    adopt: turns the content of a file of the authors' code into a checkpoint of ours, returns None
    for other files, and raises ValueError for a file that does not fit. mapped: leave the tensors
    on disk until they are read, and skip the checksum.
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
    """The content of the file at `path`, on the CPU; only plain types are unpickled.

    Raises `Damaged` if the file cannot be understood, UserError if it cannot be read.
    """
    import torch

    path = Path(path)  # None is a mistake in the program and no damaged file
    if not mapped:
        check_sum(path)
    try:
        regular(path)
        mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote no archive
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of another pickle protocol: our line says enough
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        if out_of_memory(error):
            raise  # the file may be whole
        # damaged bytes raise anything from the unpickler; a short file raises EINVAL from a seek
        if isinstance(error, UserError):
            raise
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        raise Damaged(path, "is truncated or not a checkpoint") from None


def check_sum(path: Path) -> None:
    """Raise `Damaged` if a record of the archive at `path` differs from its CRC-32.

    UserError if it cannot be read, or is no regular file.
    """
    try:
        regular(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UserError:
        raise
    except Exception as error:  # damaged bytes raise anything from the reader
        if out_of_memory(error):
            raise  # the file may be whole
        raise Damaged(path, "has changed since it was written (checksum)") from None


def check_sizes(state: dict, path: Path, settings, names: Iterable[str]) -> None:
    """Raise UserError unless the settings `names` of the checkpoint are those of `settings`."""
    saved = state["settings"]
    here = {n: shown(getattr(settings, n)) for n in names if n in saved}
    there = {n: shown(saved[n]) for n in here}
    wrong = [n for n in here if here[n] != there[n]]
    if wrong:
        differing = ", ".join(f"--{n} is {here[n]} here and {there[n]} there" for n in wrong)
        flags = " ".join(f"no --{n}" if saved[n] is None else f"--{n} {there[n]}" for n in wrong)
        todo = f"give the flags it was trained with: {flags}"
        raise UserError(f"{path} is of another kind: {differing}: {todo}")


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's random-number generators."""
    import torch

    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor] | None, device: torch.device) -> None:
    """Restore what `rng_state` returned. A GPU without a saved state keeps its own.

    None, of a checkpoint of the release, changes nothing.
    """
    import torch

    if state is None:
        return
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def undisturbed(device: torch.device):
    """Restore the random-number generators at the end of the block."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)
