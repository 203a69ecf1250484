"""Seconds an optimiser step at the paper's Sprites size, beside the machine's own limit and beside the literal form.

    python -m benchmarks.step [--json FILE] [--threads 1] [--quick]

Fast is what `main.py` trains. Reference is the literal form of benchmarks/reference.py, which runs as the release does: kernels
blended by a broadcast product and a sum a sequence, one Pyro site a sequence and time step, Pyro's own ELBO, the frozen encoder run at
every step of stage 2 and the frozen networks' gradients computed for nothing. Both take the same settings, weights, Adam and
allocator; every row is measured in a process of its own, so that its peak of memory is its own.

The other models' steps stand below them: at the published sizes on a GPU, at an eighth of the width on a CPU, where those would take
minutes.

The floor is the arithmetic that the step cannot do without, over the best forward convolution measured in the same run. On one CPU
thread the clock is the process's own: another program on the core then disturbs less (wall time is shown beside it).
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as main.py does, before torch is imported

import torch
import torch.nn.functional as F
from pyro.infer import Trace_ELBO
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reference import EncDecReference, SeqReference
from models.settings import DSASettings, UnorderedSettings
from models.vdsm.encdec import EncDec
from models.vdsm.networks import IDENTITY_HIDDEN, KERNEL
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from utils.step import Stepper, choose_device

CLIPS = 20
FRAMES = {"EncDec": 16, "Seq": 8}
SIZES = {
    "z_dim": 30,
    "n_e_w": 40,
    "dynamics_dim": 50,
    "rnn_dim": 512,
    "rnn_layers": 3,
}  # the README's Sprites commands
TINY = {
    "z_dim": 3, "n_e_w": 2, "dynamics_dim": 2, "rnn_dim": 4, "rnn_layers": 1,
    "enc_widths": (2, 2, 2, 2, 3), "dec_widths": (4, 3, 2, 2),
}  # fmt: skip
WEIGHTS = {"s": 0.5, "d": 0.5, "z": 1.0, "temperature": 5.0}
FORMS = {  # (stage, form): warm-up steps, timed steps, what it is
    ("EncDec", "fast"): (2, 5, "fast"),
    ("EncDec", "reference"): (1, 2, "reference"),
    ("Seq", "fast"): (2, 5, "fast, frozen codes cached as in training"),
    ("Seq", "encoder in"): (2, 3, "fast, frozen encoder run in the step"),
    ("Seq", "reference"): (1, 2, "reference"),
    ("Seq", "no idle gradients"): (1, 2, "reference without the frozen networks' gradients"),
}
OTHERS = {  # the other models: settings, and what an eighth of the width is
    "dsa": (DSASettings, {"width": 32, "hidden": 512, "conv_dim": 256, "rnn_dim": 64}),
    "unordered": (UnorderedSettings, {"width": 32, "hidden": 64}),
}
MOST_OVER_FLOOR, LEAST_GAIN, MOST_MEMORY = (
    2.0,
    {"EncDec": 2.8, "Seq": 6.0},
    6e9,
)  # what a fast step is held to


@dataclasses.dataclass
class Case:
    """What is timed: the settings, sequences a batch, frames a sequence by stage, and the device."""

    settings: VDSMSettings
    clips: int
    frames: dict
    threads: int

    def device(self):
        return choose_device("auto", self.threads)


def paper_case(threads=1, **changes):
    """The paper's Sprites size."""
    return Case(VDSMSettings(**SIZES, **changes), CLIPS, FRAMES, threads)


def tiny_case(threads=1):
    """A size at which everything runs in a second, for the tests."""
    return Case(VDSMSettings(**TINY), 2, {"EncDec": 3, "Seq": 2}, threads)


