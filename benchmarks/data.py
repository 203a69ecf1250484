"""The data path: what loading takes of an optimiser step at the paper's Sprites size, and what a set larger than
memory takes of it.

    python -m benchmarks.data [--json FILE] [--threads 1] [--quick]     # loading beside the step
    python -m benchmarks.data --larger_than_memory [--folder DIR]       # 50 GB, sparse: a demo-size model trains on it

Loading is drawing a batch's indices and getting its frames as floats on the device: from a memory-mapped file on a
CPU; on a GPU also from the set on the device, where it lives when it fits. The step is `benchmarks.step`'s fast one.
The 50 GB are a file of holes: it takes no room on the disk and as much address space, reading and page cache as a
full one. Anonymous memory (RssAnon) is what a process holds for itself; pages of a mapped file are the system's to
drop.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as main.py does, before torch is imported

import numpy as np
import torch

import data
from benchmarks.step import machine, measure, paper_case, tiny_case
from data.base import IMAGE_SIZE, Clips, Dataset
from data.batches import FrameStore, Sampler

MOST_OF_STEP, MOST_ANONYMOUS = 0.10, 2e9  # what the data path is held to
CLIPS, CLIP_FRAMES = 7560, 8  # of the Sprites set
LARGE_BYTES, LARGE_FRAMES = 50e9, 100  # of the set larger than memory, and of one of its clips
DEMO = (
    "--preset demo --dataset_name larger-than-memory --epochs 2 --bs_per_epoch 10 --evaluate none --encoder_init torch "
    "--device cpu"
).split()


def mapped(folder, clips, frames):
    """A memory-mapped file of `clips` clips in `folder`, all holes: frames uint8 [clips frames, 64, 64, 3], and
    lengths."""
    path, shape = Path(folder) / "frames.bin", (clips * frames, IMAGE_SIZE, IMAGE_SIZE, 3)
    with open(path, "wb") as file:
        file.truncate(int(np.prod(shape)))
    return np.memmap(path, np.uint8, "r", shape=shape), np.full(clips, frames)


def loading(case, stage, frames, lengths, resident, repeats=20):
    """Seconds that a batch of the case's size takes, the median: CPU time of this process on one CPU thread, else
    wall time."""
    labels = {"character": np.arange(len(lengths)) // 9}
    clips, device = Clips(frames, lengths, labels, np.arange(len(lengths))), case.device()
    joined = 2 if stage == "EncDec" else 1
    sampler = Sampler(clips, case.frames["Seq"], "character" if joined > 1 else None, joined)
    store = FrameStore(clips, device)
    if not resident:
        store.resident = None
    clock = (
        time.process_time
        if device.type == "cpu" and torch.get_num_threads() == 1
        else time.perf_counter
    )
    times = []
    for step in range(repeats):
        began = clock()
        store.pick(*sampler.draw(step, case.clips))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - began)
    return statistics.median(times)


def benchmark(case, quick=False):
    """{'machine', 'rows'}: a row a stage and place of the set, with 'loading' and 'step' in s and 'share'."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        frames, lengths = mapped(
            folder, 36 if quick else CLIPS, case.frames["Seq"] if quick else CLIP_FRAMES
        )
        for stage in case.frames:
            step = measure(case, stage, "fast", quick)["seconds"]
            for place in ("memory-mapped", "on the device")[
                : 2 if case.device().type == "cuda" else 1
            ]:
                seconds = loading(case, stage, frames, lengths, place != "memory-mapped")
                rows.append(
                    {
                        "stage": stage,
                        "set": place,
                        "loading": seconds,
                        "step": step,
                        "share": seconds / step,
                    }
                )
    return {"machine": machine(case), "rows": rows}


def table(result):
    """The result as text."""
    lines = [result["machine"]]
    for row in result["rows"]:
        number = 1 if row["stage"] == "EncDec" else 2
        met = "met" if row["share"] <= MOST_OF_STEP else "MISSED"
        lines.append(
            f"stage {number}, set {row['set']}: loading {row['loading']:.4f} s of a step of {row['step']:.3f} s, "
            f"{row['share']:.1%} (at most {MOST_OF_STEP:.0%}): {met}"
        )
    return "\n".join(lines)


def memory(kind):
    """Bytes of this process's memory of a kind, as Linux counts them: RssAnon, RssFile, VmSize."""
    with open("/proc/self/status") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind + ":"))


def larger_than_memory(folder, size=LARGE_BYTES, flags=()):
    """Train both stages at demo size on a sparse set of `size` bytes below `folder`; {'exit', 'bytes', 'peak
    RssAnon'}."""
    import main

    clips = int(size / (LARGE_FRAMES * IMAGE_SIZE**2 * 3))
    frames, lengths = mapped(folder, clips, LARGE_FRAMES)
    splits = dict(
        zip(
            ("train", "val", "test"),
            np.split(np.arange(clips), [int(0.8 * clips), int(0.9 * clips)]),
        )
    )
    made = Dataset("larger-than-memory", frames, lengths, {}, {}, splits, (), (), "0" * 64)
    sys.modules["benchmarks.larger_than_memory"] = type(
        "Module", (), {"load": staticmethod(lambda config: made)}
    )
    data.DATASETS["larger-than-memory"] = "benchmarks.larger_than_memory"
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = main.main([*DEMO, "--runs_dir", str(Path(folder) / "runs"), *flags])
    done.set()
    watcher.join()
    return {"exit": code, "bytes": frames.nbytes, "peak RssAnon": peak[0]}


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one step each: does it run?"
    )
    parser.add_argument(
        "--larger_than_memory", action="store_true", help="train on a sparse set of 50 GB instead"
    )
    parser.add_argument("--folder", help="where the sparse file lies; default: a temporary folder")
    flags = parser.parse_args(argv)
    if flags.larger_than_memory:
        with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
            result = larger_than_memory(folder, flags=["--threads", str(flags.threads)])
        met = "met" if result["exit"] == 0 and result["peak RssAnon"] < MOST_ANONYMOUS else "MISSED"
        print(
            f"a set of {result['bytes'] / 1e9:.1f} GB: at most {result['peak RssAnon'] / 1e9:.2f} GB of anonymous "
            f"memory (under {MOST_ANONYMOUS / 1e9:g}): {met}"
        )
    else:
        result = benchmark(
            tiny_case(flags.threads) if flags.quick else paper_case(flags.threads), flags.quick
        )
        print(table(result))
    if flags.json:
        Path(flags.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
