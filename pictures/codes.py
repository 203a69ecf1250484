"""What the codes of a model hold: traversals of each code, and the mixing weights of experts."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from data.base import Clips, Dataset
from pictures.files import Album
from utils.files import write_text
from utils.frames import as_uint8

MAX_DIMENSIONS = 6  # rows of a traversal
STEPS = 9  # columns of a traversal: values of the dimension
QUANTILES = 0.02, 0.98  # of the codes of test clips: the first and the last value
MAX_CLIPS = 256  # test clips whose codes are read


def draw_codes(
    view: Any, dataset: Dataset, clips: Clips, length: int, album: Album, prefix: str
) -> None:
    """Write the traversals and the table of mixing weights that the view offers (models/view.py).

    clips: the test split, of which the first `length` frames are read. prefix: of the file names.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(clips))[:MAX_CLIPS])
    static, dynamic = view.encode_clips(clips, rows, length)
    if hasattr(view, "vary"):
        for name, tiles in traversals(view, static, dynamic, length):
            album.png(prefix + "traverse_{code}_{e}.png", tiles[:, :, 0], code=name)
            if tiles.shape[2] > 1:
                album.gif(prefix + "traverse_{code}_{e}.gif", tiles, code=name)
    if view.mixes:
        factors = {
            factor: (clips.label(factor, rows), dataset.classes.get(factor, ()))
            for factor in dataset.static
        }
        table = expert_use(static.numpy(), factors)
        write_text(album.path(prefix + "experts_{e}.csv"), table)


def traversals(
    view: Any, static: torch.Tensor, dynamic: torch.Tensor, length: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Letter and traversal of each code of the first clip, uint8 [rows, STEPS, T, 64, 64, 3].

    static, dynamic: the codes of clips, whose range the values span. T is 1 where one frame shows
    all that the code changes, else `length`.
    """
    codes = view.codes(static, dynamic, length)
    for i, (name, code) in enumerate(codes.items()):
        # One frame shows all that a static code, or the code of a single frame, changes.
        one_frame = i == 0 or code.dim() == 3
        yield name, as_uint8(_traverse(view, codes, name, 1 if one_frame else length))


def _traverse(view, codes, name, length):
    """The first clip, decoded again with other values of single dimensions of its code `name`.

    codes {letter: [n, D] or [n, T, D]}. The dimensions are those that vary most over all clips.
    Returns [dimensions, STEPS, length, 3, 64, 64].
    """
    first = {key: code[:1, :length] if code.dim() == 3 else code[:1] for key, code in codes.items()}
    points = codes[name].flatten(0, -2)  # [clips or frames, D]
    spread = points.std(0, correction=0)
    dimensions = spread.topk(min(MAX_DIMENSIONS, len(spread))).indices
    low, high = torch.quantile(points[:, dimensions], torch.tensor(QUANTILES), 0)
    values = first[name].repeat(len(dimensions), STEPS, 1, 1)  # [dimensions, STEPS, 1 or T, D]
    for row, dimension in enumerate(dimensions):
        values[row, ..., dimension] = torch.linspace(low[row], high[row], STEPS)[:, None]
    frames = view.vary(first, name, values.view(-1, *first[name].shape[1:]), length)
    return frames.unflatten(0, (len(dimensions), STEPS))


def expert_use(weights: np.ndarray, factors: dict[str, tuple]) -> str:
    """Mixing weights [n, K] as CSV: one row for all clips, then one per value of each factor.

    factors: {factor: (labels int [n], names of the values)}. Columns: factor, value, number of
    clips, mean entropy of a clip's weights in nats, and the mean weight of each expert.
    """
    entropy = (weights * -np.log(np.maximum(weights, 1e-12))).sum(1)
    groups = [("all", "", np.ones(len(weights), bool))]
    for factor, (labels, names) in factors.items():
        groups += [(factor, name, labels == value) for value, name in enumerate(names)]
    experts = [f"expert_{k}" for k in range(1, weights.shape[1] + 1)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["factor", "value", "clips", "entropy", *experts])
    for factor, value, members in groups:
        if members.any():
            means = (entropy[members].mean(), *weights[members].mean(0))
            numbers = (f"{mean:.4g}" for mean in means)
            table.writerow([factor, value, members.sum(), *numbers])
    return text.getvalue()