def gflop(case, stage, encoder=True):
    """GFLOP of one optimiser step, a multiply-add counted as 2: matrix products and convolutions, forward and backward. Blurs, LeakyReLUs,
    densities and Adam are left out: they are bound by memory.

    At the paper's size: stage 1, 277. Stage 2 with fidelity 'release' and the frozen encoder in it, 142. Our default needs less of stage 2:
    the codes are cached (10), and with s's posterior frozen (fidelity 'paper') no gradient goes to the blended kernels (33) nor to
    the mixing weights (5).
    """
    c, sequences, frames = case.settings, case.clips, case.clips * case.frames[stage]
    total = 0

    def add(products, forward=1, inputs=1, weights=1):
        nonlocal total
        total += products * (forward + inputs + weights)

    trains = stage == "EncDec"
    channels, side = (3, *c.enc_widths), 64
    for i, (c_in, c_out) in enumerate(zip(channels, channels[1:])):
        out = side - 1 if i < 4 else 1
        if encoder:
            add(frames * c_in * c_out * KERNEL**2 * out**2, 1, trains and i > 0, trains)
        side //= 2
    if encoder:
        heads = c.enc_widths[4] * (2 * c.z_dim + IDENTITY_HIDDEN) + IDENTITY_HIDDEN * 2 * c.n_e_w
        add(frames * heads, 1, trains, trains)

    channels, side = (c.z_dim + c.n_e_w, *c.dec_widths, 3), 1
    to_weights = (
        trains or c.fidelity == "release"
    )  # does s, and with it w and the blended kernels, lead to a parameter?
    for i, (c_in, c_out) in enumerate(zip(channels, channels[1:])):
        add(frames * c_in * c_out * KERNEL**2 * side**2, 1, 1, to_weights)
        add(sequences * c.n_e_w * c_in * c_out * KERNEL**2, 1, to_weights, trains)  # the blending
        side = 4 if i == 0 else 2 * side
    add(frames * 2 * c.n_e_w**2, 1, trains, to_weights)  # the identity layers

    if stage == "Seq":
        r, d, z, steps = c.rnn_dim, c.dynamics_dim, c.z_dim, frames
        for layer in range(c.rnn_layers):
            below = z if layer == 0 else 2 * r
            add(steps * 2 * 4 * r * below, 1, layer > 0, 1)  # bi-LSTM; its first input is frozen
            add(steps * 2 * 4 * r * r)
            add(steps * 4 * r * (r + r))  # seq2seq decoder
        add(sequences * 2 * c.rnn_layers * r * (2 * d + d))  # to d, and from d to h_0, c_0
        add(steps * ((r + d) * r + 3 * z * r))  # combiner
        hidden = r if c.fidelity == "release" else c.trans_dim
        add((steps - sequences) * (2 * (z + d) * hidden + 2 * hidden * z + 2 * z * z))  # transition
    return 2 * total / 1e9


