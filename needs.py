"""What a stage needs: parameters, memory and the bytes of a checkpoint, from its settings alone.

Parameters are counted on torch's meta device, which has shapes without numbers. For the memory,
the start and a step of few samples are run on a CPU, while the bytes of all living tensors are
counted.
"""

import math
import weakref
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyro
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data import pendulum
from data.base import IMAGE_SIZE, Clips
from data.batches import Batches
from data.sprites.compose import ACTIONS, NUM_CHARACTERS, NUM_FRAMES, draw_split
from utils.errors import UserError, warn
from utils.flags import shown
from utils.limits import human, memory, resident
from utils.plan import Plan
from utils.schema import Unfilled
from utils.settings import RunSettings

FLOAT = 4  # bytes
FRAME = IMAGE_SIZE**2 * 3  # bytes
JOINING = "sprites", "sprites-li"  # data sets whose samples join two clips of one identity
SAMPLES = 1, 2  # from the bytes of steps of so many samples, those of a larger batch are reckoned
AT_START = 64  # samples that the start is run on at most
SOME_CLIPS = 1000  # in the training split of a data set of which only the files tell
CODED = 400  # frames; a stage that encodes a whole split is watched for so many
# The heap takes more than the tensors in it, because it has gaps and holds oneDNN's copies.
# Measured with the commands of docs/PRESETS.md, on a CPU, over the first three steps.
START_HEAP, STEP_HEAP = 1.2, 1.7
LIBRARIES = 30 * 10**6  # bytes of libraries that are read from the disk when they first compute
ERROR = 0.2  # of the peak that is reckoned


class Living(TorchDispatchMode):
    """Within the block, counts the `bytes` of the new tensors that live, and their `peak`."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.storages = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return results

    def _count(self, storage):
        if storage not in self.storages:
            size = storage.nbytes()
            self.storages.add(storage)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._free, size)

    def _free(self, size):
        self.bytes -= size


class Outline(Clips):
    """Black clips, which stand for those of a training split."""

    @classmethod
    def of(cls, clips: int, frames: int) -> "Outline":
        """So many clips of so many frames each, all of one group."""
        black = np.broadcast_to(np.uint8(0), (max(frames, CODED), IMAGE_SIZE, IMAGE_SIZE, 3))
        lengths, labels = np.full(clips, frames), {"group": np.zeros(clips, int)}
        return cls(black, lengths, labels, np.arange(clips))

    # All clips have the same frames. `total` still counts those of the split.
    first = rank = property(lambda self: np.zeros(len(self), int))

    def take(self, rows, start=0, length=None):
        return self.frames[None, :length]  # of one clip, for the mean colour

    def every_frame(self):
        times = np.arange(len(self.frames))
        return np.zeros_like(times), times


class OutlineBatches(Batches):
    """Batches of an `Outline` that are cut to `most` samples, though `size` may be larger."""

    most = AT_START
    asked = 0  # the samples of the largest batch that was asked for

    def draw(self, step, size=None):
        size = self.size if size is None else size
        self.asked = max(self.asked, size)
        return super().draw(step, min(size, self.most))

    def send(self, array):
        return torch.from_numpy(array).clone()  # for `Living` to see the bytes


def measure(stage_name: str, settings: RunSettings) -> dict:
    """Parameters of a stage ('networks': by part), and bytes of a checkpoint and of its weights.

    'weights': with gradients and Adam's two moments. 'bound': a rough upper bound, from the shapes
    of the weights, of what a step or the start needs beside them.
    """
    stage = _build(stage_name, settings, "meta")
    network, trained = stage.network, sum(p.numel() for p in _trained(stage))
    state, parts = sum(t.numel() for t in network.state_dict().values()), Counter()
    for parameter, values in network.named_parameters():
        parts[parameter.split(".")[0]] += values.numel()
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": trained,
        "networks": dict(parts),
        "weights": FLOAT * (state + 3 * trained),
        "checkpoint": FLOAT * (state + 2 * trained),
        "bound": _at_most(network, settings),
    }


def _build(stage_name, settings, device="cpu"):
    """The stage with fresh weights."""
    unfilled = Unfilled() if device == "meta" else nullcontext()
    with torch.device(device), unfilled:
        # .to: a blur filter is made on the CPU, whatever the default device
        return settings.info(stage_name).stage().build(settings).to(device)


def _trained(stage):
    return [p for group in stage.trainable().values() for p in group]


def work_bytes(stage_name: str, settings: RunSettings) -> tuple[float, float]:
    """What the start of a stage and one of its steps need at their peaks on a CPU, in bytes.

    Beside the weights; a step also beside gradients and moments.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # else threads of Python, which `Living` does not see
    try:
        with pyro.validation_enabled(False):
            few, more = (_step_bytes(stage_name, settings, size) for size in SAMPLES)
            slope = (more - few) / (SAMPLES[1] - SAMPLES[0])
            step = more + (settings.batch_size - SAMPLES[1]) * slope
            return _start_bytes(stage_name, settings), step
    finally:
        torch.set_num_threads(threads)


