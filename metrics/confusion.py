"""Confusion matrices of a judge, and how metrics.json keeps them for plots."""

from collections.abc import Mapping

import numpy as np

from metrics.summary import Arrays


def confusion(true: Arrays, judged: Arrays, classes: Mapping) -> Arrays:
    """{factor: int [C, C]}: how often a value (row) was judged as another (column).

    true, judged {factor: int [n]}; classes {factor: names of its C values}.
    """
    counts = {}
    for factor in judged:
        size = len(classes[factor])
        pairs = np.asarray(true[factor]) * size + judged[factor]
        counts[factor] = np.bincount(pairs, minlength=size**2).reshape(size, size)
    return counts


def as_notes(counts: Arrays, classes: Mapping) -> dict:
    """Confusion matrices and the names of the values for metrics.json, a text per row."""
    return {
        factor: {
            "values": list(classes[factor]),
            "true by judged": [" ".join(map(str, row)) for row in matrix.tolist()],
        }
        for factor, matrix in counts.items()
    }


def from_notes(notes: Mapping) -> tuple[Arrays, dict[str, list[str]]]:
    """The matrices and names that `as_notes` wrote. Raises ValueError or such for other content."""
    classes = {factor: part["values"] for factor, part in notes.items()}
    counts = {}
    for factor, part in notes.items():
        counts[factor] = np.array([row.split() for row in part["true by judged"]], np.int64)
        if counts[factor].shape != (len(classes[factor]),) * 2:
            raise ValueError(f"the matrix of {factor} is {[*counts[factor].shape]}")
    return counts, classes
