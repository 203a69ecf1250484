"""Damaged, wrong and hostile files: told in one line, passed over with a warning, or harmless."""

import shutil
from pathlib import Path

from tests.runs import SUFFIX
from tests.tiny import STAGE_2, TEST
from tests.torture import damage, judge
from tests.torture.cases import DATA, RUN, Case, source, trained, undisturbed
from tests.torture.server import SMALL, Life

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


def run_files(case: Case) -> None:
    """Damage a file of a run, and give a command that reads it."""
    rng, kind = case.rng, case.rng.choices(("checkpoint", "json", "other"), (6, 3, 1))[0]
    if kind == "checkpoint":
        checkpoint(case)
        return
    everything = [*COMMANDS["evaluate"], "--export_codes", "True", "--report", "True"]
    case.copy(undisturbed(case, "finished", everything, trained(case).folder).folder)
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


def damaged(case: Case, flags, way, path: Path) -> Life:
    """The life of a command after `path` was damaged. It must end in order and run no pickle."""
    done = way(case.rng, path) or ""
    case.notes.append(f"{path.relative_to(case.folder)}: {way.__name__} {done}")
    life = case.live(flags)
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
    "mug": {
        "data/MUG-FED/MUG_0-255_OF_112x112_color.npz": (damage.array_header, damage.evil_pickle),
        "data/MUG-FED/labels.npz": (damage.array_header, damage.wrong_labels),
    },
}
STORED = {  # what the program made of them
    "videos": ("frames.bin", "clips.jsonl", "folder-*.json", "lock"),
    "digits": ("frames.npy", "dataset.json"),
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
