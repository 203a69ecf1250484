"""NaN in a loss; a full disk, too little memory, a clock that goes back, two runs at once."""

import errno
import math
import os
import time
from functools import partial

import torch

from tests.runs import TERMS
from tests.torture import judge
from tests.torture.cases import DATA, Case, source, spoil, undisturbed
from tests.torture.server import SMALL, Events, begin, limit_files, limit_memory


def nan(case: Case) -> None:
    """Spoil one term of one stage at random steps: go back at half the rate, or stop in a line."""
    rng = case.rng
    stage_name = rng.choice(list(TERMS))
    term, retries = rng.choice(TERMS[stage_name]), rng.randint(0, 3)
    value = rng.choice((math.nan, math.inf, -math.inf))
    at = {rng.randrange(6): 0.5 ** rng.randint(0, 4) for _ in range(rng.randint(1, 2))}
    case.notes.append(f"{term} of {stage_name} times {value} at steps and down to scales {at}")

    def value_at(training):
        least = at.get(training.place.step)
        return value if least is not None and training.place.scale >= least else None

    flags = [*SMALL, "--nan_retries", str(retries)]
    life = case.live(flags, spoil(stage_name, term, value_at))
    judge.ended(life, warnings=2 * retries)
    odd = [line for line in life.err.splitlines() if "not finite" not in line]
    if odd:
        raise judge.Failed(f"a line that names no loss: {odd[0]}")
    judge.all_finite(case.run / "checkpoints")
    if life.code == 2:
        # the very first step of a stage gives the same loss at every rate
        if "go on with: python main.py" not in life.err and "no update was made" not in life.err:
            raise judge.Failed("the last line names no way on")
        judge.ended(case.live(SMALL), 0)
    path = judge.newest(case.run / "checkpoints")[stage_name]
    scale = torch.load(path, weights_only=True)["place"]["scale"]
    if life.code == 0 and scale != 0.5 ** (life.err.count("at learning rate")):
        raise judge.Failed(f"the rate was lowered to {scale} of itself: {life.err}")


def limits(case: Case) -> None:
    """Take something away while a command runs. Given again with all it needs, it ends as ever."""
    rng = case.rng
    name = rng.choice(("training", "training", *DATA))
    flags, start = (SMALL, None) if name == "training" else (DATA[name][1], source(case, name))
    if start:
        case.copy(start)
    reference = undisturbed(case, name, flags, start)
    kind = rng.choice(list(KINDS))
    case.notes.append(f"{kind} while {name}")
    KINDS[kind](case, flags, reference)
    judge.ended(case.live(flags), 0)
    judge.same_end(case.run, reference.run)


def one_refusal(case, flags, reference, error=errno.ENOSPC):
    """The disk refuses one file, and says why."""

    def refuse():
        raise OSError(error, os.strerror(error), "a file")

    at = case.rng.randrange(reference.moments)
    case.notes.append(f"at moment {at} of {reference.moments}")
    judge.ended(case.live(flags, Events(at, refuse).arrange))


def full_disk(case, flags, reference):
    """No file can grow beyond a random size."""
    size = round(2 ** case.rng.uniform(13, 18))  # what it prints is a file too
    case.notes.append(f"files of {size} bytes at most")
    at = case.rng.randrange(reference.moments)
    judge.ended(case.live(flags, Events(at, partial(limit_files, size)).arrange))


def little_memory(case, flags, reference):
    """The command gets a few MB of memory beside the program."""
    room = round(2 ** case.rng.uniform(18, 29))
    case.notes.append(f"{room:,} bytes of memory")
    # each stage may warn beforehand that it may not fit
    judge.ended(case.live(flags, partial(limit_memory, room)), warnings=2)


def clock(case, flags, reference):
    """The clock goes back by an hour or by years, again and again."""
    back, now = case.rng.choice((3600.0, 1e8, 1.9e9)), time.time

    def arrange():
        calls = iter(range(10**9))
        time.time = lambda: max(now() - back * (next(calls) % 3), 0.0)

    judge.ended(case.live(flags, arrange), 0)


def two_at_once(case, flags, reference):
    """The same command, or one that starts over, while the first one runs."""
    first = begin(flags, case.folder)
    time.sleep(case.rng.uniform(0, reference.seconds))
    more = case.rng.choice(([], [], ["--RUN", "other"]))
    second = begin([*flags, *more], case.folder)
    lives = [pending.end() for pending in (first, second)]
    for life in lives:
        case.notes.append(str(life))
        judge.ended(life)
    if all(life.code == 2 for life in lives):
        raise judge.Failed("both were refused")
    if any(life.code == 2 and "in use by" not in life.err for life in lives):
        raise judge.Failed(f"refused for another reason: {lives[0].err}{lives[1].err}")


KINDS = {
    "one refusal of the disk": one_refusal,
    "a disk that vanishes": partial(one_refusal, error=errno.EIO),
    "a full disk": full_disk,
    "little memory": little_memory,
    "a clock set back": clock,
    "two at once": two_at_once,
}
