"""The figures of a run: metrics.json, metrics.csv and the tables on the terminal.

metrics.json holds {figure: number} and, under 'details', how each stage was measured.
"""

import csv
import io
import json
import math
import os
from pathlib import Path

from metrics.published import as_text, reported
from metrics.summary import Outcome
from metrics.words import short_spread, why_missing
from utils.errors import UserError
from utils.files import read_json, write_text
from utils.settings import RunSettings
from utils.tensors import digest

MEANING = {
    "reconstruction": "clips decoded from their own codes",
    "consistency": "VDSM's protocol: judged reconstructions and prior samples; an MLP on each code",
    "swap": "protocol of S3VAE and later papers: judged clips whose codes have two sources",
    "pairs": "swaps that show pairs of character and action that no training clip shows",
    "dci": "Eastwood & Williams: a random forest from both codes to each factor",
    "long": "pendula continued to 160 frames, and regressions of what moves from each code",
    "msd": "benchmark of multi-factor sequential disentanglement: trees and interventions",
    "fid": "Frechet distance of held-out clips and prior samples",
}
# files that the figures depend on, and the protocols that read them
FLAGS_OF_FILES = {"judge": ("swap", "consistency", "pairs"), "fid_weights": ("fid",)}
HEADER = "protocol,figure,value,standard error,over seeds,clips,split,reported"


def read(path: Path) -> tuple[dict, dict]:
    """What metrics.json holds: ({figure: number}, details), empty without a file.

    Raises UserError if the file holds something else.
    """
    try:
        numbers = read_json(path) if path.exists() else {}
        details = numbers.pop("details", {})
        for stage_name, notes in details.items():
            parts = {"figures": list(notes["figures"]), "spread": dict(notes["spread"])}
            details[stage_name] = notes | parts | {"protocols": dict(notes.get("protocols", {}))}
        table(numbers, details)  # raises if a part of another kind is in it
        return numbers, details
    except (ValueError, AttributeError, LookupError, TypeError):
        raise UserError(f"{path} is not a file of figures: move it away") from None


def find_run(name: str, runs_dir: str) -> Path:
    """The folder of the run `name`, which may also be a path. Raises UserError without one."""
    for folder in (Path(runs_dir) / name, Path(name)):
        if folder.is_dir():
            return folder
    problem = f"found no run {name} in {runs_dir}"
    raise UserError(f"{problem}: give the name of a run, and --runs_dir")


def add(path: Path, stage_name: str, clips: dict, notes: dict, outcomes: dict[str, Outcome]):
    """Add the outcomes {protocol: Outcome} of a stage to metrics.json, `path`, and to metrics.csv.

    clips: which clips and epoch were measured; notes: how. Other protocols keep their figures if
    these are of the same clips and epoch.
    """
    numbers, details = read(path)
    old = details.get(stage_name, {"figures": [], "protocols": {}, "spread": {}})
    protocols = {}
    # earlier versions did not say of which checkpoint the figures are
    if all(old.get(name, value) == value for name, value in clips.items()):
        protocols = {n: p for n, p in old.get("protocols", {}).items() if n not in outcomes}
    kept = {figure for protocol in protocols.values() for figure in protocol["figures"]}
    for name in set(old["figures"]) - kept:
        numbers.pop(name, None)
    spread = {name: value for name, value in old["spread"].items() if name in kept}
    for name, outcome in outcomes.items():
        numbers |= _without_nan(outcome.figures)
        spread |= _without_nan(outcome.spread)
        protocols[name] = {
            "is": MEANING[name],
            **outcome.notes,
            "figures": list(outcome.figures),
            "without value": _reasons(outcome.figures),
            "seed spread": _without_nan(outcome.seed_spread),
            "reported": _reported(clips["data"], outcome.figures, outcome.notes),
        }
    figures = sorted(figure for protocol in protocols.values() for figure in protocol["figures"])
    measured = {"spread": spread, "figures": figures, "protocols": protocols}
    details[stage_name] = clips | notes | measured
    numbers = {name: value for name, value in numbers.items() if value is not None}
    write_text(path, json.dumps({**numbers, "details": details}, indent=1) + "\n")
    write_text(path.with_suffix(".csv"), table(numbers, details))


def _reported(dataset_name, figures, notes):
    """{figure: {system: number}} of the figures that papers report too."""
    papers = {name: reported(dataset_name, name, notes) for name in figures}
    return {name: by_system for name, by_system in papers.items() if by_system}


def renew(path: Path) -> None:
    """Put into metrics.json, `path`, the published figures as they are placed today.

    The time of the file stays. A file of another kind is left as it is.
    """
    try:
        read(path)
        content = read_json(path) if path.exists() else {}
    except UserError:
        return
    before = json.dumps(content)
    for notes in content.get("details", {}).values():
        for protocol in notes.get("protocols", {}).values():
            protocol["reported"] = _reported(notes["data"], protocol["figures"], protocol)
    if json.dumps(content) != before:
        times = path.stat()
        write_text(path, json.dumps(content, indent=1) + "\n")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _without_nan(values):
    """Values for JSON, which has neither NaN nor infinity: None in their place."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _reasons(values):
    """{figure: why it has no value}."""
    return {name: why_missing(name) for name, value in values.items() if not math.isfinite(value)}


def table(numbers: dict[str, float], details: dict) -> str:
    """metrics.csv: one line per figure, with its protocol, spreads, clips and reported figures."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(HEADER.split(","))
    for notes in details.values():
        for protocol, content in notes["protocols"].items():
            for name in content["figures"]:
                spread, over_seeds = notes["spread"].get(name), content["seed spread"].get(name)
                papers = as_text(reported(notes["data"], name, content), "; ")
                row = (protocol, name, numbers.get(name), spread, over_seeds)
                rows.writerow((*row, notes["n"], notes["split"], papers))
    return out.getvalue()


def files_of(settings: RunSettings) -> dict[str, dict[str, str]]:
    """The digest of each file that a protocol measures with: {protocol: {flag: digest}}."""
    named = {
        flag: digest(Path(path)) for flag in FLAGS_OF_FILES if (path := getattr(settings, flag))
    }
    return {
        protocol: {flag: named[flag]}
        for flag, protocols in FLAGS_OF_FILES.items()
        for protocol in protocols
        if flag in named
    }


def show(dataset_name: str, outcomes: dict[str, Outcome]) -> None:
    """Print one table per protocol."""
    heading = f"  {'':<52} {'':<9} std. error    over seeds  reported, not re-run"
    for protocol, outcome in outcomes.items():
        print(f"{protocol}: {MEANING[protocol]}\n{heading}")
        for warning in outcome.notes["warnings"]:
            print(f"  warning: {warning}")
        for name, value in outcome.figures.items():
            both = outcome.spread, outcome.seed_spread
            spread, over_seeds = (short_spread(part.get(name)) for part in both)
            remark = as_text(reported(dataset_name, name, outcome.notes))
            number = f"{value:.4g}"
            if not math.isfinite(value):
                number, remark = "-", f"no value: {why_missing(name)}"
            print(f"  {name:<52} {number:<9} {spread:<13} {over_seeds:<11} {remark}".rstrip())
