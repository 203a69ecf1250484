"""The pictures of a run, named and laid out as the release's, from anything that encodes, decodes and samples.

Stage 1: swap_ep_{e}_rec.png (identity of the column, pose of the row), train_{e}_rec.png, train_{e}_targ.png.
Stage 2: seq_{e}_rec.png, seq_{e}_gt.png, vid_{e}_gen.gif, seq_swap_id_{e}_gen.png (one frame: identity of the column, pose of
the row), vid_swap_{e}_gen.gif (action of the row, identity of the column); ours beside them: transfer_{e}.png (pairs of rows:
the action's source, the same action with the identity of the picture at its left), samples_{e}.png and .gif (from the priors),
continue_{e}_{T}.png and .gif (T frames, the clip's own in the upper row as far as they go).
"""

import numpy as np
import torch

from utils.frames import as_float, as_uint8
from utils.pictures import save_gif, save_png, sheet, with_margins

MOST = 12  # identities in a grid: a larger one is unreadable and grows with the square
ROWS = 6  # clips in a sheet of sequences


def draw_stage(stage, dataset, sampler, store, images, epoch, log, last):
    """Write the pictures of `stage` after `epoch` into folder `images`; the grids go to `log` too.

    sampler, store: those of the training split, or None to leave the training pictures out; last: draw the slow ones too.
    """
    view, settings = stage.view(), stage.settings
    clips = dataset.split("test")
    rows = np.random.default_rng(0).choice(len(clips), min(settings.num_test_ids, len(clips)), replace=False)
    length = min(settings.seq_len, clips.num_frames)
    real = clips.take(rows, 0, length)  # [n, T, 64, 64, 3] uint8
    if stage.name == "EncDec":
        if sampler is not None:
            some = store.pick(*sampler.draw(0, min(settings.bs, ROWS)))[:, :16].cpu()
            save_png(images / f"train_{epoch}_targ.png", sheet(as_uint8(some)))
            save_png(images / f"train_{epoch}_rec.png", sheet(as_uint8(_reconstruct(view, some))))
        _draw(images, f"swap_ep_{epoch}_rec.png", _swap_grid(view, real[:MOST, :1])[0], log, epoch)
        return
    frames = as_float(torch.from_numpy(real))
    made = as_uint8(_reconstruct(view, frames))
    save_png(images / f"seq_{epoch}_gt.png", sheet(real[:ROWS]))
    _draw(images, f"seq_{epoch}_rec.png", made[:ROWS], log, epoch)
    save_gif(images / f"vid_{epoch}_gen.gif", _film(made[None, :MOST]), dataset.fps)
    grid = _swap_grid(view, real[:MOST])  # [T, R + 1, C + 1, 64, 64, 3]
    _draw(images, f"seq_swap_id_{epoch}_gen.png", grid[0], log, epoch)
    save_gif(images / f"vid_swap_{epoch}_gen.gif", np.stack([sheet(tiles) for tiles in grid]), dataset.fps)
    _draw(images, f"transfer_{epoch}.png", _transfer_rows(real, grid), log, epoch)
    if last:
        drawn = as_uint8(view.sample(ROWS, length))
        _draw(images, f"samples_{epoch}.png", drawn, log, epoch)
        save_gif(images / f"samples_{epoch}.gif", _film(drawn[None]), dataset.fps)
        for longer in dataset.continuations or (2 * length,):
            _draw_continuation(view, real[:ROWS], longer, images, epoch, dataset.fps)


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
    made = as_uint8(view.decode(static[column], dynamic[row], length)).reshape(n, n, *real.shape[1:])
    return np.stack([with_margins(made[:, :, t], real[:, t], real[:, t]) for t in range(length)])


def _transfer_rows(real, grid):
    """The grid's diagonal beside the main one, as pairs of rows of frames: [2 n, T + 1, 64, 64, 3]."""
    n = min(len(real), ROWS)
    out = []
    for row in range(n):
        column = (row + 1) % n
        blank = np.zeros_like(real[:1, 0])
        out += [np.concatenate([blank, real[row]]), np.concatenate([real[column][:1], grid[:, row + 1, column + 1]])]
    return np.stack(out)


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
