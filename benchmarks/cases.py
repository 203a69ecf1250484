"""What the benchmarks share: the sizes that they time, the clock, the flags and the output."""

import argparse
import dataclasses
import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.settings import DSASettings, UnorderedSettings
from models.vdsm.settings import VDSMSettings
from utils.flags import OneLineParser
from utils.origin import commit
from utils.plan import parse
from utils.settings import StageInfo
from utils.step import choose_device

PRECISIONS = ("fp32", "bf16", "tf32")
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
PAPER_BATCH, PAPER_FRAMES = 20, {"EncDec": 16, "Seq": 8}
TINY: dict[str, Any] = {
    "z_dim": 3, "n_e_w": 2, "dynamics_dim": 2, "rnn_dim": 4, "rnn_layers": 1,
    "enc_widths": (2, 2, 2, 2, 3), "dec_widths": (4, 3, 2, 2),
}  # fmt: skip
TINY_BATCH, TINY_FRAMES = 2, {"EncDec": 3, "Seq": 2}
# The other models: their settings, and an eighth of the published width, which a CPU takes.
OTHERS: dict[str, tuple[type, dict]] = {
    "dsa": (DSASettings, {"width": 32, "hidden": 512, "conv_dim": 256, "rnn_dim": 64}),
    "unordered": (UnorderedSettings, {"width": 32, "hidden": 64}),
}
# The presets that are timed: frames per sample by stage (sprites join two clips in stage 1).
PRESETS = {
    "demo": {"EncDec": 16, "Seq": 16},
    "sprites-cpu": {"EncDec": 16, "Seq": 8},
    "sprites-full": {"EncDec": 16, "Seq": 8},
}


@dataclasses.dataclass
class Case:
    """One stage of a model at one size. frames: per sample, of which the stage may pick some."""

    settings: Any  # a RunSettings
    stage_name: str
    frames: int
    threads: int = 1

    @property
    def info(self) -> StageInfo:
        return self.settings.info(self.stage_name)

    @property
    def clips(self) -> int:
        """Sequences per batch."""
        return self.settings.bs

    @property
    def size(self) -> str:
        """Sequences and frames in words: '12 x 6 of 16 frames'."""
        picked = getattr(self.settings, "frames_per_clip", 0)
        some = f"{picked} of " if 0 < picked < self.frames else ""
        return f"{self.clips} x {some}{self.frames} frames"

    def device(self) -> torch.device:
        """The device, made ready, with the number of CPU threads set.

        Raises UserError if the device cannot compute in the case's precision.
        """
        return choose_device("auto", self.threads, self.settings.precision)

    def in_precision(self, precision: str) -> "Case":
        """The same case with another --precision."""
        settings = dataclasses.replace(self.settings, precision=precision)
        return dataclasses.replace(self, settings=settings)


def paper(stage_name: str, threads: int = 1, quick: bool = False, **changes) -> Case:
    """VDSM at the release's Sprites size, or at a size that takes seconds.

    changes: settings that differ.
    """
    sizes, frames = (TINY, TINY_FRAMES) if quick else (PAPER, PAPER_FRAMES)
    batch = TINY_BATCH if quick else PAPER_BATCH
    settings = VDSMSettings(bs=batch, **{**sizes, **changes})
    return Case(settings, stage_name, frames[stage_name], threads)


def preset(name: str, stage_name: str, threads: int = 1, quick: bool = False) -> Case:
    """A stage of VDSM with the settings of a preset."""
    settings = parse(["--preset", name]).stages[stage_name]
    if quick:
        settings = dataclasses.replace(settings, bs=TINY_BATCH, **TINY)
    return Case(settings, stage_name, PRESETS[name][stage_name], threads)


def other(model: str, threads: int = 1, quick: bool = False) -> Case:
    """Another model: at the published size on a GPU, at an eighth of the width on a CPU."""
    settings_class, narrow = OTHERS[model]
    changes = {} if torch.cuda.is_available() and not quick else narrow
    settings = settings_class(**changes, **({"bs": TINY_BATCH} if quick else {}))
    frames = getattr(settings, "frames_per_clip", settings.seq_len)
    return Case(settings, settings.STAGES[0].name, frames, threads)


# --- the clock ---


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


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """'median', 'quartiles' [2], 'range' [smallest, largest] and 'count' of some times."""
    quartiles = [seconds[0], seconds[0]]
    if len(seconds) > 1:
        first, _, third = statistics.quantiles(seconds, n=4, method="inclusive")
        quartiles = [first, third]
    middle, ends = statistics.median(seconds), [min(seconds), max(seconds)]
    return {"median": middle, "quartiles": quartiles, "range": ends, "count": len(seconds)}


# --- flags and output ---


def machine(device: torch.device) -> str:
    """The processor or GPU in words, and torch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}; torch {torch.__version__}"
    cpus = Path("/proc/cpuinfo")
    text = cpus.read_text() if cpus.exists() else ""
    names = re.findall(r"model name\s*: (.*)", text)
    name = names[-1] if names else platform.processor() or platform.machine()
    units = torch.backends.cpu.get_cpu_capability()
    units += " with bf16" if "avx512_bf16" in text else ""
    return f"{name} ({units}); torch {torch.__version__}"


MOST = 1024  # CPU threads, repeats or jobs


def count(text: str) -> int:
    """An integer from 1 to MOST, for a flag."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"found '{text}', expected an integer from 1 to {MOST}")
    return int(text)


def counts(text: str) -> list[int]:
    """Integers from 1 to MOST joined by commas, each once, for a flag."""
    return list(dict.fromkeys(count(part) for part in text.split(",")))


def flags(module: str, doc: str, threads: str | None = "1") -> OneLineParser:
    """A parser of the flags that the benchmarks share. doc: the module's docstring.

    threads: the default of --threads, of type int; None leaves the flag out.
    """
    summary = doc.splitlines()[0]
    parser = OneLineParser(f"python -m benchmarks.{module}", description=summary)
    parser.add_argument("--json", metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the benchmark")
    if threads is not None:
        help_text = f"CPU threads (default: {threads})"
        parser.add_argument("--threads", type=count, default=int(threads), help=help_text)
    return parser


def result(benchmark: str, threads: Sequence[int], rows: list[dict], **more) -> dict:
    """What a benchmark writes with --json. `benchmarks.diff` compares two of these.

    Each row has a 'name' and 'timings': {part: see `spread`}.
    """
    if "machine" not in more:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        more = {"machine": machine(device), **more}
    about = {"benchmark": benchmark, "threads": list(threads), "commit": commit()}
    return {**about, **more, "rows": rows}


def heading(result: dict) -> str:
    """The first line of every table: machine, threads and commit."""
    threads = " and ".join(map(str, result["threads"]))
    words = "thread" if threads == "1" else "threads"
    return f"{result['machine']}; {threads} {words}; commit {result['commit']}"


def publish(given: argparse.Namespace, result: dict, text: str) -> None:
    """Print the figures as text, and write them to the file of --json, if one was given."""
    print(text)
    if given.json:
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n")


def met(holds: bool) -> str:
    """The verdict on a bar, for the printed tables."""
    return "met" if holds else "MISSED"
