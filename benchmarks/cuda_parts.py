"""The parts of `python -m benchmarks.cuda`, each in a process of its own.

    python -m benchmarks.cuda_parts parity|steps|blended|generate [--precision P] [--cpu] [--quick]

The last line that a part prints is its figures, as JSON.
"""

import contextlib
import json
import statistics
import time
from functools import partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import cases
from data.base import Clips
from data.batches import Batches, move
from models.settings import DSASettings, UnorderedSettings
from models.vdsm import cuda
from models.vdsm.settings import VDSMSettings
from train_test import take_step
from utils.flags import OneLineParser
from utils.graphs import DeviceSteps, Recorder
from utils.step import Stepper, choose_device

WARM_UP, BLOCKS = 8, 5  # steps before the clock starts; blocks of steps, of which the median counts
VDSM_SMALL = dict(
    z_dim=6, n_e_w=5, dynamics_dim=4, rnn_dim=16, rnn_layers=2, rnn_dropout=0.0, trans_dim=16,
    enc_widths=(16, 16, 32, 32, 64), dec_widths=(64, 32, 16, 16), foresight=1.0, frames_per_clip=4,
)  # fmt: skip
# What is compared with the CPU: settings, and the name of the stage.
SMALL = {
    "stage 1": (VDSMSettings, VDSM_SMALL, "EncDec"),
    "stage 2": (VDSMSettings, VDSM_SMALL, "Seq"),
    "DSA": (DSASettings, dict(width=16, hidden=64, conv_dim=32, rnn_dim=16), "DSA"),
    "Unordered": (UnorderedSettings, dict(width=16, hidden=32), "Unordered"),
}
# What is timed: the commands of the README for Sprites, and the others as published.
SPRITES = dict(**cases.PAPER, rnn_dropout=0.2, bs=20, bs_per_epoch=50)
PAPER = {
    "stage 1": (VDSMSettings, dict(**SPRITES, seq_len=16), "EncDec"),
    "stage 2": (VDSMSettings, dict(**SPRITES, seq_len=8), "Seq"),
    "DSA": (DSASettings, {}, "DSA"),
    "Unordered": (UnorderedSettings, {}, "Unordered"),
}
WIDTHS, SIDES = (512, 256, 128, 64, 3), (4, 8, 16, 32)  # of the decoder's blended layers


class Case:
    """A stage with random weights, batches of random frames on the device, and its optimiser."""

    def __init__(self, row, device, precision, clips=200, **changes):
        settings_class, sizes, name = row
        self.settings = c = settings_class(**{**sizes, **changes, "precision": precision})
        torch.manual_seed(0)
        self.stage = c.info(name).stage().build(c).to(device)
        self.stage.network.train()
        frames = np.random.default_rng(0).integers(0, 256, (clips * c.seq_len, 64, 64, 3), np.uint8)
        split = Clips(frames, np.full(clips, c.seq_len), {}, np.arange(clips))
        self.batches = Batches(split, device, c.seq_len, c.batch_size)
        if self.batches.resident is None:  # on a CPU, so that its steps are those of a GPU
            self.batches.resident = move(split, device)
        self.terms = partial(self.stage.terms, self.batches)
        self.stepper = Stepper(self.stage.trainable(), c.clip_grad)
        self.schedules = self.stage.schedules()

    def values(self, step):
        """The schedules and the learning rate of a step."""
        return self.schedules.at(0), 1e-4

    def steps(self, recorder) -> DeviceSteps:
        """How a GPU takes the steps. recorder: None for plain ones."""

        def take(inputs, annealed):
            return take_step(SimpleNamespace(**vars(self)), inputs, annealed)

        given = self.stage, self.batches, self.stepper, recorder, print
        return DeviceSteps(take, self.values, *given)


@contextlib.contextmanager
def same_noise():
    """Within the block, noise is drawn on the CPU, the same in every such block."""
    generator = torch.Generator().manual_seed(0)
    randn, rand = torch.randn, torch.rand

    def drawn(make):
        def draw(*size, dtype=None, device=None):
            return make(*size, generator=generator, dtype=dtype).to(device or "cpu")

        return draw

    with (
        mock.patch.object(torch, "randn", drawn(randn)),
        mock.patch.object(torch, "rand", drawn(rand)),
    ):
        yield


def losses_and_gradients(row, device, precision, step):
    """One step's {term: value} and {parameter: gradient}, as float64 on the CPU."""
    case = Case(row, device, precision, clips=8, bs=4, seq_len=6)
    with same_noise():
        inputs = case.batches.send_steps([case.stage.inputs(case.batches, step)])[0]
        terms = case.stage.terms(case.batches, inputs, case.values(0)[0])
    case.stage.objective(terms, case.batches.size).backward()
    gradients = {n: p.grad for n, p in case.stage.network.named_parameters() if p.grad is not None}
    losses = {name: term.weighted.detach() for name, term in terms.items()}
    return ({n: t.cpu().double() for n, t in part.items()} for part in (losses, gradients))


