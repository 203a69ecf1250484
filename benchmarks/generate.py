"""Seconds to generate 20 sequences from the priors and to save them, as npz and as GIFs.

    python -m benchmarks.generate [--json FILE] [--threads 1] [--repeats 9] [--quick]

VDSM at the release's Sprites size, both stages, with fresh weights: identities, dynamics and poses
are drawn, 8 frames of each sequence are decoded, and the pixels are written as --export_codes
writes them (one npz of float32) and as pictures (one GIF per sequence, and one sheet of all). The
paper reports 0.2 s for generating and saving 20 sequences on an RTX 2080 Ti (supplementary).
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import cases, flops
from pictures.files import save_gif, sheet
from utils.frames import as_uint8

FPS = 10
WARM_UP = 2
PAPER_SECONDS = 0.2


def benchmark(threads: int = 1, repeats: int = 9, quick: bool = False) -> dict:
    """Times of each part, and of generating with one way of saving."""
    case = cases.paper("Seq", threads, quick)
    device = case.device()
    torch.manual_seed(0)
    stage = case.info.stage().build(case.settings).to(device)
    stage.network.eval()
    view, times = stage.view(), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(WARM_UP + repeats):
            times.append(_generate(view, case, Path(folder)))
    timings = {part: cases.spread([t[part] for t in times[WARM_UP:]]) for part in times[0]}
    rate, name = flops.best_convolution(cases.paper("EncDec", threads, quick))
    text = f"{case.clips} sequences of {case.frames} frames"
    row = {"name": text, "timings": timings, "gflop": flops.generation_gflop(case)}
    row["floor"] = row["gflop"] / rate
    return cases.result("generate", [threads], [row], convolution={"gflop_per_s": rate, "of": name})


def _generate(view, case, folder):
    """Seconds of wall time of every part, once."""
    marks = [time.perf_counter()]

    def mark():
        marks.append(time.perf_counter())

    codes = view.draw(case.clips, case.frames)
    mark()
    frames = view.decode(*codes, case.frames)
    mark()
    np.savez(folder / "sampled_images_0.npz", frames.numpy(), allow_pickle=False)
    mark()
    pixels = as_uint8(frames)
    for number, clip in enumerate(pixels):
        save_gif(folder / f"{number}.gif", clip, FPS)
    mark()
    pictures = np.stack([sheet(pixels[None, :, t]) for t in range(case.frames)])
    save_gif(folder / "samples.gif", pictures, FPS)
    mark()
    names = "drawing", "decoding", "npz", "a GIF per sequence", "one GIF of all"
    parts = dict(zip(names, np.diff(marks).tolist()))
    made = parts["drawing"] + parts["decoding"]
    totals = {"as npz": parts["npz"], "as GIFs": parts["a GIF per sequence"]}
    return parts | {f"generated and saved {how}": made + more for how, more in totals.items()}


def table(result: dict) -> str:
    """The figures as text."""
    lines = [cases.heading(result)]
    for row in result["rows"]:
        lines.append(f"{row['name']}{'median s':>22}{'quartiles':>16}")
        for part, times in row["timings"].items():
            low, high = times["quartiles"]
            lines.append(f"  {part:36}{times['median']:10.3f}{f'{low:.3f}-{high:.3f}':>16}")
        rate = f"{row['gflop']:.1f} GFLOP at {result['convolution']['gflop_per_s']:.0f} GFLOP/s"
        lines.append(f"  floor of decoding: {row['floor']:.3f} s ({rate})")
    lines.append(f"  the paper, on an RTX 2080 Ti: {PAPER_SECONDS} s, generated and saved")
    return "\n".join(lines)


def main(argv: list[str] | None = None):
    parser = cases.flags("generate", __doc__)
    parser.add_argument("--repeats", type=cases.count, default=9, help="timed repeats (default: 9)")
    given = parser.parse_args(argv)
    result = benchmark(given.threads, 2 if given.quick else given.repeats, given.quick)
    cases.publish(given, result, table(result))


if __name__ == "__main__":
    main()
