"""Many runs of main.py from one file: over seeds, models, data sets and any other flags.

    python -m benchmarks.sweep FILE [--jobs 2] [--dry_run] [more flags of main.py, for every run]
    python -m benchmarks.sweep FILE --slurm slurm_partition=gpu gpus_per_node=1 timeout_min=600
    python -m benchmarks.sweep --list                      # the files of benchmarks/experiments

FILE is a TOML file (docs/SWEEPS.md), or the name of one in benchmarks/experiments; FILE:RUN takes
one run of it. First, the runs and their time, as far as it is known, are printed. Then they run,
each as a command of its own. The same command again goes on with a stopped sweep: finished runs are
not trained again. At the end, failed runs are listed, and one table of all runs is printed and
written to runs/FILE.md. The exit status is 1 if a run has failed.
"""

import functools
import itertools
import math
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.jobs import Ended, Job, here, on_cluster
from metrics.compare import Run as Measured
from metrics.compare import as_markdown, compare
from utils.errors import UserError, in_one_line
from utils.files import read_text, write_text
from utils.flags import OneLineParser, did_you_mean, value_of
from utils.guards import refuse_best
from utils.plan import Plan, parse
from utils.presets import described
from utils.signals import Signals

EXPERIMENTS = Path(__file__).resolve().parent / "experiments"
KEYS = {
    "question": str, "measured": str, "base": str, "grid": dict, "rows": list, "bars": dict,
}  # fmt: skip
ROW_KEYS = {"name": str, "flags": str, "minutes": (int, float)}
LAST_LINES = 5  # of a failed run, which are printed
UNITS = {"s": 1, "minute": 60, "minutes": 60, "hours": 3600}
MISTAKES = "--help", "-h", "--list_presets", "--dry_run", "--fresh", "--convert"


@dataclass
class Run:
    """One command of a sweep. words: its flags. minutes: what the file says that it takes."""

    words: list[str]
    plan: Plan
    minutes: float | None = None

    @property
    def name(self) -> str:
        """The folder of the run below --runs_dir."""
        return self.plan.first.RUN

    @cached_property
    def _said(self):
        """Time and memory as the preset describes them."""
        return described(self.plan.preset)[3:] if self.plan.preset else ("", "")

    @property
    def seconds(self) -> float | None:
        """The time of the run: as the file says, or the preset's, in proportion to the steps."""
        if self.minutes is not None:
            return 60 * self.minutes
        times = re.findall(r"([\d.]+) (s|minutes?|hours)\b", self._said[0])
        if not times:
            return None
        number, unit = times[-1]
        return float(number) * UNITS[unit] * _steps(self.plan) / _preset_steps(self.plan.preset)

    @property
    def gigabytes(self) -> float | None:
        """The memory of the run's largest stage, as the preset says."""
        return max(map(float, re.findall(r"[\d.]+", self._said[1])), default=None)

    def __str__(self) -> str:
        parts = "time not known" if self.seconds is None else _duration(self.seconds)
        parts += f", {self.gigabytes:g} GB" if self.gigabytes else ""
        return f"{self.name} ({parts}): {shlex.join(['python', 'main.py', *self.words])}"


def _steps(plan):
    return sum(plan.stages[name].epochs * plan.stages[name].bs_per_epoch for name in plan.training)


@functools.cache
def _preset_steps(name):
    return _steps(parse(["--preset", name]))


