"""What got slower, or faster, between two files that a benchmark wrote with --json.

    python -m benchmarks.diff A.json B.json [--percent 10]

Lists every time of B whose median is over 10 % longer or shorter than in A. The exit code is 1 if
something got slower, 2 if the files cannot be compared. Only figures of one machine with the same
threads say something about the program: where these differ, a line says so.
"""

import json
import sys
from pathlib import Path

from utils.errors import UserError
from utils.flags import OneLineParser


def read(path: str) -> dict:
    """The result of a benchmark (see benchmarks.cases.result). UserError if the file is none."""
    try:
        result = json.loads(Path(path).read_text())
        result["benchmark"], medians(result)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a file that --json wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is no result of a benchmark: give a file of --json") from None
    return result


def medians(result: dict) -> dict[str, tuple[float, list[float]]]:
    """{row and part: its median and its smallest and largest time}, in seconds."""
    return {
        f"{row['name']}: {part}": (times["median"], times["range"])
        for row in result["rows"]
        for part, times in row["timings"].items()
    }


def compare(old: dict, new: dict, percent: float) -> tuple[list[str], bool]:
    """The lines of the comparison, and whether a time got longer by over `percent`."""
    if old["benchmark"] != new["benchmark"]:
        found = f"{old['benchmark']} and {new['benchmark']}"
        raise UserError(f"found results of {found}: give two of the same benchmark")
    lines = [
        f"{what} differ{'' if what == 'threads' else 's'}: {old.get(what)} and {new.get(what)}"
        for what in ("machine", "threads", "commit")
        if old.get(what) != new.get(what)
    ]
    before, after = medians(old), medians(new)
    slower, faster = [], []
    for name in before.keys() & after.keys():
        (was, was_range), (now, now_range) = before[name], after[name]
        change = 100 * (now / was - 1) if was else 0.0
        if now > was * (1 + percent / 100) or was > now * (1 + percent / 100):
            overlap = was_range[0] <= now_range[1] and now_range[0] <= was_range[1]
            note = ", the ranges overlap" if overlap else ""
            line = f"{name}: {was:.4g} s, now {now:.4g} s ({change:+.0f} %{note})"
            (slower if now > was else faster).append((-abs(change), line))
    for title, found in (("slower", slower), ("faster", faster)):
        lines += [f"{title} by over {percent:g} %: {len(found)}"]
        lines += [f"  {line}" for _, line in sorted(found)]
    within = len(before.keys() & after.keys()) - len(slower) - len(faster)
    lines.append(f"within {percent:g} %: {within}")
    for title, names in (
        ("only in the first", before.keys() - after.keys()),
        ("only in the second", after.keys() - before.keys()),
    ):
        lines += [f"{title}: {name}" for name in sorted(names)]
    return lines, bool(slower)


def main(argv: list[str] | None = None) -> int:
    summary = __doc__.splitlines()[0]
    parser = OneLineParser("python -m benchmarks.diff", description=summary)
    parser.add_argument("old", metavar="A.json", help="the earlier result")
    parser.add_argument("new", metavar="B.json", help="the later result")
    change_help = "the least change that is listed (default: 10)"
    parser.add_argument("--percent", type=float, default=10.0, help=change_help)
    given = parser.parse_args(argv)
    try:
        lines, got_slower = compare(read(given.old), read(given.new), given.percent)
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return int(got_slower)


if __name__ == "__main__":
    sys.exit(main())
