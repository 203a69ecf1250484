"""Plots for papers: `python -m metrics.plots RUN [--runs_dir DIR] [--format FORMAT] [--into DIR]`.

Draws the figures of a run from its metrics.json: what the judge saw in swaps and reconstructions,
the accuracies with their spread and chance, and which factor each code holds. Nothing is measured
again. The report has the same plots as PNG, and the notebooks draw theirs with these functions.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from metrics import results
from metrics.confusion import from_notes
from metrics.summary import Arrays
from utils.errors import UserError, in_one_line
from utils.flags import OneLineParser
from utils.style import ABSENT, FORMATS, MARKERS, PALETTE, Plot, in_style, plain, shades

SIDE = 2.0  # inches: of a panel with points
CELL, MARGIN = 0.26, 1.0  # inches: of a cell of a matrix, and of the names beside a matrix
BAR = 0.5  # inches: of the colour bar below the matrices
ACROSS, WIDEST = 3, 16  # matrices side by side, and the size of the largest one in cells
DARK = 60  # per cent: on a darker cell, letters are white
NAMED = 12  # values of a factor whose names fit beside a matrix or in a legend
# {words in the legend: the figure of a factor in metrics.json}
SERIES = {
    "judge on real clips": "judge_{factor}_accuracy",
    "as in the right source": "{kind}_{factor}_accuracy",
    "the same, other code from the prior": "{kind}_prior_{factor}_accuracy",
    "the same, from the fitted density": "{kind}_fitted_{factor}_accuracy",
    "as in the wrong source (leak)": "{kind}_{factor}_leak",
}
CODES = ("identity_code", "dynamics_code")


@in_style()
def confusions(counts: Arrays, classes: Mapping, title: str) -> Plot:
    """One confusion matrix per factor, whose rows are shares of the clips of a value.

    counts {factor: int [C, C], rows: true, columns: judged}; classes {factor: names of its values}.
    Cells hold per cent. A value without a clip is grey, and its name too.
    """
    rows = [list(classes)[i : i + ACROSS] for i in range(0, len(classes), ACROSS)]
    sides = {f: CELL * max(4, min(len(names), WIDEST)) for f, names in classes.items()}
    widths = [sum(sides[f] + MARGIN for f in row) for row in rows]
    heights = [max(sides[f] for f in row) + 1.4 * MARGIN for row in rows]
    plot = Plot(max(widths), sum(heights) + BAR + 0.3, title)
    bands = plot.subfigures(len(rows) + 1, 1, height_ratios=[*heights, BAR], squeeze=False)[:, 0]
    for band, row in zip(bands, rows):
        ratios = [sides[f] + MARGIN for f in row]
        # What is left of the width keeps the cells of all rows equal.
        ratios.append(max(widths) - sum(ratios) + 0.01)
        *panels, rest = band.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        rest.set_axis_off()
        images = [_matrix(axis, counts[f], f, classes[f]) for axis, f in zip(panels, row)]
    left, middle, right = bands[-1].subplots(1, 3, width_ratios=(1, 2, 1))
    for empty in (left, right):
        empty.set_axis_off()
    bar = plot.colorbar(images[0], cax=middle, orientation="horizontal")
    bar.set_label("share of the clips of a value, %; grey: no clip has the value")
    return plot


def _matrix(axis, counts, factor, names):
    """Draw the confusion matrix of one factor; returns the image."""
    each = counts.sum(1, keepdims=True)
    shares = np.ma.masked_where(each.repeat(len(names), 1) == 0, 100 * counts / np.maximum(each, 1))
    image = axis.imshow(shares, vmin=0, vmax=100, cmap=shades())
    right = f"{np.trace(counts) / counts.sum():.1%} of {counts.sum()} right" if counts.any() else ""
    axis.set_title(f"{plain(factor)}\n{right}")
    axis.set_anchor("N")
    axis.set(xlabel="judged", ylabel="true")
    axis.spines[:].set_visible(False)
    if len(names) > NAMED:
        axis.set(xlabel=f"judged, {len(names)} values", xticks=[], yticks=[])
        return image
    axis.set_xticks(range(len(names)), map(plain, names), rotation=90)
    axis.set_yticks(range(len(names)), map(plain, names))
    axis.tick_params(length=0)
    for label, number in zip(axis.get_yticklabels(), each[:, 0]):
        label.set_color("black" if number else "#888888")
    for i, j in np.argwhere(shares.filled(0) >= 0.5):
        colour = "white" if shares[i, j] > DARK else "black"
        axis.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=6.5)
    return image


@in_style()
def projections(codes: Arrays, labels: Arrays, classes: Mapping, title: str) -> Plot:
    """Each code on its first two principal components: one row per code, one colouring per factor.

    codes {name: [n, ...]}, standardised first; labels {factor: int [n]}; classes {factor: names}.
    The legend below a column counts for the column. Only the NAMED commonest values have colours.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    longest = max(min(len(names), NAMED) for names in classes.values())
    height = (SIDE + 0.2) * len(codes) + 0.08 * longest + 0.5
    plot = Plot((SIDE + 0.1) * len(classes), height, title)
    axes = plot.subplots(len(codes), len(classes), squeeze=False, sharex="row", sharey="row")
    for line, (name, code) in zip(axes, codes.items()):
        pca = PCA(2)
        points = pca.fit_transform(StandardScaler().fit_transform(code.reshape(len(code), -1)))
        x, y = (f"component {i + 1} ({s:.0%})" for i, s in enumerate(pca.explained_variance_ratio_))
        line[0].set_ylabel(f"{plain(name)}\n{y}")
        for axis, (factor, names) in zip(line, classes.items()):
            _points(axis, points, labels[factor], names)
            axis.set(title=plain(factor), xlabel=x, xticks=[], yticks=[])
    for axis in axes[-1]:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 2}
        axis.legend(markerscale=1.5, handletextpad=0.1, columnspacing=0.8, **below)
    return plot


