"""The parts of an optimiser step: seconds per operation of torch, beside the arithmetic in it.

    python -m benchmarks.parts [--rows dsa,unordered] [--threads 1] [--json FILE] [--quick]

The rows are those of benchmarks/step.py. The floor of an operation is its arithmetic, as torch
counts it, divided by the speed of the machine's best convolution. An operation without matrix
products has no floor: the bandwidth of the memory bounds it.
"""

import itertools
from collections import Counter

from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases
from benchmarks.rows import ROWS, build
from benchmarks.step import best_convolutions, names_of

WARM_UP, STEPS = 4, 5
SMALLEST = 0.01  # share of the step below which an operation is counted under 'other'
# The profiler times the kernels, and the counter of arithmetic names what calls them.
CONVOLUTIONS = ("mkldnn_convolution", "_convolution", "convolution")


def parts(name: str, threads: int, quick: bool) -> dict[str, dict[str, float]]:
    """{operation: 'seconds', 'calls' and 'gflop' of a step} of a row, the longest first."""
    case = ROWS[name].case(threads, quick)
    case.device()
    step = build(case)
    for _ in range(WARM_UP):
        step.take()
    with FlopCounterMode(display=False) as counter:
        step.take()
    counted = counter.get_flop_counts()["Global"]
    found = {str(op).removeprefix("aten."): {"gflop": n / 1e9} for op, n in counted.items()}
    seconds, calls = Counter(), Counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step.take()
    for event in profiler.key_averages():
        operation = event.key.removeprefix("aten::")
        operation = "convolution" if operation in CONVOLUTIONS else operation
        seconds[operation] += event.self_cpu_time_total / 1e6 / STEPS
        calls[operation] += event.count / STEPS
    least, gathered = SMALLEST * seconds.total(), {}
    for operation, time in seconds.most_common():
        entry = operation if time >= least else "other"
        part = gathered.setdefault(entry, {"seconds": 0.0, "calls": 0.0, "gflop": 0.0})
        part["seconds"] += time
        part["calls"] += calls[operation]
        part["gflop"] += found.get(operation, {}).get("gflop", 0.0)
    return gathered


def benchmark(names: list[str], threads: int, quick: bool) -> dict:
    """The parts of each row, and the speed of the best convolution before and after."""
    rates = [best_convolutions([threads], quick)[threads]]
    rows = [
        {"name": ROWS[name].text, "row": name, "parts": parts(name, threads, quick)}
        for name in names
    ]
    rates.append(best_convolutions([threads], quick)[threads])
    rate, of = max(rates)
    best = {"gflop_per_s": rate, "of": of}
    return cases.result("parts", [threads], rows, convolution=best)


def table(result: dict) -> str:
    """The figures as text."""
    rate = result["convolution"]["gflop_per_s"]
    lines = [cases.heading(result), f"best forward convolution: {rate:.0f} GFLOP/s"]
    for row in result["rows"]:
        whole = {
            key: sum(part[key] for part in row["parts"].values()) for key in ("seconds", "gflop")
        }
        lines.append(
            f"{row['name']:36}{'calls':>7}{'s/step':>9}{'GFLOP':>8}{'floor':>8}{'/floor':>8}"
        )
        for name, part in itertools.chain(row["parts"].items(), [("whole step", whole)]):
            line = f"  {name:34}{part.get('calls', 0):7.0f}{part['seconds']:9.4f}"
            if part["gflop"]:
                floor = part["gflop"] / rate
                line += f"{part['gflop']:8.1f}{floor:8.4f}{part['seconds'] / floor:8.2f}"
            lines.append(line)
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = cases.flags("parts", __doc__)
    rows_help = f"rows joined by commas, from {', '.join(ROWS)} (default: dsa,unordered)"
    parser.add_argument("--rows", type=names_of(ROWS), default=["dsa", "unordered"], help=rows_help)
    given = parser.parse_args(argv)
    result = benchmark(given.rows, given.threads, given.quick)
    cases.publish(given, result, table(result))


if __name__ == "__main__":
    main()
