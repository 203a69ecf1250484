"""Damaged, wrong and hostile files: told in one line, passed over with a warning, or harmless."""

import os
import shutil
from pathlib import Path

import numpy as np
import torch

from metrics import fid
from metrics.published_judges import NETWORKS
from pictures.files import save_gif, save_png
from tests.runs import SUFFIX
from tests.tiny import STAGE_2, TEST
from tests.torture import damage, judge
from tests.torture.cases import DATA, RUN, Case, source, trained, undisturbed
from tests.torture.server import SMALL, Life
from utils.progress import tensorboard

COMMANDS = {
    "resume": SMALL,
    "stage 2": [*SMALL, *STAGE_2],
    "test": [*SMALL, *TEST],
    "report": [*SMALL, *TEST, "--report", "True"],
    "export": [*SMALL, *TEST, "--export_codes", "True"],
    "evaluate": [*SMALL, *TEST, "--evaluate", "swap"],
    "config": ["--config", str(RUN / "config.json")],
    "fresh": [*SMALL, "--fresh", "True"],
}
JSON_FILES = {  # files of a run, and commands that read them
    "config.json": ("report", "config", "resume", "test", "fresh"),
    "metrics.json": ("report", "evaluate"),
    "codes/codes.json": ("export",),
}
OTHER_FILES = ("log.txt", "images/config.txt", "checkpoints/config.txt", "metrics.csv")
# what a report shows; nothing in it may spoil a training
SHOWN = ("images/transfer_2.png", "images/moves_2.gif", "images/experts_2.csv", "log.txt", "events")
ALEXNET = Path("torch/hub/checkpoints/alexnet-owt-7be5be79.pth")  # in TORCH_HOME


def run_files(case: Case) -> None:
    """Damage a file of a run, and give a command that reads it."""
    rng, kinds = case.rng, ("checkpoint", "weights", "json", "shown", "other")
    kind = rng.choices(kinds, (6, 2, 3, 2, 1))[0]
    if kind in ("checkpoint", "weights"):
        (checkpoint if kind == "checkpoint" else weights)(case)
        return
    everything = [*COMMANDS["evaluate"], "--export_codes", "True", "--report", "True"]
    case.copy(undisturbed(case, "finished", everything, trained(case).folder).folder)
    if kind == "shown":
        shown(case)
        return
    if kind == "json":
        name = rng.choice(list(JSON_FILES))
        command, ways = rng.choice(JSON_FILES[name]), (*damage.JSON, *damage.ANY)
    else:
        judges = [f"../judges/{path.name}" for path in (case.run.parent / "judges").glob("*")]
        name = rng.choice((*OTHER_FILES, *judges))
        command = "evaluate" if name in judges else rng.choice(("resume", "report"))
        ways = (*damage.ANY, damage.evil_pickle)
    path = case.run / name
    path.touch()
    judged(case, command, rng.choice(ways), path)


def checkpoint(case: Case) -> None:
    """Damage the newest checkpoint of a stage that a command reads."""
    rng, stage_name, last = case.rng, case.rng.choice(("EncDec", "Seq")), 2
    command = rng.choice(("resume", "resume", "resume", "stage 2", "test", "convert"))
    case.copy(trained(case).folder)
    removed = []
    if command == "stage 2":
        stage_name, removed = "EncDec", ["*_seq.pth"]
    elif command == "resume":  # training goes on from the damaged one
        last, removed = 1, [f"2_{SUFFIX[stage_name]}.pth"]
        removed += ["*_seq.pth"] if stage_name == "EncDec" else []
    place = case.run / "checkpoints"
    for pattern in removed:
        for path in place.glob(pattern):
            path.unlink()
    way = rng.choice((*damage.CHECKPOINT, *damage.ANY))
    judged(case, command, way, place / f"{last}_{SUFFIX[stage_name]}.pth")


def shown(case: Case) -> None:
    """Damage a picture, a table or a log of the run: the report leaves it out."""
    rng, images = case.rng, case.run / "images"
    grey = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    save_png(images / "transfer_2.png", grey[0])
    save_gif(images / "moves_2.gif", grey, 10)
    (images / "experts_2.csv").write_text("factor,value,clips,entropy,expert_1\n,,8,0.1,1\n")
    (case.run / "log.txt").write_text("2026-01-01 00:00:00  stage 1: a warning\n")
    with tensorboard(case.run / "tensorboard" / "EncDec", True, 0, {}) as log:
        log("loss/x", 1.0, 0)
    name = rng.choice(SHOWN)
    path = next(case.run.rglob("events.*")) if name == "events" else case.run / name
    ways = (damage.bomb,) if path.suffix in (".png", ".gif") else ()
    judge.ended(damaged(case, COMMANDS["report"], rng.choice((*damage.ANY, *ways)), path), 0)


