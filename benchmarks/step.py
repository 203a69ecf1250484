"""Seconds per optimiser step at the release's Sprites size, beside the machine's limit.

    python -m benchmarks.step [--json FILE] [--threads 1] [--quick]

'Fast' is what `main.py` trains. 'Literal' is benchmarks/reference.py, which runs as the authors'
code does: one sequence after another, one Pyro site per sequence and time step, Pyro's own ELBO,
the frozen encoder in every step of stage 2, and gradients of the frozen networks that nothing uses.
Each row has a process of its own, because its peak of memory is measured. The last rows are the
other models: at the published size on a GPU, at an eighth of the width on a CPU.

The floor is the arithmetic that the step cannot do without (benchmarks/flops.py), divided by the
speed of the best forward convolution of the same run.
"""

import multiprocessing
import resource
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
from pyro.infer import Trace_ELBO
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases, flops, reference
from models.annealing import Annealed
from models.settings import DSASettings, UnorderedSettings
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq, Sequences
from utils.step import Stepper

ANNEALED = Annealed({"s": 0.5, "d": 0.5, "z": 1.0}, temperature=5.0)
# {(stage, form of the step): (untimed steps, timed steps, name in the table)}
FORMS = {
    ("EncDec", "fast"): (2, 5, "fast"),
    ("EncDec", "reference"): (1, 2, "literal"),
    ("Seq", "fast"): (2, 5, "fast, frozen codes cached as in training"),
    ("Seq", "encoder in"): (2, 3, "fast, frozen encoder run in the step"),
    ("Seq", "reference"): (1, 2, "literal"),
    ("Seq", "no idle gradients"): (1, 2, "literal, no gradient of frozen networks"),
}
# The other models: their settings, and an eighth of the published width.
OTHERS: dict[str, tuple[type, dict]] = {
    "dsa": (DSASettings, {"width": 32, "hidden": 512, "conv_dim": 256, "rnn_dim": 64}),
    "unordered": (UnorderedSettings, {"width": 32, "hidden": 64}),
}
# The bars for the fast step.
MOST_OVER_FLOOR, MOST_MEMORY = 2.0, 6e9
LEAST_GAIN = {"EncDec": 2.8, "Seq": 6.0}


def optimiser_step(
    case: cases.Case, stage_name: str, form: str
) -> tuple[Callable, Stepper, torch.nn.Module]:
    """A function that takes one optimiser step in the form; the `Stepper` and network in it."""
    torch.manual_seed(0)
    device, settings = case.device(), case.settings
    x = torch.rand(case.clips, case.frames[stage_name], 3, 64, 64, device=device)
    encdec, release = EncDec(settings).to(device), settings.fidelity == "release"
    if stage_name == "EncDec":
        network, inputs = encdec, (x, ANNEALED)
        stepper = Stepper({1.0: encdec.parameters()})
        literal = reference.EncDecReference(encdec, release)

        def fast():
            return encdec.loss(x, ANNEALED)
    else:
        network, inputs = Seq(settings, encdec).to(device), (x, None, ANNEALED)
        stepper = Stepper({1.0: network.trainable()})
        literal = reference.SeqReference(network, release)
        cached = network.frame_codes(x)

        def fast():
            codes = network.frame_codes(x) if form == "encoder in" else cached
            return network.loss(Sequences(codes, x), ANNEALED)

        if form == "reference":
            network.requires_grad_(True)

    def step():
        if form in ("reference", "no idle gradients"):
            loss = Trace_ELBO().differentiable_loss(literal.model, literal.guide, *inputs)
        else:
            loss = sum(term.weighted for term in fast().values())
        stepper(loss, 1e-3)

    return step, stepper, network


def measure(case: cases.Case, stage_name: str, form: str, quick: bool = False) -> dict:
    """The row of a form: names, medians of 'seconds' and 'wall', 'peak' in bytes; fast: 'gflop'."""
    warm_up, repeats, name = FORMS[stage_name, form]
    text = f"{cases.STAGES[stage_name]} ({case.frames[stage_name]} frames): {name}"
    row: dict = {"stage": stage_name, "form": form, "text": text}
    if form in ("fast", "encoder in"):
        row["gflop"] = flops.gflop(case, stage_name, (stage_name, form) != ("Seq", "fast"))
    step, _, _ = optimiser_step(case, stage_name, form)
    return row | _measured(step, case, *((1, 1) if quick else (repeats, warm_up)))


