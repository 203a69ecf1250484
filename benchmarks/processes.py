"""What it costs that several processes train together: step time, bytes and overlap.

    torchrun --nproc_per_node 2 -m benchmarks.processes --rows demo-stage1,dsa

The same batch is computed by one process alone and shared out between all. A step without exchange
leaves out the sums of the gradients; the exchange alone sums as many numbers in as many pieces. The
overlap is the share of the exchange that the backward pass hides. Every variant takes turns with
the others; a row shows medians and ranges.
"""

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import count

import torch
import torch.distributed as dist

from benchmarks import cases
from benchmarks.rows import RATE, ROWS, noise
from train_test import take_step
from utils import distributed
from utils.errors import in_one_line
from utils.step import Stepper

WARM_UP = 3  # steps that are not timed
LIMIT = 600  # seconds


class Together:
    """As much of train_test.Training as `take_step` reads, and what the gradients' sums weigh."""

    def __init__(self, case: cases.Case, shared: bool):
        self.batches = noise(case)
        torch.manual_seed(0)
        self.stage = case.info.stage().build(case.settings)
        self.stage.start_from(self.batches)
        self.stage.network.train()
        settings = case.settings
        sharded = shared and settings.shard_optimizer
        self.stepper = Stepper(self.stage.trainable(), settings.clip_grad, sharded)
        self.schedules, self.numbers = self.stage.schedules(), count()
        terms = partial(self.stage.terms, self.batches)
        self.terms = distributed.share(self.stage.network, terms) if shared else terms

    def step(self, exchange: bool = True) -> None:
        """One training step; without `exchange`, the gradients are not summed."""
        self.stepper.begin_step(RATE)
        number = next(self.numbers)
        inputs, annealed = self.stage.inputs(self.batches, number), self.schedules.at(0)
        with nullcontext() if exchange else self.terms.no_sync():
            take_step(self, inputs, annealed)

    def moments(self) -> int:
        """Bytes of Adam's state in this process."""
        adam = self.stepper.adam
        states = adam.shared.optim.state if hasattr(adam, "shared") else adam.state
        return sum(value.nbytes for state in states.values() for value in state.values())

    def pieces(self) -> list[int]:
        """Numbers in each piece that the backward pass sums: what one step hands to all_reduce."""
        seen, real = [], dist.all_reduce

        def noting(tensor, *rest, async_op=False, **more):
            if async_op:  # the gradients; other sums are waited for at once
                seen.append(tensor.numel())
            return real(tensor, *rest, async_op=async_op, **more)

        dist.all_reduce = noting
        try:
            self.step()
        finally:
            dist.all_reduce = real
        return seen


def alone(step: Callable[[], None]) -> None:
    """`step` in the first process, while the others wait."""
    if distributed.rank() == 0:
        kept, distributed.total = distributed.total, lambda values: values
        try:
            step()
        finally:
            distributed.total = kept
    dist.barrier()


def measure(case: cases.Case, turns: int) -> dict:
    """{variant: seconds of each turn}, the pieces and the bytes of Adam's state, of one row."""
    together = Together(case, shared=True)
    one = Together(case, shared=False)
    for _ in range(WARM_UP):
        together.step()
        alone(one.step)
    pieces = together.pieces()
    numbers = [torch.zeros(size) for size in pieces]

    def exchange():
        for work in [dist.all_reduce(part, async_op=True) for part in numbers]:
            work.wait()

    variants = {
        "one process": partial(alone, one.step),
        "together": together.step,
        "no exchange": partial(together.step, False),
        "exchange alone": exchange,
    }
    times = {name: [] for name in variants}
    for _ in range(turns):
        for name, call in variants.items():
            dist.barrier()
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {"times": times, "pieces": pieces, "moments": together.moments()}


def line(name: str, case: cases.Case, found: dict) -> str:
    """The row of the table."""
    middle = {part: statistics.median(seconds) for part, seconds in found["times"].items()}
    shown = ", ".join(
        f"{part} {middle[part]:.3f} ({min(seconds):.3f} to {max(seconds):.3f}) s"
        for part, seconds in found["times"].items()
    )
    size, count = 4 * sum(found["pieces"]), dist.get_world_size()
    hidden = 1 - (middle["together"] - middle["no exchange"]) / middle["exchange alone"]
    sent = 2 * (count - 1) / count * size
    weight = f"gradients {size / 1e6:.1f} MB in {len(found['pieces'])} pieces"
    weight += f", {sent / 1e6:.1f} MB sent; hidden {hidden:.0%}"
    return f"{name}, {case.size}: {shown}; {weight}; Adam {found['moments'] / 1e6:.1f} MB"


@in_one_line
def main(argv):
    parser = cases.flags("processes", __doc__, threads="1")
    parser.add_argument("--rows", default="demo-stage1", help="names of benchmarks.rows.ROWS")
    parser.add_argument("--turns", type=cases.count, default=7, help="timed steps per variant")
    parser.add_argument("--bs", type=cases.count, help="sequences per batch. Default: the row's")
    parser.add_argument("--shard", action="store_true", help="with --shard_optimizer True")
    given = parser.parse_args(argv)
    distributed.join("cpu", LIMIT)
    rows = []
    for name in given.rows.split(","):
        case = ROWS[name].case(given.threads, given.quick)
        case.device()
        case.settings.shard_optimizer = given.shard
        if given.bs:
            case.settings.bs = given.bs
        distributed.refuse_uneven(case.clips)
        found = measure(case, given.turns)
        timings = {part: cases.spread(seconds) for part, seconds in found["times"].items()}
        rows.append({"name": name, "timings": timings, "pieces": found["pieces"]})
        if distributed.rank() == 0:
            print(line(name, case, found), flush=True)
    if distributed.rank() == 0:
        machine = cases.result("processes", [given.threads], rows)
        cases.publish(given, machine, cases.heading(machine))
    return 0


if __name__ == "__main__":
    distributed.quieten()
    distributed.leave(main(sys.argv[1:]))
