"""The data path: its share of an optimiser step, and the memory that a set of 50 GB takes.

    python -m benchmarks.data [--json FILE] [--threads 1] [--quick]    # loading, beside the step
    python -m benchmarks.data --larger_than_memory [--folder DIR]      # train on a set of 50 GB

Loading means: draw the indices of a batch, and bring its frames to the device as floats. The frames
lie in a memory-mapped file; with a GPU, a second row times a set that lies on the device. The step
is the fast one of `benchmarks.step`, at the release's Sprites size.

A model of the demo's size trains on the set of 50 GB, a file of holes (benchmarks/sparse_set.py).
The bar is on the memory that the process holds for itself (RssAnon): the system can drop the pages
of a mapped file at any time.
"""

import re
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks import cases, sparse_set, turns
from data.base import Clips
from data.batches import Batches
from utils.settings import DATASETS

# The bars: the share of a step that loading may take, and bytes of anonymous memory.
MOST_OF_STEP, MOST_ANONYMOUS = 0.10, 2e9
# The Sprites set, and the size of the large one.
CLIPS, CLIP_FRAMES, LARGE_BYTES = 7560, 8, 50e9
DEMO = (
    "--preset demo --dataset_name larger-than-memory --epochs 2 --bs_per_epoch 10 --evaluate none "
    "--start torch --device cpu"
).split()


def loading(case: cases.Case, clips: Clips, on_device: bool) -> list[float]:
    """Seconds to load one batch, 20 times. on_device: whether the device holds the set."""
    group, joined = ("character", 2) if case.stage_name == "EncDec" else (None, 1)
    frames = case.frames // joined
    batches = Batches(clips, case.device(), frames, case.clips, group, joined)
    if not on_device:
        batches.resident = None
    steps = iter(range(20))
    times = cases.timed(lambda: batches.frames(*batches.draw(next(steps))), case, repeats=20)
    return [seconds for seconds, _ in times]


def benchmark(threads: int = 1, quick: bool = False) -> dict:
    """Per stage and place of the set, times of 'loading' and of a 'step', and their 'share'."""
    count, rows = 36 if quick else CLIPS, []
    clip_numbers = np.arange(count)
    with tempfile.TemporaryDirectory() as folder:
        frames = sparse_set.write(folder, count, CLIP_FRAMES)
        labels = {"character": clip_numbers // 9}
        clips = Clips(frames, np.full(count, CLIP_FRAMES), labels, clip_numbers)
        for stage_name, stage in cases.STAGES.items():
            case = cases.paper(stage_name, threads, quick)
            places = {"memory-mapped": False}
            if case.device().type == "cuda":
                places["on the device"] = True
            (step,) = turns.measure(stage.replace(" ", ""), [("fp32", threads)], quick)
            for place, on_device in places.items():
                timings = {"loading": cases.spread(loading(case, clips, on_device))}
                timings["step"] = step["timings"]["step"]
                share = timings["loading"]["median"] / timings["step"]["median"]
                row = {"name": f"{stage}, set {place}", "timings": timings, "share": share}
                rows.append(row)
    return cases.result("data", [threads], rows)


def table(result: dict) -> str:
    """The figures of `benchmark` as text."""
    lines = [cases.heading(result)]
    for row in result["rows"]:
        loading, step = (row["timings"][part]["median"] for part in ("loading", "step"))
        lines.append(
            f"{row['name']}: loading takes {loading:.4f} s of a step of {step:.3f} s: "
            f"{row['share']:.1%} (at most {MOST_OF_STEP:.0%}): "
            f"{cases.met(row['share'] <= MOST_OF_STEP)}"
        )
    return "\n".join(lines)


def larger_than_memory(folder: str | Path, size: float = LARGE_BYTES, more: tuple = ()) -> dict:
    """Train both stages of the demo on a sparse set of `size` bytes. more: flags of main.py."""
    import main

    frames = sparse_set.write(folder, int(size / (sparse_set.FRAMES * np.prod(sparse_set.FRAME))))
    DATASETS["larger-than-memory"] = "benchmarks.sparse_set"
    peak, done = 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.02):
            (held,) = re.findall(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())
            peak = max(peak, 1024 * int(held))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = main.main([*DEMO, "--data_dir", str(folder), "--runs_dir", f"{folder}/runs", *more])
    done.set()
    watcher.join()
    return {"exit": code, "bytes": frames.nbytes, "peak RssAnon": peak}


def main(argv: list[str] | None = None):
    parser = cases.flags("data", __doc__)
    parser.add_argument("--larger_than_memory", action="store_true", help="train on 50 GB instead")
    parser.add_argument("--folder", help="where to put it (default: the system's temporary folder)")
    given = parser.parse_args(argv)
    if given.larger_than_memory:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            result = larger_than_memory(folder, more=("--threads", str(given.threads)))
        peak = result["peak RssAnon"]
        text = (
            f"a set of {result['bytes'] / 1e9:.1f} GB: at most {peak / 1e9:.2f} GB of anonymous "
            f"memory (under {MOST_ANONYMOUS / 1e9:g}): "
            f"{cases.met(result['exit'] == 0 and peak < MOST_ANONYMOUS)}"
        )
    else:
        result = benchmark(given.threads, given.quick)
        text = table(result)
    cases.publish(given, result, text)


if __name__ == "__main__":
    main()
