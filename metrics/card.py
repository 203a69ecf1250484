"""The card of a weights file: its figures, how others compare with them, and its page."""

from pathlib import Path

from utils.settings import StageInfo


def saved_figures(
    path: Path, info: StageInfo, epoch: int | None = None, checkpoint: str | None = None
) -> tuple[dict, dict]:
    """{protocol: {figure: {'value', 'standard error', 'over seeds'}}} in a metrics.json, and how.

    Both are empty if there are none of the checkpoint with this digest, after `epoch`.
    """
    from metrics.results import read

    numbers, details = read(path)
    notes = details.get(info.name, {})
    # earlier versions did not say of which checkpoint the figures are
    if (
        not notes
        or notes.get("epoch") != epoch
        or notes.get("checkpoint", checkpoint) != checkpoint
    ):
        return {}, {}
    figures = {
        protocol: {
            name: {
                "value": numbers.get(name),
                "standard error": notes["spread"].get(name),
                "over seeds": content["seed spread"].get(name),
            }
            for name in content["figures"]
        }
        for protocol, content in notes["protocols"].items()
    }
    evaluated = ",".join(name for name in figures if name != "reconstruction")
    kept = ("split", "n", "frames", "seed", "spread is", "commit", "machine", "torch", "warning")
    about = {name: notes[name] for name in kept if name in notes}
    command = f"--evaluate {evaluated} --split {notes['split']}"
    return figures, about | {"command": f"python main.py --weights FILE {command}"}


def compared(card: dict, figures: dict, split: str) -> list[str]:
    """Lines on how `figures` of the clips of `split` compare with those of a card."""
    if not card["figures"].keys() & figures.keys() or card["measured"].get("split") != split:
        return [f"the card has no figures of {split} clips by these protocols: nothing to compare"]
    lines = drift(card, figures) or ["the figures of the card, but for roundings"]
    if others := sorted(figures.keys() - card["figures"].keys()):
        lines.append(f"not in the card: {', '.join(others)}")
    return lines


def drift(card: dict, figures: dict) -> list[str]:
    """Lines about figures that differ from those of a card by more than roundings and one clip."""
    lines = []
    for protocol in card["figures"].keys() & figures.keys():
        for name, there in card["figures"][protocol].items():
            here = figures[protocol].get(name, {"value": None})["value"]
            # what is trained on codes or reconstructions follows their last digits
            one = 1 / card["measured"]["n"]
            allowed = max(8 * one, 0.03) if "consistency_" in name else one
            allowed += 0.002 * abs(there["value"] or 0)
            if (here is None) != (there["value"] is None) or (
                here is not None and abs(here - there["value"]) > allowed
            ):
                lines.append(f"{name} is {here} here and {there['value']} in the card")
    return lines


def as_markdown(card: dict) -> str:
    """The card as a page."""
    about, measured = card["data"], card["measured"]
    clips = ", ".join(f"{count} {split}" for split, count in about["clips"].items())
    lines = [
        f"# {card['model']} ({card['stage']}), trained on {about['name']}",
        "",
        f"Weights of VDSM in practice (safetensors, {card['precision']}) after {card['epochs']} "
        "epochs, with codes of some held-out clips and the densities that were fitted to codes. "
        "`docs/WEIGHTS.md` of the program says how to use them.",
        "",
        f"- Data: {about['name']}; {clips} clips; SHA-256 `{about['fingerprint']}`",
        f"- Licence of the data: {about['licence']}",
        "- Licence of the program: MIT; `docs/CREDITS.md` names the licences of what it needs",
        "",
        "## Trained with",
        "",
        "```",
        *card["trained with"],
        "```",
        "",
        "## Figures",
        "",
    ]
    if not card["figures"]:
        return "\n".join([*lines, "None were measured.", ""])
    lines += [f"- {name}: {value}" for name, value in measured.items() if name != "command"]
    lines += ["", "```", measured["command"], "```", ""]
    lines += ["| figure | value | standard error | over seeds |", "| --- | --- | --- | --- |"]
    for figures in card["figures"].values():
        for name, figure in figures.items():
            cells = ("–" if value is None else f"{value:.4g}" for value in figure.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
