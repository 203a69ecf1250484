"""Where the time of a whole run goes: steps, validation, pictures, evaluation, imports and more.

    python -m benchmarks.run [--preset demo] [--repeats 1] [--json FILE] [--threads 1] [--quick]
                             [more flags of main.py]
    python -m benchmarks.run --preset sprites-cpu --epochs 1 --data_dir DIR

Runs `main.py --preset NAME` in a process of its own, into a temporary folder, and splits its wall
time (benchmarks/instrument.py). `--epochs 1` is one epoch of each stage, with the pictures and the
evaluation of the last epoch. The judge of the sprites is trained each time.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import cases
from benchmarks.instrument import EVALUATION, OUTSIDE, PICTURES, STEPS

QUICK = (
    "--epochs 2 --bs_per_epoch 2 --bs 2 --num_test_ids 2 --num_clips 24 --rnn_dim 4 --z_dim 3 "
    "--n_e_w 3 --dynamics_dim 2 --enc_widths 2,2,2,2,4 --dec_widths 4,4,2,2 --evaluate swap"
).split()
WHOLE, FIRST_STEP = "whole command", "first training step after the command"
ONE_STEP = "one training step"
AROUND = (EVALUATION, PICTURES, "report")
# The bars of the demo on one core, in seconds.
MOST_TO_FIRST_STEP, MOST_AROUND = 5.0, 25.0


def once(flags: Sequence[str]) -> dict:
    """Run main.py with these flags: the figures of the instrument, 'whole' and 'processor' seconds.

    Exits with the code of the run if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, used = Path(folder) / "figures.json", _processor_seconds()
        began = time.time()
        words = [sys.executable, "-m", "benchmarks.instrument", str(file), str(began), *flags]
        # What the run prints goes to stderr, so that stdout holds the table alone.
        done = subprocess.run([*words, "--runs_dir", f"{folder}/runs"], stdout=2)
        ended = time.time()
        if done.returncode or not file.exists():
            sys.exit(done.returncode or 1)
        figures = json.loads(file.read_text())
    figures["seconds"][OUTSIDE]["ending python"] = ended - figures["ended"]
    return figures | {"whole": ended - began, "processor": _processor_seconds() - used}


def _processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def benchmark(preset: str, more: Sequence[str], threads: int = 1, repeats: int = 1) -> dict:
    """A row for the whole run, one for each stage, and one for what is outside the stages."""
    flags = ["--preset", preset, "--threads", str(threads), *more]
    runs = [once(flags) for _ in range(repeats)]
    whole = {WHOLE: [run["whole"] for run in runs]}
    if all(run["first step"] for run in runs):
        whole[FIRST_STEP] = [run["first step"] for run in runs]
    around = [
        sum(parts.get(part, 0.0) for parts in run["seconds"].values() for part in AROUND)
        for run in runs
    ]
    if any(around):
        whole[", ".join(AROUND)] = around
    rows = [_row(preset, whole)]
    for stage in runs[0]["seconds"]:
        parts, behind = _parts(runs, "seconds", stage), _parts(runs, "background", stage)
        more_figures: dict = {"behind": list(behind)}
        if steps := runs[0]["steps"].get(stage):
            more_figures["steps"] = steps
            behind[ONE_STEP] = [seconds / steps for seconds in parts[STEPS]]
        rows.append(_row(f"{preset}, {stage}", parts | behind) | more_figures)
    processor = cases.spread([run["processor"] for run in runs])
    about = {"command": " ".join(["main.py", *flags]), "processor_seconds": processor}
    return cases.result("run", [threads], rows, **about, not_imported=runs[0]["not imported"])


def _parts(runs, kind, stage):
    """{part: its seconds in each run}. kind: a key of the instrument's figures."""
    by_run = [run[kind].get(stage, {}) for run in runs]
    return {part: [parts.get(part, 0.0) for parts in by_run] for part in by_run[0]}


def _row(name, parts):
    return {"name": name, "timings": {part: cases.spread(times) for part, times in parts.items()}}


def table(result: dict) -> str:
    """The figures as text, with each part's share of the whole command."""
    head, *stages = result["rows"]
    whole, used = head["timings"][WHOLE]["median"], result["processor_seconds"]["median"]
    lines = [cases.heading(result), result["command"]]
    for name, times in head["timings"].items():
        lines.append(f"{name + ':':48}{_times(times)}")
    lines.append(f"{'processor time:':48}{used:9.2f} s")
    for row in stages:
        steps = f" ({row['steps']} steps)" if "steps" in row else ""
        lines.append(f"{row['name']}{steps}")
        for part, times in sorted(row["timings"].items(), key=lambda item: -item[1]["median"]):
            apart = part in row["behind"] or part == ONE_STEP
            share = "" if apart else f"{times['median'] / whole:7.1%}"
            lines.append(f"  {part:46}{_times(times)}{share}")
    return "\n".join(lines)


def _times(times):
    ends = f" ({times['range'][0]:.2f}-{times['range'][1]:.2f})" if times["count"] > 1 else ""
    return f"{times['median']:9.3f} s{ends}"


def bars(result: dict) -> list[str]:
    """The bars of the whole demo on one core."""
    whole = result["rows"][0]["timings"]
    first, around = (whole[name]["median"] for name in (FIRST_STEP, ", ".join(AROUND)))
    return [
        f"first training step {first:.1f} s after the command (at most {MOST_TO_FIRST_STEP:g}): "
        f"{cases.met(first <= MOST_TO_FIRST_STEP)}",
        f"{', '.join(AROUND)} take {around:.1f} s (at most {MOST_AROUND:g}): "
        f"{cases.met(around <= MOST_AROUND)}",
    ]


def main(argv: list[str] | None = None):
    parser = cases.flags("run", __doc__)
    parser.formatter_class = argparse.RawTextHelpFormatter
    parser.add_argument("--preset", default="demo", help="the run (default: demo)")
    parser.add_argument("--repeats", type=cases.count, default=1, help="how often (default: 1)")
    parser.epilog = "Other flags go to main.py, as in --epochs 1 --data_dir DIR."
    given, more = parser.parse_known_args(argv)
    flags = [*(QUICK if given.quick else ()), *more]
    result = benchmark(given.preset, flags, given.threads, given.repeats)
    text = table(result)
    if given.preset == "demo" and given.threads == 1 and not flags:
        text = "\n".join([text, *bars(result)])
    cases.publish(given, result, text)


if __name__ == "__main__":
    main()
