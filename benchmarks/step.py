"""Seconds per optimiser step at the paper's Sprites size, beside the machine's limit.

    python -m benchmarks.step [--json FILE] [--threads 1] [--quick]

'Fast' is what `main.py` trains. 'Literal' is benchmarks/reference.py, which runs as the authors'
code does: one sequence after another, one Pyro site per sequence and time step, Pyro's own ELBO,
the frozen encoder in every step of stage 2, and gradients of the frozen networks that nothing uses.
Both take the same settings, weights, Adam and allocator. Every row is measured in a process of its
own, so that rows do not share their peak of memory.

Below VDSM stands one step of each other model: at the published size on a GPU, at an eighth of the
width on a CPU, where the published size would take minutes.

The floor is the arithmetic that the step cannot do without (benchmarks/flops.py), divided by the
speed of the best forward convolution of the same run.
"""

import dataclasses
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
from pyro.infer import Trace_ELBO
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import STAGES, Case, chosen_case, flags, machine, met, timed, write_json
from benchmarks.flops import best_convolution, gflop
from benchmarks.reference import EncDecReference, SeqReference
from models.annealing import Annealed
from models.settings import DSASettings, UnorderedSettings
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq, Sequences
from utils.step import Stepper

ANNEALED = Annealed({"s": 0.5, "d": 0.5, "z": 1.0}, temperature=5.0)


class Form(NamedTuple):
    """One way to take a step: steps before the timed ones, timed steps, its name in the table."""

    warm_up: int
    repeats: int
    text: str


FORMS = {
    ("EncDec", "fast"): Form(2, 5, "fast"),
    ("EncDec", "reference"): Form(1, 2, "literal"),
    ("Seq", "fast"): Form(2, 5, "fast, frozen codes cached as in training"),
    ("Seq", "encoder in"): Form(2, 3, "fast, frozen encoder run in the step"),
    ("Seq", "reference"): Form(1, 2, "literal"),
    ("Seq", "no idle gradients"): Form(1, 2, "literal, no gradient of frozen networks"),
}
# The other models: their settings, and an eighth of the published width.
OTHERS = {
    "dsa": (DSASettings, {"width": 32, "hidden": 512, "conv_dim": 256, "rnn_dim": 64}),
    "unordered": (UnorderedSettings, {"width": 32, "hidden": 64}),
}
# The bars for the fast step.
MOST_OVER_FLOOR = 2.0
LEAST_GAIN = {"EncDec": 2.8, "Seq": 6.0}
MOST_MEMORY = 6e9


def optimiser_step(
    case: Case, stage_name: str, form: str
) -> tuple[Callable, Stepper, torch.nn.Module]:
    """A function that takes one optimiser step in the form; the `Stepper` and network in it."""
    torch.manual_seed(0)
    device, settings = case.device(), case.settings
    x = torch.rand(case.clips, case.frames[stage_name], 3, 64, 64, device=device)
    encdec, release = EncDec(settings).to(device), settings.fidelity == "release"
    if stage_name == "EncDec":
        network, inputs = encdec, (x, ANNEALED)
        stepper, fast = Stepper({1.0: list(encdec.parameters())}), encdec.loss
        literal = EncDecReference(encdec, release)
    else:
        network, inputs = Seq(settings, encdec).to(device), (x, None, ANNEALED)
        stepper = Stepper({1.0: network.trainable()})
        literal = SeqReference(network, release)
        cached = network.frame_codes(x)

        def fast(x, picked, annealed):
            codes = network.frame_codes(x) if form == "encoder in" else cached
            return network.loss(Sequences(codes, x, picked), annealed)

        if form == "reference":
            network.requires_grad_(True)

    def step():
        if form in ("reference", "no idle gradients"):
            loss = Trace_ELBO().differentiable_loss(literal.model, literal.guide, *inputs)
        else:
            loss = sum(term.weighted for term in fast(*inputs).values())
        stepper(loss, 1e-3)

    return step, stepper, network


def measure(case: Case, stage_name: str, form: str, quick: bool = False) -> dict:
    """Medians per step, and memory in bytes: {'seconds', 'wall', 'peak'}."""
    warm_up, repeats = (1, 1) if quick else FORMS[stage_name, form][:2]
    return _medians(optimiser_step(case, stage_name, form)[0], case, repeats, warm_up)


def measure_other(model: str, case: Case, quick: bool = False) -> dict:
    """A row of another model at its batch: what `measure` gives, and 'model', 'text', 'gflop'."""
    device = case.device()
    settings_class, narrow = OTHERS[model]
    settings = settings_class(
        **({} if device.type == "cuda" else narrow), **({"bs": 2} if quick else {})
    )
    shape = (settings.bs, getattr(settings, "frames_per_clip", settings.seq_len), 3, 64, 64)
    network_class, annealed = settings.STAGES[0].stage().network_of, Annealed({"f": 1.0, "z": 1.0})

    def loss(network, x):
        return sum(term.weighted for term in network.loss(x, annealed).values())

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        loss(network_class(settings), torch.empty(shape)).backward()
    network, x = network_class(settings).to(device), torch.rand(shape, device=device)
    stepper = Stepper({1.0: list(network.parameters())})
    return {
        "model": model,
        "text": f"{model} ({settings.bs} sequences, {shape[1]} frames, width {settings.width})",
        "gflop": counter.get_total_flops() / 1e9,
        **_medians(lambda: stepper(loss(network, x), 1e-4), case, *((1, 1) if quick else (3, 2))),
    }


