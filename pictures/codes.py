"""What the codes of a model hold: traversals of each code, and the mixing weights of experts."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from data.base import Clips, Dataset
from pictures.files import Album
from pictures.sheets import Labels
from utils.files import write_text
from utils.frames import as_float, as_uint8

MAX_DIMENSIONS = 8  # rows of a traversal
STEPS = 9  # columns of a traversal: values of the dimension
QUANTILES = 0.02, 0.98  # of the codes of test clips: the first and the last value
MAX_CLIPS = 256  # test clips whose codes are read
KL_CLIPS = 32  # of them, those whose KL is averaged
DEAD = 0.01  # nats per clip: a dimension with less says nothing about a clip


def draw_codes(
    view: Any, dataset: Dataset, clips: Clips, length: int, album: Album, prefix: str
) -> None:
    """Write the traversals and the table of mixing weights that the view offers (models/view.py).

    clips: the test split, of which the first `length` frames are read. prefix: of the file names.
    Beside each traversal lies a JSON file with the KLs of all dimensions, see `account`.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(clips))[:MAX_CLIPS])
    static, dynamic = view.encode_clips(clips, rows, length)
    if hasattr(view, "vary"):
        codes = view.codes(static, dynamic, length)
        some = as_float(torch.from_numpy(clips.take(rows[:KL_CLIPS], 0, length)))
        kl = view.kl(some) if hasattr(view, "kl") else {}
        for name in codes:
            _draw_traversal(view, codes, name, kl.get(name), length, album, prefix)
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

    static, dynamic: the codes of clips, whose range the values span. The rows are the dimensions
    with the largest standard deviation. T is 1 where one frame shows all that the code changes,
    else `length`.
    """
    codes = view.codes(static, dynamic, length)
    for name, code in codes.items():
        about, values = account(code, None)
        yield name, _traverse(view, codes, name, about["drawn"], values, length)


def _draw_traversal(view, codes, name, kl, length, album, prefix):
    """The pictures of one code, and their account. kl: of its dimensions [D], or None."""
    about, values = account(codes[name], kl)
    about["frames"] = length
    path = album.path(prefix + "traverse_{code}_{e}.json", code=name)
    write_text(path, json.dumps(about, indent=1) + "\n")
    tiles = _traverse(view, codes, name, about["drawn"], values, length)
    unit = "nats" if kl is not None else "sd"
    weights = about["kl" if kl is not None else "sd"]
    by = "the KL, in nats per clip" if kl is not None else "the standard deviation over clips"
    dead, drawn = len(about["dead"]), len(about["drawn"])
    left_out = [f"{dead} with less than {DEAD} nats"] if dead else []
    if len(weights) > dead + drawn:
        less = "vary less" if kl is None else "have a smaller KL"
        left_out.append(f"{len(weights) - dead - drawn} that {less}")
    labels = Labels(
        f"Code {name}: one clip with other values, above the tiles, of one dimension per row. "
        f"The rows are sorted by {by}.",
        rows=[
            f"{name}_{d + 1}\n{weights[d]:.{1 if weights[d] >= 10 else 2}f} {unit}"
            for d in about["drawn"]
        ],
        values=[[f"{value:z.2f}" for value in row] for row in about["values"]],
        note=f"Dimensions that are not drawn: {' and '.join(left_out)}." if left_out else "",
    )
    album.png(prefix + "traverse_{code}_{e}.png", (tiles[:, :, 0], labels), code=name)
    if tiles.shape[2] > 1:
        album.gif(prefix + "traverse_{code}_{e}.gif", tiles, labels, code=name)


def account(code: torch.Tensor, kl: torch.Tensor | None) -> tuple[dict[str, Any], torch.Tensor]:
    """What a traversal of `code` [N, D] or [N, T, D] shows, and its values [drawn, STEPS].

    kl: of the dimensions, [D], in nats per clip, or None. 'drawn': dimensions from 0, first those
    of the largest KL, else of the largest standard deviation; 'dead': those with a KL below DEAD,
    which are drawn only if all are dead; 'values': of the drawn dimensions.
    """
    points = code.flatten(0, -2)  # [clips or frames, D]
    spread = points.std(0, correction=0)
    weights = spread if kl is None else kl
    order = weights.argsort(descending=True, stable=True)[:MAX_DIMENSIONS].tolist()
    dead = [] if kl is None else torch.nonzero(kl < DEAD)[:, 0].tolist()
    drawn = [dimension for dimension in order if dimension not in dead] or order[:1]
    low, high = torch.quantile(points[:, drawn], torch.tensor(QUANTILES), 0)
    values = low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, STEPS)
    about = {"drawn": drawn, "dead": dead, "values": values.tolist(), "sd": spread.tolist()}
    return about | ({} if kl is None else {"kl": kl.tolist()}), values


def _traverse(view, codes, name, dimensions, values, length):
    """The first clip with other values of single dimensions of its code `name`.

    codes {letter: [n, D] or [n, T, D]}. dimensions: one per row. values [rows, STEPS]. Returns
    uint8 [rows, STEPS, T, 64, 64, 3], where T is 1 or `length`.
    """
    # One frame shows all that a static code, or the code of a single frame, changes.
    if name == next(iter(codes)) or codes[name].dim() == 3:
        length = 1
    first = {key: code[:1, :length] if code.dim() == 3 else code[:1] for key, code in codes.items()}
    varied = first[name].repeat(len(dimensions), STEPS, 1, 1)  # [rows, STEPS, 1 or T, D]
    for row, dimension in enumerate(dimensions):
        varied[row, ..., dimension] = values[row, :, None]
    frames = view.vary(first, name, varied.view(-1, *first[name].shape[1:]), length)
    return as_uint8(frames.unflatten(0, (len(dimensions), STEPS)))


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