def weights(case: Case) -> None:
    """Damage a file of weights that others trained, and measure with it."""
    rng, kind = case.rng, case.rng.choice(("judge", "fid_weights", "LPIPS"))
    name = rng.choice(("sprites", "mug")) if kind == "judge" else "mug"
    flags, start = DATA[name][1], source(case, name)
    case.copy(undisturbed(case, name, flags, start).folder)
    path = case.folder / (ALEXNET if kind == "LPIPS" else "weights.pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    network = small_resnext() if kind == "fid_weights" else NETWORKS[SETS[name]]()
    torch.save({"state_dict": network.state_dict()}, path)
    measured = "swap" if kind == "judge" else "fid" if kind == "fid_weights" else "dci"
    flags = [*flags, *TEST, "--evaluate", measured]
    flags += [] if kind == "LPIPS" else [f"--{kind}", "weights.pth"]
    ways = (*damage.ANY, damage.evil_pickle, damage.weights_value, damage.weights_value)
    damaged(case, flags, rng.choice(ways), path, own_weights)


SETS = {"sprites": "sprites", "mug": "MUG-FED"}
ResNeXt3D = fid.ResNeXt3D


def small_resnext():
    """A network for FID with few blocks, so that a case takes seconds."""
    return ResNeXt3D((1, 0, 0, 0))


def own_weights():
    """For `Case.live`: a small network of FID, and torch's cache in the case's folder."""
    fid.ResNeXt3D, fid.SIZE, os.environ["TORCH_HOME"] = (
        small_resnext,
        32,
        str(Path("torch").resolve()),
    )


def judged(case: Case, command: str, way, path: Path) -> None:
    """Damage `path`, give the command and judge its end."""
    flags = COMMANDS.get(command)
    if command == "convert":
        flags = ["--convert", str(path), "--to", case.rng.choice(("ours", "release"))]
    life = damaged(case, flags, way, path)
    if life.code == 0 and command == "stage 2" and life.err:
        return  # stage 2 stands on an older stage 1, and the warning said so
    if life.code == 0 and command in ("resume", "stage 2", "fresh"):
        judge.same_end(case.run, trained(case).run)


def damaged(case: Case, flags, way, path: Path, *arrange) -> Life:
    """The life of a command after `path` was damaged. It must end in order and run no pickle."""
    done = way(case.rng, path) or ""
    case.notes.append(f"{path.relative_to(case.folder)}: {way.__name__} {done}")
    life = case.live(flags, *arrange)
    if list(case.folder.rglob(damage.MARKER)):
        raise judge.Failed("the code of a pickle ran")
    judge.ended(life)
    return life


# --- data sets ---

SOURCES = {  # files that users bring, and ways to damage them beside damage.ANY
    "videos": {
        "films/person0/clip0.avi": (damage.odd_name,),
        "films/person1/clip1/0.png": (damage.bomb, damage.odd_name),
        "films/person1/clip5.gif": (damage.bomb, damage.odd_name),
    },
    "digits": {
        "digits/train-images-idx3-ubyte": (damage.bomb,),
        "digits/train-labels-idx1-ubyte": (damage.bomb,),
    },
    "sprites": {
        f"data/sprites/{name}.sprite": (damage.evil_pickle, *[damage.state_value] * 3)
        for name in ("train/4", "test/1")
    },
    "sheets": {f"art/{name}.png": (damage.bomb,) for name in ("body/0", "hair/5", "shoes/1")},
    "mug": {
        "data/MUG-FED/MUG_0-255_OF_112x112_color.npz": (damage.array_header, damage.evil_pickle),
        "data/MUG-FED/labels.npz": (damage.array_header, damage.wrong_labels),
    },
}
STORED = {  # what the program made of them
    "videos": ("frames.bin", "clips.jsonl", "folder-*.json", "lock"),
    **dict.fromkeys(("digits", "sprites", "sheets"), ("frames.npy", "dataset.json")),
    "mug": ("frames_64x64.npy", "frames_64x64.json"),
}
STORED_WAYS = {".npy": (damage.array_header, damage.evil_pickle), ".jsonl": damage.JSON}
STORED_WAYS |= {".json": (*damage.JSON, damage.wrong_labels)}


def data_files(case: Case) -> None:
    """Damage a file of a data set, or what the program made of it, and train on it."""
    rng, name = case.rng, case.rng.choice(list(DATA))
    flags, start = DATA[name][1], source(case, name)
    if rng.random() < 0.5:
        case.copy(start)
        path, ways = rng.choice(list(SOURCES[name].items()))
        damaged(case, flags, rng.choice((*damage.ANY, *ways)), case.folder / path)
        return
    made = undisturbed(case, name, flags, start)
    case.copy(made.folder)
    shutil.rmtree(case.folder / "runs")
    path = next((case.folder / "data").rglob(rng.choice(STORED[name])))
    ways = damage.JSON if path.name.startswith("folder") else STORED_WAYS.get(path.suffix, ())
    if damaged(case, flags, rng.choice((*damage.ANY, *ways)), path).code == 0:
        judge.same_end(case.run, made.run)
