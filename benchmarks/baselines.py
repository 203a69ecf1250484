"""VDSM beside DSA and the unordered-data model: the same data, similar time, the same figures.

    python -m benchmarks.baselines pendulum [--seeds 0,1,2] [more flags of main.py, for every run]
    python -m benchmarks.baselines sprites-li --seeds 0,1,2 --source CLONE

Trains each model's preset with each seed, measures all runs with the same protocols, and prints one
table of them. Below the table stand the commands and the seconds that each run took, evaluation and
pictures included. The same text is written as Markdown to runs/baselines-DATA.md. A finished run is
not trained again; its seconds are those of measuring it.
"""

import argparse
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PRESETS = {
    "pendulum": ("demo", "demo-dsa", "demo-unordered"),
    "sprites-li": ("sprites-li-vdsm", "sprites-li-dsa", "sprites-li-unordered"),
}


def commands(
    dataset_name: str, seeds: list[int], more: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    """{run: the words of its command after `python`}, for every seed and preset of the data set.

    The run is the folder that the command writes: the preset's name, with '-s{seed}' unless 0.
    """
    return {
        f"{preset}-s{seed}" if seed else preset: [
            "main.py", "--preset", preset, "--seed", str(seed), *more,
        ]
        for seed in seeds
        for preset in PRESETS[dataset_name]
    }  # fmt: skip


def train(run: str, words: list[str]) -> tuple[int, str]:
    """Run one command; its exit code, and a line with the command and its seconds."""
    print(f"{run}: started", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *words]).returncode
    seconds = time.monotonic() - start
    print(f"{run}: {'done' if code == 0 else 'failed'} after {seconds:.0f} s", flush=True)
    return code, f"- `python {shlex.join(words)}`: {seconds:.0f} s"


def _seeds(text):
    if not all(seed.isdecimal() for seed in text.split(",")):
        raise argparse.ArgumentTypeError(f"found '{text}', expected integers joined by commas")
    return [int(seed) for seed in text.split(",")]


def _jobs(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a positive integer")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", choices=tuple(PRESETS), help="the data set")
    parser.add_argument(
        "--seeds", type=_seeds, default="0,1,2", help="seeds joined by commas (default: 0,1,2)"
    )
    parser.add_argument("--runs_dir", default="./runs/", help="folder of the runs (./runs/)")
    parser.add_argument(
        "--jobs", type=_jobs, default=2, help="runs at a time, each on one CPU thread (default: 2)"
    )
    given, more = parser.parse_known_args(argv)
    more += ["--runs_dir", given.runs_dir, "--threads", "1", "--quiet", "True"]
    runs, failures = commands(given.data, given.seeds, more), []

    def train_unless_failed(item):
        if failures:
            return None
        code, line = train(*item)
        if code:
            failures.append(code)
        return line

    with ThreadPoolExecutor(given.jobs) as jobs:
        lines = list(jobs.map(train_unless_failed, runs.items()))
    if failures:
        # main.py has printed the reason.
        return failures[0]
    compare = ["-m", "metrics.compare", *runs, "--runs_dir", given.runs_dir]
    table = subprocess.run([sys.executable, *compare], capture_output=True, text=True, check=True)
    text = "\n".join([table.stdout, *lines, ""])
    print(text)
    (Path(given.runs_dir) / f"baselines-{given.data}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
