"""The data path: its share of an optimiser step, and the memory that a set of 50 GB takes.

    python -m benchmarks.data [--json FILE] [--threads 1] [--quick]    # loading, beside the step
    python -m benchmarks.data --larger_than_memory [--folder DIR]      # train on a set of 50 GB

Loading is: draw a batch's indices, and bring its frames to the device as floats. The frames come
from a memory-mapped file; on a GPU also from the device, which holds a set that fits. The step is
the fast one of `benchmarks.step`, at the paper's Sprites size.

The set of 50 GB is a file of holes (benchmarks/sparse_set.py), on which a model of the demo's size
trains. Anonymous memory (RssAnon) is what a process holds for itself. The system can drop the pages
of a mapped file at any time.
"""

import statistics
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks import sparse_set
from benchmarks.cases import STAGES, Case, chosen_case, flags, machine, met, timed, write_json
from benchmarks.step import measure
from data.base import Clips
from data.batches import Batches
from utils.settings import DATASETS

# The bars: the share of a step that loading may take, and bytes of anonymous memory.
MOST_OF_STEP, MOST_ANONYMOUS = 0.10, 2e9
# The Sprites set.
CLIPS, CLIP_FRAMES = 7560, 8
LARGE_BYTES = 50e9
DEMO = (
    "--preset demo --dataset_name larger-than-memory --epochs 2 --bs_per_epoch 10 --evaluate none "
    "--start torch --device cpu"
).split()


def loading(
    case: Case, stage_name: str, frames: np.ndarray, lengths: np.ndarray, on_device: bool
) -> float:
    """Seconds to load one batch of the case's size, the median of 20.

    on_device: whether the whole set lies on the device.
    """
    labels = {"character": np.arange(len(lengths)) // 9}
    clips = Clips(frames, lengths, labels, np.arange(len(lengths)))
    joined = 2 if stage_name == "EncDec" else 1
    group = "character" if joined > 1 else None
    batches = Batches(clips, case.device(), case.frames["Seq"], case.clips, group, joined)
    if not on_device:
        batches.resident = None
    steps = iter(range(20))
    times = timed(lambda: batches.frames(*batches.draw(next(steps))), case, repeats=20)
    return statistics.median(seconds for seconds, _ in times)


def benchmark(case: Case, quick: bool = False) -> dict:
    """{'machine', 'rows'}: per stage and place of the set, seconds of 'loading' and of a 'step'."""
    clips, clip_frames = (36, case.frames["Seq"]) if quick else (CLIPS, CLIP_FRAMES)
    places = {"memory-mapped": False}
    if case.device().type == "cuda":
        places["on the device"] = True
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        frames = sparse_set.write(folder, clips, clip_frames)
        lengths = np.full(clips, clip_frames)
        for stage_name in case.frames:
            step = measure(case, stage_name, "fast", quick)["seconds"]
            for place, on_device in places.items():
                seconds = loading(case, stage_name, frames, lengths, on_device)
                row = {"stage": stage_name, "set": place, "loading": seconds, "step": step}
                rows.append(row | {"share": seconds / step})
    return {"machine": machine(case), "rows": rows}


def table(result: dict) -> str:
    """The figures as text."""
    lines = [result["machine"]]
    for row in result["rows"]:
        lines.append(
            f"{STAGES[row['stage']]}, set {row['set']}: loading takes {row['loading']:.4f} s of a "
            f"step of {row['step']:.3f} s: {row['share']:.1%} (at most {MOST_OF_STEP:.0%}): "
            f"{met(row['share'] <= MOST_OF_STEP)}"
        )
    return "\n".join(lines)


def anonymous_memory() -> int:
    """Bytes that this process holds for itself, as Linux counts them."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))


def larger_than_memory(folder: str | Path, size: float = LARGE_BYTES, more: tuple = ()) -> dict:
    """Train both stages of the demo on a sparse set of `size` bytes in `folder`.

    more: further flags of main.py. Returns {'exit', 'bytes', 'peak RssAnon'}.
    """
    import main

    clips = int(size / (sparse_set.FRAMES * np.prod(sparse_set.FRAME)))
    frames = sparse_set.write(folder, clips)
    DATASETS["larger-than-memory"] = "benchmarks.sparse_set"
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    runs = str(Path(folder) / "runs")
    code = main.main([*DEMO, "--data_dir", str(folder), "--runs_dir", runs, *more])
    done.set()
    watcher.join()
    return {"exit": code, "bytes": frames.nbytes, "peak RssAnon": peak[0]}


def main(argv: list[str] | None = None):
    parser = flags("data", __doc__)
    parser.add_argument(
        "--larger_than_memory", action="store_true", help="train on a sparse set of 50 GB instead"
    )
    parser.add_argument(
        "--folder", help="the folder of the sparse file (default: a temporary folder)"
    )
    given = parser.parse_args(argv)
    if given.larger_than_memory:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            result = larger_than_memory(folder, more=("--threads", str(given.threads)))
        peak = result["peak RssAnon"]
        print(
            f"a set of {result['bytes'] / 1e9:.1f} GB: at most {peak / 1e9:.2f} GB of anonymous "
            f"memory (under {MOST_ANONYMOUS / 1e9:g}): "
            f"{met(result['exit'] == 0 and peak < MOST_ANONYMOUS)}"
        )
    else:
        result = benchmark(chosen_case(given), given.quick)
        print(table(result))
    write_json(given.json, result)


if __name__ == "__main__":
    main()
