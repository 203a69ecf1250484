"""DCI (Eastwood & Williams 2018): disentanglement, completeness and informativeness of codes, from a random forest's importances.

The static and the dynamic code are told apart in two ways: dimension by dimension over both, and as two subsets, whose
importances are summed.
"""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

TREES = 30
DEPTH = 12


def importances(train, labels, seed=0):
    """Random forests from codes train [n, D] to each factor {name: int [n]}: importances [D, F], columns sum to 1 (or are 0), and
    the fitted forests {name: forest}.

    Every split may choose among all dimensions: among some, idle dimensions would be important by chance.
    """
    forests = {
        name: RandomForestClassifier(
            TREES, max_depth=DEPTH, max_features=None, random_state=seed
        ).fit(train, values)
        for name, values in labels.items()
    }
    return np.stack([forest.feature_importances_ for forest in forests.values()], 1), forests


def disentanglement(table):
    """How far each code dimension serves one factor, weighted by its importance: table [D, F] >= 0 -> [0, 1].

    1 - H(table's row) / ln F: 1 where a dimension carries one factor, 1 - ln 2 / ln F where it carries two equally. NaN if F < 2.
    """
    table = np.asarray(table, np.float64)
    if table.shape[1] < 2 or table.sum() == 0:
        return float("nan")
    rows = table.sum(1)
    share = table / np.maximum(rows, 1e-300)[:, None]
    entropy = -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0).sum(1)
    return float((1 - entropy / np.log(table.shape[1])) @ (rows / rows.sum()))


def completeness(table):
    """How far each factor is carried by one code dimension: table [D, F] -> [0, 1]; NaN if D < 2."""
    return disentanglement(np.asarray(table).T)


def dci(train, train_labels, test, test_labels, seed=0):
    """{name: number} of codes (static, dynamic), each [n, ...], learnt on `train` and scored on `test`.

    labels: {factor: (group, int [n])}, group 'static' or 'dynamic'. `disentanglement` and `completeness` over dimensions;
    `informativeness`, the forests' mean test accuracy, `informativeness_{factor}`; `subset_disentanglement` and
    `subset_completeness` of the 2x2 table of code and kind of factor (mean over the factors of a kind), where both kinds exist.
    """
    flat = [[np.asarray(code).reshape(len(code), -1) for code in codes] for codes in (train, test)]
    table, forests = importances(
        np.concatenate(flat[0], 1), {name: v for name, (_, v) in train_labels.items()}, seed
    )
    seen = np.concatenate(flat[1], 1)
    right = {
        name: float(forest.score(seen, test_labels[name][1])) for name, forest in forests.items()
    }
    found = {
        "disentanglement": disentanglement(table),
        "completeness": completeness(table),
        "informativeness": float(np.mean(list(right.values()))),
        **{f"informativeness_{name}": share for name, share in right.items()},
    }
    kinds = np.array([group for group, _ in train_labels.values()])
    if len(set(kinds)) == 2:
        cut = flat[0][0].shape[1]
        halves = np.stack([table[:cut].sum(0), table[cut:].sum(0)])  # [2, F]
        subsets = np.stack([halves[:, kinds == kind].mean(1) for kind in ("static", "dynamic")], 1)
        found |= {
            "subset_disentanglement": disentanglement(subsets),
            "subset_completeness": completeness(subsets),
        }
    return found
