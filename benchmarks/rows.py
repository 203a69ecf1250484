"""The optimiser steps that `benchmarks.step` can time, by the names of its flag --rows."""

import dataclasses
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from pyro.infer import Trace_ELBO
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases, flops, reference
from data.base import Clips
from data.batches import Batches
from models.annealing import Annealed
from utils.step import Stepper

RATE = 1e-4  # learning rate of the timed steps
CLIPS = 40  # of the data set of noise that the steps draw from
ANNEALED = Annealed({"s": 0.5, "d": 0.5, "z": 1.0}, temperature=5.0)  # of the literal form
FAST, ENCODER_IN, LITERAL, NO_IDLE = "fast", "encoder in", "reference", "no idle gradients"


class Row(NamedTuple):
    """One kind of step. `case` takes threads and quick."""

    text: str  # in the table, before the number of frames
    case: Callable[[int, bool], cases.Case]
    form: str = FAST
    warm_up: int = 8  # steps that are not timed: the process still takes new memory from the system
    turns: int = 5  # see benchmarks/turns.py

    @property
    def literal(self) -> bool:
        return self.form in (LITERAL, NO_IDLE)


def _paper(stage_name):
    return lambda threads, quick: cases.paper(stage_name, threads, quick)


def _preset(name, stage_name):
    return lambda threads, quick: cases.preset(name, stage_name, threads, quick)


def _other(model):
    return lambda threads, quick: cases.other(model, threads, quick)


ROWS = {
    "stage1": Row("stage 1", _paper("EncDec")),
    "stage2": Row("stage 2, frozen codes cached", _paper("Seq")),
    "stage2-encoder": Row("stage 2, frozen encoder in the step", _paper("Seq"), ENCODER_IN),
    "dsa": Row("DSA", _other("dsa")),
    "unordered": Row("Unordered", _other("unordered")),
    **{
        f"{name}-{stage.replace(' ', '')}": Row(f"{name}, {stage}", _preset(name, stage_name))
        for name in cases.PRESETS
        for stage_name, stage in cases.STAGES.items()
    },
    "stage1-literal": Row("stage 1, literal", _paper("EncDec"), LITERAL, 1, 2),
    "stage2-literal": Row("stage 2, literal", _paper("Seq"), LITERAL, 1, 2),
    "stage2-no-idle": Row("stage 2, literal, no idle gradients", _paper("Seq"), NO_IDLE, 1, 2),
}


class Step(NamedTuple):
    """A step to time: call `take`."""

    take: Callable[[], None]
    stepper: Stepper
    network: torch.nn.Module


def noise(case: cases.Case) -> Batches:
    """Batches of random pixels, as the training of the case reads them."""
    rng, frames = np.random.default_rng(0), case.frames
    clips = max(CLIPS, case.clips + 1)
    pixels = rng.integers(256, size=(clips * frames, 64, 64, 3), dtype=np.uint8)
    split = Clips(pixels, np.full(clips, frames), {}, np.arange(clips))
    return Batches(split, case.device(), frames, case.clips)


def build(case: cases.Case, form: str = FAST) -> Step:
    """The step of a case, in a form of it, with fresh weights."""
    if form == ENCODER_IN:
        # Stage 2 caches codes only if training reads the data more than once.
        changes = {"epochs": 1, "bs_per_epoch": 1}
        case = dataclasses.replace(case, settings=dataclasses.replace(case.settings, **changes))
    device, batches = case.device(), noise(case)
    torch.manual_seed(0)
    stage = case.info.stage().build(case.settings).to(device)
    stage.start_from(batches)
    stepper = Stepper(stage.trainable(), case.settings.clip_grad)
    if form == LITERAL:
        # As in the authors' code, gradients of the frozen networks are computed and not used.
        stage.network.requires_grad_(True)
    if form in (LITERAL, NO_IDLE):
        loss = _literal_loss(case, stage.network, batches)
    else:
        loss = _loss(stage, batches)
    return Step(lambda: stepper(loss(), RATE), stepper, stage.network)


def _loss(stage, batches):
    """The loss of the next batch, as train_test.attempt computes it."""
    annealed, numbers = stage.schedules().at(0), count()

    def loss():
        stage.network.train()
        terms, sequences = stage.loss(batches, next(numbers), annealed)
        return stage.objective(terms, sequences)

    return loss


def _literal_loss(case, network, batches):
    """The same by benchmarks/reference.py, on one batch."""
    x, release = batches.frames(*batches.draw(0)), case.settings.fidelity == "release"
    if case.stage_name == "EncDec":
        literal, inputs = reference.EncDecReference(network, release), (x, ANNEALED)
    else:
        literal, inputs = reference.SeqReference(network, release), (x, None, ANNEALED)
    return lambda: Trace_ELBO().differentiable_loss(literal.model, literal.guide, *inputs)


def gflop(case: cases.Case, form: str) -> float | None:
    """GFLOP that the step cannot do without; None where nobody counts them."""
    if case.settings.model != "vdsm":
        return _counted(case)
    if form in (LITERAL, NO_IDLE) or case.settings.frames_per_clip:
        return None
    return flops.gflop(case, encoder=case.stage_name == "EncDec" or form == ENCODER_IN)


def _counted(case):
    """GFLOP of a model with one stage, as torch counts them without computing."""
    stage, shape = case.info.stage(), (case.clips, case.frames, 3, 64, 64)
    annealed = Annealed({"f": 1.0, "z": 1.0})
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        terms = stage.network_of(case.settings).loss(torch.empty(shape), annealed)
        sum(term.weighted for term in terms.values()).backward()
    return counter.get_total_flops() / 1e9
