"""Plots for the notebooks: confusion matrices of a judge, and codes in two dimensions."""

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.preprocessing import StandardScaler

from metrics.summary import Arrays

# Side of a panel in inches, and how many names of values fit beside it.
SIDE, NAMED = 2.8, 12


def confusions(true: Arrays, judged: Arrays, classes: dict, title: str) -> Figure:
    """One confusion matrix per factor, each row normalised to 1.

    true, judged {factor: int [n]}; classes {factor: names of its values}.
    """
    figure, axes = _panels(1, len(classes), 1.3 * SIDE, title)
    for axis, (factor, names) in zip(axes[0], classes.items()):
        values = range(len(names))
        shares = confusion_matrix(true[factor], judged[factor], labels=values, normalize="true")
        axis.imshow(shares, vmin=0, vmax=1)
        axis.set(title=factor.replace("$", r"\$"), xlabel="judged", ylabel="true")
        ticks = names if len(names) <= NAMED else ()
        axis.set_xticks(range(len(ticks)), ticks, rotation="vertical", fontsize=7)
        axis.set_yticks(range(len(ticks)), ticks, fontsize=7)
    return figure


def projections(codes: Arrays, labels: Arrays, classes: dict, title: str) -> Figure:
    """Each code on its first two principal components: one row per code, one colouring per factor.

    codes {name: [n, D]}, standardised first; labels {factor: int [n]}; classes {factor: names}.
    """
    figure, axes = _panels(len(codes), len(classes), SIDE, title)
    for line, (name, code) in zip(axes, codes.items()):
        pca = PCA(2)
        x, y = pca.fit_transform(StandardScaler().fit_transform(code)).T
        shares = pca.explained_variance_ratio_
        xlabel, ylabel = (f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares))
        for axis, (factor, names) in zip(line, classes.items()):
            top = max(1, len(names) - 1)
            axis.scatter(x, y, s=6, c=labels[factor], cmap="turbo", vmin=0, vmax=top)
            axis.set(title=f"{name.replace('_', ' ')} by {factor}", xlabel=xlabel, ylabel=ylabel)
            axis.set(xticks=[], yticks=[])
    return figure


def _panels(rows, columns, height, title):
    size = SIDE * columns, height * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(title)
    return figure, axes
