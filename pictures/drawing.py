"""The pictures of a run, named and laid out as the release's, from anything that encodes, decodes and samples.

CAPTIONS says what each shows; {e} is the epoch just finished. Those from `transfer` on are ours.
"""

import csv
import io

import numpy as np
import torch

from pictures.files import save_gif, save_png, sheet, with_margins
from pictures.plane import draw_plane
from utils.files import write_text
from utils.frames import as_float, as_uint8

MOST = 12  # identities in a grid: a larger one is unreadable and grows with the square
ROWS = 6  # clips in a sheet of sequences, and dimensions in a traversal
STEPS = 9  # values of a dimension in a traversal
LOOK = 256  # test clips, at most, whose codes are looked at for traversals and the use of experts
CAPTIONS = {  # in the order in which a reader wants them
    "train_{e}_targ.png": "Stage 1: training frames",
    "train_{e}_rec.png": "Stage 1: the training frames rebuilt",
    "swap_ep_{e}_rec.png": "Stage 1, swaps: identity of the column, pose of the row; sources on the margins",
    "seq_{e}_gt.png": "Held-out clips, a row each",
    "seq_{e}_rec.png": "The held-out clips rebuilt",
    "vid_{e}_gen.gif": "The held-out clips rebuilt, moving",
    "seq_swap_id_{e}_gen.png": "Swaps of the first frame: identity of the column, pose of the row",
    "vid_swap_{e}_gen.gif": "Transfer: action of the row, identity of the column",
    "transfer_{e}.png": "Transfer in pairs of rows: a clip; its action with the identity of the picture at the left",
    "continue_{e}_{T}.png": "Clips continued to {T} frames, the true ones above as far as they go",
    "continue_{e}_{T}.gif": "Clips continued to {T} frames, moving; the true ones above",
    "samples_{e}.png": "Drawn from the priors",
    "samples_{e}.gif": "Drawn from the priors, moving",
    "traverse_{code}_{e}.png": "Stage 1, traversal of {code}",
    "fixed_f_{e}.png": "Under each clip two with its static code f and drawn dynamic codes z",
    "fixed_z_{e}.png": "Under each clip two with its dynamic codes z and a drawn static code f",
    "plane_{e}.png": "Frames over the plane of the dynamic code z, the static code of one clip held fixed in each block",
    "manifold_{e}.png": "The dynamic codes of held-out frames, coloured by what moves and by what stays",
    "curve_{e}.png": "The components of z over the frames of a clip, some of them below",
    "seq_traverse_{code}_{e}.png": "Traversal of {code}",
    "seq_traverse_{code}_{e}.gif": "Traversal of {code}, moving",
    "experts_{e}.csv": "Stage 1: mixing weights",
    "seq_experts_{e}.csv": "Mixing weights",
}
DRAWN = 2  # drawn codes beside a clip's own


