"""Plots of the report, as data URIs of SVG pictures: training curves and mixing weights."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.base import IMAGE_SIZE
from utils.style import in_style, plain

WIDTH = 4.8  # inches: letters stay readable on a phone
LIKELIHOOD = "x"  # the term of the loss that is not a KL
FEW_EPOCHS = 30  # curves of fewer epochs get a marker per epoch
TOTAL, ELBO = "total loss", "held out/ELBO"  # tags of TensorBoard
PIXELS = IMAGE_SIZE**2  # of a frame, whose three channels belong together


def curves(
    scalars: dict[str, dict[int, float]], names: Mapping[str, str], frames: int | None
) -> str:
    """Plot the loss, its terms and the schedules.

    scalars: {TensorBoard tag: {epoch: value}}, losses in nats per sequence of `frames` frames. The
    losses are drawn per frame, or per sequence if `frames` is not known. names: {tag: plain name},
    '' for a tag that is left out.
    """
    share = 1 / (frames or 1)
    terms = {tag: line for tag, line in scalars.items() if tag.startswith("loss/")}
    loss = {"training, with KL weights": scalars.get(TOTAL, {})}
    if likelihood := terms.pop(f"loss/{LIKELIHOOD}", None):
        loss["training, pixels alone"] = likelihood
    if ELBO in scalars:
        loss["validation, KL weights 1"] = {e: -v for e, v in scalars[ELBO].items()}
    shown = {tag: line for tag, line in scalars.items() if names.get(tag) != ""}
    others = {tag: line for tag, line in shown.items() if "/" not in tag and tag != TOTAL}
    schedules = {tag: others.pop(tag) for tag in list(others) if tag in names}
    unit = f"nats per {'frame' if frames else 'sequence'}"
    panels = [
        ("loss", unit, _scaled(loss, share)),
        ("KLs and other terms", unit, _scaled(terms, share)),
        ("KL weights and temperature", "no unit", schedules),
        ("other values", "", others),
    ]
    panels = [panel for panel in panels if panel[2]]
    with in_style(**{"font.size": 9, "axes.grid": True, "legend.fontsize": 8}):
        figure = Figure((WIDTH, 2.5 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (title, unit, lines) in zip(axes, panels):
            for tag, line in lines.items():
                epochs = sorted(line)
                marker = "." if len(epochs) < FEW_EPOCHS else None
                values, name = [line[e] for e in epochs], names.get(tag, tag.removeprefix("loss/"))
                axis.plot(epochs, values, label=plain(name), marker=marker)
            positive = any(value > 0 for line in lines.values() for value in line.values())
            scale = "log" if positive and title != "loss" else "linear"
            axis.set(title=title, ylabel=unit, yscale=scale)
            axis.legend()
            if frames and unit.startswith("nats"):
                both = lambda value: value / PIXELS, lambda value: value * PIXELS  # noqa: E731
                axis.secondary_yaxis("right", functions=both).set_ylabel("nats per pixel")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlabel("epoch")
        return _svg(figure)


def _scaled(lines, factor):
    return {tag: {e: v * factor for e, v in line.items()} for tag, line in lines.items()}


def last_losses(
    scalars: dict[str, dict[int, float]], names: Mapping[str, str], frames: int | None
) -> list[tuple[str, ...]]:
    """The newest losses as text: (name, per sequence, per frame, per pixel) each, in nats.

    Arguments: see `curves`. The last two are '' if `frames` is not known.
    """
    tags = {TOTAL: "training loss, with KL weights", ELBO: "validation ELBO, KL weights 1"}
    held_out = [tag for tag in scalars if tag.startswith("held out/") and tag != ELBO]
    for tag in held_out:
        term = tag.removeprefix("held out/")
        tags[tag] = f"validation, {names.get(f'loss/{term}', term)}"
    rows = []
    for tag, name in tags.items():
        if line := scalars.get(tag):
            value = line[max(line)]
            parts = (value / frames, value / frames / PIXELS) if frames else ()
            text = [f"{value:.5g}", *(f"{part:.4g}" for part in parts), "", ""]
            rows.append((name, *text[:3]))
    return rows


def heat_map(shares: np.ndarray, names: list[str]) -> str:
    """Plot mean mixing weights [groups, K], one row per group of clips, as `names` call them."""
    ticks = np.arange(0, shares.shape[1], max(1, shares.shape[1] // 8))
    with in_style():
        figure = Figure((WIDTH, 1 + 0.17 * len(names)), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(shares, aspect="auto", cmap="viridis", vmin=0)
        labels = [plain(name) for name in names]
        axis.set(yticks=range(len(names)), yticklabels=labels, xlabel="expert")
        axis.set_xticks(ticks, ticks + 1)
        figure.colorbar(image, label="mean mixing weight", location="top", shrink=0.7)
        return _svg(figure)


def data_uri(mime_type: str, data: bytes) -> str:
    """The bytes of a file as a URI that a page can hold."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _svg(figure):
    file = io.BytesIO()
    # Transparent, so that the page may invert the plot on a dark background.
    with in_style():
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    return data_uri("image/svg+xml", file.getvalue())
