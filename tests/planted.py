"""A short torture of the program, and the same of programs with a fault planted into them.

Run by tests/test_torture.py in a process of its own, because the torture forks. Prints as JSON
{'sound': {class: [failures]}, 'planted': {fault: [what the torture said of it]}}.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch

import main
import train_test
import utils.run_folder
from tests.torture import damage, files, judge, kills, server, work
from tests.torture.cases import Case, trained

COUNTS = {"kills": 2, "files": 4, "data": 3, "lines": 10, "nan": 1, "limits": 1}
SEED, TRIES = 1, 6
resume, sound_main = train_test.resume, main.main


def deletes_the_old_run(self, keep=None):
    shutil.rmtree(self.root)
    return []


def forgets_the_noise(*args):
    with patch.object(train_test, "set_rng_state"):
        return resume(*args)


def loads_pickles(path, *_):
    return torch.load(path, weights_only=False)


def says_two_lines(argv):
    print("one more line", file=sys.stderr)
    return sound_main(argv)


def raises(argv):
    raise ValueError("of ours")


def waits(argv):
    time.sleep(10**6)


def refused(case):
    judge.ended(case.live(["--bs", "0"]))


def given_a_pickle(case):
    case.copy(trained(case).folder)
    files.judged(case, "test", damage.evil_pickle, case.run / "checkpoints" / "2_VDSM_EncDec.pth")


PLANTED = {  # fault: what is replaced, by what, the torture that must notice, and what it says
    "loses the old run": (
        utils.run_folder.RunFolder, "set_aside", deletes_the_old_run,
        lambda case: kills.run(case, "fresh"), "lost of the old run",
    ),
    "forgets the noise": (
        train_test, "resume", forgets_the_noise,
        lambda case: kills.run(case, "training"), "differs from the undisturbed run",
    ),
    "runs pickles": (
        utils.run_folder, "load_checkpoint", loads_pickles, given_a_pickle,
        "the code of a pickle ran",
    ),
    "two lines": (main, "main", says_two_lines, refused, "expected one line on stderr"),
    "traceback": (main, "main", raises, refused, "a traceback: ValueError: of ours"),
    "hang": (main, "main", waits, refused, "no end within"),
}  # fmt: skip


def noticed(scratch: Path, fault: str) -> list[str]:
    """What the torture says of the program with a planted fault, until it says what it should."""
    where, name, replaced, torture, words = PLANTED[fault]
    said = []
    for seed in range(TRIES):
        folder = scratch / f"{fault}-{seed}".replace(" ", "-")
        folder.mkdir()
        case = Case(random.Random(seed), folder, scratch / "shared")
        trained(case)
        with patch.object(where, name, replaced), patch.object(server, "STILL", 2):
            try:
                torture(case)
            except judge.Failed as error:
                said.append(str(error))
        if said and words in said[-1]:
            break
    return said


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        work.ready(scratch)
        sound = {
            name: [
                result.failure
                for number in range(count)
                if (result := work.one(name, SEED, number, scratch)).failure
            ]
            for name, count in COUNTS.items()
        }
        planted = {fault: noticed(scratch, fault) for fault in PLANTED}
    print(json.dumps({"sound": sound, "planted": planted}))
