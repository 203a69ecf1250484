"""The swap protocol's counts: what a judge sees in clips that take their motion from one clip and their identity from another."""

import numpy as np

from metrics.judge import load_or_train_judge, predict
from metrics.summary import Measure


def judged_swap(dataset, clips, made, partner, judge_path, device):
    """Measures of `made` [n, T, 64, 64, 3] uint8, and the judge's own accuracies {factor: share} on real held-out clips.

    Clip i has the motion of clip i of the split `clips` and the identity of clip partner[i]. {factor}_accuracy: judged as the
    source of that factor (static ones: the partner; dynamic ones: clip i). {factor}_leak: judged as the other source, on pairs
    that differ; {factor}_leak_excess: that less what chance agreement gives on those pairs.
    """
    judge, report = load_or_train_judge(dataset, judge_path, device=device)
    measures = {}
    for factor, judged in predict(judge, made).items():
        own = clips.label(factor)
        right, wrong = (own[partner], own) if factor in dataset.static else (own, own[partner])
        measures[f"{factor}_accuracy"] = Measure(judged == right)
        differ = np.where(right != wrong, 1.0, np.nan)
        leak = (judged == wrong) * differ
        measures[f"{factor}_leak"] = Measure(leak)
        measures[f"{factor}_leak_excess"] = Measure(leak - chance_agreement(judged, right, wrong) * differ)
    return measures, report["accuracy"]


def chance_agreement(judged, right, wrong):
    """How often a judged value agrees with the other source of pairs that it knows nothing of: [n].

    For each clip i the share, among the clips j with wrong_j unlike right_i, of those with wrong_j = judged_i. Integers [n].
    """
    top = int(max(judged.max(), right.max(), wrong.max())) + 1
    counts = np.bincount(wrong, minlength=top)
    allowed = len(wrong) - counts[right]
    return np.where(judged != right, counts[judged], 0) / np.maximum(allowed, 1)
