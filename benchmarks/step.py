"""Seconds per optimiser step, beside the machine's limit.

    python -m benchmarks.step [--rows stage1,stage2] [--threads 1,2] [--precision fp32,bf16]
                              [--json FILE] [--quick]

'stage1', 'stage2', 'dsa' and 'unordered' are what `main.py` trains: VDSM at the release's Sprites
size, the other models at the published size on a GPU and at an eighth of the width on a CPU.
'demo-stage1' and the like have the settings of a preset. 'stage1-literal' and the like run
benchmarks/reference.py, as the authors' code does: one sequence after another, one Pyro site per
sequence and time step, Pyro's own ELBO, the frozen encoder in every step of stage 2, and gradients
of the frozen networks that nothing uses.

The floor is the arithmetic that a step cannot do without (benchmarks/flops.py), divided by the
speed of the best forward convolution of the same run, which is measured before and after the steps.
Several precisions or numbers of threads take turns (benchmarks/turns.py). The literal forms run in
fp32 with the first number of threads.
"""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import cases, flops
from benchmarks.rows import ROWS, gflop
from benchmarks.turns import measure
from utils.errors import UserError

# The bars: a step over its floor, peak bytes on a CPU, and how many times as fast as another step.
MOST_OVER_FLOOR = {"stage1": 2.0, "stage2": 2.0, "dsa": 1.6, "unordered": 1.6}
MOST_MEMORY = {"stage1": 4.5e9}
LEAST_OVER_LITERAL = {"stage1": 2.8, "stage2": 6.0}
LEAST_OF_BF16 = {"stage1": 1.4, "stage2": 1.3}
LEAST_OF_TWO_THREADS = {"stage1": 1.7, "stage2": 1.7}


def variants(name: str, precisions: list[str], threads: list[int]) -> list[tuple[str, int]]:
    """The precisions and numbers of threads in which a row is timed."""
    if ROWS[name].literal:
        return [("fp32", threads[0])]
    return [(precision, number) for number in threads for precision in precisions]


def best_convolutions(threads: list[int], quick: bool) -> dict[int, tuple[float, str]]:
    """{threads: GFLOP/s and name of the best convolution}, each in a process of its own."""
    rates = {}
    for number in threads:
        case = cases.paper("EncDec", number, quick)
        if quick:
            rates[number] = flops.best_convolution(case)
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rates[number] = pool.submit(flops.best_convolution, case).result()
    return rates


def benchmark(names: list[str], precisions: list[str], threads: list[int], quick: bool) -> dict:
    """All figures: the best convolutions, and an entry per row, precision and threads."""
    for precision in precisions:
        # Raises UserError now, and not after minutes.
        cases.paper("EncDec", threads[0]).in_precision(precision).device()
    rates, found = best_convolutions(threads, quick), []
    for name in names:
        row, ways = ROWS[name], variants(name, precisions, threads)
        case = row.case(threads[0], quick)
        for (precision, number), figures in zip(ways, measure(name, ways, quick)):
            words = f"{number} thread{'s' if number > 1 else ''}"
            entry: dict[str, Any] = {
                "name": f"{row.text}, {case.size}, {precision}, {words}",
                "row": name,
                "precision": precision,
                "threads": number,
                **figures,
            }
            count = gflop(case, row.form)
            if count is not None and precision == "fp32":
                entry["gflop"] = count
            found.append(entry)
            print(f"  {entry['name']}: {_median(entry):.3f} s", file=sys.stderr, flush=True)
    again = best_convolutions(threads, quick)
    rates = {number: max(rates[number], again[number]) for number in threads}
    for entry in found:
        if "gflop" in entry:
            entry["floor"] = entry["gflop"] / rates[entry["threads"]][0]
            entry["over floor"] = _median(entry) / entry["floor"]
    _compare(found)
    best = {str(n): {"gflop_per_s": rate, "of": name} for n, (rate, name) in rates.items()}
    return cases.result("step", threads, found, convolution=best)


def _median(entry, clock="step"):
    return entry["timings"][clock]["median"]


