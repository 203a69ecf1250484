"""VDSM beside DSA and Unordered: the same data, similar time, the same figures.

    python -m benchmarks.baselines pendulum [--seeds 0,1,2] [more flags of main.py, for every run]
    python -m benchmarks.baselines sprites-li --seeds 0,1,2 --source CLONE

Trains the preset of each model with each seed, measures all runs with the same protocols, and
prints one table of them, then the commands with their seconds (evaluation and pictures included).
The same text goes to runs/baselines-DATA.md. A complete run is not trained again, only measured.
"""

import itertools
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from utils.flags import OneLineParser

PRESETS = {
    "pendulum": ("demo", "demo-dsa", "demo-unordered"),
    "sprites-li": ("sprites-li-vdsm", "sprites-li-dsa", "sprites-li-unordered"),
}


def commands(dataset_name: str, seeds: list[int], more: Sequence[str] = ()) -> dict[str, list]:
    """{run: the words of its command after `python`}, for every seed and preset of the data set.

    The run is the folder that the command writes: the preset's name, with '-s{seed}' unless 0.
    """
    runs = {}
    for seed, preset in itertools.product(seeds, PRESETS[dataset_name]):
        run = f"{preset}-s{seed}" if seed else preset
        runs[run] = ["main.py", "--preset", preset, "--seed", str(seed), *more]
    return runs


def train(run: str, words: list[str], failures: list[int]) -> str:
    """Run one command unless `failures` has exit codes; a line with the command and its seconds."""
    if failures:
        return ""
    print(f"{run}: started", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *words]).returncode
    seconds = time.monotonic() - start
    print(f"{run}: {'done' if code == 0 else 'failed'} after {seconds:.0f} s", flush=True)
    if code:
        failures.append(code)
    return f"- `python {shlex.join(words)}`: {seconds:.0f} s"


def main(argv: list[str] | None = None) -> int:
    summary = __doc__.splitlines()[0]
    parser = OneLineParser("python -m benchmarks.baselines", description=summary)
    seeds_help = "seeds joined by commas (default: 0,1,2)"
    jobs_help = "runs at a time, each on one CPU thread (default: 2)"
    parser.add_argument("data", choices=tuple(PRESETS), help="the data set")
    parser.add_argument("--seeds", default="0,1,2", help=seeds_help)
    parser.add_argument("--runs_dir", default="./runs/", help="folder of the runs (./runs/)")
    parser.add_argument("--jobs", type=int, default=2, help=jobs_help)
    given, more = parser.parse_known_args(argv)
    seeds = given.seeds.split(",")
    if not all(map(str.isdecimal, seeds)):
        parser.error(f"found --seeds {given.seeds}, expected integers joined by commas")
    if given.jobs < 1:
        parser.error(f"found --jobs {given.jobs}, expected a positive integer")
    more += ["--runs_dir", given.runs_dir, "--threads", "1", "--quiet", "True"]
    runs, failures = commands(given.data, list(map(int, seeds)), more), []
    with ThreadPoolExecutor(given.jobs) as jobs:
        lines = list(jobs.map(train, runs, runs.values(), itertools.repeat(failures)))
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
