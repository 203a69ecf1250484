"""What safety costs at the release's Sprites size, in percent of an optimiser step.

    python -m benchmarks.guards [--json FILE] [--threads 1] [--folder DIR] [--quick]

The guard against NaN is what a step does beyond Adam's own work: the norm of the gradient, the
decision, and its transfer to the host. Saving costs all the processor time of copying and writing a
checkpoint, spread over the steps between two checkpoints. The table also shows how long training
waits for a save, and how long it would wait if it wrote the file itself.
"""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks import cases, rows
from utils.checkpoints import Saver, rng_state, save_checkpoint

# The release's Sprites commands: --model_save_interval 50 --bs_per_epoch 50.
STEPS_BETWEEN_SAVES = 50 * 50
MOST_PERCENT = 2.0


def measure(case: cases.Case, folder: Path, repeats: int = 3, warm_up: int = 8) -> dict:
    """The row of one stage: times, bytes and percent. Checkpoints go to `folder`."""
    step, stepper, network = rows.build(case)
    loss = torch.zeros((), device=case.device())

    def guard():
        stepper.judge(loss)
        stepper.bad_step()

    def processor_seconds(function):
        return cases.timed(function, case, clock=time.process_time)[0][0]

    cases.timed(step, case, 0, warm_up)
    guard()
    times = [(processor_seconds(step), processor_seconds(guard)) for _ in range(repeats)]
    state = {"epoch": 1, "model": network.state_dict(), "settings": {}}
    state |= {"optimizer": stepper.adam.state_dict(), "rng": rng_state(case.device())}
    saver, waits = Saver(SimpleNamespace(prune=lambda *_: None), case.stage_name), []

    def save():
        waits.extend(cases.timed(lambda: saver.save(folder / "background.pth", state), case))
        saver.wait()

    saving = [processor_seconds(save) for _ in range(repeats)]
    path = folder / "foreground.pth"
    parts = dict(zip(("step", "guard"), zip(*times))) | {"saving": saving}
    parts["training waits"] = [wall for _, wall in waits]
    alone = cases.timed(lambda: save_checkpoint(path, state), case)
    parts["training would wait"] = [wall for _, wall in alone]
    timings = {part: cases.spread(seconds) for part, seconds in parts.items()}
    medians = {part: times["median"] for part, times in timings.items()}
    return {
        "name": cases.STAGES[case.stage_name],
        "timings": timings,
        "guard percent": 100 * medians["guard"] / medians["step"],
        "saving percent": 100 * medians["saving"] / (STEPS_BETWEEN_SAVES * medians["step"]),
        "checkpoint bytes": path.stat().st_size,
    }


def table(result: dict) -> str:
    """The figures as text."""
    lines = [cases.heading(result)]
    for row in result["rows"]:
        stage, total = row["name"], row["guard percent"] + row["saving percent"]
        step, guard, saving, waits, alone = (t["median"] for t in row["timings"].values())
        lines += [
            f"{stage}: a step takes {step:.3f} s, the guard {1000 * guard:.1f} ms of that: "
            f"{row['guard percent']:.2f} %",
            f"{stage}: a checkpoint of {row['checkpoint bytes'] / 1e9:.2f} GB takes "
            f"{saving:.2f} s of processor time, once in {STEPS_BETWEEN_SAVES} steps: "
            f"{row['saving percent']:.3f} %",
            f"{stage}: training waits {waits:.2f} s for a save "
            f"({alone:.2f} s if it wrote the file itself)",
            f"{stage}: guard and saving take {total:.2f} % of a step (under {MOST_PERCENT:g}): "
            f"{cases.met(total < MOST_PERCENT)}",
        ]
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = cases.flags("guards", __doc__)
    parser.add_argument("--folder", help="where to save (default: the system's temporary folder)")
    given = parser.parse_args(argv)
    found = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for stage_name in cases.STAGES:
            case = cases.paper(stage_name, given.threads, given.quick)
            found.append(measure(case, Path(folder), warm_up=1 if given.quick else 8))
    result = cases.result("guards", [given.threads], found)
    cases.publish(given, result, table(result))


if __name__ == "__main__":
    main()
