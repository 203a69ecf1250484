"""The judge of both protocols: which factors does a clip show?

A strided DCGAN-like encoder of frames, a bi-LSTM over time, one softmax head a factor. For the swap protocol (S3VAE and
followers) it is trained with labels on real clips of the training split only, chosen on validation clips, and its accuracy on
held-out real clips is reported first: below 99 % on Sprites, whatever it says of a model means little. For the consistency
protocol (VDSM) `adapt` goes on with real and reconstructed training clips.

Anything with `classes` and `probabilities(frames)` is a judge: pendula have one that measures instead (metrics/pendulum.py).
"""

import copy
import itertools
import os
import pickle
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import UserError

VERSION = 2
WIDTH = 16
BATCH = 64
STEPS = 300  # 2 minutes on one core; Sprites' held-out clips are at 0.998 or better by then
PEAK_RATE = 4e-3
CHECK_EVERY = 50
ADAPT_STEPS, ADAPT_RATE = 100, 1e-3
WEAK = 0.99  # below this accuracy on real held-out clips a judge is too weak to judge


class Judge(nn.Module):
    """p(factor | clip) for each factor: frames [N, T, 3, 64, 64] in [0, 1] -> {factor: logits [N, C]}.

    classes: factor -> number of values C. width: channels of the first convolution; the others are 2, 4 and 4 times as wide.
    """

    def __init__(self, classes, width=WIDTH):
        super().__init__()
        self.classes, self.width = dict(classes), width
        channels = [3, width, 2 * width, 4 * width, 4 * width]
        blocks = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            # The first block has no normalisation, as in DCGAN: how bright a sprite is tells dark bodies apart.
            norm = [nn.BatchNorm2d(after)] if i else []
            blocks += [
                nn.Conv2d(before, after, 4, 2, 1, bias=not i),
                *norm,
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.frame = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(4 * width * 4 * 4, 8 * width), nn.LeakyReLU(0.2)
        )
        self.time = nn.LSTM(8 * width, 4 * width, batch_first=True, bidirectional=True)
        self.heads = nn.ModuleDict(
            {factor: nn.Linear(8 * width, count) for factor, count in self.classes.items()}
        )

    def forward(self, frames):
        n, t = frames.shape[:2]
        features = self.frame(
            frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        )  # [N T, 8 width]
        states, _ = self.time(features.unflatten(0, (n, t)))  # [N, T, 8 width]
        summary = states.mean(1)
        return {factor: head(summary) for factor, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, frames, batch=128):
        """What it thinks of each clip: {factor: float64 [n, C], rows sum to 1}; frames as `as_input` takes them."""
        device = next(self.parameters()).device
        self.eval()
        parts = []
        for start in range(0, len(frames), batch):
            logits = self(as_input(frames[start : start + batch], device))
            parts.append(
                {
                    factor: values.double().softmax(-1).cpu().numpy()
                    for factor, values in logits.items()
                }
            )
        return {factor: np.concatenate([part[factor] for part in parts]) for factor in self.classes}


def as_input(frames, device="cpu"):
    """Float [n, T, 3, 64, 64] in [0, 1] on `device`, from uint8 [n, T, 64, 64, 3] or from what is such floats already."""
    frames = (frames if torch.is_tensor(frames) else torch.tensor(frames)).to(device)
    if frames.dtype == torch.uint8:
        return (frames.float() / 255).permute(0, 1, 4, 2, 3)
    return frames.float()


def blurred(frames, generator):
    """Clips [n, T, 3, 64, 64] in [0, 1] a little as a model would draw them, each by its own share: blur, brightness
    within 5 %, noise up to 0.02. Without it the judge would mistrust reconstructions for their softness alone."""
    n, t = frames.shape[:2]

    def uniform(low, high):
        return low + (high - low) * torch.rand(
            n, 1, 1, 1, 1, generator=generator, device=frames.device
        )

    kernel = (
        torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=frames.device) / 16
    )  # about a Gaussian of 1 pixel
    kernel = (kernel[:, None] * kernel).expand(3, 1, 5, 5)
    images = frames.flatten(0, 1).contiguous(
        memory_format=torch.channels_last
    )  # ten times as fast here as planes
    soft = F.conv2d(images, kernel, padding=2, groups=3).unflatten(0, (n, t))
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    return (
        frames.lerp(soft, uniform(0, 1)) * uniform(0.95, 1.05) + noise * uniform(0, 0.02)
    ).clamp(0, 1)


