"""`python -m utils.flags_page` writes docs/FLAGS.md: every flag of every model and data set."""

import dataclasses
import sys
from pathlib import Path

from utils.flags import help_texts, shown
from utils.settings import DATASETS, MODELS, RunSettings, settings_class

PAGE = Path(__file__).resolve().parent.parent / "docs" / "FLAGS.md"
OPENING = """# Flags

This page is generated from the settings by `python -m utils.flags_page`. A test keeps it up to
date.
`python main.py --help` shows the same flags in the terminal, with `--model NAME` and
`--dataset_name NAME` those of another model or data set.

- Every flag takes one value: `--bs 20` or `--bs=20`. A boolean is written True or False.
- `--preset NAME` takes the flags of a file in `presets/`, one list per stage. `--config FILE`
  takes those of a saved `config.json`. Flags on the command line override both.
- A flag marked * may differ when a run is resumed. It changes what is shown or written, not what is
  learnt. The other flags must stay as they were.
"""


def page() -> str:
    """The text of docs/FLAGS.md."""
    parts = [OPENING, *_tables("Every model", RunSettings, {})]
    shared = _names(RunSettings)
    for model in MODELS:
        cls = settings_class(model)
        parts += _tables(f"`--model {model}`", cls, shared, RunSettings)
    for name in DATASETS:
        cls = settings_class(RunSettings.model, name)
        known = _names(settings_class(RunSettings.model))
        parts += _tables(f"`--dataset_name {name}`", cls, known)
    return "\n".join(parts)


def _names(cls):
    return {field.name for field in dataclasses.fields(cls)}


def _tables(title, cls, known, base=None):
    """A heading and one table per group of the flags of `cls` that are not in `known`.

    base: a class whose defaults `cls` changes; these flags are listed first.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    lines = []
    if base is not None:
        changed = [
            f"`--{field.name} {shown(fields[field.name].default)}`"
            for field in dataclasses.fields(base)
            if fields[field.name].default != field.default and field.name != "model"
        ]
        if changed:
            lines.append(f"Other defaults than above: {', '.join(changed)}.\n")
    groups = {}
    for name, field in fields.items():
        if name not in known:
            groups.setdefault(field.metadata["group"], []).append(field)
    for group, members in groups.items():
        lines.append(f"| {group} | default | |\n| --- | --- | --- |")
        lines += [_row(field, help_texts(cls)[field.name]) for field in members]
        lines.append("")
    return [f"## {title}\n", *lines] if lines else []


def _row(field, text):
    meta = field.metadata
    name = f"`--{field.name}`" + ("*" if meta["free"] else "")
    default = "" if field.default is None else f"`{shown(field.default)}`"
    if meta["choices"]:
        text = f"{text} One of {', '.join(f'`{choice}`' for choice in meta['choices'])}."
    if meta["stage"]:
        text = f"{text} Read by stage {meta['stage']} alone."
    return f"| {name} | {default} | {text.replace('|', chr(92) + '|')} |"


def main(argv=None) -> int:
    """Write the page."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