def throughput(case):
    """(GFLOP/s, name) of the fastest of the model's own convolutions, forward, at stage 1's batch."""
    device, c = case.device(), case.settings
    frames, calls = case.frames["EncDec"], {}
    channels, side = (3, *c.enc_widths), 64
    for c_in, c_out in zip(channels[1:4], channels[2:5]):
        side //= 2
        x = torch.randn(case.clips * frames, c_in, side, side, device=device).contiguous(
            memory_format=torch.channels_last
        )
        kernel = torch.randn(c_out, c_in, KERNEL, KERNEL, device=device)
        work = len(x) * c_in * c_out * KERNEL**2 * (side - 1) ** 2
        calls[f"conv2d {c_in} to {c_out} at {side} px"] = work, F.conv2d, (x, kernel, None, 1, 1)
    side = 4
    for c_in, c_out in zip(c.dec_widths, c.dec_widths[1:]):
        x = torch.randn(frames, c_in, side, side, device=device)
        kernel = torch.randn(c_in, c_out, KERNEL, KERNEL, device=device)
        work = len(x) * c_in * c_out * KERNEL**2 * side**2
        calls[f"conv_transpose2d {c_in} to {c_out} at {side} px"] = (
            work,
            F.conv_transpose2d,
            (x, kernel, None, 2, 1),
        )
        calls[f"conv2d stride 2, {c_out} to {c_in} at {2 * side} px"] = (
            work, F.conv2d, (torch.randn(frames, c_out, 2 * side, 2 * side, device=device), kernel, None, 2, 1),
        )  # fmt: skip
        side *= 2
    rates = {}
    with torch.no_grad():
        for name, (work, function, given) in calls.items():
            repeats = min(20, max(1, int(4e9 // (2 * work))))

            def some(function=function, given=given, repeats=repeats):
                for _ in range(repeats):
                    function(*given)

            best = min(seconds for seconds, _ in _timed(some, 1, 5, case))
            rates[2 * work * repeats / best / 1e9] = name
    return max(rates), rates[max(rates)]


def _timed(function, warm_up, repeats, case):
    """[(seconds by the clock, seconds of wall time)] of each repeat."""
    device = case.device()
    own = device.type == "cpu" and torch.get_num_threads() == 1
    times = []
    for repeat in range(warm_up + repeats):
        clock, wall = (time.process_time() if own else time.perf_counter()), time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if repeat >= warm_up:
            times.append(((time.process_time() if own else now) - clock, now - wall))
    return times


def stepper(case, stage, form):
    """A function that takes one optimiser step of the form, and the `Stepper` and the network in it."""
    torch.manual_seed(0)
    device, c = case.device(), case.settings
    x = torch.rand(case.clips, case.frames[stage], 3, 64, 64, device=device)
    encdec, release = EncDec(c).to(device), c.fidelity == "release"
    if stage == "EncDec":
        descend = Stepper({1.0: list(encdec.parameters())})
        slow = EncDecReference(encdec, release)
        given = x, WEIGHTS
        network, fast = encdec, encdec.loss
    else:
        network = seq = Seq(c, encdec).to(device)
        descend = Stepper({1.0: seq.trainable()})
        slow = SeqReference(seq, release)
        given = x, None, WEIGHTS
        codes = seq.frame_codes(x)

        def fast(x, picked, weights):
            return seq.loss(
                seq.frame_codes(x) if form == "encoder in" else codes, x, weights, picked
            )

        if form == "reference":
            seq.requires_grad_(True)

    def step():
        if form in ("reference", "no idle gradients"):
            loss = Trace_ELBO().differentiable_loss(slow.model, slow.guide, *given)
        else:
            loss = sum(term.weighted for term in fast(*given).values())
        descend(loss, 1e-3)

    return step, descend, network


def measure(case, stage, form, quick=False):
    """{'seconds', 'wall', 'peak'} of a step: medians, and the largest resident memory (on a GPU: allocated) in bytes."""
    warm_up, repeats, _ = (1, 1, "") if quick else FORMS[stage, form]
    times = _timed(stepper(case, stage, form)[0], warm_up, repeats, case)
    seconds, wall = (statistics.median(part) for part in zip(*times))
    return {"seconds": seconds, "wall": wall, "peak": _peak(case.device())}


def measure_other(model, case, quick=False):
    """A row of another model: {'model', 'text', 'seconds', 'wall', 'peak', 'gflop'} of a step at its batch."""
    device = case.device()
    cls, narrow = OTHERS[model]
    c = cls(**({} if device.type == "cuda" else narrow), **({"bs": 2} if quick else {}))
    shape = (c.bs, getattr(c, "num_frames", c.seq_len), 3, 64, 64)
    network_of, weights = c.STAGES[0].stage().network_of, {"f": 1.0, "z": 1.0}
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        sum(
            term.weighted for term in network_of(c).loss(torch.empty(shape), weights).values()
        ).backward()
    network, x = network_of(c).to(device), torch.rand(shape, device=device)
    descend = Stepper({1.0: list(network.parameters())})

    def step():
        descend(sum(term.weighted for term in network.loss(x, weights).values()), 1e-4)

    times = _timed(step, *((1, 1) if quick else (2, 3)), case)
    seconds, wall = (statistics.median(part) for part in zip(*times))
    text = f"{model} ({c.bs} sequences, {shape[1]} frames, width {c.width})"
    gflop = counter.get_total_flops() / 1e9
    return {
        "model": model,
        "text": text,
        "seconds": seconds,
        "wall": wall,
        "peak": _peak(device),
        "gflop": gflop,
    }


def _peak(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def machine(case):
    """What this was measured on."""
    if case.device().type == "cuda":
        return f"{torch.cuda.get_device_name()}, TF32"
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(
                (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
                name,
            )
    except OSError:
        pass
    return f"{name}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def benchmark(case, quick=False):
    """Everything, as one dictionary: machine, throughput, and a row a stage and form."""

    def apart(function, *args):
        if quick:
            return function(*args)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *args).result()

    rate, name = apart(throughput, case)
    rows = []
    for (stage, form), (_, _, text) in FORMS.items():
        row = {
            "stage": stage,
            "form": form,
            "text": text,
            **apart(measure, case, stage, form, quick),
        }
        if form in ("fast", "encoder in"):
            row["gflop"] = gflop(case, stage, encoder=stage == "EncDec" or form == "encoder in")
            row["floor"] = row["gflop"] / rate
            row["over floor"] = row["seconds"] / row["floor"]
        rows.append(row)
        print(f"  {stage} {form}: {row['seconds']:.3f} s", file=sys.stderr, flush=True)
    others = [apart(measure_other, model, case, quick) for model in OTHERS]
    for row in others:
        row["floor"] = row["gflop"] / rate
        row["over floor"] = row["seconds"] / row["floor"]
    found = {(row["stage"], row["form"]): row for row in rows}
    gains = {
        stage: found[stage, "reference"]["seconds"] / found[stage, "fast"]["seconds"]
        for stage in case.frames
    }
    return {
        "machine": machine(case),
        "torch": torch.__version__,
        "clips": case.clips,
        "frames": case.frames,
        "experts": case.settings.n_e_w,
        "fidelity": case.settings.fidelity,
        "throughput": {"gflop_per_s": rate, "of": name},
        "rows": rows,
        "others": others,
        "reference over fast": gains,
        "release stage 2 gflop": gflop(dataclasses.replace(case, settings=dataclasses.replace(case.settings, fidelity="release")), "Seq"),
    }  # fmt: skip


def table(result):
    """The result as text."""
    rate = result["throughput"]
    lines = [
        f"{result['machine']}; torch {result['torch']}; {result['clips']} sequences, K {result['experts']}, fidelity {result['fidelity']}",
        f"best convolution, forward: {rate['gflop_per_s']:.0f} GFLOP/s ({rate['of']})",
        f"{'':60}{'s a step':>10}{'wall':>8}{'GFLOP':>8}{'floor':>8}{'ratio':>7}{'peak GB':>9}",
    ]
    for row in (*result["rows"], *result["others"]):
        label = row["text"]
        if "stage" in row:
            number = 1 if row["stage"] == "EncDec" else 2
            label = f"stage {number} ({result['frames'][row['stage']]} frames): {label}"
        floor = "".join(
            f"{row[key]:{width}}" if key in row else " " * int(width.split(".")[0])
            for key, width in (("gflop", "8.1f"), ("floor", "8.3f"), ("over floor", "7.2f"))
        )
        peak = f"{row['peak'] / 1e9:9.1f}" if row["peak"] else ""
        lines.append(f"{label:60}{row['seconds']:10.3f}{row['wall']:8.3f}{floor}{peak}")
        if row["wall"] > 1.1 * row["seconds"]:
            lines.append(f"{'':62}(the core was shared with other programs)")
    lines.append(
        f"stage 2 with fidelity release and the encoder in it would need {result['release stage 2 gflop']:.0f} GFLOP"
    )
    for row in result["rows"]:
        if row["form"] == "fast":
            stage, gain = row["stage"], result["reference over fast"][row["stage"]]
            checks = [
                (
                    f"step over floor {row['over floor']:.2f} (at most {MOST_OVER_FLOOR:g})",
                    row["over floor"] <= MOST_OVER_FLOOR,
                ),
                (
                    f"reference over fast {gain:.1f} (at least {LEAST_GAIN[stage]:g})",
                    gain >= LEAST_GAIN[stage],
                ),
                (
                    f"peak {(row['peak'] or 0) / 1e9:.1f} GB (under {MOST_MEMORY / 1e9:g})",
                    (row["peak"] or 0) < MOST_MEMORY,
                ),
            ]
            lines += [f"{stage}: {text}: {'met' if met else 'MISSED'}" for text, met in checks]
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one step each: does it run?"
    )
    flags = parser.parse_args(argv)
    case = tiny_case(flags.threads) if flags.quick else paper_case(flags.threads)
    result = benchmark(case, flags.quick)
    print(table(result))
    if flags.json:
        with open(flags.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