def _duration(seconds):
    """A time in words."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} seconds"


def checked(given: dict, keys: dict, place: str) -> None:
    """Raise UserError unless every key of `given` is one of `keys`, of the kind that it names."""
    for key, value in given.items():
        if key not in keys:
            known = f"expected some of {', '.join(keys)}"
            raise UserError(f"{place}: found '{key}'{did_you_mean(key, keys)}, {known}: correct it")
        if not isinstance(value, keys[key]) or isinstance(value, bool):
            kinds = {str: "text in quotes", dict: "a table", list: "tables [[rows]]"}
            expected = kinds.get(keys[key], "a number")
            raise UserError(f"{place}: found {value!r} as '{key}', expected {expected}: correct it")


def _words(text, place):
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{place}: {error} in '{text}': correct it") from None


def _grid(grid, place):
    """[(flag, values as text)] of the table [grid]."""
    axes = []
    for flag, values in grid.items():
        good = isinstance(values, list) and values
        if not good or not all(isinstance(value, (str, int, float)) for value in values):
            problem = f"found {values!r} as '{flag}' of [grid]"
            raise UserError(f"{place}: {problem}, expected a list of values in [ ]: correct it")
        axes.append([(flag, str(value)) for value in values])
    return axes


def expanded(content: dict, place: str, more: Sequence[str] = ()) -> list[Run]:
    """The runs of a sweep's content (docs/SWEEPS.md), each row with every point of the grid.

    place: its file, for messages. more: flags after those of the content. Raises UserError, also if
    main.py would refuse a command, or if two runs would share a folder.
    """
    checked(content, KEYS, place)
    base, runs = _words(content.get("base", ""), place), {}
    rows = content.get("rows", [{}])
    if not rows or not content.keys() - {"question", "measured"}:
        raise UserError(f"{place}: found no run, expected base, [grid] or [[rows]]: add one")
    for row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{place}: found {row!r} among the rows, expected [[rows]]: correct it")
        checked(row, ROW_KEYS, f"{place}, [[rows]]")
        if not 0 <= row.get("minutes", 0) < math.inf:
            problem = f"found {row['minutes']} as 'minutes', expected a positive number"
            raise UserError(f"{place}, [[rows]]: {problem}: correct it")
    bars_of(content, place)
    axes = _grid(content.get("grid", {}), place)
    for *point, row in itertools.product(*axes, rows):
        words = [*base, *_words(row.get("flags", ""), place)]
        words += itertools.chain(*((f"--{flag}", value) for flag, value in point))
        words += [*_name(row, point, words), *more]
        command = f"{place}: {shlex.join(words)}"
        if wrong := [name for name in MISTAKES if any(w.split("=")[0] == name for w in words)]:
            raise UserError(f"{command}: {wrong[0]} is not for a sweep: leave it out")
        try:
            run = Run(words, parse(words), row.get("minutes"))
            refuse_best(run.plan)
        except UserError as error:
            raise UserError(f"{command}: {error}") from None
        if run.plan.first.on_files or run.plan.first.shares:
            problem = "found a command on files, and a sweep trains and measures"
            raise UserError(f"{command}: {problem}: leave it out")
        if run.name in runs:
            problem = f"two runs would write to the folder {run.name}"
            raise UserError(f"{command}: {problem}: give each of the [[rows]] a name")
        runs[run.name] = run
    return list(runs.values())


def bars_of(content: dict, place: str) -> list[tuple[str, str, float]]:
    """[(figure, '>=' or '<=', limit)] of the table [bars]. Raises UserError."""
    bars = []
    for figure, text in content.get("bars", {}).items():
        match = re.fullmatch(r"\s*(>=|<=)\s*(\d*\.?\d+)\s*", str(text))
        if match is None:
            problem = f"found {text!r} as '{figure}' of [bars]"
            raise UserError(f"{place}: {problem}, expected text such as '>= 0.95': correct it")
        bars.append((figure, match[1], float(match[2])))
    return bars


def _name(row, point, words):
    """The flag --RUN of a row at a point of the grid; none where a preset and a seed name it."""
    words = [*words, ""]  # the last flag may lack its value, which `parse` tells
    named = row.get("name") or value_of(words, "--RUN")
    rest = [(flag, value) for flag, value in point if flag not in ("seed", "preset")]
    if not named and not rest:
        return []
    name = named or value_of(words, "--preset") or value_of(words, "--model") or "run"
    parts = [name, *(f"{flag}-{value}" for flag, value in rest)]
    parts += [f"s{value}" for flag, value in point if flag == "seed" and value != "0"]
    return ["--RUN", re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(parts))]


def read(text: str) -> tuple[str, dict, str | None]:
    """(name, content, run or None) of FILE or FILE:RUN, a path or a name. Raises UserError."""
    file, _, only = text.partition(":")
    path = Path(file)
    if not path.is_file() and "/" not in file:
        path = EXPERIMENTS / f"{file.removesuffix('.toml')}.toml"
    try:
        return path.stem, tomllib.loads(read_text(path)), only or None
    except OSError as error:
        known = [known.stem for known in EXPERIMENTS.glob("*.toml")]
        problem = f"{file}: {error.strerror}{did_you_mean(file, known)}"
        raise UserError(f"{problem}: give a file, or a name that --list shows") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a TOML file: {error}: see docs/SWEEPS.md") from None


def forecast(runs: list[Run], jobs: int) -> str:
    """How long the runs take together, and how much memory, where that is known."""
    known = [run.seconds for run in runs if run.seconds is not None]
    text = f"{len(runs)} run{'s' * (len(runs) > 1)}, {min(jobs, len(runs))} at a time"
    if known:
        longest = max(sum(known) / jobs, max(known))
        text += f": about {_duration(longest)} from the start, as far as presets and the file say"
    if len(known) < len(runs):
        text += f"; the time of {len(runs) - len(known)} is not known"
    largest = sorted((run.gigabytes or 0 for run in runs), reverse=True)[:jobs]
    return text + (f"; {sum(largest):.3g} GB of memory" if any(largest) else "")


def table_of(runs: list[Run], runs_dir: str) -> str:
    """The table of `metrics.compare` over the runs that have figures."""
    folders = [Path(runs_dir) / run.name for run in runs]
    measured = [folder for folder in folders if (folder / "metrics.json").exists()]
    return as_markdown(*compare([Measured(folder) for folder in measured])) if measured else ""


def against_bars(content: dict, runs: list[Run], runs_dir: str) -> str:
    """How many runs meet every bar of the file, and for each bar how many and which do not."""
    bars, numbers, failed, lines = bars_of(content, ""), {}, set(), []
    for run in runs:
        folder = Path(runs_dir) / run.name
        if (folder / "metrics.json").exists():
            numbers[run.name] = Measured(folder).numbers
    for figure, sign, limit in bars:
        values = {name: of[figure] for name, of in numbers.items() if figure in of}
        missed = [n for n, v in values.items() if not (v >= limit if sign == ">=" else v <= limit)]
        missed += [name for name in numbers if name not in values]
        failed |= {*missed}
        of_all = f"{len(numbers) - len(missed)} of {len(numbers)} runs"
        found = sorted(values.values())
        seen = f", from {found[0]:.4g} to {found[-1]:.4g}" if found else ""
        not_by = f"; not by {', '.join(missed)}" if missed else ""
        lines.append(f"- `{figure}` {sign} {limit:g}: met by {of_all}{seen}{not_by}")
    whole = f"All bars are met by {len(numbers) - len(failed)} of {len(numbers)} runs"
    return "\n".join([f"{whole} ({len(runs)} were asked for):", *lines]) if bars else ""


def carry_out(name: str, content: dict, runs: list[Run], chosen: list[Run], given: Any) -> int:
    """Carry out the `chosen` runs of a sweep and print its table; returns the exit status.

    given: runs_dir, jobs, slurm (None, or {setting: value}) and the words of the `command`.
    """
    folder = Path(given.runs_dir) / "sweeps" / name
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [Job(run.name, run.words, folder / f"{run.name}.txt") for run in chosen]
    lines, failed = {}, {}

    def tell(job, ended):
        how = "failed" if ended.code else "done"
        print(f"{job.run}: {how} after {ended.seconds:.0f} s", flush=True)
        command = shlex.join(["python", "main.py", *job.words])
        lines[job.run] = f"- `{command}`: {ended.seconds:.0f} s"
        if ended.code:
            failed[job.run] = ended

    try:
        with Signals():
            if given.slurm is None:
                here(jobs, given.jobs, tell)
            else:
                options = {"name": name, "slurm_array_parallelism": given.jobs} | given.slurm
                on_cluster(jobs, folder / "submitit", options, tell)
    except KeyboardInterrupt as stop:
        print(f"\nstopped; the runs have saved. Go on with: {given.command}", file=sys.stderr)
        return getattr(stop, "code", 130)
    about = [_one_line(content.get(key, "")) for key in ("question", "measured")]
    seconds = "\n".join(lines[job.run] for job in jobs)
    table = table_of(runs, given.runs_dir)
    parts = [*about, against_bars(content, runs, given.runs_dir), table, seconds]
    text = "\n\n".join(part.strip() for part in parts if part) + "\n"
    print(text)
    write_text(Path(given.runs_dir) / f"{name}.md", text)
    for job in jobs:
        if job.run in failed:
            print(failure(job, failed[job.run]), file=sys.stderr)
    return 1 if failed else 0


def _one_line(text):
    return " ".join(text.split())


def failure(job: Job, ended: Ended) -> str:
    """What is told of a failed run: its command and the last lines that it printed."""
    printed = job.log.read_text(errors="replace").splitlines() if job.log.exists() else []
    head = f"{job.run} failed (exit status {ended.code}); all that it printed is in {job.log}:"
    return "\n".join([head, *(f"    {line}" for line in printed[-LAST_LINES:])])


def settings_of(texts: list[str]) -> dict[str, Any]:
    """{setting: value} of --slurm's NAME=VALUE. Raises UserError."""
    pairs = [text.partition("=") for text in texts]
    for text, (name, equals, value) in zip(texts, pairs):
        if not (name and equals and value):
            raise UserError(f"found '{text}' after --slurm, expected NAME=VALUE")
    return {name: int(v) if v.isdecimal() else v for name, _, v in pairs}


