"""Everything that is to be known of a CUDA GPU, in one command of at most 9 minutes.

    python -m benchmarks.cuda [--json FILE] [--minutes 9] [--source FOLDER]

Runs the tests that need a GPU, compares losses and gradients with the CPU, times the steps of all
models, plainly and as CUDA graphs, the two forms of blended convolutions and the generation of
sequences, and trains and judges a short run: the sprites if --source names their art, otherwise the
demo. Prints the tables for docs/SPEED.md. A part that fails or takes too long is named; the others
go on. --quick --cpu walks through the program on a CPU, at sizes that mean nothing.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import cases
from utils.flags import OneLineParser

PRECISIONS = ("fp32", "tf32", "bf16")
# Tests that need a GPU, and those of what a GPU computes otherwise.
TESTS = ("tests/test_cuda.py", "tests/models/test_cuda.py", "tests/data/test_batches.py")
# Milliseconds of a step at the paper's Sprites size, on an H100 or H200.
GOALS = {("stage 1", "tf32"): 7, ("stage 2", "tf32"): 6, ("stage 1", "bf16"): 5}
GOALS["stage 2", "bf16"] = 5
STEPS_OF_README, GOAL_OF_README = 10_000, 4  # steps of each stage; minutes of both commands
PAPERS_GENERATION = 0.2  # seconds that the paper reports for 20 sequences
# The largest seconds of each part; the training gets what is left.
SECONDS = {"tests": 100, "parity": 60, "steps": 70, "blended": 40, "generate": 30}
FIGURES = (
    "reconstruction_psnr", "swap_identity_accuracy", "swap_leak_accuracy", "swap_pose_error_deg",
    "transfer_identity_accuracy", "transfer_action_accuracy", "transfer_pose_error_deg",
    "seq_reconstruction_psnr",
)  # fmt: skip


class Clock:
    """The seconds that are left of `minutes`."""

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes

    def left(self, most: float = float("inf")) -> float:
        """Seconds left, at most `most`."""
        return max(1.0, min(most, self.end - time.monotonic()))


def run(words: list[str], seconds: float) -> tuple[str, str | None, float]:
    """Run a command: what it printed, what went wrong or None, and its seconds."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "", f"took more than {seconds:.0f} s", seconds
    took = time.monotonic() - began
    wrong = None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        wrong = f"exit code {done.returncode}: {lines[-1]}"
        print(done.stderr, file=sys.stderr)
    return done.stdout, wrong, took


def part(name: str, given, clock: Clock, precision: str) -> dict:
    """The figures of a part of benchmarks/cuda_parts.py, or {'wrong': why there are none}."""
    words = ["-m", "benchmarks.cuda_parts", name, "--precision", precision]
    words += [flag for flag in ("--cpu", "--quick") if getattr(given, flag[2:])]
    printed, wrong, took = run(words, clock.left(SECONDS[name]))
    print(f"{name}, {precision}: {wrong or 'done'}, {took:.0f} s", file=sys.stderr, flush=True)
    return {"wrong": wrong} if wrong else json.loads(printed.strip().splitlines()[-1])


def tests(given, clock: Clock) -> dict:
    """What pytest says of the tests that need a GPU."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[: 1 if given.quick else None]]
    printed, wrong, took = run(words, clock.left(SECONDS["tests"]))
    print(printed[-3000:], file=sys.stderr)
    summary = [line for line in printed.splitlines() if re.search(r"\d+ (passed|skipped)", line)]
    return {"summary": summary[-1] if summary else "no summary", "wrong": wrong, "seconds": took}


def train(given, clock: Clock, precision: str) -> dict:
    """Train and judge a short run; its seconds and some figures of its metrics.json."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["main.py", "--preset", "sprites-cpu" if given.source else "demo"]
        words += ["--RUN", "cuda", "--runs_dir", folder, "--tboard_log", "False"]
        words += ["--report", "False", "--device", "cpu" if given.cpu else "cuda"]
        words += ["--precision", precision]
        words += ["--source", given.source, "--data_dir", folder] if given.source else []
        if given.quick:
            words += "--epochs 1 --bs_per_epoch 2 --bs 2 --evaluate none".split()
        elif given.source:
            words += "--epochs 20 --evaluate swap".split()
        _, wrong, took = run(words, clock.left())
        path = Path(folder, "cuda", "metrics.json")
        measured = json.loads(path.read_text()) if path.is_file() else {}
    print(f"train: {wrong or 'done'}, {took:.0f} s", file=sys.stderr, flush=True)
    figures = {name: measured[name] for name in FIGURES if name in measured}
    return {"command": " ".join(words[:3]), "seconds": took, "wrong": wrong, "figures": figures}


def benchmark(given) -> dict:
    """All figures, by part and precision."""
    clock = Clock(given.minutes)
    precisions = PRECISIONS[:1] if given.cpu else PRECISIONS
    result = {"machine": machine(given.cpu), "tests": tests(given, clock)}
    for name in ("parity", "steps", "blended"):
        result[name] = {precision: part(name, given, clock, precision) for precision in precisions}
    result["generate"] = {precisions[-1]: part("generate", given, clock, precisions[-1])}
    result["train"] = train(given, clock, precisions[min(1, len(precisions) - 1)])
    return cases.result("cuda", [torch.get_num_threads()], times(result), **result)


