"""Which clips a picture shows, so that they differ, and what they are called in it."""

import numpy as np

from data.base import Clips, Dataset

MOST = 2000  # clips that are looked at
POOL = 8  # clips of equal merit, of which the one that moves most unlike the others is taken
MOTION, IDENTITY = 2, 10  # what a repeated motion, and a repeated identity, cost


def distinct(dataset: Dataset, clips: Clips, count: int) -> np.ndarray:
    """Rows of `count` clips of a split, identities and motions as different as the split allows.

    Always the same rows. The first of them already differ, so that a smaller picture shows those.
    Factors decide; among equals, the numbers that the set gives for the motion (the angles of
    pendula), or pixels if the set knows nothing of its clips.
    """
    rows = np.random.default_rng(0).permutation(len(clips))[:MOST]
    kinds = [_values(clips, names, rows) for names in (dataset.static, dataset.dynamic)]
    if dataset.group:
        kinds[0].append(np.unique(clips.label(dataset.group, rows), return_inverse=True)[1])
    whole = _values(clips, dataset.static, rows)
    if whole:
        whole = [np.unique(np.stack(whole, 1), axis=0, return_inverse=True)[1].ravel()]
    costly = (1, kinds[0]), (MOTION, kinds[1]), (IDENTITY, whole)
    cost, free, chosen = np.zeros(len(rows)), np.ones(len(rows), bool), []
    looks = _looks(dataset, clips, rows)
    while len(chosen) < min(count, len(rows)):
        left = np.flatnonzero(free)
        equal = left[cost[left] <= cost[left].min() + 1e-9][:POOL]
        best = equal[0]
        if chosen and len(equal) > 1:
            apart = np.abs(looks(equal)[:, None] - looks(np.array(chosen))).mean(-1)
            best = equal[apart.min(1).argmax()]
        chosen.append(best)
        free[best] = False
        for weight, factors in costly:
            for values in factors:
                cost += weight * (values == values[best]) / len(factors)
    return rows[chosen]


def _values(clips, names, rows):
    return [clips.label(name, rows) for name in names]


def _looks(dataset, clips, rows):
    """A function places in `rows` -> numbers [k, D] that differ where clips look different."""
    tables = [
        clips.label(name, rows).reshape(len(rows), -1)
        for name, values in sorted(dataset.labels.items())
        if values.dtype.kind == "f"
    ]
    if tables:
        table = np.concatenate([t / max(t.std(), 1e-12) / t.shape[1] for t in tables], 1)
        return lambda places: table[places]
    return lambda places: (
        clips.take(rows[places], 0, 1)[:, 0, ::8, ::8].reshape(len(places), -1).astype(float)
    )


def names(dataset: Dataset, clips: Clips, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """What the identity, and the motion, of each clip is called: a value of a factor per line.

    Where the set has no factor of the kind, the number of the clip in its split, unbreakable.
    """
    identities, motions = (
        [
            "\n".join(dataset.classes[name][clips.label(name, row)] for name in factors)
            or f"clip\u00a0{row}"
            for row in rows
        ]
        for factors in (dataset.static, dataset.dynamic)
    )
    return identities, motions
