"""VDSM beside DSA and the unordered-data model: the same data, about the same time, the same figures.

    python -m benchmarks.baselines pendulum [--seeds 0,1,2] [more flags of main.py, for every run]
    python -m benchmarks.baselines sprites-li --seeds 0,1,2 --source CLONE

Trains each model's preset with each seed, two runs side by side, measures all alike, and prints one table over them with the commands
and the seconds that each run took, judging and pictures included; the same as Markdown in runs/baselines-SET.md. A run that is there and
finished is not trained again: its seconds are those of measuring.
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


def run_of(preset, seed):
    """The folder that the preset writes with this seed (see utils.config.parse)."""
    return f"{preset}-s{seed}" if seed else preset


def commands(data, seeds, more=()):
    """[(run, the command's words after `python`)] of every preset of the set and every seed."""
    return [
        (run_of(preset, seed), ["main.py", "--preset", preset, "--seed", str(seed), *more])
        for seed in seeds
        for preset in PRESETS[data]
    ]


def _seeds(text):
    if not all(seed.isdecimal() for seed in text.split(",")):
        raise argparse.ArgumentTypeError(f"found '{text}', expected integers joined by commas")
    return [int(seed) for seed in text.split(",")]


def _jobs(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a positive integer")
    return int(text)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0]
    )
    parser.add_argument("data", choices=tuple(PRESETS), help="the data set")
    parser.add_argument(
        "--seeds", type=_seeds, default="0,1,2", help="seeds joined by commas [0,1,2]"
    )
    parser.add_argument("--runs_dir", default="./runs/", help="folder of the runs [./runs/]")
    parser.add_argument(
        "--jobs", type=_jobs, default=2, help="runs side by side, each on one CPU thread [2]"
    )
    chosen, more = parser.parse_known_args(argv)
    more += ["--runs_dir", chosen.runs_dir, "--threads", "1", "--quiet", "True"]
    asked, failed = commands(chosen.data, chosen.seeds, more), []

    def train(command):
        if failed:
            return None  # none is begun after one has stopped
        run, words = command
        print(f"{run}: begins, one of {len(asked)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, *words]).returncode
        took = time.monotonic() - began
        print(f"{run}: {'done' if code == 0 else 'stopped'} after {took:.0f} s", flush=True)
        if code:
            failed.append(code)
        return f"- `python {shlex.join(words)}`: {took:.0f} s"

    with ThreadPoolExecutor(chosen.jobs) as jobs:
        lines = list(jobs.map(train, asked))
    if failed:
        return failed[0]  # main.py has said why
    compare = [
        sys.executable,
        "-m",
        "metrics.compare",
        *(run for run, _ in asked),
        "--runs_dir",
        chosen.runs_dir,
    ]
    table = subprocess.run(compare, capture_output=True, text=True, check=True).stdout
    text = "\n".join([table, *lines, ""])
    print(text)
    (Path(chosen.runs_dir) / f"baselines-{chosen.data}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
