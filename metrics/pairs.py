"""Held-out pairs of character and action: does a model make what it never saw together?

Character and action of such a pair were each in training, the pair was not. A swap is asked for the
pair: the identity of a training clip of the character, the motion of a training clip of the action.
The true clip is known, so that pixels can be compared too.
"""

import numpy as np

from data.base import Dataset
from metrics.judge import WEAK, verdicts
from metrics.summary import Arrays, Measure, Measures

# The label of the first half of a pair.
GROUP = "character"


def sources(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training split for each held-out pair: of the identity and of the motion.

    Both are drawn at random: another action of the same character, and another character in all
    actions that the pair shows (the dynamic factors).
    """
    rng, train, pairs = np.random.default_rng(seed), dataset.split("train"), dataset.split("pairs")

    def drawn(names):
        known, asked = (
            np.stack([clips.label(name) for name in names], 1) for clips in (train, pairs)
        )
        return np.array([rng.choice(np.flatnonzero((known == row).all(1))) for row in asked])

    return drawn([GROUP]), drawn(dataset.dynamic)


def judged_pairs(name: str, probabilities: Arrays, labels: Arrays) -> Measures:
    """Measures of clips of held-out pairs: {name}{factor}_accuracy, and 'joint' of all factors."""
    right = {factor: judged == labels[factor] for factor, judged in verdicts(probabilities).items()}
    right["joint"] = np.all(list(right.values()), axis=0)
    return {f"{name}{factor}_accuracy": Measure(hits) for factor, hits in right.items()}


def unmasked(shares: dict[str, float]) -> list[str]:
    """Warnings if a judge is wrong on real clips of held-out pairs: {figure: accuracy}."""
    weak = [f"{name} {share:.3f}" for name, share in shares.items() if share < WEAK]
    found = f"the judge misreads real clips of pairs that it never saw ({', '.join(weak)})"
    return [f"{found}: its figures of swaps mean little"] if weak else []
