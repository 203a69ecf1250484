"""Plots of the report, as data URIs of SVG pictures: training curves and mixing weights."""

import base64
import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

WIDTH = 4.8  # inches: letters stay readable on a phone
LIKELIHOOD = "x"  # the term of the loss that is not a KL
FEW_EPOCHS = 30  # curves of fewer epochs get a marker per epoch


def curves(scalars: dict[str, dict[int, float]]) -> str:
    """Plot the loss, its terms and the schedules. scalars: {TensorBoard tag: {epoch: value}}."""
    terms = {
        tag.removeprefix("loss/"): line for tag, line in scalars.items() if tag.startswith("loss/")
    }
    loss = {"training, with KL weights": scalars.get("total loss", {})}
    if LIKELIHOOD in terms:
        loss["training, likelihood alone"] = terms.pop(LIKELIHOOD)
    if "held out/ELBO" in scalars:
        loss["validation, KL weights 1"] = {e: -v for e, v in scalars["held out/ELBO"].items()}
    schedules = {
        tag: line for tag, line in scalars.items() if "/" not in tag and tag != "total loss"
    }
    panels = {
        "loss, nats per sequence": loss,
        "KLs and other terms, nats per sequence": terms,
        "schedules": schedules,
    }
    panels = {title: lines for title, lines in panels.items() if lines}
    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8}):
        figure = Figure((WIDTH, 2.3 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (title, lines) in zip(axes, panels.items()):
            for name, line in lines.items():
                epochs = sorted(line)
                marker = "." if len(epochs) < FEW_EPOCHS else None
                values = [line[e] for e in epochs]
                axis.plot(epochs, values, label=plain(name), marker=marker)
            positive = any(value > 0 for line in lines.values() for value in line.values())
            axis.set(title=title, yscale="log" if positive and lines is not loss else "linear")
            axis.legend()
        axes[-1].set_xlabel("epoch")
        return _svg(figure)


def heat_map(shares: np.ndarray, names: list[str]) -> str:
    """Plot mean mixing weights [groups, K], one row per group of clips, as `names` call them."""
    ticks = np.arange(0, shares.shape[1], max(1, shares.shape[1] // 8))
    with rc_context({"font.size": 8}):
        figure = Figure((WIDTH, 1 + 0.17 * len(names)), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(shares, aspect="auto", cmap="viridis", vmin=0)
        labels = [plain(name) for name in names]
        axis.set(yticks=range(len(names)), yticklabels=labels, xlabel="expert")
        axis.set_xticks(ticks, ticks + 1)
        figure.colorbar(image, label="mean mixing weight", location="top", shrink=0.7)
        return _svg(figure)


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def data_uri(mime_type: str, data: bytes) -> str:
    """The bytes of a file as a URI that a page can hold."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _svg(figure):
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", file.getvalue())
