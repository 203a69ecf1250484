"""--dry_run True: what a command would take, from its flags alone. No data set is read, no weight is made, nothing is written.

The networks and one loss are built on torch's meta device, which knows shapes and no numbers: the tensors that the loss keeps
for its gradient are counted, not estimated.
"""

from collections import Counter, defaultdict

import pyro
import torch

from data import pendulum
from data.sprites.compose import ACTIONS, NUM_CHARACTERS, NUM_FRAMES, draw_split
from export import bytes_a_clip
from utils.checkpoints import RunFolder
from utils.guards import saves

FLOAT = 4  # bytes
PNG, GIF = (
    4000,
    1500,
)  # bytes a 64x64 tile takes in a picture, roughly: sprites and pendula, halves of them black
BACKWARD = 1.5  # measured on a CPU, six presets: the gradient's pass holds up to half as much again as what the loss keeps
PAIR = {
    "sprites": 2 * NUM_FRAMES,
    "sprites-li": 2 * NUM_FRAMES,
}  # stage 1 joins two clips of a character, whatever seq_len says
WEIGHTS = defaultdict(lambda: 1.0)  # every weight, and the temperature


def dry_run(plan):
    """Print parameters, memory, disk and steps of each stage that the plan trains, or of all where it tests."""
    disk = 0
    for name in plan.asked:
        settings = plan.stages[name]
        sizes = measure(name, settings)
        checkpoints = (
            sum(saves(settings, epoch) for epoch in range(settings.epochs)) if plan.training else 0
        )
        if settings.keep_checkpoints:  # and the best, and the one that is being written
            checkpoints = min(checkpoints, settings.keep_checkpoints + 2)
        checkpoints += bool(plan.training and settings.save_every_steps)
        pictures = picture_bytes(name, settings)
        disk += checkpoints * sizes["checkpoint"] + pictures
        print(
            f"stage {settings.number(name)} ({'train' if plan.training else 'test'} on {settings.dataset_name})"
        )
        networks = ", ".join(f"{part} {count:,}" for part, count in sizes["networks"].items())
        print(
            f"  parameters  {sizes['parameters']:,} ({networks}), {sizes['trained']:,} of them trained"
        )
        print(
            f"  memory      about {human(sizes['memory'])} for a step of {settings.bs} sequences, beside program and data"
        )
        print(
            f"  disk        {checkpoints} checkpoints of {human(sizes['checkpoint'])}, pictures about {human(pictures)}"
        )
        if settings.export_codes and name == settings.STAGES[-1].name:
            count, each = clips_of(settings.dataset_name, settings.split), bytes_a_clip(settings)
            disk += (count or 0) * each
            told = (
                f"{count:,} clips ({settings.split}), {human(count * each)}"
                if count
                else f"{human(each)} a clip"
            )
            print(f"  export      {told}")
        if plan.training:
            steps = settings.epochs * settings.bs_per_epoch
            print(
                f"  steps       {steps:,} ({settings.epochs} epochs of {settings.bs_per_epoch} batches)"
            )
    place = RunFolder(plan.first).root
    print(f"in all about {human(disk)} under {place}; nothing was read or written")


def measure(name, settings):
    """Counts and bytes of a stage: 'parameters', 'trained', 'networks' (by part), 'memory' of a step, 'checkpoint'."""
    with pyro.validation_enabled(False), torch.device("meta"):  # validation would look at numbers
        stage = settings.info(name).stage().build(settings)
        network = stage.to(
            "meta"
        ).network  # a blur filter is made on the CPU whatever the default device
        trained = sum(p.numel() for group in stage.trainable().values() for p in group)
        kept = _kept_for_gradient(network, _loss(name, settings, network))
    state = sum(t.numel() for t in network.state_dict().values())
    parts = Counter()
    for parameter, values in network.named_parameters():  # what two parts share counts once
        parts[parameter.split(".")[0]] += values.numel()
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": trained,
        "networks": dict(parts),
        "memory": FLOAT * (state + 3 * trained)
        + BACKWARD * kept,  # weights; gradients and Adam's two moments; activations
        "checkpoint": FLOAT * (state + 2 * trained),
    }


def _loss(name, settings, network):
    """A function without arguments: the loss of a batch of the settings' shape."""
    c = settings
    if name == "EncDec":
        frames = PAIR.get(c.dataset_name, c.seq_len)
        frames = min(frames, c.frames_per_clip or frames)
        clips = torch.empty(c.bs, frames, 3, 64, 64)
        return lambda: network.loss(clips, WEIGHTS, c.kl)
    if name != "Seq":
        clips = torch.empty(c.bs, getattr(c, "num_frames", c.seq_len), 3, 64, 64)
        return lambda: network.loss(clips, WEIGHTS)
    codes = [torch.empty(c.bs, c.seq_len, size) for size in (c.z_dim, c.n_e_w, c.n_e_w)]
    count = min(c.seq_len, c.pixel_frames or c.seq_len)
    picked = torch.empty(c.bs, count, dtype=torch.long) if count < c.seq_len else None
    clips = torch.empty(c.bs, count, 3, 64, 64)
    return lambda: network.loss(codes, clips, WEIGHTS, picked, c.kl)


def _kept_for_gradient(network, loss):
    """Bytes of the tensors, each storage once and the weights left out, that loss() keeps until its gradient is taken."""
    own = {t.untyped_storage()._cdata for t in network.state_dict().values()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()  # kept, so that its address stays its own
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = loss()
    found = sum(storage.nbytes() for address, storage in storages.items() if address not in own)
    del terms
    return found


def clips_of(name, split):
    """How many clips a split of a data set holds; None where only its files tell."""
    if name == "pendulum":
        counts = pendulum.CLIPS
    elif name == "sprites":
        characters = draw_split(range(NUM_CHARACTERS))
        counts = {part: len(members) * len(ACTIONS) for part, members in characters.items()}
    else:
        return None
    return sum(counts.values()) if split == "all" else counts[split]


def picture_bytes(name, settings):
    """Bytes of a stage's pictures over its run, roughly: tiles times what one takes."""
    c = settings
    tests = sum(
        epoch % c.model_test_interval == 0 or epoch == c.epochs - 1 for epoch in range(c.epochs)
    )
    shown, clips = min(c.num_test_ids, 12), min(c.num_test_ids, 6)
    grid = (shown + 1) ** 2
    if name == "EncDec":
        return tests * PNG * (2 * 6 * 16 + grid)
    length = c.seq_len
    return tests * (PNG * (4 * clips * length + grid) + GIF * length * (shown + grid))


def human(size):
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
