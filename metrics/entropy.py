"""How certain and how varied the verdicts of a judge are, in nats."""

from typing import NamedTuple

import numpy as np


class Entropies(NamedTuple):
    """Entropies of verdicts p_i over C values, under the names of the VDSM notebooks.

    inter: H(y), the entropy of the mean verdict, at most ln C. intra: H(y|x), the mean entropy of
    a verdict. kl: the mean KL(p_i || mean p), equal to H(y) - H(y|x).
    """

    inter: float
    intra: float
    kl: float

    @property
    def inception_score(self) -> float:
        """exp(mean_i KL(p_i || mean p)), at most C."""
        return float(np.exp(self.kl))


def entropies(p: np.ndarray, labels: np.ndarray | None = None) -> Entropies:
    """Entropies of verdicts p [n, C], whose rows sum to 1.

    labels int [n]: clips are weighted so that each value counts the same (class-balanced).
    """
    p = np.asarray(p, np.float64)
    weight = np.ones(len(p)) if labels is None else 1 / np.bincount(labels)[labels]
    weight = weight / weight.sum()
    mean = weight @ p
    intra = weight @ -p_log(p, p).sum(1)
    kl = weight @ (p_log(p, p) - p_log(p, mean)).sum(1)
    return Entropies(float(-p_log(mean, mean).sum()), float(intra), float(kl))


def p_log(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p log q, and 0 where p is 0."""
    return np.where(p > 0, p * np.log(np.where(p > 0, q, 1)), 0)


def variety(drawn: np.ndarray, real: np.ndarray) -> float:
    """How varied drawn clips are: H(y) of drawn clips divided by H(y) of real clips.

    drawn [n, C], real [m, C]: probabilities of a judge. Each counts as its likeliest value, because
    an undecided judge is no sign of variety. NaN if the real clips do not vary.
    """
    of_drawn, of_real = (entropies(np.eye(p.shape[1])[p.argmax(1)]).inter for p in (drawn, real))
    # Rounded weights may sum to more than 1, and the entropy is then below 0.
    return max(of_drawn, 0.0) / of_real if of_real > 1e-6 else float("nan")
