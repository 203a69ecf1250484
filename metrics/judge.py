"""The judge of both protocols: which value of each factor does a clip show?

For the swap protocol (S3VAE and later papers) it is trained with labels, on real training clips
only. For the consistency protocol (VDSM) `adapt` trains it further, on reconstructions too. Any
object with `classes` and `probabilities(frames)` is a judge.
"""

import copy
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from data.base import Clips, Dataset
from metrics.summary import Arrays
from utils.errors import UserError
from utils.files import replacing, sweep
from utils.frames import as_float
from utils.tensors import read_tensors

VERSION = 3
WIDTH, BATCH = 16, 64
# About 6 minutes on one core; on held-out clips of Sprites the judge then makes no mistake.
STEPS, PEAK_RATE = 600, 4e-3
# The largest shift of a colour channel in training: 8 of 255 grey levels. The nearest tones of
# Sprites are 15 apart. Without it, a tone that is 12 off was named wrong in a tenth of real bodies.
TINT = 0.03
ADAPT_RATE = 1e-3
CHECK_EVERY = 50
# A judge with a lower accuracy on real held-out clips is too weak.
WEAK = 0.99


class Judge(nn.Module):
    """p(factor | clip): a DCGAN-like encoder of frames, a bi-LSTM over time, a head per factor.

    Frames [N, T, 3, 64, 64] in [0, 1] -> {factor: logits [N, C]}. classes: {factor: number of
    values C}. width: channels of the first convolution.
    """

    def __init__(self, classes: dict[str, int], width: int = WIDTH):
        super().__init__()
        self.classes, self.width = dict(classes), width
        channels = [3, width, 2 * width, 4 * width, 4 * width]
        blocks = []
        for i, (before, after) in enumerate(itertools.pairwise(channels)):
            # No normalisation in the first block, as in DCGAN: brightness tells dark bodies apart.
            norm = [nn.BatchNorm2d(after)] if i else []
            convolution = nn.Conv2d(before, after, 4, 2, 1, bias=not i)
            blocks += [convolution, *norm, nn.LeakyReLU(0.2, inplace=True)]
        blocks += [nn.Flatten(), nn.Linear(4 * width * 4 * 4, 8 * width), nn.LeakyReLU(0.2)]
        self.frame = nn.Sequential(*blocks)
        self.time = nn.LSTM(8 * width, 4 * width, batch_first=True, bidirectional=True)
        heads = {factor: nn.Linear(8 * width, count) for factor, count in classes.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, frames):
        pictures = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.frame(pictures).unflatten(0, frames.shape[:2])  # [N, T, 8 width]
        summary = self.time(features)[0].mean(1)
        return {factor: head(summary) for factor, head in self.heads.items()}

    def probabilities(self, frames, batch: int = 128) -> Arrays:
        """The verdict on each clip: {factor: float64 [n, C], rows sum to 1}. Sets eval mode."""
        logits = logits_of(self, frames, batch)
        return {factor: values.softmax(-1).numpy() for factor, values in logits.items()}


@torch.no_grad()
def logits_of(network: nn.Module, frames, batch: int) -> dict[str, torch.Tensor]:
    """What a network says of clips (see `as_input`): {factor: logits float64 [n, C]}, on the CPU.

    The network is set to eval mode.
    """
    device = next(network.parameters()).device
    network.eval()
    starts = range(0, len(frames), batch)
    blocks = [network(as_input(frames[start : start + batch], device)) for start in starts]
    return {name: torch.cat([block[name] for block in blocks]).double().cpu() for name in blocks[0]}


def as_input(frames, device="cpu") -> torch.Tensor:
    """Clips uint8 [n, T, 64, 64, 3] as floats [n, T, 3, 64, 64] in [0, 1], or such floats."""
    frames = (frames if torch.is_tensor(frames) else torch.tensor(frames)).to(device)
    return as_float(frames) if frames.dtype == torch.uint8 else frames.float()