def verdicts(probabilities):
    """{factor: probabilities [n, C]} -> {factor: the likeliest value, int64 [n]}."""
    return {factor: values.argmax(-1) for factor, values in probabilities.items()}


def shares(right):
    """{factor: bool [n]} -> {factor: share}, and 'joint', all factors at once."""
    joint = np.all(list(right.values()), axis=0)
    return {factor: float(hits.mean()) for factor, hits in (right | {"joint": joint}).items()}


def accuracy(judge, clips, length=None, batch=128):
    """{factor: share of the clips (a data.base.Clips; their first `length` frames) that the judge gets right}, and 'joint'."""
    right = {factor: [] for factor in judge.classes}
    for start in range(0, len(clips), batch):
        rows = np.arange(start, min(start + batch, len(clips)))
        for factor, verdict in verdicts(judge.probabilities(clips.take(rows, 0, length))).items():
            right[factor].append(verdict == clips.label(factor, rows))
    return shares({factor: np.concatenate(parts) for factor, parts in right.items()})


def too_weak(accuracies):
    """A warning if a judge of these accuracies {factor: share} is too weak to judge, else None."""
    weak = {name: share for name, share in accuracies.items() if name != "joint" and share < WEAK}
    if not weak:
        return None
    said = ", ".join(f"{name} {share:.3f}" for name, share in weak.items())
    return f"the judge is too weak to judge (on real held-out clips: {said}; needed: {WEAK}): the figures mean little"


def factors_of(dataset):
    """The factors of `dataset` that a judge can name: those with classes. Raises UserError if there is none."""
    factors = [
        factor for factor in (*dataset.static, *dataset.dynamic) if factor in dataset.classes
    ]
    if not factors:
        raise UserError(
            f"{dataset.name} has no labelled factor for --evaluate to judge: give labels, or --evaluate none"
        )
    return factors


def train_judge(
    dataset, length=None, seed=0, steps=STEPS, batch=BATCH, width=WIDTH, device="cpu", log=print
):
    """(judge, report): a judge of every categorical factor of `dataset` (data.base.Dataset), the same for the same seed.

    Trains on the first `length` frames (default: all) of real 'train' clips for `steps` batches, keeps the state that is best on 'val' (joint accuracy, the later of
    equals), and reports on 'test'. Raises UserError if no factor has classes. report: 'accuracy' {factor: share,
    'joint': share}, 'val_accuracy' likewise, 'clips' of each split, 'steps', 'seed' and 'seconds'.
    """
    begun = time.monotonic()
    factors = factors_of(dataset)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            seed
        )  # the CPU's alone: torch.manual_seed reseeds every GPU too
        judge = Judge({factor: len(dataset.classes[factor]) for factor in factors}, width)
    judge = judge.to(device, memory_format=torch.channels_last)
    generator = torch.Generator(device).manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.Adam(judge.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_RATE, total_steps=steps, pct_start=0.2
    )
    train, val = dataset.split("train"), dataset.split("val")
    best, best_state = None, None
    for step in range(1, steps + 1):
        rows = rng.choice(len(train), min(batch, len(train)), replace=False)
        judge.train()
        logits = judge(blurred(as_input(train.take(rows, 0, length), device), generator))
        targets = {
            factor: torch.as_tensor(train.label(factor, rows), device=device) for factor in factors
        }
        loss = sum(F.cross_entropy(logits[factor], targets[factor]) for factor in factors)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == steps:
            now = accuracy(judge, val, length)
            log(
                f"judge: step {step} of {steps}, loss {loss.item():.4f}, validation joint accuracy {now['joint']:.4f}"
            )
            if best is None or now["joint"] >= best["joint"]:
                best = now
                best_state = {
                    name: value.detach().clone() for name, value in judge.state_dict().items()
                }
    judge.load_state_dict(best_state)
    report = {
        "accuracy": accuracy(judge, dataset.split("test"), length),
        "val_accuracy": best,
        "clips": {name: len(dataset.split(name)) for name in ("train", "val", "test")},
        "steps": steps,
        "seed": seed,
        "seconds": round(time.monotonic() - begun, 1),
    }
    log(
        "judge: on real held-out clips "
        + ", ".join(f"{name} {share:.4f}" for name, share in report["accuracy"].items())
    )
    return judge.eval(), report


