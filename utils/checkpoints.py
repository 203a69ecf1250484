"""Files of a run: where they lie, checkpoints written whole or not at all, the saved configuration.

A checkpoint is a dict of 'epoch' (the next one to run, which with the settings gives every schedule's position), 'model',
'optimizer' (as the release's) and beside them 'settings', 'data' (the data set's fingerprint) and 'rng' (the state of the
noise's generators), all of types that `weights_only=True` loads. Released checkpoints are read too: `load_checkpoint` turns them
into ours, where 'settings' are the sizes alone and 'data' and 'rng' None, for they hold no more.
"""

import json
import os
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import torch
from natsort import natsorted

from models.vdsm import release
from utils.config import shown
from utils.errors import UserError

SUFFIX = {"EncDec": "VDSM_EncDec", "Seq": "VDSM_seq"}  # release
SIZES = ("z_dim", "n_e_w", "n_decoders", "enc_widths", "dec_widths", "fidelity")  # what a stage-1 network is made of
SIZES_SEQ = (*SIZES, "dynamics_dim", "rnn_dim", "rnn_layers", "trans_dim")


class RunFolder:
    """The folders of one run: runs/RUN and below, or where the release's path flags say, under RUN."""

    def __init__(self, settings):
        self.root = Path(settings.runs_dir) / settings.RUN
        self.config = self.root / "config.json"
        self.metrics = self.root / "metrics.json"

        def place(flag, name):
            return Path(flag) / settings.RUN if flag else self.root / name

        self.images = place(settings.image_path, "images")
        self.checkpoints = place(settings.model_save_path, "checkpoints")
        self.tensorboard = place(settings.log_dir, "tensorboard")
        self.codes = place(settings.code_path, "codes")

    def make(self, codes=False):
        """Create the folders, that of `codes` too if wanted; UserError, before any training, where one cannot be written."""
        for folder in (self.root, self.images, self.checkpoints, self.tensorboard, *([self.codes] if codes else [])):
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
            for folder in dict.fromkeys((self.root, self.images, self.checkpoints, self.tensorboard, self.codes)):
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
                shutil.copy2(keep, original)
                self.root.mkdir(parents=True, exist_ok=True)
                write_text(self.config, json.dumps({k: v for k, v in saved.items() if k == "EncDec"}, indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"cannot set {error.filename} aside ({error.strerror}): move it away or choose another --RUN"
            ) from None
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
        saved = self.saved_settings() | {stage: asdict(settings) for stage, settings in stages.items()}
        write_text(self.config, json.dumps(saved, indent=1) + "\n")
        lines = [f"[{stage}]\n" + "\n".join(f"{k}: {v}" for k, v in values.items()) for stage, values in saved.items()]
        for folder in (self.images, self.checkpoints):
            write_text(folder / "config.txt", "\n".join(lines) + "\n")

    def epochs(self, stage):
        """Epochs of the stage's checkpoints, naturally sorted."""
        names = natsorted(path.name for path in self.checkpoints.glob(f"*_{SUFFIX[stage]}.pth"))
        return [int(name.split("_")[0]) for name in names if name.split("_")[0].isdecimal()]

    def checkpoint(self, stage, epoch):
        """Path of the stage's checkpoint of `epoch`."""
        return self.checkpoints / f"{epoch}_{SUFFIX[stage]}.pth"

    def choose(self, stage, wanted=None):
        """Path of the checkpoint of epoch `wanted`, else of the newest; None if there is none. UserError if `wanted` is not there."""
        epochs = self.epochs(stage)
        if wanted is not None and wanted not in epochs:
            there = f"there are {', '.join(map(str, epochs))}" if epochs else "there is none; train that stage first"
            raise UserError(
                f"{self.checkpoint(stage, wanted)} is not there ({there}): see --pretrained_model_VDSM{stage}"
            )
        return self.checkpoint(stage, epochs[-1] if wanted is None else wanted) if epochs else None


def unused(folder):
    """The name under which `folder` is kept when another takes its place: {name}.kept1, or the first number that is free."""
    number = 1
    while (new := folder.with_name(f"{folder.name}.kept{number}")).exists():
        number += 1
    return new


def write_text(path, text):
    """Write `text` whole or not at all: beside the place, then renamed."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    os.replace(beside, path)


def save_checkpoint(path, state):
    """Write `state` whole or not at all (flushed to disk, then renamed). A full disk is a UserError; older files stay."""
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"cannot write {path} ({error}): free some space; the older checkpoints are whole") from None


def load_checkpoint(path, mapped=False):
    """The checkpoint at `path`, on CPU; a released one comes back as ours (see `models.vdsm.release.to_ours`). UserError if it is
    truncated, corrupt or neither.

    mapped: leave the tensors on disk until they are read, where only a look at the settings is wanted.
    """
    state = read_checkpoint(path, mapped)
    if release.stage_of(state):
        try:
            return release.to_ours(state)
        except ValueError as error:
            raise UserError(f"{path} is no checkpoint that the release left ({error}): move it away") from None
    if not isinstance(state, dict) or not {"epoch", "model", "optimizer", "settings", "rng"} <= set(state):
        raise UserError(f"{path} is not a checkpoint of this program: move it away")
    return state


def read_checkpoint(path, mapped=False):
    """What the file at `path` holds, on CPU, whoever wrote it; never unpickled freely. UserError if it cannot be read."""
    try:
        mapped = mapped and zipfile.is_zipfile(path)  # torch before 1.6 wrote no zip
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # damaged bytes raise anything from the unpickler
        raise UserError(
            f"{path} is truncated or not a checkpoint: move it away and the one before it is used"
        ) from None


def check_sizes(state, path, settings, names):
    """Raise UserError, naming the flags that differ, unless the checkpoint's settings `names` are those of `settings`."""
    saved = state["settings"]
    wrong = [n for n in names if n in saved and shown(saved[n]) != shown(getattr(settings, n))]
    if wrong:
        said = ", ".join(f"--{n} is {shown(getattr(settings, n))} here and {shown(saved[n])} there" for n in wrong)
        flags = " ".join(f"no --{n}" if saved[n] is None else f"--{n} {shown(saved[n])}" for n in wrong)
        raise UserError(f"{path} is of another kind: {said}: give the flags it was trained with: {flags}")


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
