"""--dry_run True: what a command would take, from its flags alone. Reads and writes no file."""

import train_test  # noqa: F401  (for the memory that the program takes)
from export import bytes_a_clip
from needs import clips_of, data_bytes, measure, peak, work_bytes
from utils.guards import saves
from utils.limits import human, resident
from utils.plan import Plan
from utils.presets import sizes_by
from utils.run_folder import RunFolder
from utils.settings import RunSettings, StageInfo

# rough bytes of a 64x64 tile in a picture; half of a sprite or a pendulum is black
PNG, GIF = 4000, 1500


def dry_run(plan: Plan) -> None:
    """Print parameters, memory, disk and steps of each stage that trains, or of all in a test."""
    disk, program = 0, resident()
    for name in plan.asked:
        disk += _describe(name, plan.stages[name], bool(plan.training), program)
    folder = RunFolder(plan.first).root
    read = "nothing was read or written"
    if plan.preset and sizes_by(plan.preset):
        read = "only the clips were read, and decoded into --data_dir"
    print(f"in all about {human(disk)} under {folder}; {read}")


def _describe(stage_name, c, trains, program):
    """Print what a stage with the settings `c` takes; returns the bytes on disk.

    program: bytes of memory that the interpreter takes, with all that is imported.
    """
    info, sizes, checkpoints = c.info(stage_name), measure(stage_name, c), 0
    pictures = picture_bytes(info, c)
    if trains:
        checkpoints = sum(saves(c, epoch) for epoch in range(c.epochs))
        if c.keep_checkpoints:  # also the best, and the one that is being written
            checkpoints = min(checkpoints, c.keep_checkpoints + 2)
        checkpoints += bool(c.save_every_steps)
    disk = checkpoints * sizes["checkpoint"] + pictures
    networks = ", ".join(f"{part} {count:,}" for part, count in sizes["networks"].items())
    trained, each = sizes["trained"], human(sizes["checkpoint"])
    task = "train" if trains else "test"
    parts = memory(stage_name, c, program)
    most = human(parts.pop("peak"))
    beside = ", ".join(f"{part} {human(size)}" for part, size in parts.items() if size)
    print(f"stage {c.number(stage_name)} ({task} on {c.dataset_name})")
    print(f"  parameters  {sizes['parameters']:,} ({networks}), {trained:,} of them trained")
    print(f"  memory      about {most} at the peak of training on a CPU ({beside})")
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


def memory(stage_name: str, settings: RunSettings, program: int) -> dict[str, float]:
    """Bytes of memory by what takes them, and the 'peak' of the process, which trains on a CPU."""
    sizes = measure(stage_name, settings)
    sizes["start"], sizes["step"] = work_bytes(stage_name, settings)
    parts = {"program": program, "data": data_bytes(settings)}
    most = peak(sum(parts.values()), sizes)
    return parts | {name: sizes[name] for name in ("weights", "start", "step")} | {"peak": most}


def picture_bytes(info: StageInfo, settings: RunSettings) -> int:
    """Bytes of the pictures of a stage over its run, roughly: tiles times the bytes of a tile."""
    c = settings
    tests = sum(e % c.model_test_interval == 0 or e == c.epochs - 1 for e in range(c.epochs))
    shown, clips = min(c.num_test_ids, 12), min(c.num_test_ids, 6)
    grid = (shown + 1) ** 2
    if info.frames_only:
        return tests * PNG * (2 * 6 * 16 + grid)
    return tests * (PNG * (4 * clips * c.seq_len + grid) + GIF * c.seq_len * (shown + grid))
