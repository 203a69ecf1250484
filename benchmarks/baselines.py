"""VDSM beside DSA and Unordered: the same data, similar time, the same figures.

    python -m benchmarks.baselines pendulum [--seeds 0,1,2] [more flags of main.py, for every run]
    python -m benchmarks.baselines sprites-li --seeds 0,1,2 --source CLONE

A sweep (benchmarks/sweep.py) over the preset of each model and the seeds, each run on one thread.
Its table and the commands with their seconds (evaluation and pictures included) are printed, and
written to runs/baselines-DATA.md.
"""

import shlex
import sys

from benchmarks.sweep import parser, start
from utils.errors import in_one_line

PRESETS = {
    "pendulum": ["demo", "demo-dsa", "demo-unordered"],
    "sprites-li": ["sprites-li-vdsm", "sprites-li-dsa", "sprites-li-unordered"],
}


@in_one_line
def main(argv: list[str]) -> int:
    flags = parser("python -m benchmarks.baselines", __doc__.splitlines()[0], jobs=2)
    flags.add_argument("data", choices=tuple(PRESETS), help="the data set")
    seeds_help = "seeds joined by commas (default: 0,1,2)"
    flags.add_argument("--seeds", default="0,1,2", help=seeds_help)
    given, more = flags.parse_known_args(argv)
    seeds = given.seeds.split(",")
    if not all(map(str.isdecimal, seeds)):
        flags.error(f"found --seeds {given.seeds}, expected integers joined by commas")
    given.command = shlex.join(["python", "-m", "benchmarks.baselines", *argv])
    rows = [{"flags": f"--preset {preset}"} for preset in PRESETS[given.data]]
    content = {"grid": {"seed": list(map(int, seeds))}, "rows": rows}
    return start(f"baselines-{given.data}", content, given, [*more, "--threads", "1"])


if __name__ == "__main__":
    sys.exit(main())