def times(result: dict) -> list[dict]:
    """The times in seconds as rows for benchmarks.diff."""
    found = {}
    for part, forms in (("steps", ("graph", "plain")), ("blended", ("grouped", "products"))):
        for precision, rows in result[part].items():
            for row, ms in rows.items() if "wrong" not in rows else ():
                found[f"{row}, {precision}"] = {form: ms[form] / 1000 for form in forms}
    for precision, figures in result["generate"].items():
        found[f"20 sequences, {precision}"] = {k: v for k, v in figures.items() if k == "seconds"}
    if not result["train"]["wrong"]:
        found[result["train"]["command"]] = {"seconds": result["train"]["seconds"]}
    return [
        {"name": name, "timings": {part: cases.spread([seconds]) for part, seconds in row.items()}}
        for name, row in found.items()
    ]


def machine(cpu: bool) -> str:
    name = "CPU" if cpu else torch.cuda.get_device_name()
    return f"{name}; torch {torch.__version__}, CUDA {torch.version.cuda}"


# --- the tables ---


def goal(figure: float, most: float | None) -> str:
    """The figure, with the goal beside it."""
    if most is None:
        return f"{figure:.2f}"
    return f"{figure:.2f} (goal {most:g}: {'met' if figure <= most else 'MISSED'})"


def rows_of(figures: dict, name: str, line) -> list[str]:
    """A line of the table per row and precision. line(row, precision, figures) -> cells."""
    lines = []
    for precision, rows in figures.items():
        if "wrong" in rows:
            lines.append(f"| {name} | {precision} | {rows['wrong']} |")
            continue
        for row, found in rows.items():
            cells = line(row, precision, found)
            lines.append(f"| {row} | {precision} | " + " | ".join(cells) + " |")
    return lines


def head(*titles: str) -> list[str]:
    return [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]


def of_step(row, precision, found):
    graph = goal(found["graph"], GOALS.get((row, precision)))
    memory = f"{found['graph, GB']:.1f}" if "graph, GB" in found else ""
    host = f"{found['plain, host']:.2f}", f"{found['graph, host']:.2f}"
    return graph, f"{found['plain']:.2f}", *host, memory, f"{found['loss, graph to plain']:.1e}"


def of_blended(row, precision, found):
    return (*(f"{found[form]:.2f}" for form in ("grouped", "products")), min(found, key=found.get))


def of_parity(row, precision, found):
    return f"{found['loss']:.1e}", f"{found['gradient']:.1e}"


def readme(steps: dict) -> list[str]:
    """The minutes that the README's two sprites commands would take, by precision."""
    lines = []
    for precision, rows in steps.items():
        if "wrong" not in rows:
            ms = rows["stage 1"]["graph"] + rows["stage 2"]["graph"]
            minutes = STEPS_OF_README * ms / 60_000
            most = GOAL_OF_README if precision != "fp32" else None
            what = f"the README's two sprites commands, {2 * STEPS_OF_README:,} steps"
            lines.append(f"- {what}, {precision}: {goal(minutes, most)} minutes, from the steps")
    return lines


def table(result: dict) -> str:
    """The figures as Markdown."""
    columns = ("graph, ms", "plain, ms", "plain, host", "graph, host", "GB", "graph to plain")
    lines = [result["machine"], "", f"- tests: {result['tests']['summary']}"]
    for precision, found in result["generate"].items():
        seconds = found.get("wrong") or goal(found["seconds"], PAPERS_GENERATION)
        lines.append(f"- 20 sequences generated, {precision}: {seconds} s")
    trained = result["train"]
    figures = ", ".join(f"{name} {value:.3g}" for name, value in trained["figures"].items())
    state = trained["wrong"] or figures
    lines.append(f"- `{trained['command']}`: {trained['seconds']:.0f} s: {state}")
    lines += readme(result["steps"])
    lines += ["", *head("step", "precision", *columns)]
    lines += rows_of(result["steps"], "steps", of_step)
    lines += ["", *head("blended layer", "precision", "grouped, ms", "products, ms", "faster")]
    lines += rows_of(result["blended"], "blended layers", of_blended)
    lines += ["", *head("one step beside the CPU's", "precision", "loss", "gradient")]
    lines += rows_of(result["parity"], "parity", of_parity)
    return "\n".join(lines)


def failed(result: dict) -> bool:
    """Whether any part went wrong."""
    parts = [found for name in ("parity", "steps", "blended") for found in result[name].values()]
    parts += [result["tests"], result["train"], *result["generate"].values()]
    return any(found.get("wrong") for found in parts)


def main(argv: list[str] | None = None) -> int:
    parser = OneLineParser("python -m benchmarks.cuda", description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--minutes", type=float, default=9, help="time for everything (default: 9)")
    parser.add_argument("--source", help="folder of the sprites' art, as for main.py --source")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program")
    parser.add_argument("--cpu", action="store_true", help="with --quick: without a GPU")
    given = parser.parse_args(argv)
    if not given.cpu and not torch.cuda.is_available():
        print("benchmarks.cuda: found no CUDA GPU: use --quick --cpu to try it", file=sys.stderr)
        return 2
    result = benchmark(given)
    print(table(result))
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1))
    return int(failed(result))


if __name__ == "__main__":
    sys.exit(main())
