"""The swap protocol of S3VAE and later papers: judged clips whose two codes have two sources.

Column (a): both codes from held-out clips; column (b): one of them drawn, from the prior or from a
fitted density (models/density.py).
"""

import numpy as np

from metrics.entropy import entropies, variety
from metrics.judge import verdicts
from metrics.summary import Measure

# Seeds of the pairings and of the draws.
SEEDS = (0, 1, 2)


def pairing(n: int, seed: int) -> np.ndarray:
    """The identity source of each of n clips, int64 [n]: another clip, each used once."""
    partner = np.empty(n, np.int64)
    circle = np.random.default_rng(seed).permutation(n)
    partner[circle] = np.roll(circle, 1)
    return partner


def judged_swap(dataset, labels: dict, probabilities: dict, partner: np.ndarray) -> dict:
    """Column (a): measures of clips with the motion of clip i and the identity of clip partner[i].

    probabilities {factor: [n, C]}: the judge's, of these clips; labels {factor: int [n]}: of the
    clips i. {factor}_accuracy: the verdict is the value of the factor's source (the partner for
    static factors, clip i for dynamic ones). {factor}_leak: it is the value of the other source,
    on pairs that differ; {factor}_leak_excess: the leak less `chance_agreement` on these pairs.
    """
    measures = {}
    for factor, judged in verdicts(probabilities).items():
        own = labels[factor]
        right, wrong = (own[partner], own) if factor in dataset.static else (own, own[partner])
        differ = np.where(right != wrong, 1.0, np.nan)
        leak = (judged == wrong) * differ
        by_chance = chance_agreement(judged, right, wrong) * differ
        measures[f"{factor}_accuracy"] = Measure(judged == right)
        measures[f"{factor}_leak"] = Measure(leak)
        measures[f"{factor}_leak_excess"] = Measure(leak - by_chance)
        if factor in dataset.dynamic:
            measures |= entropy_figures(factor, probabilities[factor], own)
    return measures


def judged_draws(
    dataset, labels: dict, real: dict, moving: dict, standing: dict, source: str = "prior"
) -> dict:
    """Column (b): measures of clips with one code that is drawn; source: 'prior' or 'fitted'.

    real, moving, standing: the judge's probabilities {factor: [n, C]} of clip i itself, of its
    motion with a drawn static code, and of its identity with a drawn dynamic code. Accuracies mean
    little if all draws show the same character ({source}_variety 0).
    """
    measures, varieties = {}, []
    for factor, own in labels.items():
        dynamic = factor in dataset.dynamic
        judged = verdicts(moving if dynamic else standing)[factor]
        measures[f"{source}_{factor}_accuracy"] = Measure(judged == own)
        if dynamic:
            measures |= entropy_figures(f"{source}_{factor}", moving[factor], own)
        else:
            varieties.append(variety(moving[factor], real[factor]))
            measures[f"{source}_{factor}_variety"] = varieties[-1]
    if not np.all(np.isnan(varieties)):
        measures[f"{source}_variety"] = float(np.nanmean(varieties))
    return measures


def entropy_figures(name: str, p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """H(y|x), H(y) and IS of verdicts p [n, C], class-balanced by the true values labels [n]."""
    balanced = entropies(p, labels)
    measures = {f"{name}_intra_entropy": balanced.intra, f"{name}_inter_entropy": balanced.inter}
    return measures | {f"{name}_inception_score": balanced.inception_score}


def chance_agreement(judged: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How often verdict i would agree by chance with the other source, [n], from integers [n].

    The share of clips j with wrong_j = judged_i among those with wrong_j unequal to right_i.
    """
    top = int(max(judged.max(), right.max(), wrong.max())) + 1
    counts = np.bincount(wrong, minlength=top)
    allowed = len(wrong) - counts[right]
    return np.where(judged != right, counts[judged], 0) / np.maximum(allowed, 1)
