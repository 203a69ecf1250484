"""Draws the cases, runs them in worker processes and counts how they end."""

import multiprocessing
import random
import shutil
import signal
import sys
import time
import traceback
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture import faults, files, kills, lines
from tests.torture.cases import Case
from tests.torture.judge import Failed
from tests.torture.server import prepare

# name: what runs a case, and its share of the time
CLASSES = {
    "kills": (kills.run, 4),
    "files": (files.run_files, 3),
    "data": (files.data_files, 2),
    "lines": (lines.run, 3),
    "nan": (faults.nan, 1),
    "limits": (faults.limits, 2),
}


@dataclass
class Result:
    """How one case ended. failure: what was wrong, or None."""

    name: str
    seed: int
    number: int
    failure: str | None
    notes: list[str]
    folder: Path
    seconds: float = 0.0

    @property
    def command(self) -> str:
        """The command that repeats the case."""
        return f"python -m tests.torture --only {self.name} --seed {self.seed} --case {self.number}"


@dataclass
class Tally:
    """Results, counted by class."""

    names: list[str]
    results: list[Result] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> int:
        return sum(result.failure is not None for result in self.results)

    def table(self) -> str:
        """The table and the failures, as Markdown."""
        lines = ["| class | tried | passed | failed | seconds |", "| --- | --- | --- | --- | --- |"]
        for name in self.names:
            mine = [result for result in self.results if result.name == name]
            bad = sum(result.failure is not None for result in mine)
            spent = sum(result.seconds for result in mine)
            lines.append(f"| {name} | {len(mine)} | {len(mine) - bad} | {bad} | {spent:.0f} |")
        minutes = (time.monotonic() - self.began) / 60
        lines.append(f"\n{len(self.results)} cases in {minutes:.1f} minutes, {self.failed} failed")
        for result in self.results:
            if result.failure:
                lines += [f"\n{result.command}", f"    {result.failure}"]
        return "\n".join(lines)


def one(name: str, seed: int, number: int, scratch: Path, keep: bool = False) -> Result:
    """Run one case. keep: leave its folder, and prepare the process first."""
    if keep:
        ready(scratch)
    folder = scratch / f"{name}-{number}"
    folder.mkdir()
    rng = random.Random(f"{seed} {name} {number}")
    case = Case(rng, folder, scratch / "shared", seed, number)
    began, failure = time.monotonic(), None
    try:
        CLASSES[name][0](case)
    except Failed as error:
        failure = str(error)[:400]
    except Exception:  # a mistake of the torture itself must be seen, not counted as passed
        failure = f"the torture itself failed: {traceback.format_exc(-4)}"
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    return Result(name, seed, number, failure, case.notes, folder, seconds)


def ready(scratch: Path) -> None:
    """Make this process one that forks lives."""
    (scratch / "shared" / "first").mkdir(parents=True)
    prepare(scratch / "shared" / "first")


def torture(names: list[str], given: Namespace, scratch: Path) -> Tally:
    """Run cases of the classes `names` until the time or the count that `given` asks for is over.

    given: the flags of `__main__`. Prints each failure as it comes.
    """
    ready(scratch)
    tally, context = Tally(names), multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    ends = None if given.count else tally.began + 60 * given.minutes
    workers = []
    for job in range(given.jobs):
        place = scratch / f"job{job}"
        (place / "shared").mkdir(parents=True)
        numbers = job, given.jobs, given.count
        task = context.Process(target=_work, args=(names, given.seed, numbers, ends, place, queue))
        task.start()
        workers.append(task)
    left = len(workers)
    try:
        while left:
            result = queue.get()
            if result is None:
                left -= 1
                continue
            tally.results.append(result)
            if result.failure:
                print(f"{result.command}\n    {result.failure}", flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    for worker in workers:
        worker.join()
    return tally


def _work(names, seed, numbers, ends, scratch, queue):
    """Run every given.jobs-th case of each class; classes take turns by their share of the time."""
    first, every, count = numbers
    spent, following = dict.fromkeys(names, 0.0), dict.fromkeys(names, first)
    try:
        while ends is None or time.monotonic() < ends:
            open_names = [n for n in names if count is None or following[n] < count]
            if not open_names:
                break
            name = min(open_names, key=lambda n: spent[n] / CLASSES[n][1])
            result = one(name, seed, following[name], scratch)
            following[name] += every
            spent[name] += result.seconds
            queue.put(result)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    queue.put(None)
