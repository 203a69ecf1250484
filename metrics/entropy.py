"""How sharp and how varied a judge's verdicts are, in nats."""

from typing import NamedTuple

import numpy as np


class Entropies(NamedTuple):
    """Of verdicts p_i over C values: `inter` H(y) <= ln C, of their mean; `intra` H(y|x), their mean entropy; `kl`, the mean
    KL(p_i || mean p), which is H(y) - H(y|x). (The names are those of the VDSM notebooks.)"""

    inter: float
    intra: float
    kl: float

    @property
    def inception_score(self):
        """exp(mean_i KL(p_i || mean p)), at most C."""
        return float(np.exp(self.kl))


def entropies(p, labels=None):
    """Entropies of verdicts p [n, C], rows sum to 1. labels [n] integers: every value of them weighs the same, however many
    clips it has (class-balanced); None: every clip weighs the same."""
    p = np.asarray(p, np.float64)
    weight = np.ones(len(p)) if labels is None else 1 / np.bincount(labels)[labels]
    weight = weight / weight.sum()
    mean = weight @ p
    intra = weight @ -_p_log(p, p).sum(1)
    kl = weight @ (_p_log(p, p) - _p_log(p, mean)).sum(1)
    return Entropies(float(-_p_log(mean, mean).sum()), float(intra), float(kl))


def _p_log(p, q):
    """p log q, 0 where p is."""
    return np.where(p > 0, p * np.log(np.where(p > 0, q, 1)), 0)


def variety(drawn, real):
    """H of the likeliest values of `drawn` [n, C] as a share of that of the real clips' [m, C]; NaN where these do not vary.

    The likeliest values and not the probabilities: a judge that is at a loss is not one that sees variety.
    """
    some, whole = (entropies(np.eye(p.shape[1])[p.argmax(1)]).inter for p in (drawn, real))
    return (
        max(some, 0.0) / whole if whole > 1e-6 else float("nan")
    )  # a sum of rounded weights may pass 1
