"""DCI (Eastwood & Williams 2018): disentanglement, completeness, informativeness of codes.

The figures come from the importances of a random forest. The static and the dynamic code are
compared in two ways: dimension by dimension over both, and as two subsets with summed importances.
"""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

TREES = 30
DEPTH = 12


def importances(train: np.ndarray, labels: dict[str, np.ndarray], seed: int = 0):
    """Fit a random forest from codes train [n, D] to each factor; labels {factor: int [n]}.

    Returns the importances [D, F], whose columns sum to 1 (or are 0), and {factor: forest}. Each
    split of a tree chooses among all dimensions: among a random part of them, a dimension that
    carries nothing would become important by chance.
    """
    forests = {
        name: RandomForestClassifier(
            TREES, max_depth=DEPTH, max_features=None, random_state=seed
        ).fit(train, values)
        for name, values in labels.items()
    }
    return np.stack([forest.feature_importances_ for forest in forests.values()], 1), forests


def disentanglement(table: np.ndarray) -> float:
    """How far each code dimension serves one factor: table [D, F] >= 0 -> [0, 1]; NaN if F < 2.

    The mean over dimensions, weighted by their importance, of 1 - H(table's row) / ln F: 1 where a
    dimension carries one factor, 1 - ln 2 / ln F where it carries two equally.
    """
    table = np.asarray(table, np.float64)
    if table.shape[1] < 2 or table.sum() == 0:
        return float("nan")
    rows = table.sum(1)
    share = table / np.maximum(rows, 1e-300)[:, None]
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0).sum(1)
    return float((1 - entropy / np.log(table.shape[1])) @ (rows / rows.sum()))


def completeness(table: np.ndarray) -> float:
    """How far one code dimension carries each factor: table [D, F] -> [0, 1]; NaN if D < 2."""
    return disentanglement(np.asarray(table).T)


def dci(train, train_labels: dict, test, test_labels: dict, seed: int = 0) -> dict[str, float]:
    """The figures of codes learnt on `train` and scored on `test`, by name.

    train, test: the codes (static, dynamic), each [n, ...]; labels {factor: (kind, int [n])}, kind
    'static' or 'dynamic'. `disentanglement` and `completeness` are taken over dimensions;
    `informativeness` is the mean test accuracy of the forests, `informativeness_{factor}` that of
    one. `subset_disentanglement` and `subset_completeness`, where both kinds of factors exist, are
    of the 2x2 table of codes and kinds (mean over the factors of a kind).
    """
    codes, test_codes = (
        np.concatenate([np.asarray(code).reshape(len(code), -1) for code in side], 1)
        for side in (train, test)
    )
    table, forests = importances(
        codes, {n: values for n, (_, values) in train_labels.items()}, seed
    )
    accuracies = {
        name: float(forest.score(test_codes, test_labels[name][1]))
        for name, forest in forests.items()
    }
    scores = {
        "disentanglement": disentanglement(table),
        "completeness": completeness(table),
        "informativeness": float(np.mean(list(accuracies.values()))),
        **{f"informativeness_{name}": accuracy for name, accuracy in accuracies.items()},
    }
    kinds = np.array([kind for kind, _ in train_labels.values()])
    if len(set(kinds)) == 2:
        # The first rows of the table are those of the static code.
        cut = np.asarray(train[0]).reshape(len(train[0]), -1).shape[1]
        halves = np.stack([table[:cut].sum(0), table[cut:].sum(0)])  # [2, F]
        subsets = np.stack([halves[:, kinds == kind].mean(1) for kind in ("static", "dynamic")], 1)
        scores["subset_disentanglement"] = disentanglement(subsets)
        scores["subset_completeness"] = completeness(subsets)
    return scores
