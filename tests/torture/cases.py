"""What the cases of every class share: a seeded generator, a folder, and undisturbed runs."""

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import train_test
from models.elbo import Term
from tests.data.test_sprites_release import write_release
from tests.made import digits, mug, sheets, videos
from tests.runs import NETWORKS
from tests.tiny import STAGE_1
from tests.torture import judge
from tests.torture.server import LIMIT, SMALL, Events, Life, live

RUN = Path("runs", "demo")


@dataclass
class Case:
    """One case of a class. Equal `rng`, `seed` and `number` give equal cases.

    folder: empty, for this case. shared: of the worker, for what many cases read. notes: what was
    done, in words.
    """

    rng: random.Random
    folder: Path
    shared: Path
    seed: int = 0
    number: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.folder / RUN

    def live(self, flags: Sequence, *arrange: Callable, **limits) -> Life:
        """A life of main.py in this case's folder."""
        life = live(flags, self.folder, *arrange, **limits)
        self.notes.append(str(life))
        return life

    def copy(self, folder: Path) -> None:
        """Put what `folder` holds into this case's folder."""
        shutil.copytree(folder, self.folder, dirs_exist_ok=True, symlinks=True)


class Undisturbed(NamedTuple):
    folder: Path
    run: Path
    seconds: float
    moments: int  # see `Events`


_undisturbed: dict[str, Undisturbed] = {}


def undisturbed(case: Case, name: str, flags: Sequence, start: Path | None = None, *arrange):
    """The run `flags`, reckoned once per worker, from a copy of the folder `start`."""
    if name not in _undisturbed:
        folder = case.shared / f"undisturbed-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        if start:
            shutil.copytree(start, folder)
        folder.mkdir(exist_ok=True)
        events = Events()
        life = live(flags, folder, *arrange, events.arrange, limit=5 * LIMIT)
        judge.ended(life, 0)
        _undisturbed[name] = Undisturbed(folder, folder / RUN, life.seconds, events.count)
    return _undisturbed[name]


def trained(case: Case) -> Undisturbed:
    """Both stages of SMALL, trained once."""
    return undisturbed(case, "trained", SMALL)


def spoil(stage_name: str, term: str, value_at: Callable) -> Callable:
    """A function for `arrange`: in a training step, multiply a term of the loss of the stage.

    value_at(training): the factor in this step, or None.
    """

    def arrange():
        network, take_step, factor = NETWORKS[stage_name], train_test.take_step, [None]
        loss = network.loss

        def spoiled(self, *args, **kwargs):
            terms = loss(self, *args, **kwargs)
            if factor[0] is not None:
                terms[term] = Term(*(part * factor[0] for part in terms[term]))
            return terms

        def step(training, *rest):
            factor[0] = value_at(training) if training.info.name == stage_name else None
            result = take_step(training, *rest)
            factor[0] = None
            return result

        network.loss, train_test.take_step = spoiled, step

    return arrange


# --- data sets of a few small files ---

ONE_EPOCH = [*SMALL, *STAGE_1, "--epochs", "1", "--seq_len", "4", "--data_dir", "data"]
DATA = {  # name: what writes its files into a folder, and flags
    "videos": (
        lambda folder: videos(folder / "films"),
        [*ONE_EPOCH, "--dataset_name", "video-folder", "--source", "films"],
    ),
    "digits": (
        lambda folder: digits(folder / "digits"),
        [*ONE_EPOCH, "--dataset_name", "moving-mnist", "--source", "digits"],
    ),
    "sprites": (
        lambda folder: write_release(folder / "data" / "sprites"),
        [*ONE_EPOCH, "--dataset_name", "sprites"],
    ),
    "sheets": (
        lambda folder: sheets(folder / "art"),
        [*ONE_EPOCH, "--dataset_name", "sprites-li", "--source", "art"],
    ),
    "mug": (
        lambda folder: mug(folder / "data", clips=12, film=8),
        [*ONE_EPOCH, "--dataset_name", "MUG-FED"],
    ),
}


def source(case: Case, name: str) -> Path:
    """A folder that holds the files of the data set `name` of DATA, made once per worker."""
    folder = case.shared / f"source-{name}"
    if not folder.exists():
        folder.mkdir()
        DATA[name][0](folder)
    return folder