def parity(device, precision, quick):
    """{model: largest relative difference of a term, and of a parameter's gradient, to the CPU}."""
    rows = {}
    for name, row in SMALL.items():
        worst = {"loss": 0.0, "gradient": 0.0}
        for step in (0, 1):  # in stage 2, every other step reads d from a part of the clip
            expected = losses_and_gradients(row, torch.device("cpu"), "fp32", step)
            found = losses_and_gradients(row, device, precision, step)
            for kind, right, ours in zip(worst, expected, found):
                assert right.keys() == ours.keys()
                gaps = [(ours[n] - right[n]).norm() / (right[n].norm() + 1e-12) for n in right]
                worst[kind] = max(worst[kind], torch.stack(gaps).max().item())
        rows[name] = worst
    return rows


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def per_step(steps, device, count):
    """Median milliseconds of a step, and of its launch on the host, after WARM_UP steps."""
    number, blocks = 0, []
    for block in range(BLOCKS + 1):
        wait(device)
        began = time.perf_counter()
        for _ in range(count if block else WARM_UP):
            steps(number, number + 64)
            number += 1
        launched = time.perf_counter()
        wait(device)
        if block:
            blocks.append((1e3 * (time.perf_counter() - began), 1e3 * (launched - began)))
    return [statistics.median(part) / count for part in zip(*blocks)]


def steps(device, precision, quick):
    """{model: milliseconds of a step by a graph and plainly, of the launch, and peak memory}."""
    rows = {}
    for name, row in (SMALL if quick else PAPER).items():
        figures, losses = {}, {}
        for form in ("plain", "graph"):
            changes = dict(bs=2, seq_len=6) if quick else {}
            case = Case(row, device, precision, 8 if quick else 200, **changes)
            recorder = Recorder() if form == "graph" and device.type == "cuda" else None
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken = case.steps(recorder)
            figures[form], figures[f"{form}, host"] = per_step(taken, device, 2 if quick else 10)
            # the losses of a step that follows the same ones in both forms
            losses[form] = taken(1000, 1001)[1][:, 1].sum().item()
            figures[f"{form}, recorded"] = len(taken.graphs.graphs)
            if device.type == "cuda":
                figures[f"{form}, GB"] = torch.cuda.max_memory_allocated() / 1e9
            del case, taken, recorder
        figures["loss, graph to plain"] = losses["graph"] / losses["plain"] - 1
        rows[name] = figures
        print(f"  {name}, {precision}: {figures}", flush=True)
    return rows


def blended(device, precision, quick):
    """{layer: milliseconds of each form, forward and backward}, at the sizes of stage 1."""
    clips, frames = (2, 2) if quick else (20, 16)
    dtype, rows = torch.bfloat16 if precision == "bf16" else torch.float32, {}
    for c_in, c_out, side in zip(WIDTHS, WIDTHS[1:], SIDES):
        c_in, side = (c_in // 64, 4) if quick else (c_in, side)
        shapes = (clips, frames, c_in, side, side), (clips, c_in, c_out, 4, 4), (clips, c_out)
        given = [torch.randn(s, device=device).to(dtype).requires_grad_() for s in shapes]
        times = {}
        for form, function in cuda.FORMS.items():

            def run(function=function, given=given):
                out = function(F.leaky_relu(given[0]), *given[1:])
                torch.autograd.grad(out, given, torch.ones_like(out))

            laps = []
            for _ in range(1 if quick else WARM_UP + 10):
                wait(device)
                began = time.perf_counter()
                run()
                wait(device)
                laps.append(1e3 * (time.perf_counter() - began))
            times[form] = statistics.median(laps[-10:])
        rows[f"{c_in} to {c_out}"] = times
    return rows


def generate(device, precision, quick):
    """Seconds in which 20 sequences of 8 frames are drawn, decoded and brought to the CPU."""
    row = (SMALL if quick else PAPER)["stage 2"]
    case = Case(row, device, precision, 8)
    case.stage.network.eval()
    view, laps = case.stage.view(), []
    for _ in range(1 if quick else 6):
        wait(device)
        began = time.perf_counter()
        view.sample(20, 8)
        wait(device)
        laps.append(time.perf_counter() - began)
    return {"seconds": statistics.median(laps[-3:])}


PARTS = {part.__name__: part for part in (parity, steps, blended, generate)}


def main(argv=None):
    parser = OneLineParser("python -m benchmarks.cuda_parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(argv)
    device = choose_device("cpu" if given.cpu else "cuda", 0, given.precision)
    figures = PARTS[given.part](device, given.precision, given.quick)
    print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