def _medians(step, case, repeats, warm_up):
    seconds, wall = map(statistics.median, zip(*timed(step, case, repeats, warm_up)))
    return {"seconds": seconds, "wall": wall, "peak": _peak_memory(case.device())}


def _peak_memory(device):
    """Bytes: the largest resident memory of this process, or memory allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        # Not a Unix.
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def benchmark(case: Case, quick: bool = False) -> dict:
    """All figures: the machine, its best convolution, and a row per form and per other model."""

    def in_own_process(function, *args):
        if quick:
            return function(*args)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *args).result()

    rate, convolution = in_own_process(best_convolution, case)
    rows = []
    for (stage_name, name), form in FORMS.items():
        row = {"stage": stage_name, "form": name, "text": form.text}
        row |= in_own_process(measure, case, stage_name, name, quick)
        if name in ("fast", "encoder in"):
            encoder = stage_name == "EncDec" or name == "encoder in"
            row["gflop"] = gflop(case, stage_name, encoder)
        rows.append(row)
        text = f"  {STAGES[stage_name]}, {form.text}: {row['seconds']:.3f} s"
        print(text, file=sys.stderr, flush=True)
    others = [in_own_process(measure_other, model, case, quick) for model in OTHERS]
    for row in (*rows, *others):
        if "gflop" in row:
            row["floor"] = row["gflop"] / rate
            row["over floor"] = row["seconds"] / row["floor"]
    seconds = {(row["stage"], row["form"]): row["seconds"] for row in rows}
    release = dataclasses.replace(case.settings, fidelity="release")
    return {
        "machine": machine(case),
        "torch": torch.__version__,
        "clips": case.clips,
        "frames": case.frames,
        "experts": case.settings.n_e_w,
        "fidelity": case.settings.fidelity,
        "throughput": {"gflop_per_s": rate, "of": convolution},
        "rows": rows,
        "others": others,
        "reference over fast": {
            stage_name: seconds[stage_name, "reference"] / seconds[stage_name, "fast"]
            for stage_name in case.frames
        },
        "release stage 2 gflop": gflop(dataclasses.replace(case, settings=release), "Seq"),
    }


def table(result: dict) -> str:
    """The figures as text."""
    speed = result["throughput"]
    lines = [
        result["machine"],
        f"VDSM: {result['clips']} sequences per batch, {result['experts']} experts, "
        f"fidelity {result['fidelity']}",
        f"best forward convolution: {speed['gflop_per_s']:.0f} GFLOP/s ({speed['of']})",
        f"{'':60}{'s/step':>10}{'wall':>8}{'GFLOP':>8}{'floor s':>9}{'/floor':>8}{'peak GB':>9}",
    ]
    for row in (*result["rows"], *result["others"]):
        label = row["text"]
        if "stage" in row:
            frames = result["frames"][row["stage"]]
            label = f"{STAGES[row['stage']]} ({frames} frames): {label}"
        floor = " " * 25
        if "floor" in row:
            floor = f"{row['gflop']:8.1f}{row['floor']:9.3f}{row['over floor']:8.2f}"
        peak = f"{row['peak'] / 1e9:9.1f}" if row["peak"] else ""
        lines.append(f"{label:60}{row['seconds']:10.3f}{row['wall']:8.3f}{floor}{peak}")
        if row["wall"] > 1.1 * row["seconds"]:
            lines.append(f"{'':62}(other programs used the core too)")
    needed = f"{result['release stage 2 gflop']:.0f} GFLOP"
    lines.append(f"stage 2 with fidelity 'release' and the encoder in the step needs {needed}")
    for row in result["rows"]:
        if row["form"] == "fast":
            lines += _bars(row, result["reference over fast"][row["stage"]])
    return "\n".join(lines)


def _bars(row, gain):
    """Lines that hold the row of a fast step to its bars."""
    over_floor, memory = row["over floor"], row["peak"] or 0
    least = LEAST_GAIN[row["stage"]]
    bars = {
        f"{over_floor:.2f} times its floor (at most {MOST_OVER_FLOOR:g})": (
            over_floor <= MOST_OVER_FLOOR
        ),
        f"{gain:.1f} times as fast as the literal form (at least {least:g})": gain >= least,
        f"peak memory {memory / 1e9:.1f} GB (under {MOST_MEMORY / 1e9:g})": memory < MOST_MEMORY,
    }
    return [f"{STAGES[row['stage']]}: {text}: {met(holds)}" for text, holds in bars.items()]


def main(argv: list[str] | None = None):
    given = flags("step", __doc__).parse_args(argv)
    result = benchmark(chosen_case(given), given.quick)
    print(table(result))
    write_json(given.json, result)


if __name__ == "__main__":
    main()