def _points(axis, points, values, names):
    """Draw points [n, 2] in the colours of their values int [n], the commonest first."""
    order = np.argsort(-np.bincount(values, minlength=len(names)), kind="stable")
    named = np.sort(order[:NAMED])
    others = ~np.isin(values, named)
    if others.any():
        rest = len(np.unique(values[others]))
        axis.scatter(*points[others].T, s=5, c=ABSENT, label=f"{rest} others", linewidths=0)
    for i, value in enumerate(named):
        inside = points[values == value]
        look = {"color": PALETTE[i % len(PALETTE)], "linewidths": 0, "alpha": 0.8}
        # The ninth value has the first colour again, with another marker.
        marker = MARKERS[i // len(PALETTE)]
        if len(inside):
            axis.scatter(*inside.T, s=7, marker=marker, label=plain(names[value]), **look)


@in_style()
def accuracies(series: Mapping, classes: Mapping, title: str) -> Plot:
    """A line of points per factor. series {words: {factor: (share, standard error or None)}}."""
    plot = Plot(5.2, 0.9 + 0.36 * len(classes) + 0.16 * len(series), title)
    axis = plot.subplots()
    places = dict(zip(classes, range(len(classes))))
    steps = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for i, ((words, shares), step) in enumerate(zip(series.items(), steps)):
        at = [places[factor] + step for factor in shares]
        values, errors = zip(*shares.values())
        bars = [error or 0 for error in errors]
        look: dict = {"fmt": MARKERS[i], "color": PALETTE[i], "markersize": 4, "linewidth": 1}
        axis.errorbar(values, at, xerr=bars, label=words, clip_on=False, **look)
    axis.set_yticks(range(len(classes)), [plain(factor) for factor in classes])
    axis.set(xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    axis.set_xlabel("share of clips (bars: standard error)")
    axis.grid(axis="x")
    chances = [1 / len(names) for names in classes.values()]
    axis.plot(chances, range(len(classes)), "|", color="#888888", markersize=11, label="chance")
    plot.legend(loc="outside lower center", ncols=2)
    return plot


@in_style()
def contents(shares: Mapping, title: str) -> Plot:
    """A matrix of what classifiers read from codes. shares {code: {factor: (share, by chance)}}."""
    factors = list(next(iter(shares.values())))
    plot = Plot(1.9 + 0.75 * len(factors), 1.3 + 0.4 * len(shares), title)
    axis = plot.subplots()
    right = np.array([[100 * line[factor][0] for factor in factors] for line in shares.values()])
    image = axis.imshow(right, vmin=0, vmax=100, cmap=shades(), aspect="auto")
    axis.set_xticks(range(len(factors)), map(plain, factors))
    axis.set_yticks(range(len(shares)), map(plain, shares))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    for i, line in enumerate(shares.values()):
        for j, factor in enumerate(factors):
            colour = "white" if right[i, j] > DARK else "black"
            text = f"{right[i, j]:.0f} ({100 * line[factor][1]:.0f})"
            axis.text(j, i, text, ha="center", va="center", color=colour)
    axis.set_xlabel("accuracy on held-out clips, % (from shuffled labels)")
    plot.colorbar(image, label="%", ticks=[0, 50, 100])
    return plot


def of_run(path: Path) -> dict[str, tuple[Plot, int]]:
    """The plots of a metrics.json and the epochs that they show, by name; none without a judge.

    Raises UserError if the file is of another kind.
    """
    numbers, details = results.read(path)
    plots = {}
    for notes in details.values():
        clips = f"{notes['data']}, {notes['n']} {notes['split']} clips"
        epoch = notes.get("epoch") or 0
        for protocol, content in notes["protocols"].items():
            if judged := content.get("confusion"):
                try:
                    drawn = _of_protocol(protocol, content, judged, numbers, notes, clips)
                    plots |= {name: (plot, epoch) for name, plot in drawn.items()}
                except (LookupError, TypeError, ValueError, AttributeError):
                    raise UserError(f"{path} is not a file of figures: move it away") from None
    return plots


def _of_protocol(protocol, content, judged, numbers, notes, clips):
    """The plots of one protocol. judged: its confusion matrices in metrics.json."""
    counts, classes = from_notes(judged)
    names = content["figures"]
    if protocol == "swap":
        kind = "transfer" if "transfer_" in " ".join(names) else "swap"
        series = {}
        for words, pattern in SERIES.items():
            figures = {f: pattern.format(factor=f, kind=kind) for f in classes}
            shares = {
                f: (numbers[name], notes["spread"].get(name))
                for f, name in figures.items()
                if numbers.get(name) is not None and math.isfinite(numbers[name])
            }
            series |= {words: shares} if shares else {}
        return {
            f"confusions_{kind}": confusions(counts, classes, f"{kind}: {clips}"),
            f"accuracies_{kind}": accuracies(series, classes, f"{kind}: {clips}"),
        }
    stage = "stage1_" if names[0].startswith("stage1_") else ""
    kind = "frames" if stage else "clips"
    plots = {f"confusions_{kind}": confusions(counts, classes, f"reconstructions: {clips}")}
    shares = {}
    for code in CODES:
        name = f"{stage}consistency_{code}_{{}}"
        shares[code] = {
            f: (numbers[name.format(f)], numbers[name.format(f) + "_shuffled"]) for f in classes
        }
    plots[f"codes_{kind}"] = contents(shares, f"what each code holds: {clips}")
    return plots


@in_one_line
def main(argv: list[str]) -> int:
    """Write the plots that the flags ask for; returns the exit code."""
    flags = OneLineParser(prog="python -m metrics.plots", description=__doc__.split("\n\n")[1])
    flags.add_argument("run", metavar="RUN", help="name of a run, or its folder")
    flags.add_argument("--runs_dir", default="./runs/", help="folder of the runs [./runs/]")
    flags.add_argument("--format", choices=FORMATS, default="pdf", help="[pdf]")
    flags.add_argument("--into", help="folder for the plots [the folder plots of the run]")
    asked = flags.parse_args(argv)
    folder = results.find_run(asked.run, asked.runs_dir)
    plots = of_run(folder / "metrics.json")
    if not plots:
        problem = f"found no confusion matrix in {folder / 'metrics.json'}"
        raise UserError(f"{problem}: measure the run (--evaluate default --remeasure True)")
    into = Path(asked.into) if asked.into else folder / "plots"
    into.mkdir(parents=True, exist_ok=True)
    for name, (plot, _) in plots.items():
        path = into / f"{name}.{asked.format}"
        plot.save(path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
