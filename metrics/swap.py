"""The swap protocol (S3VAE and followers): what a judge sees in clips whose static and dynamic codes come from two sources.

(a) both codes from held-out clips; (b) one of them from the prior. The dynamic factors are asked for where the static code was
replaced, the static factors where the dynamic code was.
"""

import numpy as np

from metrics.entropy import entropies, variety
from metrics.judge import verdicts
from metrics.summary import Measure

SEEDS = (0, 1, 2)  # of pairings and of prior draws


def pairing(n, seed):
    """The identity source of each of n clips: another clip, each used once. int64 [n]."""
    partner = np.empty(n, np.int64)
    circle = np.random.default_rng(seed).permutation(n)
    partner[circle] = np.roll(circle, 1)
    return partner


def judged_swap(dataset, labels, probabilities, partner):
    """Column (a): {name: Measure or number} of clips with the motion of clip i and the identity of clip partner[i].

    probabilities {factor: [n, C]}: the judge's, of those clips; labels {factor: int [n]} of the clips themselves.
    {factor}_accuracy: judged as the source of that factor (static ones: the partner; dynamic ones: clip i). {factor}_leak:
    judged as the other source, on pairs that differ; {factor}_leak_excess: that less what chance agreement gives on those
    pairs. Dynamic factors have `entropy_figures` too.
    """
    found = {}
    for factor, judged in verdicts(probabilities).items():
        own = labels[factor]
        right, wrong = (own[partner], own) if factor in dataset.static else (own, own[partner])
        found[f"{factor}_accuracy"] = Measure(judged == right)
        differ = np.where(right != wrong, 1.0, np.nan)
        leak = (judged == wrong) * differ
        found[f"{factor}_leak"] = Measure(leak)
        found[f"{factor}_leak_excess"] = Measure(
            leak - chance_agreement(judged, right, wrong) * differ
        )
        if factor in dataset.dynamic:
            found |= entropy_figures(factor, probabilities[factor], own)
    return found


def judged_prior(dataset, labels, real, moving, standing):
    """Column (b): {name: Measure or number}, all judge's probabilities {factor: [n, C]}.

    moving: the motion of clip i with a static code from the prior; standing: the identity of clip i with a dynamic code from
    the prior; real: the clips themselves. prior_variety: H(y) of the judged static factors over the draws as a share of the
    real one's, mean over factors: an accuracy over draws that are all the same character means little.
    """
    found = {}
    for factor, own in labels.items():
        seen = moving if factor in dataset.dynamic else standing
        found[f"prior_{factor}_accuracy"] = Measure(verdicts(seen)[factor] == own)
        if factor in dataset.dynamic:
            found |= entropy_figures(f"prior_{factor}", moving[factor], own)
        else:
            found[f"prior_{factor}_variety"] = variety(moving[factor], real[factor])
    varied = [value for name, value in found.items() if name.endswith("_variety")]
    return found | (
        {"prior_variety": float(np.nanmean(varied))}
        if varied and not np.all(np.isnan(varied))
        else {}
    )


def entropy_figures(name, p, labels):
    """H(y|x), H(y) and IS of verdicts p [n, C] on clips of true values labels [n], class-balanced."""
    found = entropies(p, labels)
    return {
        f"{name}_intra_entropy": found.intra,
        f"{name}_inter_entropy": found.inter,
        f"{name}_inception_score": found.inception_score,
    }


def chance_agreement(judged, right, wrong):
    """How often a judged value agrees with the other source of pairs that it knows nothing of: [n].

    For each clip i the share, among the clips j with wrong_j unlike right_i, of those with wrong_j = judged_i. Integers [n].
    """
    top = int(max(judged.max(), right.max(), wrong.max())) + 1
    counts = np.bincount(wrong, minlength=top)
    allowed = len(wrong) - counts[right]
    return np.where(judged != right, counts[judged], 0) / np.maximum(allowed, 1)
