"""Pictures of a verdict, for the notebooks: confusion matrices, and codes in two dimensions."""

from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.preprocessing import StandardScaler

SIDE = 2.8  # inches of a panel
NAMED = 12  # values of a factor beyond which their names no longer fit beside a panel


def confusions(true, said, classes, title):
    """A matrix a factor: rows the true value, shares of them; columns what was said. true, said {factor: int [n]}; classes {factor:
    names}."""
    figure, axes = _panels(1, len(classes), 1.3 * SIDE, title)
    for axis, (factor, names) in zip(axes[0], classes.items()):
        few = len(names) <= NAMED
        matrix = ConfusionMatrixDisplay.from_predictions(
            true[factor], said[factor], labels=range(len(names)), display_labels=names if few else None, normalize="true",
            include_values=False, colorbar=False, xticks_rotation="vertical", ax=axis, im_kw={"vmin": 0, "vmax": 1},
        )  # fmt: skip
        axis.set(title=factor, xlabel="said", ylabel="true")
        axis.tick_params(labelsize=7)
        if not few:
            matrix.ax_.set(xticks=[], yticks=[])
    return figure


def projections(codes, labels, classes, title):
    """Each code on its first two principal components (standardised dimensions), a row a code, coloured by each factor in turn. codes
    {name: [n, D]}; labels {factor: int [n]}; classes {factor: names}."""
    figure, axes = _panels(len(codes), len(classes), SIDE, title)
    for line, (name, code) in zip(axes, codes.items()):
        pca = PCA(2)
        x, y = pca.fit_transform(StandardScaler().fit_transform(code)).T
        shares = [
            f"component {i} ({share:.0%})"
            for i, share in enumerate(pca.explained_variance_ratio_, 1)
        ]
        for axis, (factor, names) in zip(line, classes.items()):
            axis.scatter(
                x, y, s=6, c=labels[factor], cmap="turbo", vmin=0, vmax=max(1, len(names) - 1)
            )
            axis.set(
                title=f"{name.replace('_', ' ')} by {factor}",
                xlabel=shares[0],
                ylabel=shares[1],
                xticks=[],
                yticks=[],
            )
    return figure


def _panels(rows, columns, height, title):
    size = SIDE * columns, height * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(title)
    return figure, axes
