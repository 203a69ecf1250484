"""The pictures of a run, from any trained model (see `models.view.VideoModel`).

CAPTIONS lists the files and says what each shows; {e} is the epoch that has just ended. The names
up to `vid_swap`, and their layout, are the release's.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from data.base import Dataset
from data.batches import Batches
from models.stage import Stage
from models.view import VideoModel
from pictures.choose import distinct, names
from pictures.codes import draw_codes
from pictures.files import Album, with_margins
from pictures.plane import draw_plane
from pictures.sheets import Labels, Span
from utils.frames import as_uint8

MAX_SOURCES = 12  # clips in a swap grid, which has a cell for every pair of them
ROWS = 6  # clips in the other sheets
MAX_COLUMNS = 16  # training frames per sample
SHOWN = 20  # frames of a continued clip in a PNG, about
SAMPLED = 8  # frames of a drawn clip in a PNG, if two kinds of clips stand side by side
ENDED = 225  # shade of a tile for a frame that nobody knows
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
    "continue_{e}_{T}.png": "Clips continued to {T} frames, below what is true",
    "continue_{e}_{T}.gif": "Clips continued to {T} frames, animated, below what is true",
    "samples_{e}.png": "Clips whose codes are drawn: from the prior, and from the fitted density",
    "samples_{e}.gif": "Clips whose codes are drawn, animated",
    "drawn_{e}.png": "Drawn clips, each above the training clip of the nearest identity code",
    "traverse_{code}_{e}.png": "Stage 1, traversal of the code {code}",
    "fixed_f_{e}.png": "Each clip above two clips with its static code f and drawn codes z",
    "fixed_z_{e}.png": "Each clip above two clips with its dynamic codes z and a drawn code f",
    "plane_{e}.png": "Frames over the plane of z; each block has the static code of one clip",
    "manifold_{e}.png": "Dynamic codes of test frames, coloured by what moves and by what stays",
    "curve_{e}.png": "Components of z over the frames of a clip, with some of its frames below",
    "seq_traverse_{code}_{e}.png": "Traversal of the code {code}",
    "seq_traverse_{code}_{e}.gif": "Traversal of the code {code}, animated",
    "plot_accuracies_{kind}_{e}.png": "What the judge sees beside chance ({kind})",
    "plot_confusions_{kind}_{e}.png": "What the judge takes for what ({kind})",
    "plot_codes_{kind}_{e}.png": "What a classifier reads from each code (of {kind})",
    "experts_{e}.csv": "Stage 1, mixing weights",
    "seq_experts_{e}.csv": "Mixing weights",
}
# The pictures of the authors' code. With --fidelity release, they have its layout, without text.
RELEASED = tuple(CAPTIONS)[: list(CAPTIONS).index("vid_swap_{e}_gen.gif") + 1]


class Shown(NamedTuple):
    """Test clips of a picture: their codes, their frames, and what the picture calls them."""

    static: Tensor
    dynamic: Tensor
    real: np.ndarray  # uint8 [n, T, 64, 64, 3]
    rows: np.ndarray  # in the test split
    identities: list[str]
    motions: list[str]

    def first(self, count: int) -> "Shown":
        """The first `count` of the clips."""
        return self._make(part[:count] for part in self)

    def called(self) -> list[str]:
        """The name of each clip: a value of a factor per line."""
        return [f"{one}\n{other}" for one, other in zip(self.identities, self.motions)]


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
    rows = distinct(dataset, clips, min(settings.num_test_ids, MAX_SOURCES))
    length = min(settings.seq_len, clips.num_frames)
    plain = RELEASED if settings.fidelity == "release" else ()
    album = Album(images, epoch, dataset.fps, log, plain)
    called = names(dataset, clips, rows)
    if settings.info(stage.name).frames_only:
        if batches is not None:
            _draw_training(view, batches, album)
        # One frame gives both codes.
        shown = Shown(*view.encode_clips(clips, rows, 1), clips.take(rows, 0, 1), rows, *called)
        swaps = swap_grid(view, shown)[0], swap_labels(shown, "pose")
        album.png("swap_ep_{e}_rec.png", swaps, log=True)
        if last:
            draw_codes(view, dataset, clips, length, album, "")
        return
    codes = view.encode_clips(clips, rows, length)
    shown = Shown(*codes, clips.take(rows, 0, length), rows, *called)
    _draw_clips(view, shown, album)
    if last:
        some = shown.first(ROWS)
        _draw_samples(view, dataset, length, album)
        lengths = settings.transfer_frames or dataset.continuations
        if view.continues:
            _draw_continued(view, dataset, clips, some, album)
        if lengths and view.continues:
            _draw_long_transfers(view, lengths, dataset, clips, some, album)
        draw_codes(view, dataset, clips, length, album, "seq_")
        if hasattr(view, "draw_dynamic"):
            _draw_with_one_code_kept(view, shown.first(ROWS // 2), album)
        if view.planar:
            draw_plane(view, dataset, rows, _joined(shown.called()), length, album)


def _draw_training(view, batches, album):
    """Frames of a training batch, and their reconstructions."""
    samples = batches.draw(0, min(batches.size, ROWS))
    frames = batches.frames(*samples)[:, :MAX_COLUMNS].cpu()
    rebuilt = view.decode_uint8(*view.encode(frames), frames.shape[1])
    titles = "Training frames, one sample per row", "Reconstructions of the training frames"
    for name, title, tiles in zip(RELEASED, titles, (as_uint8(frames), rebuilt)):
        rows = [f"sample {number + 1}" for number in range(len(tiles))]
        labels = Labels(title, **_timeline(range(tiles.shape[1])), rows=rows)
        album.png(name, (tiles, labels))


def _draw_clips(view, shown, album):
    """Reconstructions, swaps and transfers of the clips."""
    swaps, clip = swap_grid(view, shown), np.arange(len(shown.rows))
    # On the diagonal, both codes are those of one clip.
    rebuilt = swaps[:, clip + 1, clip + 1].swapaxes(0, 1)
    some, length = shown.first(ROWS), shown.real.shape[1]
    rows = {"rows": _joined(some.called()), **_timeline(range(length))}
    album.png("seq_{e}_gt.png", (some.real, Labels("Test clips, one per row", **rows)))
    title = "Reconstructions of the test clips, one per row"
    album.png("seq_{e}_rec.png", (rebuilt[:ROWS], Labels(title, **rows)), log=True)
    top, title = [(0, len(clip), "clip")], "Reconstructions of the test clips"
    labels = Labels(title, top=top, columns=shown.called())
    album.gif("vid_{e}_gen.gif", rebuilt[None], labels)
    labels = swap_labels(shown, "pose in the first frame")
    album.png("seq_swap_id_{e}_gen.png", (swaps[0], labels), log=True)
    labels = swap_labels(shown, "motion")
    album.gif("vid_swap_{e}_gen.gif", swaps.transpose(1, 2, 0, 3, 4, 5), labels)
    # Row and column 0 of `swaps` hold the sources.
    following = np.roll(clip[:ROWS], -1)
    moved = swaps[:, clip[:ROWS] + 1, following + 1].swapaxes(0, 1)
    sheet = _transfer(some, some.real, moved, range(length), length)
    album.png("transfer_{e}.png", sheet, log=True)


def swap_panel(
    view: VideoModel, dataset: Dataset, count: int, length: int, title: str
) -> tuple[np.ndarray, Labels]:
    """A grid of swaps for a picture of several models: clips, `Album.gif` takes them, and labels.

    count: clips of the test split. length: frames that the model reads of each.
    """
    clips = dataset.split("test")
    rows = distinct(dataset, clips, count)
    codes, real = view.encode_clips(clips, rows, length), clips.take(rows, 0, length)
    shown = Shown(*codes, real, rows, *names(dataset, clips, rows))
    swaps, labels = swap_grid(view, shown), swap_labels(shown, "motion")
    return swaps.transpose(1, 2, 0, 3, 4, 5), replace(labels, title=title)


def swap_grid(view, shown):
    """Every dynamic code (by row) with every static code (by column), the sources in the margins.

    Returns uint8 [T, n + 1, n + 1, 64, 64, 3].
    """
    real = shown.real
    n, length = real.shape[:2]
    clip = np.arange(n)
    row, column = np.repeat(clip, n), np.tile(clip, n)
    swaps = view.decode_uint8(shown.static[column], shown.dynamic[row], length)
    swaps = swaps.reshape(n, *real.shape)
    return np.stack([with_margins(swaps[:, :, t], real[:, t], real[:, t]) for t in range(length)])


def swap_labels(shown, moves):
    """The labels of a swap grid. moves: what the source of a row gives, 'motion' or 'pose'."""
    n = len(shown.rows)
    return Labels(
        f"Swaps: {moves} of the clip at the left, identity of the clip at the top",
        top=[(1, n + 1, "identity of")],
        columns=["", *shown.identities],
        left=[(1, n + 1, f"{moves.split()[0]} of")],
        rows=["", *shown.motions],
        breaks=([0], [0]),
        blank=[(0, 0)],
    )


def _timeline(times, trained=None, first=0):
    """The labels of columns that show the frames `times`, counted from 1, from column `first` on.

    trained: frames of a training clip; a line divides later ones from them.
    """
    times = list(times)
    end, seen = first + len(times), first + sum(t < (trained or np.inf) for t in times)
    columns = [*[""] * first, *(str(t + 1) for t in times)]
    top: list[Span] = [(first, end, "frame")]
    if not first < seen < end:
        return {"top": top, "columns": columns}
    top = [(first, seen, "frame, as in training"), (seen, end, "frame, later than in training")]
    return {"top": top, "columns": columns, "mark": seen - 1}


def _transfer(shown, true, moved, times, trained):
    """Each clip above its motion with the identity of the next: tiles and their labels.

    true, moved: uint8 [n, T, 64, 64, 3], of which the frames `times` are shown.
    """
    n, times = len(true), list(times)
    identity = np.roll(shown.real, -1, 0)[:, :1]
    above = np.concatenate([np.zeros_like(identity), true[:, times]], 1)
    below = np.concatenate([identity, moved[:, times]], 1)
    tiles = np.stack([above, below], 1).reshape(-1, *above.shape[1:])
    identities = _joined(np.roll(shown.identities, -1))
    pairs = zip(_joined(shown.motions), identities)
    timeline = _timeline(times, trained, first=1)
    timeline["columns"][0] = "identity"
    labels = Labels(
        "Transfer: below each clip, its motion with the identity of the clip at the left",
        **timeline,
        rows=[row for one, other in pairs for row in (f"motion of\n{one}", f"with {other}")],
        breaks=([0], range(1, 2 * n, 2)),
        blank=[(row, 0) for row in range(0, 2 * n, 2)],
    )
    return tiles, labels


def _joined(names):
    """Names of several lines, in one line each."""
    return [name.replace("\n", ", ") for name in names]


def _draw_samples(view, dataset, length, album):
    """Drawn clips: of the prior and, with --draw_from fitted, of the fitted density beside it."""
    panels, drawn = [], []
    note = "The prior also draws codes that no clip has. Their frames look like no clip."
    kinds = [(view.draw, "Codes drawn from the prior", note)]
    if view.draw_from == "fitted":
        fitted = "Codes drawn from the density fitted to codes of training clips"
        kinds.append((view.draw_fitted, fitted, ""))
    count = min(length, SAMPLED if len(kinds) > 1 else MAX_COLUMNS)
    times = np.unique(np.linspace(0, length - 1, count).round().astype(int))
    for draw, title, note in kinds:
        codes = draw(ROWS, length)
        drawn.append((codes, view.decode_uint8(*codes, length)))
        rows = [f"clip {number + 1}" for number in range(ROWS)]
        labels = Labels(title, **_timeline(times), rows=rows, note=note)
        panels.append((drawn[-1][1][:, times], labels))
    album.png("samples_{e}.png", *panels, log=True)
    rows = ["prior", "fitted density"][: len(kinds)]
    labels = Labels("Clips whose codes are drawn", rows=rows)
    album.gif("samples_{e}.gif", np.stack([frames for _, frames in drawn]), labels)
    if view.draw_from == "fitted":
        codes, frames = drawn[-1]
        row = view.nearest(*codes)[1].numpy()
        pairs = np.stack([frames, dataset.split("train").take(row, 0, length)], 1)
        labels = Labels(
            "Drawn clips, each above the training clip of the nearest identity code",
            **_timeline(range(length)),
            rows=[name for r in row for name in ("drawn", f"training clip {r}")],
            breaks=((), range(1, 2 * ROWS, 2)),
        )
        tiles = pairs.reshape(-1, *pairs.shape[2:])
        album.png("drawn_{e}.png", (tiles, labels), log=True)


def _true(dataset, clips, rows, frames):
    """The true `frames` frames of clips, uint8 [n, frames, 64, 64, 3], and what they are called.

    The set simulates what comes after the end of a clip, or it is grey.
    """
    if dataset.beyond is not None:
        return dataset.beyond(clips.index[rows], frames), "the true motion (simulated)"
    true = np.full((len(rows), frames, *clips.frames.shape[1:]), ENDED, np.uint8)
    for place, row in enumerate(rows):
        length = min(frames, clips.lengths[clips.index[row]])
        true[place, :length] = clips.take([row], 0, length)[0]
    return true, "the true clip (grey after its end)"


def _draw_continued(view, dataset, clips, shown, album):
    """Continuations of the clips below the truth."""
    trained = shown.real.shape[1]
    lengths = dataset.continuations or (2 * trained,)
    longest = view.decode_uint8(shown.static, shown.dynamic, max(lengths))
    for frames in lengths:
        true, words = _true(dataset, clips, shown.rows, frames)
        continued = longest[:, :frames]
        title = f"Continued to {frames} frames: below {words}, what the model makes"
        top = [(0, len(true), "clip")]
        labels = Labels(title, top=top, columns=shown.called(), rows=["true", "model"])
        tiles = np.stack([true, continued])
        album.gif("continue_{e}_{T}.gif", tiles, labels, trained, T=frames)
        times = range(0, frames, max(1, frames // SHOWN))
        pairs = np.stack([true, continued], 1)[:, :, times]
        labels = Labels(
            title,
            **_timeline(times, trained),
            rows=[row for name in _joined(shown.called()) for row in (f"true: {name}", "model")],
            breaks=((), range(1, 2 * len(true), 2)),
        )
        tiles = pairs.reshape(-1, *pairs.shape[2:])
        album.png("continue_{e}_{T}.png", (tiles, labels), T=frames)


def _draw_long_transfers(view, lengths, dataset, clips, shown, album):
    """The motion of each clip with the identity of the next, for `lengths` frames."""
    n, trained = shown.real.shape[:2]
    following = np.roll(np.arange(n), -1)
    longest = view.decode_uint8(shown.static[following], shown.dynamic, max(lengths))
    for frames in lengths:
        moved, (true, _) = longest[:, :frames], _true(dataset, clips, shown.rows, frames)
        still = np.broadcast_to(shown.real[following][:, :1], moved.shape)
        labels = Labels(
            f"Transfer to {frames} frames: the motion of one clip, the identity of another",
            rows=["motion of", "identity of", "result"],
            columns=shown.motions,
        )
        tiles = np.stack([true, still, moved])
        album.gif("transfer_{e}_{T}.gif", tiles, labels, trained, T=frames)
        times = range(0, frames, max(1, frames // SHOWN))
        sheet = _transfer(shown, true, moved, times, trained)
        album.png("transfer_{e}_{T}.png", sheet, T=frames)


def _draw_with_one_code_kept(view, shown, album):
    """Each real clip above DRAWS clips that keep its static or its dynamic code."""
    real = shown.real
    length = real.shape[1]
    static, dynamic = (code.repeat_interleave(DRAWS, 0) for code in (shown.static, shown.dynamic))
    kept_static = view.decode_uint8(static, view.draw_dynamic(static, length), length)
    kept_dynamic = view.decode_uint8(view.drawn(len(static), length)[0], dynamic, length)
    for kept, drawn, frames in (("f", "z", kept_static), ("z", "f", kept_dynamic)):
        below = frames.reshape(len(real), DRAWS, *real.shape[1:])
        tiles = np.concatenate([real[:, None], below], 1).reshape(-1, *real.shape[1:])
        draws = [f"its {kept}, drawn {drawn}"] * DRAWS
        labels = Labels(
            f"Each clip above clips with its {kept} and a drawn {drawn}",
            **_timeline(range(length)),
            rows=[row for name in _joined(shown.called()) for row in (name, *draws)],
            breaks=((), range(DRAWS, len(tiles), DRAWS + 1)),
        )
        album.png(f"fixed_{kept}_{{e}}.png", (tiles, labels), log=True)