def measure_other(model: str, case: cases.Case, quick: bool = False) -> dict:
    """The row of another model at its own batch size."""
    device, (settings_class, narrow) = case.device(), OTHERS[model]
    changes = narrow if device.type == "cpu" else {}
    settings = settings_class(**changes, **({"bs": 2} if quick else {}))
    shape = (settings.bs, getattr(settings, "frames_per_clip", settings.seq_len), 3, 64, 64)
    network_class, annealed = settings.STAGES[0].stage().network_of, Annealed({"f": 1.0, "z": 1.0})

    def loss(network, x):
        return sum(term.weighted for term in network.loss(x, annealed).values())

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        loss(network_class(settings), torch.empty(shape)).backward()
    network, x = network_class(settings).to(device), torch.rand(shape, device=device)
    stepper = Stepper({1.0: network.parameters()})
    return {
        "form": model,
        "text": f"{model} ({settings.bs} sequences, {shape[1]} frames, width {settings.width})",
        "gflop": counter.get_total_flops() / 1e9,
        **_measured(lambda: stepper(loss(network, x), 1e-4), case, *((1, 1) if quick else (3, 2))),
    }


def _measured(step, case, repeats, warm_up):
    seconds, wall = map(statistics.median, zip(*cases.timed(step, case, repeats, warm_up)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    if case.device().type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"seconds": seconds, "wall": wall, "peak": peak}


def benchmark(case: cases.Case, quick: bool = False) -> dict:
    """All figures: the machine, its best convolution, and a row per form and per other model."""

    def in_own_process(function, *args):
        if quick:
            return function(*args)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *args).result()

    rate, convolution = in_own_process(flops.best_convolution, case)
    rows = []
    for stage_name, form in FORMS:
        row = in_own_process(measure, case, stage_name, form, quick)
        rows.append(row)
        print(f"  {row['text']}: {row['seconds']:.3f} s", file=sys.stderr, flush=True)
    literal = {row["stage"]: row["seconds"] for row in rows if row["form"] == "reference"}
    rows += [in_own_process(measure_other, model, case, quick) for model in OTHERS]
    for row in rows:
        if "gflop" in row:
            row["floor"] = row["gflop"] / rate
            row["over floor"] = row["seconds"] / row["floor"]
        if row["form"] == "fast":
            row["reference over fast"] = literal[row["stage"]] / row["seconds"]
    speed = {"gflop_per_s": rate, "of": convolution}
    batch = f"{case.clips} sequences per batch, {case.settings.n_e_w} experts"
    text = f"VDSM: {batch}, fidelity {case.settings.fidelity}"
    return {"machine": cases.machine(case), "case": text, "throughput": speed, "rows": rows}


def table(result: dict) -> str:
    """The figures as text."""
    speed = result["throughput"]
    lines = [
        result["machine"],
        result["case"],
        f"best forward convolution: {speed['gflop_per_s']:.0f} GFLOP/s ({speed['of']})",
        f"{'':60}{'s/step':>10}{'wall':>8}{'GFLOP':>8}{'floor s':>9}{'/floor':>8}{'peak GB':>9}",
    ]
    for row in result["rows"]:
        floor = " " * 25
        if "floor" in row:
            floor = f"{row['gflop']:8.1f}{row['floor']:9.3f}{row['over floor']:8.2f}"
        times = f"{row['seconds']:10.3f}{row['wall']:8.3f}"
        lines.append(f"{row['text']:60}{times}{floor}{row['peak'] / 1e9:9.1f}")
        if row["wall"] > 1.1 * row["seconds"]:
            lines.append(f"{'':62}(other programs used the core too)")
    for row in [row for row in result["rows"] if row["form"] == "fast"]:
        slow, gain, memory = row["over floor"], row["reference over fast"], row["peak"]
        stage, least = cases.STAGES[row["stage"]], LEAST_GAIN[row["stage"]]
        bars = {
            f"{slow:.2f} times its floor (at most {MOST_OVER_FLOOR:g})": slow <= MOST_OVER_FLOOR,
            f"{gain:.1f} times as fast as the literal form (at least {least:g})": gain >= least,
            f"peak memory {memory / 1e9:.1f} GB (under {MOST_MEMORY / 1e9:g})": memory
            < MOST_MEMORY,
        }
        lines += [f"{stage}: {text}: {cases.met(holds)}" for text, holds in bars.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    given = cases.flags("step", __doc__).parse_args(argv)
    result = benchmark(cases.new_case(given.threads, given.quick), given.quick)
    cases.publish(given, result, table(result))


if __name__ == "__main__":
    main()