def parser(command: str, about: str, jobs: int = 1) -> OneLineParser:
    """The parser of the flags of a command that runs a sweep. jobs: the default of --jobs."""
    flags = OneLineParser(command, description=about, allow_abbrev=False)
    flags.add_argument("--jobs", type=int, default=jobs, help=f"runs at a time (default: {jobs})")
    flags.add_argument("--runs_dir", default="./runs/", help="folder of the runs (./runs/)")
    flags.add_argument("--dry_run", action="store_true", help="print the commands, then stop")
    slurm = "run on a cluster, through submitit; cluster=local tries it on this machine"
    flags.add_argument("--slurm", nargs="*", metavar="NAME=VALUE", help=slurm)
    return flags


def start(
    name: str, content: dict, given: Any, more: Sequence[str] = (), only: str | None = None
) -> int:
    """Print the runs of a sweep and, without --dry_run, carry them out; returns the exit status.

    given: what `parser` has read, and the words of the `command`. more: further flags of main.py.
    only: the name of the one run to take.
    """
    if given.jobs < 1:
        raise UserError(f"found --jobs {given.jobs}, expected a positive integer")
    given.slurm = None if given.slurm is None else settings_of(given.slurm)
    quiet = [] if value_of([*more, ""], "--quiet") else ["--quiet", "True"]
    runs = expanded(content, name, [*more, "--runs_dir", given.runs_dir, *quiet])
    # other systems than Linux do not tell which cores a process may use
    affinity = getattr(os, "sched_getaffinity", None)
    threads = max(1, (len(affinity(0)) if affinity else os.cpu_count() or 1) // given.jobs)
    for run in runs:
        if given.slurm is None and value_of(run.words, "--threads") is None:
            run.words += ["--threads", str(threads)]
    names = [run.name for run in runs]
    if only and only not in names:
        problem = f"found no run {only}{did_you_mean(only, names)} in {name}"
        raise UserError(f"{problem}, expected one of {', '.join(names)}")
    chosen = [run for run in runs if only in (None, run.name)]
    about = _one_line(content.get("question", ""))
    print(
        "\n".join([*([about] if about else []), forecast(chosen, given.jobs), *map(str, chosen)]),
        flush=True,
    )
    return 0 if given.dry_run else carry_out(name, content, runs, chosen, given)


def listed() -> str:
    """Two lines per file of EXPERIMENTS: its name and question, and its time with one job."""
    lines = []
    for path in sorted(EXPERIMENTS.glob("*.toml"), key=lambda path: path.stem):
        name, content, _ = read(str(path))
        text = forecast(expanded(content, name), 1)
        lines.append(f"{name}: {_one_line(content.get('question', ''))}\n    {text}")
    return "\n".join(lines)


@in_one_line
def main(argv: list[str]) -> int:
    """Do what the flags ask; returns the exit status."""
    if argv[:1] == ["--list"]:
        print(listed())
        return 0
    flags = parser("python -m benchmarks.sweep", __doc__.splitlines()[0])
    flags.add_argument("file", metavar="FILE", help="file, or name, of the sweep; --list: names")
    given, more = flags.parse_known_args(argv)
    given.command = shlex.join(["python", "-m", "benchmarks.sweep", *argv])
    name, content, only = read(given.file)
    return start(name, content, given, more, only)


if __name__ == "__main__":
    sys.exit(main())
