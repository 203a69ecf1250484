"""--dry_run True: what a command would take, from its flags alone. Reads and writes no file.

Each stage and one of its losses are built on torch's meta device, which has shapes without numbers.
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
# rough bytes of a 64x64 tile in a picture; half of a sprite or a pendulum is black
PNG, GIF = 4000, 1500
# memory of the backward pass in units of what the loss keeps, measured on a CPU with six presets
BACKWARD = 1.5
JOINING = "sprites", "sprites-li"  # data sets whose samples join two clips of one identity


def dry_run(plan: Plan) -> None:
    """Print parameters, memory, disk and steps of each stage that trains, or of all in a test."""
    disk = 0
    for name in plan.asked:
        disk += _describe(name, plan.stages[name], bool(plan.training))
    folder = RunFolder(plan.first).root
    print(f"in all about {human(disk)} under {folder}; nothing was read or written")


def _describe(stage_name, c, trains):
    """Print what a stage with the settings `c` takes; returns the bytes on disk."""
    info, sizes, checkpoints = c.info(stage_name), measure(stage_name, c), 0
    pictures = picture_bytes(info, c)
    if trains:
        checkpoints = sum(saves(c, epoch) for epoch in range(c.epochs))
        if c.keep_checkpoints:  # also the best, and the one that is being written
            checkpoints = min(checkpoints, c.keep_checkpoints + 2)
        checkpoints += bool(c.save_every_steps)
    disk = checkpoints * sizes["checkpoint"] + pictures
    networks = ", ".join(f"{part} {count:,}" for part, count in sizes["networks"].items())
    trained, memory, each = sizes["trained"], human(sizes["memory"]), human(sizes["checkpoint"])
    task = "train" if trains else "test"
    step = f"a step of {c.batch_size} sequences, beside program and data"
    print(f"stage {c.number(stage_name)} ({task} on {c.dataset_name})")
    print(f"  parameters  {sizes['parameters']:,} ({networks}), {trained:,} of them trained")
    print(f"  memory      about {memory} for {step}")
    print(f"  disk        {checkpoints} checkpoints of {each}, pictures about {human(pictures)}")
    if c.export_codes and info is c.STAGES[-1]:
        clips, per_clip = clips_of(c.dataset_name, c.split), bytes_a_clip(c)
        disk += (clips or 0) * per_clip
        text = f"{human(per_clip)} per clip"
        if clips:
            text = f"{clips:,} clips ({c.split}), {human(clips * per_clip)}"
        print(f"  export      {text}")
    if trains:
        steps, batches = c.epochs * c.bs_per_epoch, f"{c.bs_per_epoch} batches"
        print(f"  steps       {steps:,} ({c.epochs} epochs of {batches})")
    return disk


def measure(name: str, settings: RunSettings) -> dict:
    """Parameters of stage `name` ('networks': by part) and bytes of a step and of a checkpoint."""
    info = settings.info(name)
    with pyro.validation_enabled(False), torch.device("meta"):  # validation would look at numbers
        # .to: a blur filter is made on the CPU, whatever the default device
        stage = info.stage().build(settings).to("meta")
        network, batches = stage.network, _batches(info, settings)
        trained = sum(p.numel() for group in stage.trainable().values() for p in group)
        annealed = stage.schedules().at(0)
        kept = _kept_for_gradient(network, lambda: stage.loss(batches, 0, annealed))
    state = sum(t.numel() for t in network.state_dict().values())
    parts = Counter()
    for parameter, values in network.named_parameters():
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
    frames, joined = settings.seq_len, 1
    whole_sheets = vars(settings).get("poses") == "sheet"
    if info.joins and settings.dataset_name in JOINING and not whole_sheets:
        frames, joined = NUM_FRAMES, 2
    group = "group" if joined > 1 else None
    dataset = SimpleNamespace(group=group, clips_per_sample=joined)
    joined = settings.clips_per_sample_of(info.name, dataset)
    no_bytes = np.broadcast_to(np.uint8(0), (joined * frames, IMAGE_SIZE, IMAGE_SIZE, 3))
    lengths, labels = np.full(joined, frames), {"group": np.zeros(joined, int)}
    clips = Clips(no_bytes, lengths, labels, np.arange(joined))
    device = torch.device("meta")
    return Batches(clips, device, settings.seq_len, settings.batch_size, group, joined)


def _kept_for_gradient(network, loss):
    """Bytes that loss() keeps for its gradient: each storage once, without the weights."""
    weights = {t.untyped_storage()._cdata for t in network.state_dict().values()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()  # kept alive, so that no other gets its address
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for address, storage in storages.items() if address not in weights)


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
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"
