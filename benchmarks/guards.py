"""What safety costs at the paper's Sprites size, in percent of an optimiser step: the guard against NaN, and saving.

    python -m benchmarks.guards [--json FILE] [--threads 1] [--folder DIR] [--quick]

Everything is measured in one run, on one model. The guard is what a step does beyond Adam's own: the gradient's norm, the decision
and the host's question. Saving is counted at the README's interval, with all the processor time that copying and writing take, as if no
other core were there to take it; how long training waits is shown beside it, and how long it would if it wrote the file itself.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.step import machine, paper_case, stepper, tiny_case
from utils.checkpoints import Saver, rng_state, save_checkpoint

STEPS_BETWEEN = 50 * 50  # the README's Sprites commands: --model_save_interval 50 --bs_per_epoch 50
MOST = 2.0  # percent


class Folder:
    """A folder of checkpoints as `Saver` wants it."""

    def prune(self, *_):
        """Everything is kept."""


def _timed(function, device):
    """Seconds by the processor's clock and of wall time. On a GPU both are wall time, with the device done."""
    processor, wall = time.process_time(), time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    wall = time.perf_counter() - wall
    return (wall if device.type == "cuda" else time.process_time() - processor), wall


def measure(case, stage, folder, repeats=3):
    """One stage's figures, seconds and percent, as a dictionary."""
    device = case.device()
    step, descend, network = stepper(case, stage, "fast")
    loss = torch.zeros((), device=device)

    def guard():
        descend.judge(loss)
        descend.bad_step()

    step(), guard()
    steps, guards = [], []
    for _ in range(repeats):
        steps.append(_timed(step, device)[0])
        guards.append(_timed(guard, device)[0])
    state = {
        "epoch": 1, "model": network.state_dict(), "optimizer": descend.adam.state_dict(), "settings": {}, "rng": rng_state(device),
    }  # fmt: skip
    saver, waits, takes = Saver(Folder(), stage), [], []
    for _ in range(repeats):

        def save():
            waits.append(_timed(lambda: saver.save(folder / "background.pth", state), device)[1])  # noqa: B023
            saver.wait()

        takes.append(_timed(save, device)[0])
    itself = _timed(lambda: save_checkpoint(folder / "itself.pth", state), device)[1]
    second, guarded, took = (statistics.median(times) for times in (steps, guards, takes))
    return {
        "stage": stage,
        "step": second,
        "guard": guarded,
        "guard percent": 100 * guarded / second,
        "checkpoint bytes": (folder / "itself.pth").stat().st_size,
        "saving": took,
        "saving percent": 100 * took / (STEPS_BETWEEN * second),
        "training waits": statistics.median(waits),
        "training would wait": itself,
    }


def table(result):
    """The result as text."""
    lines = [f"{result['machine']}; torch {result['torch']}"]
    for row in result["rows"]:
        total = row["guard percent"] + row["saving percent"]
        lines += [
            f"{row['stage']}: step {row['step']:.3f} s, guard {1000 * row['guard']:.1f} ms: {row['guard percent']:.2f} %",
            f"{row['stage']}: a checkpoint of {row['checkpoint bytes'] / 1e9:.2f} GB takes {row['saving']:.2f} s of processor, every "
            f"{STEPS_BETWEEN} steps {row['saving percent']:.3f} %; training waits {row['training waits']:.2f} s "
            f"(if it wrote itself, {row['training would wait']:.2f} s)",
            f"{row['stage']}: guard and saving {total:.2f} % of a step (under {MOST:g}): {'met' if total < MOST else 'MISSED'}",
        ]
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guards", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument(
        "--folder", metavar="DIR", help="on the disk to measure [the system's temporary folder]"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    flags = parser.parse_args(argv)
    case = tiny_case(flags.threads) if flags.quick else paper_case(flags.threads)
    folder = Path(tempfile.mkdtemp(dir=flags.folder))
    try:
        rows = [measure(case, stage, folder) for stage in case.frames]
    finally:
        shutil.rmtree(folder)
    result = {"machine": machine(case), "torch": torch.__version__, "rows": rows}
    print(table(result))
    if flags.json:
        with open(flags.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
