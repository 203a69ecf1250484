"""What the benchmarks share: the sizes that they time, the clock, the flags and the output."""

import argparse
import dataclasses
import json
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.vdsm.settings import VDSMSettings
from utils.step import choose_device

# VDSM's stages by the name that settings and checkpoints give them.
STAGES = {"EncDec": "stage 1", "Seq": "stage 2"}
# The sizes of the Sprites commands in the release's README (docs/PRESETS.md).
PAPER: dict[str, Any] = {
    "z_dim": 30,
    "n_e_w": 40,
    "dynamics_dim": 50,
    "rnn_dim": 512,
    "rnn_layers": 3,
}
TINY: dict[str, Any] = {
    "z_dim": 3, "n_e_w": 2, "dynamics_dim": 2, "rnn_dim": 4, "rnn_layers": 1,
    "enc_widths": (2, 2, 2, 2, 3), "dec_widths": (4, 3, 2, 2),
}  # fmt: skip


@dataclasses.dataclass
class Case:
    """What is timed: VDSM's settings, sequences per batch, frames per sequence by stage."""

    settings: VDSMSettings
    clips: int
    frames: dict[str, int]
    threads: int

    def device(self) -> torch.device:
        return choose_device("auto", self.threads)


def new_case(threads: int = 1, quick: bool = False, **changes) -> Case:
    """The release's Sprites size, or a size that takes seconds. changes: settings that differ."""
    if quick:
        return Case(VDSMSettings(**{**TINY, **changes}), 2, {"EncDec": 3, "Seq": 2}, threads)
    return Case(VDSMSettings(**{**PAPER, **changes}), 20, {"EncDec": 16, "Seq": 8}, threads)


def timed(
    function: Callable,
    case: Case,
    repeats: int = 1,
    warm_up: int = 0,
    clock: Callable | None = None,
) -> list[tuple[float, float]]:
    """Call `function` and return (seconds by the clock, seconds of wall time) of each repeat.

    clock: on a CPU. Default: with one thread the time of this process, which other programs on the
    core disturb less; with several threads wall time. On a GPU always wall time until it is done.
    """
    on_gpu = case.device().type == "cuda"
    if on_gpu:
        clock = time.perf_counter
    elif clock is None:
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(warm_up + repeats):
        start, wall_start = clock(), time.perf_counter()
        function()
        if on_gpu:
            torch.cuda.synchronize()
        times.append((clock() - start, time.perf_counter() - wall_start))
    return times[warm_up:]


def machine(case: Case) -> str:
    """The processor or GPU, the number of threads and torch's version, in words."""
    if case.device().type == "cuda":
        return f"{torch.cuda.get_device_name()}, TF32; torch {torch.__version__}"
    cpus = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpus.read_text()) if cpus.exists() else []
    name = names[-1] if names else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}; torch {torch.__version__}"


def flags(module: str, doc: str) -> argparse.ArgumentParser:
    """A parser of the flags that the benchmarks share. doc: the module's docstring."""
    summary = doc.splitlines()[0]
    parser = argparse.ArgumentParser(f"python -m benchmarks.{module}", description=summary)
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the benchmark")
    return parser


def publish(given: argparse.Namespace, result: dict, text: str) -> None:
    """Print the figures as text, and write them to the file of --json, if one was given."""
    print(text)
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1))


def met(holds: bool) -> str:
    """The verdict on a bar, for the printed tables."""
    return "met" if holds else "MISSED"