def _compare(found):
    """Add to each entry how many times as fast it is as literal, as fp32, and as the first threads.

    Times with different numbers of threads are compared by wall time.
    """
    medians = {(entry["row"], entry["precision"], entry["threads"]): entry for entry in found}
    first = found[0]["threads"]
    for (row, precision, threads), entry in medians.items():
        literal = medians.get((f"{row}-literal", precision, threads))
        if literal:
            entry["times literal"] = _median(literal) / _median(entry)
        if precision != "fp32" and (row, "fp32", threads) in medians:
            single = medians[row, "fp32", threads]
            entry["times fp32"] = _median(single) / _median(entry)
        if threads != first and (row, precision, first) in medians:
            one = medians[row, precision, first]
            entry[f"times {first} thread"] = _median(one, "wall") / _median(entry, "wall")


def bars(entry: dict) -> dict[str, bool]:
    """The bars that apply to an entry: {line: whether it holds}."""
    row, lines = entry["row"], {}
    if row in MOST_OVER_FLOOR and "over floor" in entry and entry["threads"] == 1:
        slow, most = entry["over floor"], MOST_OVER_FLOOR[row]
        lines[f"{slow:.2f} times its floor (at most {most:g})"] = slow <= most
    if row in MOST_MEMORY and entry["precision"] == "fp32" and entry["threads"] == 1:
        peak, most = entry["peak"], MOST_MEMORY[row]
        lines[f"peak memory {peak / 1e9:.2f} GB (under {most / 1e9:g})"] = peak < most
    fast = {
        "times literal": ("the literal form", LEAST_OVER_LITERAL),
        "times 1 thread": ("one thread", LEAST_OF_TWO_THREADS if entry["threads"] == 2 else {}),
        "times fp32": ("fp32", LEAST_OF_BF16 if entry["precision"] == "bf16" else {}),
    }
    for key, (what, least) in fast.items():
        if key in entry and row in least:
            gain = entry[key]
            line = f"{gain:.2f} times as fast as {what} (at least {least[row]:g})"
            lines[line] = gain >= least[row]
    return lines


def table(result: dict) -> str:
    """The figures as text."""
    lines = [cases.heading(result)]
    for number, best in result["convolution"].items():
        rate = f"{best['gflop_per_s']:.0f} GFLOP/s ({best['of']})"
        lines.append(f"best forward convolution, threads: {number}: {rate}")
    head = f"{'median s/step':>15}{'quartiles':>15}{'range':>15}{'GFLOP':>8}{'/floor':>8}"
    lines.append(f"{'':72}{head}{'peak GB':>9}  times as fast as")
    for entry in result["rows"]:
        step, floor = entry["timings"]["step"], " " * 16
        if "floor" in entry:
            floor = f"{entry['gflop']:8.1f}{entry['over floor']:8.2f}"
        ends = "".join(
            f"{f'{low:.3f}-{high:.3f}':>15}" for low, high in (step["quartiles"], step["range"])
        )
        gains = [f"{k.removeprefix('times ')}: {v:.2f}" for k, v in entry.items() if "times " in k]
        memory = f"{entry['peak'] / 1e9:9.2f}  {', '.join(gains)}"
        lines.append(f"{entry['name']:72}{step['median']:15.4f}{ends}{floor}{memory}".rstrip())
        if _median(entry, "wall") > 1.1 * step["median"]:
            lines.append(f"{'':74}(other programs used the core too)")
    for entry in result["rows"]:
        lines += [f"{entry['name']}: {text}: {cases.met(ok)}" for text, ok in bars(entry).items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = cases.flags("step", __doc__, threads=None)
    rows_help = f"rows joined by commas, from {', '.join(ROWS)} (default: all)"
    threads_help = "numbers of CPU threads joined by commas, timed in turn (default: 1)"
    precision_help = "precisions joined by commas, timed in turn (default: fp32)"
    parser.add_argument("--rows", type=names_of(ROWS), default=list(ROWS), help=rows_help)
    parser.add_argument("--threads", type=cases.counts, default=[1], help=threads_help)
    precisions = names_of(cases.PRECISIONS)
    parser.add_argument("--precision", type=precisions, default=["fp32"], help=precision_help)
    given = parser.parse_args(argv)
    try:
        result = benchmark(given.rows, given.precision, given.threads, given.quick)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    cases.publish(given, result, table(result))


def names_of(known):
    """The type of a flag that takes some of the names `known`, joined by commas."""

    def names(text):
        given = list(dict.fromkeys(text.split(",")))
        if not set(given) <= set(known):
            raise argparse.ArgumentTypeError(f"found {text}, expected some of {', '.join(known)}")
        return given

    return names


if __name__ == "__main__":
    main()