def adapt(judge, real, rebuilt, labels, seed=0, steps=ADAPT_STEPS, batch=BATCH):
    """A copy of `judge` that has gone on learning from real and reconstructed clips, half of each batch: that of the
    consistency protocol.

    real, rebuilt: uint8 [n, T, 64, 64, 3], training clips and their reconstructions; labels {factor: int [n]}.
    """
    judge = copy.deepcopy(judge).train()
    device = next(judge.parameters()).device
    generator, rng = torch.Generator(device).manual_seed(seed), np.random.default_rng(seed)
    optimiser = torch.optim.Adam(judge.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, ADAPT_RATE, total_steps=steps, pct_start=0.2
    )
    half = min(batch // 2, len(real))
    for _ in range(steps):
        rows, others = (rng.choice(len(real), half, replace=False) for _ in range(2))
        clips = torch.cat(
            [blurred(as_input(real[rows], device), generator), as_input(rebuilt[others], device)]
        )
        logits = judge(clips)
        both = np.concatenate([rows, others])
        loss = sum(
            F.cross_entropy(logits[f], torch.as_tensor(labels[f][both], device=device))
            for f in judge.classes
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return judge.eval()


def load_or_train_judge(
    dataset,
    path,
    length=None,
    seed=0,
    steps=STEPS,
    batch=BATCH,
    width=WIDTH,
    device="cpu",
    log=print,
):
    """(judge, report) as `train_judge` gives them, from the file `path` if it holds the judge of just these data and settings.

    Else (no file, other settings, a file that cannot be read) it is trained, saying why, and written there whole or not at
    all. Raises UserError if the file is the judge of other data, or cannot be written.
    """
    path = Path(path)
    settings = {"length": length, "seed": seed, "steps": steps, "batch": batch, "width": width}
    key = {"version": VERSION, "fingerprint": dataset.fingerprint, **settings}
    judge, report, reason = _stored(path, key)
    if judge is not None:
        return judge.to(device, memory_format=torch.channels_last).eval(), report
    refused = UserError(
        f"cannot write the judge to {path}: make room there or choose another place"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of training
    except OSError:
        raise refused from None
    log(f"judge: training one, {reason}")
    judge, report = train_judge(dataset, **settings, device=device, log=log)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    state = {name: value.cpu().contiguous() for name, value in judge.state_dict().items()}
    try:
        torch.save({"key": key, "classes": judge.classes, "state": state, "report": report}, part)
        part.replace(path)
    except (OSError, RuntimeError):  # torch reports a full disk as RuntimeError
        raise refused from None
    finally:
        part.unlink(missing_ok=True)
    return judge, report


def _stored(path, key):
    """(judge, report, None) from `path` if it was written for `key`, else (None, None, why not)."""
    if not path.exists():
        return None, None, f"{path} is not there yet"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found["key"]["fingerprint"] != key["fingerprint"]:
            raise UserError(
                f"{path} is the judge of another data set: move it away and one of these data is trained"
            )
        differing = [name for name, value in key.items() if found["key"].get(name) != value]
        if differing:
            return None, None, f"{path} has another {' and '.join(differing)}"
        judge = Judge(found["classes"], key["width"])
        judge.load_state_dict(found["state"])
        return judge, found["report"], None
    except (
        OSError,
        EOFError,
        RuntimeError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        pickle.UnpicklingError,
    ):
        return None, None, f"{path} cannot be read"
