"""The swap protocol's counts: what a judge sees in clips that take their motion from one clip and their identity from another."""

import numpy as np

from metrics.judge import load_or_train_judge, predict


def judged_swap(dataset, clips, made, partner, kind, folder, device):
    """Figures of `made` [n, T, 64, 64, 3] uint8: clip i has the motion of test clip i and the identity of clip partner[i].

    {kind}_{factor}_accuracy: share judged as the source of that factor (static ones: the partner; dynamic ones: clip i).
    {kind}_{factor}_leak: share judged as the other source, on pairs that differ; {kind}_{factor}_leak_excess: that less what
    chance agreement would give on those pairs (how often the judged values of one pair fit the other source of another pair).
    judge_{factor}_accuracy: the judge's own, on real held-out clips.
    """
    path = folder.root.parent / "judges" / f"{dataset.name}-{dataset.fingerprint[:12]}.pth"
    judge, report = load_or_train_judge(dataset, path, device=device)
    figures = {f"judge_{factor}_accuracy": share for factor, share in report["accuracy"].items()}
    seen = predict(judge, made)
    for factor, judged in seen.items():
        own = clips.label(factor)
        right, wrong = (own[partner], own) if factor in dataset.static else (own, own[partner])
        differ = right != wrong
        figures[f"{kind}_{factor}_accuracy"] = float((judged == right).mean())
        if differ.any():
            leak = (judged == wrong)[differ].mean()
            figures[f"{kind}_{factor}_leak"] = float(leak)
            figures[f"{kind}_{factor}_leak_excess"] = float(
                leak - chance_agreement(judged[differ], right[differ], wrong[differ])
            )
    return figures


def chance_agreement(judged, right, wrong):
    """Share of pairs (i, j), wrong_j unlike right_i, on which judged_i = wrong_j: what a judged value that knows nothing of its own
    other source agrees with one. Integer arrays [n]; 0 where no such pair exists."""
    top = int(max(judged.max(), right.max(), wrong.max())) + 1
    other = np.bincount(wrong, minlength=top)
    allowed = len(wrong) - other[right]  # pairs (i, j) for each i
    hits = np.where(judged != right, other[judged], 0)
    return float(hits.sum() / allowed.sum()) if allowed.sum() else 0.0
