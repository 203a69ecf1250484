"""Kills at random moments: the same command, given again until it ends, ends as if undisturbed."""

import math
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.tiny import STAGE_1, STAGE_2
from tests.torture import judge
from tests.torture.cases import DATA, Case, source, spoil, trained, undisturbed
from tests.torture.server import SMALL, Events, limit_files

MOST_KILLS = 3
FRESH = ["--fresh", "True"]
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}


def finished(case: Case) -> Path:
    return trained(case).folder


class Scenario(NamedTuple):
    """A command that is killed."""

    flags: list[str]
    start: Callable[[Case], Path] | None = None  # gives the folder in which it starts
    spoils: Callable[[], Callable] | None = None  # gives what to arrange in each life
    keeps: bool = False  # nothing of the start may be lost


def nan_once() -> Callable:
    """A NaN in step 3 of stage 1 which never comes again once a step was taken at a lower rate."""
    gone = Path("nan-is-over")

    def value(training):
        if training.place.scale < 1:
            gone.touch()
        return math.nan if training.place.step == 3 and not gone.exists() else None

    return spoil("EncDec", "x", value)


def nan_at_once() -> Callable:
    """A NaN in step 2 of stage 1, right after a checkpoint, at the first two learning rates."""

    def value(training):
        return math.nan if training.place.step == 2 and training.place.scale > 0.3 else None

    return spoil("EncDec", "x", value)


SCENARIOS = {
    "training": Scenario(SMALL),
    "saving every step": Scenario([*SMALL, "--save_every_steps", "1", "--keep_checkpoints", "1"]),
    "fresh": Scenario([*SMALL, *FRESH, "--bs", "3"], finished, keeps=True),
    "fresh stage 1": Scenario([*SMALL, *FRESH, *STAGE_1], finished, keeps=True),
    "fresh stage 2": Scenario([*SMALL, *FRESH, *STAGE_2], finished, keeps=True),
    "NaN": Scenario([*SMALL, *STAGE_1], spoils=nan_once),
    "NaN at once": Scenario([*SMALL, *STAGE_1], spoils=nan_at_once),
    **{name: Scenario(flags, partial(source, name=name)) for name, (_, flags) in DATA.items()},
}


def run(case: Case, name: str | None = None) -> None:
    """Kill the command of a scenario up to MOST_KILLS times, let it end, and compare."""
    rng, name = case.rng, name or case.rng.choice(list(SCENARIOS))
    scenario = SCENARIOS[name]
    start = scenario.start(case) if scenario.start else None
    spoilt = [scenario.spoils()] if scenario.spoils else []
    reference = undisturbed(case, name, scenario.flags, start, *spoilt)
    if start:
        case.copy(start)
    for _ in range(rng.randint(1, MOST_KILLS)):
        events, limits, asked = moment(case, reference)
        life = case.live(scenario.flags, *spoilt, events.arrange, **limits)
        if life.killed or (asked and life.code in (-asked, 128 + asked)):
            continue
        judge.ended(life, 0)
        break
    else:
        judge.ended(case.live(scenario.flags, *spoilt), 0)
    judge.same_end(case.run, reference.run)
    parts = [str(path.name) for path in case.run.rglob("*.part")]
    if parts:
        raise judge.Failed(f"half-written files are left: {', '.join(parts)}")
    if scenario.keeps:
        nothing_lost(start / "runs", case.folder / "runs")


def moment(case: Case, reference) -> tuple[Events, dict, int | None]:
    """A way to die: what counts the moments, limits of the life, and the signal that asks."""
    rng, at = case.rng, case.rng.randrange(reference.moments)
    way = rng.choices(("killed", "torn", "clock", *SIGNALS), (10, 4, 4, 1, 1))[0]
    seconds = rng.uniform(0, reference.seconds)
    if way == "clock":
        case.notes.append(f"killed after {seconds:.3f} s")
        return Events(), {"kill_after": seconds}, None
    case.notes.append(f"{way} at moment {at} of {reference.moments}")
    act = partial(signal.raise_signal, SIGNALS.get(way, signal.SIGKILL))
    if way == "torn":
        act = partial(limit_files, round(2 ** rng.uniform(0, 17)))
    return Events(at, act, full=signal.SIG_DFL), {}, SIGNALS.get(way)


def nothing_lost(before: Path, after: Path) -> None:
    """Raise Failed if a checkpoint below `before` is nowhere below `after`."""

    left = {path.read_bytes() for path in after.rglob("*.pth")}
    lost = [path.name for path in before.rglob("*.pth") if path.read_bytes() not in left]
    if lost:
        raise judge.Failed(f"lost of the old run: {', '.join(sorted(lost))}")