def blurred(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Clips [n, T, 3, 64, 64] in [0, 1] with random blur, brightness (5 %), tint and noise (0.02).

    A judge that never saw such clips would mistrust generated ones only because they are soft, or
    because a tone is a little off though no other is nearer.
    """

    def uniform(low, high, channels=1):
        size = (len(frames), 1, channels, 1, 1)
        return low + (high - low) * torch.rand(size, generator=generator, device=frames.device)

    # Nearly a Gaussian with a standard deviation of 1 pixel.
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=frames.device) / 16
    kernel = (kernel[:, None] * kernel).expand(3, 1, 5, 5)
    # The grouped convolution is ten times as fast in this memory format.
    images = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    soft = F.conv2d(images, kernel, padding=2, groups=3).unflatten(0, frames.shape[:2])
    noise = torch.randn(frames.shape, generator=generator, device=frames.device)
    lit = frames.lerp(soft, uniform(0, 1)) * uniform(0.95, 1.05) + uniform(-TINT, TINT, 3)
    return (lit + noise * uniform(0, 0.02)).clamp(0, 1)


def verdicts(probabilities: Arrays) -> Arrays:
    """The likeliest value of each factor, int64 [n], from a judge's probabilities [n, C]."""
    return {factor: values.argmax(-1) for factor, values in probabilities.items()}


def accuracies(judged: Arrays, labels: Arrays) -> dict[str, float]:
    """The share of right verdicts {factor: int [n]} per factor, and 'joint': right in all."""
    right = {factor: verdict == labels[factor] for factor, verdict in judged.items()}
    right["joint"] = np.all(list(right.values()), axis=0)
    return {factor: float(hits.mean()) for factor, hits in right.items()}


def accuracy(judge, clips: Clips, length: int | None = None) -> dict[str, float]:
    """The judge's `accuracies` on the first `length` frames (default: all) of the clips."""
    judged = verdicts(judge.probabilities(clips.take(range(len(clips)), 0, length)))
    return accuracies(judged, {factor: clips.label(factor) for factor in judged})


def too_weak(shares: dict[str, float]) -> str | None:
    """A warning if `accuracies` of a judge on real held-out clips are too low, else None."""
    weak = [f"{n} {share:.3f}" for n, share in shares.items() if n != "joint" and share < WEAK]
    if not weak:
        return None
    found = f"accuracy on real held-out clips: {', '.join(weak)}; required: {WEAK}"
    return f"the judge is too weak ({found}): its figures mean little"


def factors_of(dataset: Dataset) -> list[str]:
    """The factors with named values, which a judge can learn. Raises UserError if there is none."""
    factors = [name for name in (*dataset.static, *dataset.dynamic) if name in dataset.classes]
    if not factors:
        problem = "has no labelled factor for --evaluate to judge"
        raise UserError(f"{dataset.name} {problem}: give labels, or --evaluate none")
    return factors


def train_judge(
    dataset: Dataset,
    length: int | None = None,
    seed: int = 0,
    steps: int = STEPS,
    batch: int = BATCH,
    width: int = WIDTH,
    device: torch.device | str = "cpu",
    log=print,
) -> tuple[Judge, dict]:
    """Train a judge on the first `length` frames (default: all) of training clips.

    Returns the state with the best joint accuracy on validation clips, in eval mode, and a report:
    'accuracy' on test clips, 'val_accuracy' and 'clips' per split. Raises UserError if no factor
    has named values.
    """
    factors = factors_of(dataset)
    with torch.random.fork_rng(devices=[]):
        # The generator of the CPU only: torch.manual_seed would seed every GPU too.
        torch.default_generator.manual_seed(seed)
        judge = Judge({factor: len(dataset.classes[factor]) for factor in factors}, width)
    # torch's type hints of `to` lack memory_format.
    judge = judge.to(device, memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
    generator, rng = torch.Generator(device).manual_seed(seed), np.random.default_rng(seed)
    optimiser = Adam(judge.parameters())
    schedule = OneCycleLR(optimiser, PEAK_RATE, steps, pct_start=0.2)
    train, val = dataset.split("train"), dataset.split("val")
    best, best_state = None, None
    for step in range(1, steps + 1):
        rows = rng.choice(len(train), min(batch, len(train)), replace=False)
        clips = blurred(as_input(train.take(rows, 0, length), device), generator)
        labels = {factor: train.label(factor, rows) for factor in factors}
        loss = learn(judge.train(), optimiser, clips, labels)
        schedule.step()
        if step % CHECK_EVERY == 0 or step == steps:
            now = accuracy(judge, val, length)
            figures = f"loss {loss.item():.4f}, validation joint accuracy {now['joint']:.4f}"
            log(f"judge: step {step} of {steps}, {figures}")
            if best is None or now["joint"] >= best["joint"]:
                best, best_state = now, copy.deepcopy(judge.state_dict())
    judge.load_state_dict(best_state)
    report = {"accuracy": accuracy(judge, dataset.split("test"), length), "val_accuracy": best}
    report["clips"] = {name: len(dataset.split(name)) for name in ("train", "val", "test")}
    listed = ", ".join(f"{name} {share:.4f}" for name, share in report["accuracy"].items())
    log(f"judge: accuracy on real held-out clips: {listed}")
    return judge.eval(), report


def learn(network: nn.Module, optimiser, inputs: torch.Tensor, labels: Arrays) -> torch.Tensor:
    """One step of `network`, {factor: logits}, on labels {factor: int [n]}; returns the loss."""
    loss = torch.tensor(0.0)
    for factor, logits in network(inputs).items():
        targets = torch.as_tensor(labels[factor], device=logits.device)
        loss = loss + F.cross_entropy(logits, targets)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss


def adapt(judge: Judge, real, rebuilt, labels: Arrays, seed=0, steps=100, batch=BATCH) -> Judge:
    """A copy of the judge, trained further on batches of half real, half reconstructed clips.

    real, rebuilt: uint8 [n, T, 64, 64, 3] with labels {factor: int [n]}.
    """
    judge = copy.deepcopy(judge).train()
    device = next(judge.parameters()).device
    generator, rng = torch.Generator(device).manual_seed(seed), np.random.default_rng(seed)
    optimiser = Adam(judge.parameters())
    schedule = OneCycleLR(optimiser, ADAPT_RATE, steps, pct_start=0.2)
    half = min(batch // 2, len(real))
    for _ in range(steps):
        rows, others = (rng.choice(len(real), half, replace=False) for _ in range(2))
        soft = blurred(as_input(real[rows], device), generator)
        clips = torch.cat([soft, as_input(rebuilt[others], device)])
        both = np.concatenate([rows, others])
        learn(judge, optimiser, clips, {factor: labels[factor][both] for factor in judge.classes})
        schedule.step()
    return judge.eval()


def load_or_train_judge(
    dataset: Dataset, path: str | Path, length=None, device="cpu", log=print, **training
) -> tuple[Judge, dict]:
    """The judge and report of `train_judge`, read from the file `path` if its settings are equal.

    Otherwise the judge is trained and written to `path`. training: seed, steps, batch and width of
    `train_judge`. Raises UserError if the file is the judge of other data or cannot be written.
    """
    path = Path(path)
    settings = {"seed": 0, "steps": STEPS, "batch": BATCH, "width": WIDTH} | training
    key = {"version": VERSION, "fingerprint": dataset.fingerprint, "length": length, **settings}
    classes = {factor: len(dataset.classes[factor]) for factor in factors_of(dataset)}
    judge, report, reason = _stored(path, key, classes)
    if judge is not None:
        return judge.to(device, memory_format=torch.channels_last).eval(), report
    refused = UserError(f"cannot write the judge to {path}: make room or choose another place")
    # Fails now, and not after minutes of training.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
    except OSError:
        raise refused from None
    log(f"judge: training a new one, since {reason}")
    judge, report = train_judge(dataset, length, **settings, device=device, log=log)
    state = {name: value.cpu().contiguous() for name, value in judge.state_dict().items()}
    content = {"key": key, "classes": judge.classes, "state": state, "report": report}
    try:
        with replacing(path) as beside:
            torch.save(content, beside)
    # torch reports a full disk as RuntimeError.
    except (OSError, RuntimeError):
        raise refused from None
    return judge, report


def _stored(path, key, classes):
    """(judge, report, None) from `path` if it was written for `key`, else (None, None, why not).

    classes: {factor: number of values}.
    """
    if not path.exists():
        return None, None, f"{path} does not exist"
    try:
        stored = read_tensors(path)
        differing = [name for name, value in key.items() if stored["key"].get(name) != value]
        if not differing:
            judge, report = Judge(classes, key["width"]), stored["report"]
            judge.load_state_dict(stored["state"])
            whole = stored["classes"] == classes and report.keys() >= {"accuracy", "clips"}
            if not whole or not all(
                value.isfinite().all() for value in judge.state_dict().values()
            ):
                raise ValueError("its content")
            return judge, report, None
    except UserError:
        raise
    # Damaged content can raise any exception.
    except Exception:
        return None, None, f"{path} cannot be read"
    if "fingerprint" in differing:
        raise UserError(f"{path} is the judge of another data set: move it away")
    return None, None, f"{path} was trained with another {' and '.join(differing)}"
