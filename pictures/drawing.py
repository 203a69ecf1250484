"""The pictures of a run, from any trained model (see `models.view.VideoModel`).

CAPTIONS lists the files and says what each shows; {e} is the epoch that has just ended. The names
up to `vid_swap`, and their layout, are the release's.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.base import Dataset
from data.batches import Batches
from models.stage import Stage
from models.view import VideoModel
from pictures.codes import draw_codes
from pictures.files import Album, with_margins
from pictures.plane import draw_plane
from utils.frames import as_uint8

MAX_SOURCES = 12  # clips in a swap grid, which has a cell for every pair of them
ROWS = 6  # clips in the other sheets
MAX_COLUMNS = 16  # training frames per sample
SHOWN = 20  # frames of a continued clip in a PNG, about
DRAWS = 2  # clips with a sampled code below each real clip
# In the order in which the report shows them.
CAPTIONS = {
    "train_{e}_targ.png": "Stage 1: training frames",
    "train_{e}_rec.png": "Stage 1: reconstructions of the training frames",
    "swap_ep_{e}_rec.png": "Stage 1, swaps: identity of the column, pose of the row",
    "seq_{e}_gt.png": "Test clips, one per row",
    "seq_{e}_rec.png": "Reconstructions of the test clips",
    "vid_{e}_gen.gif": "Reconstructions of the test clips, animated",
    "seq_swap_id_{e}_gen.png": "Swaps, first frame: identity of the column, pose of the row",
    "vid_swap_{e}_gen.gif": "Swaps, animated: identity of the column, motion of the row",
    "transfer_{e}.png": "Transfer: each clip above its motion with the identity at the left",
    "transfer_{e}_{T}.png": "Transfer continued to {T} frames, below the source of the motion",
    "transfer_{e}_{T}.gif": "Transfer to {T} frames, by row: source of motion, of identity, result",
    "continue_{e}_{T}.png": "Clips continued to {T} frames, below their true frames",
    "continue_{e}_{T}.gif": "Clips continued to {T} frames, animated, below their true frames",
    "samples_{e}.png": "Clips whose codes are drawn, from what --draw_from names",
    "samples_{e}.gif": "Clips whose codes are drawn, animated",
    "drawn_{e}.png": "Drawn clips, each above the training clip of the nearest identity code",
    "traverse_{code}_{e}.png": "Stage 1, traversal of the code {code}",
    "fixed_f_{e}.png": "Each clip above two clips with its static code f and sampled codes z",
    "fixed_z_{e}.png": "Each clip above two clips with its dynamic codes z and a sampled code f",
    "plane_{e}.png": "Frames over the plane of z; each block has the static code of one clip",
    "manifold_{e}.png": "Dynamic codes of test frames, coloured by what moves and by what stays",
    "curve_{e}.png": "Components of z over the frames of a clip, with some of its frames below",
    "seq_traverse_{code}_{e}.png": "Traversal of the code {code}",
    "seq_traverse_{code}_{e}.gif": "Traversal of the code {code}, animated",
    "experts_{e}.csv": "Stage 1, mixing weights",
    "seq_experts_{e}.csv": "Mixing weights",
}


def draw_stage(
    stage: Stage,
    view: VideoModel,
    dataset: Dataset,
    batches: Batches | None,
    images: Path,
    epoch: int,
    log: Callable,
    last: bool,
) -> None:
    """Write the pictures of `stage`, whose view is given, after `epoch` into the folder `images`.

    batches: the training batches; None leaves out the pictures of training frames. log(tag,
    picture, epoch) receives the main pictures. last: also draw the pictures that take long.
    """
    settings, clips = stage.settings, dataset.split("test")
    count = min(settings.num_test_ids, len(clips))
    rows = np.random.default_rng(0).choice(len(clips), count, replace=False)
    length = min(settings.seq_len, clips.num_frames)
    real = clips.take(rows, 0, length)
    album = Album(images, epoch, dataset.fps, log)
    if settings.info(stage.name).frames_only:
        if batches is not None:
            samples = batches.draw(0, min(batches.size, ROWS))
            frames = batches.frames(*samples)[:, :MAX_COLUMNS].cpu()
            album.png("train_{e}_targ.png", as_uint8(frames))
            rebuilt = view.decode_uint8(*view.encode(frames), frames.shape[1])
            album.png("train_{e}_rec.png", rebuilt)
        # One frame gives both codes.
        codes = view.encode_clips(clips, rows[:MAX_SOURCES], 1)
        swaps = _swap_grid(view, codes, real[:MAX_SOURCES, :1])
        album.png("swap_ep_{e}_rec.png", swaps[0], log=True)
        if last:
            draw_codes(view, dataset, clips, length, album, "")
        return
    static, dynamic = view.encode_clips(clips, rows[:MAX_SOURCES], length)
    _draw_clips(view, (static, dynamic), real[:MAX_SOURCES], album)
    if last:
        some = (static[:ROWS], dynamic[:ROWS]), real[:ROWS]
        _draw_samples(view, dataset, *some, album)
        lengths = settings.transfer_frames or dataset.continuations
        if lengths and view.continues:
            _draw_long_transfers(view, lengths, *some, album)
        draw_codes(view, dataset, clips, length, album, "seq_")
        if hasattr(view, "draw_dynamic"):
            kept = slice(ROWS // 2)
            _draw_with_one_code_kept(view, (static[kept], dynamic[kept]), real[kept], album)
        if view.planar:
            draw_plane(view, dataset, rows, length, album)


def _draw_clips(view, codes, real, album):
    """Reconstructions, swaps and transfers of the clips `real`, uint8 [n, T, 64, 64, 3]."""
    swaps, clip = _swap_grid(view, codes, real), np.arange(len(real))
    # On the diagonal, both codes are those of one clip.
    rebuilt = swaps[:, clip + 1, clip + 1].swapaxes(0, 1)
    album.png("seq_{e}_gt.png", real[:ROWS])
    album.png("seq_{e}_rec.png", rebuilt[:ROWS], log=True)
    album.gif("vid_{e}_gen.gif", rebuilt[None])
    album.png("seq_swap_id_{e}_gen.png", swaps[0], log=True)
    album.gif("vid_swap_{e}_gen.gif", swaps.transpose(1, 2, 0, 3, 4, 5))
    # Row and column 0 of `swaps` hold the sources.
    following = np.roll(clip[:ROWS], -1)
    moved = swaps[:, clip[:ROWS] + 1, following + 1].swapaxes(0, 1)
    album.png("transfer_{e}.png", _transfer_rows(real[:ROWS], moved, real[following, :1]), log=True)


def _draw_samples(view, dataset, codes, real, album):
    """Drawn clips, and continuations of `real` below the true frames."""
    length = real.shape[1]
    samples = as_uint8(view.sample(ROWS, length))
    album.png("samples_{e}.png", samples, log=True)
    album.gif("samples_{e}.gif", samples[None])
    if view.draw_from == "fitted":
        codes_drawn, train = view.drawn(ROWS, length), dataset.split("train")
        nearest = train.take(view.nearest(*codes_drawn)[1].numpy(), 0, length)
        pairs = np.stack([view.decode_uint8(*codes_drawn, length), nearest], 1)
        album.png("drawn_{e}.png", pairs.reshape(-1, *pairs.shape[2:]), log=True)
    if not view.continues:
        return
    lengths = dataset.continuations or (2 * length,)
    longest = view.decode_uint8(*codes, max(lengths))
    for frames in lengths:
        continued = longest[:, :frames]
        true = _then_black(real, frames)
        album.gif("continue_{e}_{T}.gif", np.stack([true, continued]), T=frames)
        pairs = np.stack([true, continued], 1)[:, :, :: max(1, frames // SHOWN)]
        album.png("continue_{e}_{T}.png", pairs.reshape(-1, *pairs.shape[2:]), T=frames)


def _draw_long_transfers(view, lengths, codes, real, album):
    """The motion of each clip of `real` with the identity of the next, for `lengths` frames."""
    static, dynamic = codes
    following = np.roll(np.arange(len(real)), -1)
    longest, identity = view.decode_uint8(static[following], dynamic, max(lengths)), real[following]
    for frames in lengths:
        moved, true = longest[:, :frames], _then_black(real, frames)
        still = np.broadcast_to(identity[:, :1], moved.shape)
        album.gif("transfer_{e}_{T}.gif", np.stack([true, still, moved]), T=frames)
        every = max(1, frames // SHOWN)
        rows = _transfer_rows(true[:, ::every], moved[:, ::every], identity[:, :1])
        album.png("transfer_{e}_{T}.png", rows, T=frames)


def _then_black(real, frames):
    """The clips `real` [n, T, 64, 64, 3] in `frames` frames, black after their end."""
    longer = np.zeros((len(real), frames, *real.shape[2:]), np.uint8)
    longer[:, : real.shape[1]] = real[:, :frames]
    return longer


def _draw_with_one_code_kept(view, codes, real, album):
    """Each real clip above DRAWS clips that keep its static or its dynamic code."""
    length = real.shape[1]
    static, dynamic = (code.repeat_interleave(DRAWS, 0) for code in codes)
    kept_static = view.decode_uint8(static, view.draw_dynamic(static, length), length)
    kept_dynamic = view.decode_uint8(view.drawn(len(static), length)[0], dynamic, length)
    for name, frames in (("fixed_f_{e}.png", kept_static), ("fixed_z_{e}.png", kept_dynamic)):
        below = frames.reshape(len(real), DRAWS, *real.shape[1:])
        tiles = np.concatenate([real[:, None], below], 1)
        album.png(name, tiles.reshape(-1, *real.shape[1:]), log=True)


def _swap_grid(view, codes, real):
    """Every dynamic code (by row) with every static code (by column), the sources in the margins.

    codes: static, dynamic. real [n, T, 64, 64, 3] -> [T, n + 1, n + 1, 64, 64, 3]
    """
    n, length = real.shape[:2]
    (static, dynamic), clip = codes, np.arange(n)
    row, column = np.repeat(clip, n), np.tile(clip, n)
    swaps = view.decode_uint8(static[column], dynamic[row], length).reshape(n, *real.shape)
    return np.stack([with_margins(swaps[:, :, t], real[:, t], real[:, t]) for t in range(length)])


def _transfer_rows(real, moved, identity):
    """Each clip above its motion with another identity: [2 n, T + 1, 64, 64, 3].

    real, moved [n, T, 64, 64, 3]. identity [n, 1, 64, 64, 3]: shown in the first column.
    """
    above = np.concatenate([np.zeros_like(identity), real], 1)
    below = np.concatenate([identity, moved], 1)
    return np.stack([above, below], 1).reshape(-1, *above.shape[1:])