def draw_stage(stage, dataset, batches, images, epoch, log, last):
    """Write the pictures of `stage` after `epoch` into folder `images`; the grids go to `log` too.

    sampler, store: those of the training split, or None to leave the training pictures out; last: draw the slow ones too.
    """
    view, settings = stage.view(), stage.settings
    clips = dataset.split("test")
    rows = np.random.default_rng(0).choice(
        len(clips), min(settings.num_test_ids, len(clips)), replace=False
    )
    length = min(settings.seq_len, clips.num_frames)
    real = clips.take(rows, 0, length)  # [n, T, 64, 64, 3] uint8
    if settings.info(stage.name).frames_only:
        if batches is not None:
            some = batches.frames(*batches.draw(0, min(batches.size, ROWS)))[:, :16].cpu()
            save_png(images / f"train_{epoch}_targ.png", sheet(as_uint8(some)))
            save_png(images / f"train_{epoch}_rec.png", sheet(as_uint8(_reconstruct(view, some))))
        _draw(images, f"swap_ep_{epoch}_rec.png", _swap_grid(view, real[:MOST, :1])[0], log, epoch)
        if last:
            _draw_codes(view, dataset, clips, length, images, "", epoch)
        return
    frames = as_float(torch.from_numpy(real))
    made = as_uint8(_reconstruct(view, frames))
    save_png(images / f"seq_{epoch}_gt.png", sheet(real[:ROWS]))
    _draw(images, f"seq_{epoch}_rec.png", made[:ROWS], log, epoch)
    save_gif(images / f"vid_{epoch}_gen.gif", _film(made[None, :MOST]), dataset.fps)
    grid = _swap_grid(view, real[:MOST])  # [T, R + 1, C + 1, 64, 64, 3]
    _draw(images, f"seq_swap_id_{epoch}_gen.png", grid[0], log, epoch)
    save_gif(
        images / f"vid_swap_{epoch}_gen.gif",
        np.stack([sheet(tiles) for tiles in grid]),
        dataset.fps,
    )
    _draw(images, f"transfer_{epoch}.png", _transfer_rows(real, grid), log, epoch)
    if last:
        drawn = as_uint8(view.sample(ROWS, length))
        _draw(images, f"samples_{epoch}.png", drawn, log, epoch)
        save_gif(images / f"samples_{epoch}.gif", _film(drawn[None]), dataset.fps)
        for longer in (
            (dataset.continuations or (2 * length,)) if getattr(view, "continues", True) else ()
        ):
            _draw_continuation(view, real[:ROWS], longer, images, epoch, dataset.fps)
        _draw_codes(view, dataset, clips, length, images, "seq_", epoch)
        if hasattr(view, "draw_dynamic"):
            for held, tiles in _held_fixed(view, real[: ROWS // 2]).items():
                _draw(images, f"fixed_{held}_{epoch}.png", tiles, log, epoch)
        if getattr(view, "planar", False):
            draw_plane(view, dataset, rows, length, images, epoch)


def _draw(images, name, tiles, log, epoch):
    picture = sheet(tiles)
    save_png(images / name, picture)
    log(name.replace(f"_{epoch}", "").removesuffix(".png"), picture, epoch)


def _reconstruct(view, frames):
    static, dynamic = view.encode(frames)
    return view.decode(static, dynamic, frames.shape[1])


def _swap_grid(view, real):
    """Every dynamic code with every static one: real [n, T, ...] -> [T, n + 1, n + 1, 64, 64, 3], the sources on the margins."""
    n, length = real.shape[:2]
    static, dynamic = view.encode(as_float(torch.from_numpy(real)))
    row, column = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    made = as_uint8(view.decode(static[column], dynamic[row], length)).reshape(
        n, n, *real.shape[1:]
    )
    return np.stack([with_margins(made[:, :, t], real[:, t], real[:, t]) for t in range(length)])


def _transfer_rows(real, grid):
    """The grid's diagonal beside the main one, as pairs of rows of frames: [2 n, T + 1, 64, 64, 3]."""
    n = min(len(real), ROWS)
    out = []
    for row in range(n):
        column = (row + 1) % n
        blank = np.zeros_like(real[:1, 0])
        out += [
            np.concatenate([blank, real[row]]),
            np.concatenate([real[column][:1], grid[:, row + 1, column + 1]]),
        ]
    return np.stack(out)


def _held_fixed(view, real):
    """{'f', 'z': tiles}: each clip of real [n, T, ...] above clips that keep its static ('f') or dynamic ('z') code."""
    length = real.shape[1]
    static, dynamic = (
        np.repeat(code, DRAWN, 0) for code in view.encode(as_float(torch.from_numpy(real)))
    )
    made = {
        "f": view.decode(static, view.draw_dynamic(static, length), length),
        "z": view.decode(view.draw(len(static), length)[0], dynamic, length),
    }
    shown = {
        held: as_uint8(frames).reshape(len(real), DRAWN, *real.shape[1:])
        for held, frames in made.items()
    }
    return {
        held: np.concatenate([real[:, None], frames], 1).reshape(-1, *real.shape[1:])
        for held, frames in shown.items()
    }


def _film(clips):
    """clips [R, C, T, 64, 64, 3] -> the frames [T, H, W, 3] of a film that shows them side by side."""
    return np.stack([sheet(clips[:, :, t]) for t in range(clips.shape[2])])


def _draw_continuation(view, real, length, images, epoch, fps):
    static, dynamic = view.encode(as_float(torch.from_numpy(real)))
    made = as_uint8(view.decode(static, dynamic, length))
    shown = np.zeros_like(made)
    shown[:, : real.shape[1]] = real
    save_gif(images / f"continue_{epoch}_{length}.gif", _film(np.stack([shown, made])), fps)
    every = max(1, length // 20)
    strip = np.stack([row for pair in zip(shown[:, ::every], made[:, ::every]) for row in pair])
    save_png(images / f"continue_{epoch}_{length}.png", sheet(strip))


def _draw_codes(view, dataset, clips, length, images, prefix, epoch):
    """Traversals of the codes, and the use of experts, of a model that has them (see models/view.py)."""
    rows = np.sort(np.random.default_rng(0).permutation(len(clips))[:LOOK])
    frames = as_float(torch.from_numpy(clips.take(rows, 0, length)))
    if hasattr(view, "vary"):
        codes = view.codes(frames)
        for i, (name, code) in enumerate(codes.items()):
            still = i == 0 or code.dim() == 3  # what stays, or one frame's
            made = as_uint8(
                _traverse(view, codes, name, 1 if still else length)
            )  # [dimensions, STEPS, T, 64, 64, 3]
            save_png(images / f"{prefix}traverse_{name}_{epoch}.png", sheet(made[:, :, 0]))
            if not still:
                save_gif(images / f"{prefix}traverse_{name}_{epoch}.gif", _film(made), dataset.fps)
    if hasattr(view, "mixing_weights"):
        named = {
            factor: (clips.label(factor, rows), dataset.classes.get(factor, ()))
            for factor in dataset.static
        }
        write_text(
            images / f"{prefix}experts_{epoch}.csv",
            expert_use(view.mixing_weights(frames).numpy(), named),
        )


def _traverse(view, codes, name, length):
    """The first clip's frames, up to `length`, as each of the ROWS dimensions of the code that vary most goes over the values that
    codes [n, ...] have: [dimensions, STEPS, length, 3, 64, 64]."""
    one = {key: code[:1, :length] if code.dim() == 3 else code[:1] for key, code in codes.items()}
    seen = codes[name].flatten(0, -2)  # [clips or frames, D]
    spread = seen.std(0, correction=0)
    most = spread.topk(min(ROWS, len(spread))).indices
    low, high = torch.quantile(seen[:, most], torch.tensor([0.02, 0.98]), 0)
    values = one[name].repeat(len(most), STEPS, 1, 1)  # [dimensions, STEPS, 1 or T, D]
    for row, dimension in enumerate(most):
        values[row, ..., dimension] = torch.linspace(low[row], high[row], STEPS)[:, None]
    made = view.vary(one, name, values.view(-1, *one[name].shape[1:]), length)
    return made.unflatten(0, (len(most), STEPS))


def expert_use(weights, named):
    """Mixing weights [n, K] as CSV: factor, value, clips, entropy (in nats, the mean of the clips'), then each expert's mean weight.

    One line for all clips, one for each value of each factor: named {factor: (labels int [n], names of the values)}.
    """
    entropy = (weights * -np.log(np.maximum(weights, 1e-12))).sum(1)
    lines = [("all", "", np.ones(len(weights), bool))]
    for factor, (labels, names) in named.items():
        lines += [(factor, name, labels == value) for value, name in enumerate(names)]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        [
            "factor",
            "value",
            "clips",
            "entropy",
            *(f"expert_{k}" for k in range(1, weights.shape[1] + 1)),
        ]
    )
    for factor, value, of in lines:
        if of.any():
            shares = (f"{share:.4g}" for share in weights[of].mean(0))
            table.writerow([factor, value, of.sum(), f"{entropy[of].mean():.4g}", *shares])
    return out.getvalue()
