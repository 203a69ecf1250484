"""The verdict on a run: six to eight figures of metrics.json by plain names, and one sentence.

Each stands beside the direction in which it is better, what chance gives, a bar (the value from
which on we call it good; ours, not a paper's) and what papers print, where that is comparable.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metrics.published import FID_NETWORK, as_text, reported
from metrics.words import DRAWS, short_spread

MOST = 8  # figures
NAMED = 2  # figures that miss their bar, which the sentence names


class Line(NamedTuple):
    """One figure of the verdict, as text where it is shown."""

    name: str
    term: str  # its entry in docs/GLOSSARY.md
    value: str
    parts: str  # the same by factor, or its standard error
    better: str
    chance: str
    bar: str
    good: bool
    papers: str


class Kind(NamedTuple):
    """One kind of figure. `figure` is its name in metrics.json, with fields.

    {kind}: swap or transfer. {stage}: stage1_ or nothing. {seq}: seq_ or nothing. {draws}: prior or
    fitted. {factor}: each of the factors `of` ('static', 'dynamic', 'all'), of which `join` (mean
    or max) is taken. chance: text, or None for one over the number of values of the factors.
    """

    name: str
    term: str
    figure: str
    bar: float
    chance: str | None = None
    of: str = "static"
    join: str = "mean"
    lower: bool = False
    unit: str = ""
    paper: str = ""  # the figure of this name is what papers report; default: the only one


KINDS = {
    "identity": Kind("identity taken from its source", "Swap", "{kind}_{factor}_accuracy", 0.9),
    "motion": Kind(
        "motion taken from its source", "Swap", "{kind}_{factor}_accuracy", 0.9, of="dynamic"
    ),
    "leak": Kind(
        "largest leak above chance", "Leak excess", "{kind}_{factor}_leak_excess", 0.05, "0",
        of="all", join="max", lower=True,
    ),
    "consistency": Kind(
        "consistency, each factor by itself", "Consistency", "{stage}consistency_{factor}", 0.95,
        of="all", paper="{stage}consistency_accuracy_per_factor",
    ),
    "quality": Kind(
        "quality of reconstructions", "PSNR", "{seq}reconstruction_psnr", 25, "none", unit=" dB"
    ),
    "variety": Kind(
        "variety of identities drawn from {draws}", "Variety", "{kind}_{draws}_variety", 0.95,
        "0: all alike",
    ),
    "drawn": Kind(
        "motion kept with identities drawn from the prior", "Prior",
        "{kind}_prior_{factor}_accuracy", 0.9, of="dynamic",
    ),
    "fid": Kind(
        "video FID of drawn clips, as in the release", "FID", "{stage}fid_release_sampled", 20,
        "none", lower=True,
    ),
    "continuation": Kind(
        "clips continued with the right amplitude", "Continuation", "continuation_amplitude_ok",
        0.9, "not known",
    ),
    "dci": Kind(
        "disentanglement of the codes", "DCI", "{stage}dci_disentanglement", 0.8, "0"
    ),
}  # fmt: skip


class Verdict(NamedTuple):
    """One sentence on a run, the figures that it rests on, and the stage and clips measured."""

    sentence: str = ""
    lines: Sequence[Line] = ()
    stage_name: str = ""
    clips: str = ""


def verdict(numbers: Mapping, details: Mapping, draws: str = "prior") -> Verdict:
    """The verdict on a run, empty if nothing was measured.

    numbers, details: of metrics.json (metrics.results.read); the last stage that was measured
    counts. draws: 'prior' or 'fitted', what drawn identities are drawn from.
    """
    judged = [name for name, notes in details.items() if "swap" in notes["protocols"]]
    if not details:
        return Verdict()
    stage_name = (judged or list(details))[-1]
    notes = details[stage_name]
    swap = notes["protocols"].get("swap", {})
    values = {name: v for name, v in numbers.items() if name in notes["figures"]}
    whole = any(re.match("transfer_|seq_|continuation_", name) for name in values)
    factors = [name for name in swap.get("judge accuracy", {}) if name != "joint"]
    dynamic = [name for name in factors if name in swap.get("inter_entropy at most", {})]
    static = [name for name in factors if name not in dynamic]
    fields = {"kind": "transfer" if whole else "swap", "draws": draws}
    fields |= {"stage": "" if whole else "stage1_", "seq": "seq_" if whole else ""}
    groups = {"static": static, "dynamic": dynamic, "all": factors}
    if notes["protocols"].get("fid", {}).get("network") != FID_NETWORK:
        values.pop(fields["stage"] + "fid_release_sampled", None)  # its bar is for that network
    lines = {}
    for key, kind in KINDS.items():
        names = _names(kind, fields, groups[kind.of])
        if names and all(name in values for name in names.values()):
            lines[key] = _line(kind, fields, names, groups[kind.of], values, notes)
    lines = dict(list(lines.items())[:MOST])
    clips = f"{notes.get('n')} {notes.get('split')} clips"
    sentence = _sentence(lines, swap.get("warnings", []))
    return Verdict(sentence, list(lines.values()), stage_name, clips)


def _names(kind, fields, factors):
    """{factor, or '' for a figure of all of them: name in metrics.json}."""
    if "{factor}" not in kind.figure:
        return {"": kind.figure.format(**fields)}
    return {factor: kind.figure.format(factor=factor, **fields) for factor in factors}


def _line(kind, fields, names, factors, values, notes):
    found = [values[name] for name in names.values()]
    value = max(found) if kind.join == "max" else sum(found) / len(found)
    if len(names) > 1:
        parts = ", ".join(f"{f} {_short(v)}" for f, v in zip(names, found))
    else:
        error = notes["spread"].get(next(iter(names.values())))
        parts = "" if error is None else f"± {short_spread(error)}"
    counts = notes["protocols"].get("swap", {}).get("values", {})
    chance = kind.chance
    if chance is None and all(factor in counts for factor in factors):
        chance = _short(sum(1 / counts[factor] for factor in factors) / len(factors))
    asked = kind.paper.format(**fields) or (list(names.values()) if len(names) == 1 else [""])[0]
    papers = {}
    for protocol in notes["protocols"].values():
        if asked in protocol["figures"]:
            papers |= reported(notes["data"], asked, protocol)
    return Line(
        kind.name.format(draws=DRAWS[fields["draws"]]),
        kind.term,
        _short(value) + kind.unit,
        parts,
        "lower" if kind.lower else "higher",
        chance or "not recorded",
        f"{'at most' if kind.lower else 'at least'} {kind.bar:g}{kind.unit}",
        value <= kind.bar if kind.lower else value >= kind.bar,
        as_text(papers),
    )


def _sentence(lines, warnings):
    """One sentence on the figures `lines` {key: Line}."""
    if not lines:
        return ""
    missed = [line for line in lines.values() if not line.good]
    named = [f"{line.name} ({line.value}, bar: {line.bar})" for line in missed[:NAMED]]
    named += [f"{len(missed) - NAMED} more"] if len(missed) > NAMED else []
    reached = f"{len(lines) - len(missed)} of {len(lines)} figures reach their bar"
    reached += f"; not reached: {', '.join(named)}" if named else ""
    apart = [lines[key].good for key in ("identity", "motion", "leak") if key in lines]
    if not apart:
        opening = "Without labels, nobody judged whether identity and motion are kept apart"
    elif warnings:
        opening = "The judge is weak, so that the figures mean little"
    elif all(apart):
        opening = "Identity and motion are kept apart"
    else:
        opening = "Identity and motion are not fully kept apart"
    return f"{opening}: {reached}."


def _short(value):
    return f"{0.0 if abs(value) < 5e-4 else value:.3g}"
