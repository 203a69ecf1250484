"""Measure a trained stage on held-out clips and write metrics.json: at the top name to number, under 'details' how each was made."""

import json
import math
import platform

import numpy as np
import torch

from metrics.pendulum import continuation_measures, psnr, swap_measures
from metrics.summary import figures, spreads
from metrics.swap import judged_swap
from utils.checkpoints import write_text
from utils.errors import UserError
from utils.frames import as_float, as_uint8
from utils.origin import commit

CONTINUE_TO, CONTINUE_FROM = 40, 16  # frames 17 to 40, counted from 1
PROTOCOL = "the motion of each clip with the identity of another clip of the split, each used once; "
PIXELS = PROTOCOL + "colour and angle read from pixels (metrics/pendulum.py)"
JUDGE = PROTOCOL + "factors named by a CNN trained on real clips (metrics/judge.py)"


def evaluate(view, stage, dataset, folder, settings, device):
    """Figures of one stage ('EncDec' or 'Seq') on settings.split, added to folder.metrics and printed. Returns them."""
    clips = dataset.split(settings.split)
    length = min(settings.seq_len, clips.num_frames)
    rows = np.arange(len(clips))
    frames = as_float(torch.from_numpy(clips.take(rows, 0, length)))
    static, dynamic = view.encode(frames)
    rebuilt = view.decode(static, dynamic, length)
    partner = np.empty_like(rows)  # the identity source of each clip: another one, each used once
    circle = np.random.default_rng(0).permutation(rows)
    partner[circle] = np.roll(circle, 1)
    swapped = as_uint8(view.decode(static[partner], dynamic, length))

    second = stage == "Seq"
    kind, prefix = ("transfer", "seq_") if second else ("swap", "")
    found, measures = {f"{prefix}reconstruction_psnr": psnr(rebuilt.numpy(), frames.numpy())}, {}
    if dataset.name == "pendulum":
        protocol = PIXELS
        colour, angles = clips.label("colour"), clips.label("angles")[:, :length]
        own = swap_measures(as_uint8(rebuilt), angles, colour, colour)
        measures[f"{prefix}reconstruction_identity_accuracy"] = own["identity_accuracy"]
        name = "reconstruction_pose_error_deg"
        measures[name if second else f"stage1_{name}"] = own["pose_error_deg"]
        swap = swap_measures(swapped, angles, colour, colour[partner])
        if second:
            longer = as_uint8(view.decode(static, dynamic, CONTINUE_TO))
            state = clips.label("angle"), clips.label("velocity")
            tail = continuation_measures(longer, *state, CONTINUE_FROM)
            measures |= {f"continuation_{name}": measure for name, measure in tail.items()}
    else:
        protocol = JUDGE
        judge = folder.root.parent / "judges" / f"{dataset.name}-{dataset.fingerprint[:12]}.pth"
        swap, accuracy = judged_swap(dataset, clips, swapped, partner, judge, device)
        found |= {f"judge_{factor}_accuracy": share for factor, share in accuracy.items()}
    measures |= {f"{kind}_{name}": measure for name, measure in swap.items()}
    found |= figures(measures)
    details = {
        "protocol": protocol,
        "split": settings.split,
        "n": len(rows),
        "frames": length,
        "seed": settings.seed,
        "spread": {name: _json(value) for name, value in spreads(measures).items()},
        "spread is": "standard error over clips, bootstrap",
        **_origin(device),
    }
    held_out = "held out"
    if settings.trains_on_test and settings.split == "test":
        held_out = details["warning"] = "not held out: --fidelity release trains on these clips"
    _write(folder.metrics, stage, found, details)
    print(f"stage {2 if second else 1}, {len(rows)} {settings.split} clips, {held_out} (standard error over clips):")
    for name, value in found.items():
        spread = details["spread"].get(name)
        print(f"  {name:<40} {value:<8.4g}" + (f" ({spread:.2g})" if spread is not None else ""))
    return found


def _json(value):
    return value if math.isfinite(value) else None  # NaN is no JSON


def _origin(device):
    """Where a figure comes from: commit, machine and versions."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": commit(),
        "machine": f"{device.type}, {machine}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def _write(path, stage, found, details):
    """Add the figures to metrics.json, in place of those of the same stage."""
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
        notes = known.pop("details", {})
    except (ValueError, AttributeError):
        raise UserError(f"{path} is not a file of figures: move it away") from None
    for name in notes.get(stage, {}).get("figures", []):
        known.pop(name, None)
    notes[stage] = {**details, "figures": sorted(found)}
    figures_ = {name: _json(value) for name, value in {**known, **found}.items() if value is not None}
    write_text(path, json.dumps({**figures_, "details": notes}, indent=1) + "\n")
