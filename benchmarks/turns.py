"""Steps that are timed in turn, each in a process of its own.

The speed of a machine changes over minutes, and a process has one peak of memory. So each variant
of a step (its precision, its threads) has a process, and the processes take turns: their medians
compare the variants under the same conditions.
"""

import multiprocessing
import resource
import sys
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from benchmarks import cases, rows
from utils.errors import UserError

LEAST_SECONDS = 1.0  # of a turn: short steps are repeated


class Variant:
    """One row of `rows.ROWS` in one precision, with one number of threads."""

    def __init__(self, row: str, precision: str, threads: int, quick: bool = False):
        self.kind, self.quick = rows.ROWS[row], quick
        self.case = self.kind.case(threads, quick).in_precision(precision)
        self.step = rows.build(self.case, self.kind.form)
        cases.timed(self.step.take, self.case, 0, 1 if quick else self.kind.warm_up)

    def turn(self) -> list[tuple[float, float]]:
        """Seconds by the clock and of wall time of each step of one turn (see `cases.timed`)."""
        times, least = [], 0.0 if self.quick else LEAST_SECONDS
        while not times or sum(wall for _, wall in times) < least:
            times += cases.timed(self.step.take, self.case)
        return times

    def end(self) -> int:
        """The peak of memory in bytes. UserError if a loss was not finite: its step is shorter."""
        if self.step.stepper.bad_step() is not None:
            raise UserError(f"{self.kind.text}: a loss was not finite: its times mean nothing")
        if self.case.device().type == "cuda":
            return torch.cuda.max_memory_allocated()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def _serve(pipe, *given):
    """Be a Variant at the other end of `pipe`, until `end`."""
    try:
        variant = Variant(*given)
        pipe.send(None)
        while (name := pipe.recv()) != "end":
            pipe.send(getattr(variant, name)())
        pipe.send(variant.end())
    except UserError as error:
        pipe.send(error)
    except (EOFError, KeyboardInterrupt):
        pass  # the parent has gone


class Remote:
    """A Variant in a process of its own."""

    def __init__(self, *given):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, *given), daemon=True)
        self.process.start()
        theirs.close()
        self._answer()

    def _answer(self) -> Any:
        answer = self.pipe.recv()
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _ask(self, name: str) -> Any:
        self.pipe.send(name)
        return self._answer()

    def turn(self) -> list[tuple[float, float]]:
        return self._ask("turn")

    def end(self) -> int:
        return self._ask("end")


@contextmanager
def _started(*given):
    """A Variant: in this process if quick, otherwise in its own, which ends with the block."""
    *_, quick = given
    if quick:
        yield Variant(*given)
        return
    remote = Remote(*given)
    try:
        yield remote
    finally:
        remote.pipe.close()
        remote.process.terminate()
        remote.process.join()


def measure(row: str, variants: list[tuple[str, int]], quick: bool = False) -> list[dict]:
    """Time the variants (precision, threads) of a row in turn.

    Returns for each: 'timings' {'step', 'wall': see `cases.spread`}, and 'peak' in bytes.
    """
    with ExitStack() as stack:
        started = [stack.enter_context(_started(row, *v, quick)) for v in variants]
        times: list[list[tuple[float, float]]] = [[] for _ in variants]
        for _ in range(1 if quick else rows.ROWS[row].turns):
            for variant, mine in zip(started, times):
                mine += variant.turn()
        peaks = [variant.end() for variant in started]
    return [
        {"timings": dict(zip(("step", "wall"), map(cases.spread, zip(*mine)))), "peak": peak}
        for mine, peak in zip(times, peaks)
    ]
