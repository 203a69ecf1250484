"""DCI (Eastwood & Williams 2018): disentanglement, completeness, informativeness of codes."""

import numpy as np

from metrics.entropy import p_log

# Each split of a tree chooses among all dimensions: among a random part of them, a dimension that
# carries nothing would become important by chance.
FOREST = {"n_estimators": 30, "max_depth": 12, "max_features": None}


def disentanglement(table: np.ndarray) -> float:
    """How far each code dimension serves one factor: table [D, F] >= 0 -> [0, 1]; NaN if F < 2.

    table holds importances. The result is the mean over dimensions, weighted by their importance,
    of 1 - H(row of table) / ln F. This is 1 if the dimension carries one factor.
    """
    table = np.asarray(table, np.float64)
    if table.shape[1] < 2 or table.sum() == 0:
        return float("nan")
    rows = table.sum(1)
    share = table / np.maximum(rows, 1e-300)[:, None]
    entropy = -p_log(share, share).sum(1)
    return float((1 - entropy / np.log(table.shape[1])) @ (rows / rows.sum()))


def completeness(table: np.ndarray) -> float:
    """How far one code dimension carries each factor: table [D, F] -> [0, 1]; NaN if D < 2."""
    return disentanglement(np.asarray(table).T)


def dci(train, train_labels: dict, test, test_labels: dict, seed: int = 0) -> dict[str, float]:
    """The figures of codes: a random forest per factor learns from `train` and is tested on `test`.

    train, test: the codes (static, dynamic), each [n, ...]; labels {factor: (kind, int [n])}, kind
    'static' or 'dynamic'. informativeness is the mean accuracy of the forests. The subset_ figures,
    where both kinds exist, are those of importances summed over the dimensions of a code and
    averaged over the factors of a kind.
    """
    from sklearn.ensemble import RandomForestClassifier  # takes a second

    codes, test_codes = (
        np.concatenate([np.asarray(code).reshape(len(code), -1) for code in side], 1)
        for side in (train, test)
    )
    columns, accuracies = [], {}
    for factor, (_, values) in train_labels.items():
        forest = RandomForestClassifier(**FOREST, random_state=seed).fit(codes, values)
        columns.append(forest.feature_importances_)
        accuracy = float(forest.score(test_codes, test_labels[factor][1]))
        accuracies[f"informativeness_{factor}"] = accuracy
    table = np.stack(columns, 1)  # [D, F]
    scores = {"disentanglement": disentanglement(table), "completeness": completeness(table)}
    scores |= {"informativeness": float(np.mean(list(accuracies.values()))), **accuracies}
    kinds = np.array([kind for kind, _ in train_labels.values()])
    if len(set(kinds)) == 2:
        # The first rows of the table are those of the static code.
        cut = np.asarray(train[0]).reshape(len(codes), -1).shape[1]
        halves = np.stack([table[:cut].sum(0), table[cut:].sum(0)])  # [2, F]
        subsets = np.stack([halves[:, kinds == kind].mean(1) for kind in ("static", "dynamic")], 1)
        scores["subset_disentanglement"] = disentanglement(subsets)
        scores["subset_completeness"] = completeness(subsets)
    return scores
