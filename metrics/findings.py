"""What the notebooks found, in sentences."""

from collections.abc import Collection, Mapping

import numpy as np

from metrics.entropy import entropies
from metrics.judge import WEAK
from metrics.summary import Arrays

# How a code holds a factor: the least share of the way from chance to 1, and the words.
GRADES = {0.9: "holds", 0.5: "mostly holds", 0.1: "holds a part of", -np.inf: "does not hold"}
CODES = {"identity_code": "identity code", "dynamics_code": "dynamics code"}


def in_words(
    right: Mapping, agreement: Mapping, codes: Mapping, dynamic: Collection, drawn: Arrays
) -> list[str]:
    """Sentences on an export, from what the cells of a notebook measured.

    right: `metrics.judge.accuracies` on real held-out clips. agreement {figure: share}: of
    `metrics.consistency.agreement`. codes: `metrics.consistency.code_table`. dynamic: the factors
    that move. drawn {factor: [n, C]}: the judge's probabilities of drawn clips.
    """
    factors = [factor for factor in right if factor != "joint"]
    worst = min(factors, key=right.__getitem__)
    trust = "can be trusted" if right[worst] >= WEAK else f"mean little (required: {WEAK:.0%})"
    same = min(factors, key=agreement.__getitem__)
    lines = [
        f"On real held-out clips, the judge is right in {right[worst]:.1%} or more for every "
        f"factor, least for {worst}. Its verdicts {trust}.",
        f"It says the same of a clip and of its reconstruction in {agreement['accuracy']:.1%} of "
        f"the clips, all factors at once, and in {agreement['accuracy_per_factor']:.1%} for each "
        f"factor by itself. The weakest factor is {same} ({agreement[same]:.1%}).",
    ]
    apart = True
    for code, name in CODES.items():
        grades = {}
        for factor in factors:
            share = codes[f"{code}_{factor}"]
            chance = max(codes[f"{code}_{factor}_shuffled"], codes[f"majority_{factor}"])
            way = (share - chance) / max(1 - chance, 1e-9)
            words = next(words for least, words in GRADES.items() if way >= least)
            grades.setdefault(words, []).append(f"{factor} ({share:.0%}, by chance {chance:.0%})")
            belongs = (factor in dynamic) == (code == "dynamics_code")
            apart &= way >= 0.5 if belongs else way < 0.1
        parts = [f"{words} {listed(grades[words])}" for words in GRADES.values() if words in grades]
        lines.append(f"The {name} {'; it '.join(parts)}.")
    lines.append(
        "Identity and motion are kept apart: each code holds its own factors and none of the other."
        if apart
        else "Identity and motion are not fully kept apart: a code lacks a factor that belongs to "
        "it, or holds a part of one that does not."
    )
    shares = {}
    for factor, p in drawn.items():
        shares[factor] = max(0.0, entropies(p).inter) / np.log(p.shape[1])
    least = min(shares, key=shares.__getitem__)
    lines.append(
        f"Drawn clips have {np.mean(list(shares.values())):.0%} of the largest possible variety "
        f"(entropy of the judge's verdicts) on average, least in {least} ({shares[least]:.0%})."
    )
    return lines


def listed(names: list[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
