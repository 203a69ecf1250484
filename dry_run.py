"""--dry_run True: what a command would take, from its flags alone.

No data set is read and nothing is written. Each stage and one of its losses are built on torch's
meta device, which knows shapes and no numbers. The tensors that the loss keeps for its gradient are
counted.
"""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyro
import torch

from data import pendulum
from data.base import IMAGE_SIZE, Clips
from data.batches import Batches
from data.sprites.compose import ACTIONS, NUM_CHARACTERS, NUM_FRAMES, draw_split
from export import bytes_a_clip
from utils.guards import saves
from utils.plan import Plan
from utils.run_folder import RunFolder
from utils.settings import RunSettings, StageInfo

FLOAT = 4  # bytes
# Bytes that a 64x64 tile takes in a picture, roughly. Half of a sprite or a pendulum is black.
PNG, GIF = 4000, 1500
# Memory of the backward pass over what the loss keeps. Measured on a CPU with six presets.
BACKWARD = 1.5
# Data sets whose training samples join clips of one identity: frames per clip, clips per sample.
JOINED = {"sprites": (NUM_FRAMES, 2), "sprites-li": (NUM_FRAMES, 2)}


def dry_run(plan: Plan) -> None:
    """Print parameters, memory, disk and steps of each stage that trains, or of all in a test."""
    disk = 0
    for name in plan.asked:
        disk += _describe(plan, plan.stages[name].info(name), plan.stages[name])
    folder = RunFolder(plan.first).root
    print(f"in all about {human(disk)} under {folder}; nothing was read or written")


def _describe(plan, info, settings):
    """Print what one stage takes; returns the bytes on disk."""
    sizes, pictures = measure(info.name, settings), picture_bytes(info, settings)
    checkpoints = 0
    if plan.training:
        checkpoints = sum(saves(settings, epoch) for epoch in range(settings.epochs))
        if settings.keep_checkpoints:  # also the best, and the one that is being written
            checkpoints = min(checkpoints, settings.keep_checkpoints + 2)
        checkpoints += bool(settings.save_every_steps)
    disk = checkpoints * sizes["checkpoint"] + pictures
    task = "train" if plan.training else "test"
    networks = ", ".join(f"{part} {count:,}" for part, count in sizes["networks"].items())
    lines = [
        f"stage {settings.number(info.name)} ({task} on {settings.dataset_name})",
        f"  parameters  {sizes['parameters']:,} ({networks}), {sizes['trained']:,} of them trained",
        f"  memory      about {human(sizes['memory'])} for a step of {settings.batch_size} "
        "sequences, beside program and data",
        f"  disk        {checkpoints} checkpoints of {human(sizes['checkpoint'])}, pictures about "
        f"{human(pictures)}",
    ]
    if settings.export_codes and info is settings.STAGES[-1]:
        clips, per_clip = clips_of(settings.dataset_name, settings.split), bytes_a_clip(settings)
        disk += (clips or 0) * per_clip
        text = f"{human(per_clip)} per clip"
        if clips:
            text = f"{clips:,} clips ({settings.split}), {human(clips * per_clip)}"
        lines.append(f"  export      {text}")
    if plan.training:
        steps = settings.epochs * settings.bs_per_epoch
        batches = f"{settings.epochs} epochs of {settings.bs_per_epoch} batches"
        lines.append(f"  steps       {steps:,} ({batches})")
    print("\n".join(lines))
    return disk


def measure(name: str, settings: RunSettings) -> dict:
    """Counts and bytes of stage `name`.

    'parameters', 'trained', 'networks' (parameters by part), 'memory' of a step, 'checkpoint'.
    """
    info = settings.info(name)
    with pyro.validation_enabled(False), torch.device("meta"):  # validation would look at numbers
        # a blur filter is made on the CPU, whatever the default device
        stage = info.stage().build(settings).to("meta")
        network, batches = stage.network, _batches(info, settings)
        trained = sum(p.numel() for group in stage.trainable().values() for p in group)
        annealed = stage.schedules().at(0)
        kept = _kept_for_gradient(network, lambda: stage.loss(batches, 0, annealed))
    state = sum(t.numel() for t in network.state_dict().values())
    parts = Counter()
    for parameter, values in network.named_parameters():  # what two parts share counts once
        parts[parameter.split(".")[0]] += values.numel()
    weights = state + 3 * trained  # with gradients and Adam's two moments
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": trained,
        "networks": dict(parts),
        "memory": FLOAT * weights + BACKWARD * kept,
        "checkpoint": FLOAT * (state + 2 * trained),
    }


def _batches(info, settings):
    """Batches on the meta device, with the shapes that training would have."""
    frames, joined = JOINED.get(settings.dataset_name, (settings.seq_len, 1))
    if not info.joins:
        frames, joined = settings.seq_len, 1
    group = "group" if joined > 1 else None
    dataset = SimpleNamespace(group=group, clips_per_sample=joined)
    joined = settings.clips_per_sample_of(info.name, dataset)
    no_bytes = np.broadcast_to(np.uint8(0), (joined * frames, IMAGE_SIZE, IMAGE_SIZE, 3))
    lengths, labels = np.full(joined, frames), {"group": np.zeros(joined, int)}
    clips = Clips(no_bytes, lengths, labels, np.arange(joined))
    device = torch.device("meta")
    return Batches(clips, device, settings.seq_len, settings.batch_size, group, joined)


def _kept_for_gradient(network, loss):
    """Bytes that loss() keeps until its gradient is taken: each storage once, without weights."""
    weights = {t.untyped_storage()._cdata for t in network.state_dict().values()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()  # held here, so that its address stays its own
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = loss()
    kept = sum(storage.nbytes() for address, storage in storages.items() if address not in weights)
    del terms
    return kept


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


def picture_bytes(info: StageInfo, settings: RunSettings) -> int:
    """Bytes of the pictures of a stage over its run, roughly: tiles times the bytes of a tile."""
    c = settings
    tests = sum(e % c.model_test_interval == 0 or e == c.epochs - 1 for e in range(c.epochs))
    shown, clips = min(c.num_test_ids, 12), min(c.num_test_ids, 6)
    grid = (shown + 1) ** 2
    if info.frames_only:
        return tests * PNG * (2 * 6 * 16 + grid)
    return tests * (PNG * (4 * clips * c.seq_len + grid) + GIF * c.seq_len * (shown + grid))


def human(size: float) -> str:
    """A number of bytes in a suitable unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("every size has a unit")
