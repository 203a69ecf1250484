"""What safety costs at the release's Sprites size, in percent of an optimiser step.

    python -m benchmarks.guards [--json FILE] [--threads 1] [--folder DIR] [--quick]

The guard against NaN is what a step does beyond Adam's own work: the norm of the gradient, the
decision, and its transfer to the host. Saving costs all the processor time of copying and writing a
checkpoint, spread over the steps between two checkpoints. The table also shows how long training
waits for a save, and how long it would wait if it wrote the file itself.
"""

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks import cases
from benchmarks.step import optimiser_step
from utils.checkpoints import Saver, rng_state, save_checkpoint

# The release's Sprites commands: --model_save_interval 50 --bs_per_epoch 50.
STEPS_BETWEEN_SAVES = 50 * 50
MOST_PERCENT = 2.0


def measure(case: cases.Case, stage_name: str, folder: Path, repeats: int = 3) -> dict:
    """The figures of one stage, in seconds, bytes and percent. Checkpoints go to `folder`."""
    step, stepper, network = optimiser_step(case, stage_name, "fast")
    loss = torch.zeros((), device=case.device())

    def guard():
        stepper.judge(loss)
        stepper.bad_step()

    def processor_seconds(function):
        return cases.timed(function, case, clock=time.process_time)[0][0]

    step()
    guard()
    times = [(processor_seconds(step), processor_seconds(guard)) for _ in range(repeats)]
    step_seconds, guard_seconds = map(statistics.median, zip(*times))
    state = {"epoch": 1, "model": network.state_dict(), "settings": {}}
    state |= {"optimizer": stepper.adam.state_dict(), "rng": rng_state(case.device())}
    saver, waits = Saver(SimpleNamespace(prune=lambda *_: None), stage_name), []

    def save():
        waits.extend(cases.timed(lambda: saver.save(folder / "background.pth", state), case))
        saver.wait()

    saving = statistics.median(processor_seconds(save) for _ in range(repeats))
    path = folder / "foreground.pth"
    return {
        "stage": stage_name,
        "step": step_seconds,
        "guard": guard_seconds,
        "guard percent": 100 * guard_seconds / step_seconds,
        "saving": saving,
        "saving percent": 100 * saving / (STEPS_BETWEEN_SAVES * step_seconds),
        "training waits": statistics.median(wall for _, wall in waits),
        "training would wait": cases.timed(lambda: save_checkpoint(path, state), case)[0][1],
        "checkpoint bytes": path.stat().st_size,
    }


def table(result: dict) -> str:
    """The figures as text."""
    lines = [result["machine"]]
    for row in result["rows"]:
        stage, total = cases.STAGES[row["stage"]], row["guard percent"] + row["saving percent"]
        lines += [
            f"{stage}: a step takes {row['step']:.3f} s, the guard {1000 * row['guard']:.1f} ms "
            f"of that: {row['guard percent']:.2f} %",
            f"{stage}: a checkpoint of {row['checkpoint bytes'] / 1e9:.2f} GB takes "
            f"{row['saving']:.2f} s of processor time, once in {STEPS_BETWEEN_SAVES} steps: "
            f"{row['saving percent']:.3f} %",
            f"{stage}: training waits {row['training waits']:.2f} s for a save "
            f"({row['training would wait']:.2f} s if it wrote the file itself)",
            f"{stage}: guard and saving take {total:.2f} % of a step (under {MOST_PERCENT:g}): "
            f"{cases.met(total < MOST_PERCENT)}",
        ]
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = cases.flags("guards", __doc__)
    parser.add_argument("--folder", help="where to save (default: the system's temporary folder)")
    given = parser.parse_args(argv)
    case = cases.new_case(given.threads, given.quick)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = [measure(case, stage_name, Path(folder)) for stage_name in case.frames]
    result = {"machine": cases.machine(case), "rows": rows}
    cases.publish(given, result, table(result))


if __name__ == "__main__":
    main()
