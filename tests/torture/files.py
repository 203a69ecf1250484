"""Damaged, wrong and hostile files: told in one line, passed over with a warning, or harmless."""

import shutil

from tests.runs import SUFFIX
from tests.tiny import STAGE_2, TEST
from tests.torture import damage, judge
from tests.torture.cases import DATA, RUN, Case, no_pictures, source, trained, undisturbed
from tests.torture.server import SMALL

CONFIG = str(RUN / "config.json")
COMMANDS = {
    "resume": SMALL,
    "stage 2": [*SMALL, *STAGE_2],
    "test": [*SMALL, *TEST],
    "report": [*SMALL, *TEST, "--report", "True"],
    "export": [*SMALL, *TEST, "--export_codes", "True"],
    "evaluate": [*SMALL, *TEST, "--evaluate", "swap"],
    "config": ["--config", CONFIG, "--model_test_interval", "9"],
    "fresh": [*SMALL, "--fresh", "True"],
}
JSON_FILES = {  # files of a run, and commands that read them
    "config.json": ("report", "config", "resume", "test", "fresh"),
    "metrics.json": ("report", "evaluate"),
    "codes/codes.json": ("export",),
}
OTHER_FILES = ("log.txt", "images/config.txt", "checkpoints/config.txt", "metrics.csv")


def finished(case: Case):
    """A run with everything that a run may leave."""
    flags = [*COMMANDS["evaluate"], "--export_codes", "True", "--report", "True"]
    return undisturbed(case, "finished", flags, trained(case).folder)


def run_files(case: Case) -> None:
    """Damage a file of a run, and give a command that reads it."""
    rng, kind = case.rng, case.rng.choices(("checkpoint", "json", "other"), (6, 3, 1))[0]
    if kind == "checkpoint":
        return checkpoint(case)
    case.copy(finished(case).folder)
    if kind == "json":
        name = rng.choice(list(JSON_FILES))
        command = rng.choice(JSON_FILES[name])
        way = rng.choice((*damage.JSON, *damage.JSON, *damage.BYTES, *damage.SPECIAL))
    else:
        judges = [str(p.relative_to(case.run)) for p in (case.run.parent / "judges").glob("*")]
        name = rng.choice((*OTHER_FILES, *judges))
        command = "evaluate" if name in judges else rng.choice(("resume", "report"))
        way = rng.choice((*damage.BYTES, *damage.SPECIAL, damage.evil_pickle))
    path = case.run / name
    path.touch()
    judged(case, command, way, path)


def checkpoint(case: Case) -> None:
    """Damage the newest checkpoint of a stage that a command reads."""
    rng = case.rng
    command = rng.choice(("resume", "resume", "resume", "stage 2", "test", "convert"))
    case.copy(trained(case).folder)
    place, stage_name = case.run / "checkpoints", rng.choice(("EncDec", "Seq"))
    last = 2
    if command == "stage 2":
        stage_name = "EncDec"
        for path in place.glob("*_seq.pth"):
            path.unlink()
    elif command == "resume":  # so that training goes on from the damaged one
        last = 1
        for path in place.glob("2_*" if stage_name == "EncDec" else "2_VDSM_seq.pth"):
            path.unlink()
        for path in place.glob("*_seq.pth") if stage_name == "EncDec" else ():
            path.unlink()
    path = place / f"{last}_{SUFFIX[stage_name]}.pth"
    way = rng.choice((*damage.BYTES, *damage.SPECIAL, *2 * damage.CHECKPOINT))
    judged(case, command, way, path)


def judged(case: Case, command: str, way, path) -> None:
    """Damage `path`, give the command and judge its end."""
    way(case.rng, path)
    case.note(f"{command}: {path.relative_to(case.folder)}: {way.__name__}")
    flags = COMMANDS.get(command)
    if command == "convert":
        flags = ["--convert", str(path), "--to", case.rng.choice(("ours", "release"))]
    life = case.live(flags, no_pictures)
    judge.ended(life)
    if list(case.folder.rglob(damage.MARKER)):
        raise judge.Failed("the code of a pickle ran")
    if life.code == 0 and command == "stage 2" and life.err:
        return  # stage 2 stands on an older stage 1, and the warning said so
    if life.code == 0 and command in ("resume", "stage 2", "fresh"):
        judge.same_end(case.run, trained(case).run)


# --- data sets ---

SOURCES = {  # files that users bring, and ways to damage them beside damage.BYTES and SPECIAL
    "videos": {
        "films/person0/clip0.avi": (damage.odd_name,),
        "films/person1/clip1/0.png": (damage.bomb, damage.bomb, damage.odd_name),
        "films/person1/clip5.gif": (damage.bomb, damage.odd_name),
    },
    "digits": {
        "digits/train-images-idx3-ubyte": (damage.bomb,),
        "digits/train-labels-idx1-ubyte": (damage.bomb,),
    },
    "mug": {
        "data/MUG-FED/MUG_0-255_OF_112x112_color.npz": (damage.array_header, damage.evil_pickle),
        "data/MUG-FED/labels.npz": (
            damage.array_header,
            damage.evil_pickle,
            damage.labels_of_halves,
        ),
    },
}
STORED = {  # what the program made of them
    "videos": ("data/video-folder.cache/frames.bin", "data/video-folder.cache/clips.jsonl",
               "data/video-folder.cache/folder-*.json", "data/video-folder.cache/lock"),
    "digits": ("data/moving-mnist/frames.npy", "data/moving-mnist/dataset.json"),
    "mug": ("data/MUG-FED/frames_64x64.npy", "data/MUG-FED/frames_64x64.json"),
}  # fmt: skip


def data_files(case: Case) -> None:
    """Damage a file of a data set, or what the program made of it, and train on it."""
    rng, name = case.rng, case.rng.choice(list(DATA))
    flags, start = DATA[name][1], source(case, name)
    made = undisturbed(case, name, flags, start, no_pictures)
    stored = rng.random() < 0.5
    if stored:
        case.copy(made.folder)
        shutil.rmtree(case.folder / "runs")
        path = next(case.folder.glob(rng.choice(STORED[name])))
        ways = {".json": (*damage.JSON, damage.splits_overlap), ".jsonl": damage.JSON}
        ways |= {".npy": (damage.array_header, damage.evil_pickle)}
        more = ways.get(path.suffix, ())
        if path.name.startswith("folder-"):
            more = damage.JSON
    else:
        case.copy(start)
        path, more = rng.choice(list(SOURCES[name].items()))
        path = case.folder / path
    way = rng.choice((*damage.BYTES, *damage.SPECIAL, *2 * more))
    case.note(f"{path.relative_to(case.folder)}: {way.__name__}")
    way(rng, path)
    life = case.live(flags, no_pictures)
    judge.ended(life)
    if list(case.folder.rglob(damage.MARKER)):
        raise judge.Failed("the code of a pickle ran")
    if life.code == 0 and stored:
        judge.same_end(case.run, made.run)
