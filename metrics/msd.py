"""The measures of the benchmark of multi-factor sequential disentanglement (MSD, NeurIPS 2025).

Written from the facts of its public code (github.com/azencot-group/MSD-Benchmark). Gradient-boosted
trees of depth 3 learn each factor from the codes of training clips; a dimension belongs to the
factor for which it is most important. The map from factors to dimensions gives

- DCI: modularity (a factor's dimensions serve it alone), compactness (a factor needs its dimensions
  alone) and explicitness (accuracy of the trees);
- interventions: the dimensions of one factor are kept, all others come from another clip (swap) or
  from the prior (sample). A judge should see the kept factor and chance in all others;
- consistency of the static factors in such clips, judged frame by frame.

A dimension of a code with one vector per frame is its whole path over time.
"""

import numpy as np
import torch

from metrics.entropy import p_log
from metrics.summary import Arrays, Outcome, over_seeds
from metrics.swap import SEEDS, pairing

# As in the benchmark's configuration.
TREES = {"max_depth": 3}
# At most so many training clips grow the trees, which takes minutes, and at most so many held-out
# clips are decoded, once per factor and kind of intervention.
LEARNT, DECODED = 500, 400
# {factor: positions of its dimensions}.
Map = dict[str, np.ndarray]


def columns(static, dynamic) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, C] of codes, and the dimension of each, int [C]; the static ones come first."""
    static, dynamic = (np.asarray(code) for code in (static, dynamic))
    paths = dynamic.reshape(len(dynamic), -1)
    first = static.shape[1]
    owner = first + np.arange(paths.shape[1]) % dynamic.shape[-1]
    return np.concatenate([static, paths], 1), np.concatenate([np.arange(first), owner])


def learnt(train, train_labels: Arrays, test, test_labels: Arrays, seed=0):
    """Importances [D, F] (columns sum to 1) and accuracies {factor: (training, test clips)}.

    train, test: the codes (static, dynamic); labels {factor: int [n]}.
    """
    from sklearn.ensemble import GradientBoostingClassifier  # takes a second

    features, owner = columns(*train)
    others, _ = columns(*test)
    table, accuracy = [], {}
    for factor, values in train_labels.items():
        trees = GradientBoostingClassifier(**TREES, random_state=seed).fit(features, values)
        weight = np.bincount(owner, trees.feature_importances_)
        table.append(weight / max(weight.sum(), 1e-300))
        accuracy[factor] = trees.score(features, values), trees.score(others, test_labels[factor])
    return np.stack(table, 1), accuracy


def mapped(table: np.ndarray, factors: list[str]) -> Map:
    """The dimensions of each factor, those for which it is most important; some may have none."""
    best = table.argmax(1)
    return {factor: np.flatnonzero(best == place) for place, factor in enumerate(factors)}


def modularity(table: np.ndarray, mapping: Map) -> float:
    """1 if the dimensions of each factor are important for one factor alone; 0 at the least."""
    shares = np.stack(
        [table[dims].sum(0) for dims in mapping.values() if len(dims)]
    )  # [subsets, F]
    weight = shares.sum(1)
    p = shares / np.maximum(weight, 1e-300)[:, None]
    return float((1 + p_log(p, p).sum(1) / np.log(table.shape[1])) @ weight / weight.sum())


def compactness(table: np.ndarray, mapping: Map) -> float:
    """1 if each factor needs the dimensions of one factor alone. The base is all dimensions."""
    p = np.stack([table[dims].sum(0) for dims in mapping.values()])  # [subsets, F]
    return float((1 + p_log(p, p).sum(0) / np.log(max(len(table), 2))).mean())


def intervention_score(seen: dict[str, dict[str, float]], chance: dict[str, float]) -> float:
    """1 - (on + off) / 2 of accuracies seen[kept factor][judged factor].

    on: mean distance of the kept factor's accuracy from 1. off: mean distance of the other factors'
    from chance. A factor that is no key of `seen`, because it has no dimension, has 1 in both.
    """
    on, off = [], []
    for kept in chance:
        for factor, floor in chance.items():
            right = 1.0 if factor == kept else floor
            apart = abs(seen[kept][factor] - right) if kept in seen else 1.0
            (on if factor == kept else off).append(apart)
    return 1 - (float(np.mean(on)) + float(np.mean(off))) / 2


def replaced(own, other, dims: np.ndarray, mixes: bool):
    """The codes `own` at dimensions `dims`, and `other` elsewhere: (static, dynamic) tensors.

    mixes: the static code holds shares, which are exchanged as logarithms and sum to 1 again. Where
    the dynamic codes have different forms (VDSM draws poses), they are exchanged as a whole: `own`
    stays if it has a dimension among dims.
    """
    first = own[0].shape[1]
    keep = torch.zeros(first + own[1].shape[-1], dtype=torch.bool)
    keep[torch.from_numpy(dims)] = True
    static, given = own[0], other[0]
    if mixes:
        static, given = (code.clamp_min(1e-6).log() for code in (static, given))
    static = torch.where(keep[:first], static, given)
    if own[1].shape != other[1].shape:
        dynamic = own[1] if keep[first:].any() else other[1]
    else:
        dynamic = torch.where(keep[first:], own[1], other[1])
    return static.softmax(-1) if mixes else static, dynamic


def by_frame(judge, clips: np.ndarray, factors) -> Arrays:
    """Verdicts of a judge on single frames: {factor: int [n, T]}, of clips [n, T, 64, 64, 3]."""
    probabilities = judge.probabilities(clips.reshape(-1, 1, *clips.shape[2:]))
    return {name: probabilities[name].argmax(1).reshape(clips.shape[:2]) for name in factors}


def interventions(
    judge, made: dict[str, np.ndarray], labels: Arrays, static: list, partners: Arrays | None
) -> dict[str, float]:
    """'score' and the consistencies of clips in which the dimensions of one factor were kept.

    made {kept factor: clips}, without the factors that have no dimension; labels {factor: int [n]}:
    of the clips whose dimensions were kept; static: the static factors. partners: the labels of the
    clips that gave the other dimensions, or None if the priors gave them.

    consistency_batch, with partners: frames show the kept factor of their clip and the others of
    the partner. Otherwise consistency_clip: frames show what most frames of the clip show;
    consistency_frame: neighbouring frames show the same.
    """
    seen, names = {}, ("batch",) if partners is not None else ("clip", "frame")
    # A factor without dimensions is nowhere consistent.
    agree = [dict.fromkeys(names, 0.0) for kept in static if kept not in made]
    for kept, clips in made.items():
        judged = {f: p.argmax(1) for f, p in judge.probabilities(clips).items()}
        seen[kept] = {f: float((judged[f] == labels[f]).mean()) for f in labels}
        if kept not in static:
            continue
        for factor, frames in by_frame(judge, clips, static).items():
            if partners is not None:
                right = (labels if factor == kept else partners)[factor]
                agree.append({"batch": float((frames == right[:, None]).mean())})
            else:
                usual = np.array([np.bincount(row).argmax() for row in frames])
                still = (frames[:, 1:] == frames[:, :-1]).mean()
                same = (frames == usual[:, None]).mean()
                agree.append({"clip": float(same), "frame": float(still)})
    chance = {factor: 1 / judge.classes[factor] for factor in labels}
    means = {f"consistency_{n}": float(np.mean([part[n] for part in agree])) for n in names}
    return {"score": intervention_score(seen, chance)} | (means if static else {})


def dci_figures(table: np.ndarray, mapping: Map, accuracy: dict) -> dict[str, float]:
    """Modularity, compactness and explicitness (mean accuracy on test clips, and per factor)."""
    figures = {"modularity": modularity(table, mapping), "compactness": compactness(table, mapping)}
    figures["explicitness"] = float(np.mean([of_test for _, of_test in accuracy.values()]))
    return figures | {f"explicitness_{f}": float(of_test) for f, (_, of_test) in accuracy.items()}


def measured(task, kinds: dict[str, str]) -> Outcome:
    """The outcome of the protocol for a metrics.evaluate.Evaluation. kinds {factor: its kind}."""
    held, known, judge = task.held_out, task.training, task.judge
    rows = np.unique(np.linspace(0, len(held.frames) - 1, DECODED).astype(int))
    train, test = ({f: part.labels[f] for f in kinds} for part in (known, held))
    few = {f: values[:LEARNT] for f, values in train.items()}
    table, accuracy = learnt(
        (known.static[:LEARNT], known.dynamic[:LEARNT]), few, (held.static, held.dynamic), test
    )
    mapping = mapped(table, list(kinds))
    static = [factor for factor, kind in kinds.items() if kind == "static"]
    labels, codes = {f: test[f][rows] for f in test}, (held.static[rows], held.dynamic[rows])

    def made(other):
        kept = {factor: dims for factor, dims in mapping.items() if len(dims)}
        mixed = {f: replaced(codes, other, dims, task.view.mixes) for f, dims in kept.items()}
        return {factor: task.decoded(*code) for factor, code in mixed.items()}

    rounds = []
    for seed, drawn in zip(SEEDS, task.drawn_codes["prior"], strict=True):
        partner = rows[pairing(len(rows), seed)]
        partners = {f: values[partner] for f, values in test.items()}
        clips = made((held.static[partner], held.dynamic[partner]))
        figures = {"swap": interventions(judge, clips, labels, static, partners)}
        clips = made(tuple(code[rows] for code in drawn))
        figures["sample"] = interventions(judge, clips, labels, static, None)
        scores = {f"{kind}_score": found.pop("score") for kind, found in figures.items()}
        rounds.append(scores | figures["swap"] | figures["sample"])
    notes = {
        "seeds": SEEDS,
        "decoded clips": len(rows),
        "learnt from": min(len(known.frames), LEARNT),
    }
    dimensions = {factor: len(dims) for factor, dims in mapping.items()}
    outcome = over_seeds(rounds, notes | {"dimensions": dimensions, "warnings": []})
    real = by_frame(judge, held.frames[rows], static)
    frames = {f: float((real[f] == labels[f][:, None]).mean()) for f in static}
    of_judge = {f"judge_of_frames_{factor}_accuracy": share for factor, share in frames.items()}
    return outcome._replace(
        figures=of_judge | dci_figures(table, mapping, accuracy) | outcome.figures
    )
