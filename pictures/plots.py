"""Plots of the report, as data URIs of SVG pictures: curves of training, use of the experts."""

import base64
import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

WIDTH = 4.8  # inches: what a phone shows without shrinking the letters
LIKELIHOOD = "x"  # the term of the loss that is not a KL
FEW_EPOCHS = 30  # curves of fewer epochs get a marker per epoch


def curves(scalars: dict[str, dict[int, float]]) -> str:
    """Plot the loss, its other terms and the schedules over the epochs, one above the other.

    scalars: {TensorBoard tag: {epoch: value}}.
    """
    terms = {
        tag.removeprefix("loss/"): line for tag, line in scalars.items() if tag.startswith("loss/")
    }
    loss = {"training, with KL weights": scalars.get("total loss", {})}
    if LIKELIHOOD in terms:
        loss["training, likelihood alone"] = terms.pop(LIKELIHOOD)
    if "held out/ELBO" in scalars:
        elbo = scalars["held out/ELBO"]
        loss["validation, KL weights 1"] = {epoch: -value for epoch, value in elbo.items()}
    schedules = {
        tag: line for tag, line in scalars.items() if "/" not in tag and tag != "total loss"
    }
    panels = [
        ("loss, nats per sequence", "linear", loss),
        ("KLs and other terms, nats per sequence", "log", terms),
        ("schedules", "log", schedules),
    ]
    panels = [panel for panel in panels if panel[2]]
    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8}):
        figure = Figure((WIDTH, 2.3 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (title, scale, lines) in zip(axes, panels):
            for name, line in lines.items():
                epochs = sorted(line)
                marker = "." if len(epochs) < FEW_EPOCHS else None
                axis.plot(epochs, [line[e] for e in epochs], label=name, marker=marker)
            positive = any(value > 0 for line in lines.values() for value in line.values())
            axis.set(title=title, yscale=scale if positive else "linear")
            axis.legend()
        axes[-1].set_xlabel("epoch")
        return _svg(figure)


def heat_map(shares: np.ndarray, names: list[str]) -> str:
    """Plot mean mixing weights [groups, K], one row per group of clips."""
    experts = shares.shape[1]
    every = max(1, experts // 8)
    with rc_context({"font.size": 8}):
        figure = Figure((WIDTH, 1 + 0.17 * len(names)), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(shares, aspect="auto", cmap="viridis", vmin=0)
        axis.set(yticks=range(len(names)), yticklabels=names, xlabel="expert")
        labels = [str(number) for number in range(1, experts + 1, every)]
        axis.set_xticks(range(0, experts, every), labels)
        figure.colorbar(image, label="mean mixing weight", location="top", shrink=0.7)
        return _svg(figure)


def data_uri(mime_type: str, data: bytes) -> str:
    """The bytes of a file as a URI that a page can hold."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode()}"


def _svg(figure):
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return data_uri("image/svg+xml", file.getvalue())