def _start_bytes(stage_name, settings):
    # weights of a file would take the place of those that are there
    no_files = {name: words[0] for name, words in settings.FILES_AT_START.items()}
    settings = replace(settings, **no_files)
    stage, batches = _build(stage_name, settings), _batches(stage_name, settings)
    with Living() as living:
        stage.start_from(batches)
    return START_HEAP * living.peak * max(1, batches.asked / AT_START)


def _step_bytes(stage_name, settings, size):
    stage, batches = _build(stage_name, settings), _batches(stage_name, settings)
    batches.most = size
    annealed, trained = stage.schedules().at(0), _trained(stage)
    gradients = FLOAT * sum(p.numel() for p in trained)
    stage.network.train()
    with Living() as living:
        terms = stage.terms(batches, stage.inputs(batches, 0), annealed)
        loss = stage.objective(terms, size)
        forward = living.peak  # meanwhile, the gradients of the step before live on
        loss.backward()
    return STEP_HEAP * max(forward, living.peak - gradients)


def _batches(stage_name, settings):
    """Batches with the shapes of training."""
    info, joined, group = settings.info(stage_name), 1, None
    if info.joins and _short_clips(settings):
        joined, group = 2, "group"
    dataset = SimpleNamespace(group=group, clips_per_sample=joined)
    joined = settings.clips_per_sample_of(stage_name, dataset)
    size = settings.batch_size
    known = [clips_of(settings.dataset_name, split) or SOME_CLIPS for split in ("train", "all")]
    count = max(1, known[0] * settings.num_clips // known[1]) if settings.num_clips else known[0]
    frames = clip_frames(settings)
    if group is None:
        frames = max(frames, settings.seq_len)  # a wrong --seq_len is told when the data are read
    clips = Outline.of(min(count, known[0]), frames)
    return OutlineBatches(clips, torch.device("cpu"), settings.seq_len, size, group, joined)


def refuse_too_large(plan: Plan) -> None:
    """Raise UserError if a stage that trains needs more memory than the machine or a limit has.

    Takes milliseconds, unless a rough bound says that the stage may be too large.
    """
    limit, place = memory()
    on_gpu = plan.first.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        limit, place = torch.cuda.get_device_properties(0).total_memory, "the GPU"
    for name in plan.training:
        c = plan.stages[name]
        try:
            sizes = measure(name, c)
        except RuntimeError:  # more bytes than an integer of 64 bits can count
            sizes = {"weights": math.inf}
        held = 0 if on_gpu else resident()
        if held + sizes["weights"] > limit:
            raise _too_large(name, c, held + sizes["weights"], sizes, limit, place)
        if on_gpu or held + sizes["weights"] + sizes["bound"] < limit:
            continue
        sizes["start"], sizes["step"] = work_bytes(name, c)
        total = peak(held, sizes)
        if total * (1 - ERROR) > limit:
            raise _too_large(name, c, total, sizes, limit, place)
        if total > limit:
            warn(f"{_too_large(name, c, total, sizes, limit, place)}, if it does not fit")


def _too_large(stage_name, c, total, sizes, limit, place):
    info, default = c.info(stage_name), type(c)
    most = max(("weights", "start", "step"), key=lambda part: sizes.get(part, 0))
    if most == "weights":
        # how many times its default each size is
        times = {
            n: np.max(getattr(c, n)) / np.max(getattr(default, n))
            for n in info.sizes
            if type(getattr(c, n)) in (int, tuple)
        }
        above = [name for name, ratio in times.items() if ratio >= max(times.values()) / 4]
        advice = "lower " + ", ".join(f"--{name} {shown(getattr(c, name))}" for name in above)
    elif most == "start":
        advice = "give --start torch or lower the sizes of the model"
    else:
        advice = f"lower --bs {c.bs}, --seq_len {c.seq_len} or --frames_per_clip"
    needs = f"needs about {human(total)} of memory ({most}: {human(sizes[most])})"
    return UserError(
        f"stage {c.number(stage_name)} {needs} and {place} has {human(limit)}: {advice}"
    )


def _at_most(network, settings):
    """See 'bound' of `measure`. Layers are taken to be the narrower, the larger their pictures."""
    frames = clip_frames(settings) * (2 if _short_clips(settings) else 1)
    widths, features, blended = [], 0, 0
    for p in network.parameters():
        if p.dim() >= 4:
            widths.append(max(p.shape[-4:-2]))
        if p.dim() == 5:  # kernels that are blended for each sample
            blended += 4 * p[0].numel()
        if p.dim() == 2:
            features += 8 * p.shape[0]
    # two layers, of the encoder and of the decoder, for each side: 64, 32, 16, ... pixels
    pixels = IMAGE_SIZE**2 * sum(w / 4 ** (i // 2) for i, w in enumerate(sorted(widths)))
    step, start = settings.batch_size * frames, AT_START * min(frames, 16)
    read = max(6 * step, 3 * start, 3 * CODED)
    return FLOAT * (read * (pixels + features) + settings.batch_size * blended)


def peak(program: float, sizes: dict) -> float:
    """Bytes at the peak of a stage. program: interpreter and data. sizes: with 'start', 'step'."""
    later = 3 * FLOAT * sizes["trained"]  # gradients and moments
    return program + LIBRARIES + sizes["weights"] + max(sizes["start"] - later, sizes["step"])


def clips_of(dataset_name: str, split: str) -> int | None:
    """Number of clips in a split of a data set; None if only its files tell."""
    if dataset_name == "pendulum":
        counts = pendulum.CLIPS
    elif dataset_name == "sprites":
        characters = draw_split(range(NUM_CHARACTERS))
        counts = {part: len(members) * len(ACTIONS) for part, members in characters.items()}
    else:
        return None
    return sum(counts.values()) if split == "all" else counts[split]


def clip_frames(settings: RunSettings) -> int:
    """Frames of a clip, as far as the settings tell: no fewer than a stage reads."""
    if _short_clips(settings):
        return NUM_FRAMES
    return max(pendulum.FRAMES if settings.dataset_name == "pendulum" else 0, settings.seq_len)


def _short_clips(settings):
    """Whether clips have NUM_FRAMES frames, so that stage 1 joins two: not in whole sheets."""
    whole_sheets = vars(settings).get("poses") == "sheet"
    return settings.dataset_name in JOINING and not whole_sheets


def data_bytes(settings: RunSettings) -> int:
    """Bytes of the frames that a data set holds in memory; 0 for a set that is memory-mapped."""
    if settings.dataset_name != "pendulum":
        return 0
    return FRAME * clip_frames(settings) * (clips_of("pendulum", "all") or 0)
