"""Draws the cases, runs them in worker processes and counts how they end."""

import multiprocessing
import random
import shutil
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.torture import faults, files, kills, lines
from tests.torture.cases import Case
from tests.torture.judge import Failed
from tests.torture.server import prepare

CLASSES = {  # name: what runs a case, and its share of the time
    "kills": (kills.run, 5),
    "files": (files.run_files, 4),
    "data": (files.data_files, 2),
    "lines": (lines.run, 10),
    "nan": (faults.nan, 1),
    "limits": (faults.limits, 2),
}


class Result(NamedTuple):
    """How one case ended. command: repeats the case. failure: what was wrong, or None."""

    name: str
    command: str
    failure: str | None
    notes: list[str]
    seconds: float


def one(name: str, seed: int, number: int, scratch: Path, keep: bool = False) -> Result:
    """Run one case in a folder below `scratch`, which is kept if asked."""
    folder, began, failure = scratch / f"{name}-{number}", time.monotonic(), None
    folder.mkdir()
    rng = random.Random(f"{seed} {name} {number}")
    case = Case(rng, folder, scratch / "shared", seed, number)
    try:
        CLASSES[name][0](case)
    except Failed as error:
        failure = "\n    ".join(text[:300] for text in (*case.notes[-4:], str(error)))
    except Exception:  # a mistake of the torture must be seen and not be counted as passed
        failure = f"the torture itself failed: {traceback.format_exc(-4)}"
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    command = f"python -m tests.torture --only {name} --seed {seed} --case {number}"
    return Result(name, command, failure, case.notes, time.monotonic() - began)


def ready(scratch: Path) -> None:
    """Make this process one that forks lives."""
    (scratch / "shared" / "first").mkdir(parents=True)
    prepare(scratch / "shared" / "first")


def torture(names: list[str], given: Namespace, scratch: Path) -> Iterator[Result]:
    """Run cases of the classes `names` until the time or the count of `given` is over.

    given: the flags of `__main__`.
    """
    ready(scratch)
    ends = None if given.count else time.monotonic() + 60 * given.minutes
    context = multiprocessing.get_context("fork")
    queue, workers = context.SimpleQueue(), []
    for job in range(given.jobs):
        task = names, given, ends, job, scratch / f"job{job}", queue
        workers.append(context.Process(target=_work, args=task, daemon=True))
        workers[-1].start()
    left = len(workers)
    while left:
        result = queue.get()
        if result is None:
            left -= 1
        else:
            yield result
    for worker in workers:
        worker.join()


def _work(names, given, ends, job, scratch, queue):
    """Run every given.jobs-th case of each class; classes take turns by their share of the time."""
    (scratch / "shared").mkdir(parents=True)
    spent, following = dict.fromkeys(names, 0.0), dict.fromkeys(names, job)
    try:
        while ends is None or time.monotonic() < ends:
            unfinished = [n for n in names if not given.count or following[n] < given.count]
            if not unfinished:
                break
            name = min(unfinished, key=lambda n: spent[n] / CLASSES[n][1])
            result = one(name, given.seed, following[name], scratch)
            following[name] += given.jobs
            spent[name] += result.seconds
            queue.put(result)
    except KeyboardInterrupt:
        pass
    queue.put(None)


def table(names: list[str], results: list[Result], minutes: float) -> str:
    """The counts of each class as Markdown, and below them the failures."""
    lines = ["| class | tried | passed | failed |", "| --- | --- | --- | --- |"]
    for name in names:
        mine = [result.failure is None for result in results if result.name == name]
        lines.append(f"| {name} | {len(mine)} | {sum(mine)} | {len(mine) - sum(mine)} |")
    bad = [result for result in results if result.failure]
    lines.append(f"\n{len(results)} cases in {minutes:.1f} minutes, {len(bad)} failed")
    lines += [f"\n{result.command}\n    {result.failure}" for result in bad]
    return "\n".join(lines)
