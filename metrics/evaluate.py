"""Measure a trained stage on held-out clips and write metrics.json: at the top name to number, under 'details' how each was made."""

import json
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

from metrics.pendulum import continuation_figures, psnr, swap_figures
from metrics.swap import judged_swap
from utils.checkpoints import write_text
from utils.errors import UserError
from utils.frames import as_float, as_uint8

CONTINUE_TO, CONTINUE_FROM = 40, 16  # frames 17 to 40, counted from 1


def evaluate(view, stage, dataset, folder, settings, device):
    """Figures of one stage ('EncDec' or 'Seq') on settings.split, added to folder.metrics and printed. Returns them."""
    clips = dataset.split(settings.split)
    length = min(settings.seq_len, clips.num_frames)
    rows = np.arange(len(clips))
    frames = as_float(torch.from_numpy(clips.take(rows, 0, length)))
    static, dynamic = view.encode(frames)
    rebuilt = view.decode(static, dynamic, length)
    prefix = "" if stage == "EncDec" else "seq_"
    figures = {f"{prefix}reconstruction_psnr": psnr(rebuilt.numpy(), frames.numpy())}
    partner = np.empty_like(rows)  # the identity source of each clip: another one, each used once
    circle = np.random.default_rng(0).permutation(rows)
    partner[circle] = np.roll(circle, 1)
    swapped = as_uint8(view.decode(static[partner], dynamic, length))
    kind = "swap" if stage == "EncDec" else "transfer"
    if dataset.name == "pendulum":
        colour, angles = clips.label("colour"), clips.label("angles")[:, :length]
        own = swap_figures(as_uint8(rebuilt), angles, colour, colour)
        figures[f"{prefix}reconstruction_identity_accuracy"] = own["identity_accuracy"]
        figures["reconstruction_pose_error_deg" if prefix else "stage1_reconstruction_pose_error_deg"] = own[
            "pose_error_deg"
        ]
        figures |= {f"{kind}_{k}": v for k, v in swap_figures(swapped, angles, colour, colour[partner]).items()}
        if stage == "Seq":
            longer = as_uint8(view.decode(static, dynamic, CONTINUE_TO))
            state = clips.label("angle"), clips.label("velocity")
            figures |= {f"continuation_{k}": v for k, v in continuation_figures(longer, *state, CONTINUE_FROM).items()}
        protocol = "each clip's motion with the identity of another clip, read from pixels (metrics/pendulum.py)"
    else:
        figures |= judged_swap(dataset, clips, swapped, partner, kind, folder, device)
        protocol = "each clip's motion with the identity of another clip, judged by a CNN trained on real frames"
    details = {
        "protocol": protocol,
        "split": settings.split,
        "n": len(rows),
        "frames": length,
        "seed": settings.seed,
        **_origin(device),
    }
    _write(folder.metrics, stage, figures, details)
    print(f"stage {1 if stage == 'EncDec' else 2}, {len(rows)} {settings.split} clips:")
    for name, value in figures.items():
        print(f"  {name:<40} {value:.4g}")
    return figures


def _origin(device):
    """Where a figure comes from: commit, machine and versions."""
    here = Path(__file__).resolve().parent.parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": commit,
        "machine": f"{device.type}, {machine}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def _write(path, stage, figures, details):
    """Add the figures to metrics.json, in place of those of the same stage."""
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise UserError(f"{path} is not JSON: move it away") from None
    notes = known.pop("details", {})
    for name in notes.get(stage, {}).get("figures", []):
        known.pop(name, None)
    notes[stage] = {**details, "figures": sorted(figures)}
    write_text(path, json.dumps({**known, **figures, "details": notes}, indent=1) + "\n")
