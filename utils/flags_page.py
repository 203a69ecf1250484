"""`python -m utils.flags_page` writes docs/FLAGS.md: every flag of every model and data set.

It also writes the table of presets in docs/PRESETS.md, from the heads of their files.
"""

import dataclasses
import re
from pathlib import Path

from utils.flags import help_texts, shown
from utils.presets import COLUMNS, described, preset_names
from utils.settings import DATASETS, MODELS, RunSettings, settings_class

PAGE = Path(__file__).resolve().parent.parent / "docs" / "FLAGS.md"
PRESETS_PAGE = PAGE.with_name("PRESETS.md")
OPENING = """# Flags

This page is generated from the settings by `python -m utils.flags_page`. A test keeps it up to
date. [GLOSSARY.md](GLOSSARY.md) explains KL, prior, judge and the other words.
`python main.py --help` shows the same flags in the terminal, with `--model NAME` and
`--dataset_name NAME` those of another model or data set.

- Every flag takes one value, `--bs 20` or `--bs=20` (`--transfer A B` takes two). A boolean is True
  or False; without a value, as in `--quiet`, it is True.
- A flag counts for every stage. `--stage2.epochs 30` counts for stage 2 alone, and overrides
  `--epochs`. Flags of the whole run (those of the groups run and machine, folders, data set) take
  no such prefix.
- `--preset NAME` takes the flags of a file in `presets/`, one list per stage. `--config FILE`
  takes those of a saved `config.json`. Flags on the command line override both.
- A flag marked * may differ when a run is resumed. It changes what is shown or written, not what is
  learnt. The other flags must stay as they were.

## Completion

`python -m utils.completion` prints a file that completes names and values of flags behind
`python main.py`. In bash, type `source <(python -m utils.completion)`, or add the output to
`~/.bashrc`. In zsh, first type `autoload -Uz bashcompinit && bashcompinit`.
"""


def page() -> str:
    """The text of docs/FLAGS.md."""
    lines = [OPENING, "## Every model\n", *_tables(RunSettings)]
    for model in MODELS:
        cls = settings_class(model)
        lines += [f"## `--model {model}`\n", *_changed_defaults(cls), *_tables(cls, RunSettings)]
    default_model = settings_class(RunSettings.model)
    for name in DATASETS:
        tables = _tables(settings_class(RunSettings.model, name), default_model)
        lines += [f"## `--dataset_name {name}`\n", *tables] if tables else []
    return "\n".join(lines)


def _changed_defaults(cls):
    """A line that lists the defaults of `cls` which differ from those of every model."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    changed = [
        f"`--{field.name} {shown(defaults[field.name])}`"
        for field in dataclasses.fields(RunSettings)
        if defaults[field.name] != field.default and field.name != "model"
    ]
    return [f"Other defaults than above: {', '.join(changed)}.\n"] if changed else []


def _tables(cls, base=None):
    """A table per group of the flags of `cls` that its class `base` does not have."""
    groups = {}
    for field in dataclasses.fields(cls):
        if base is None or field.name not in base.__dataclass_fields__:
            groups.setdefault(field.metadata["group"], []).append(field)
    lines = []
    for group, fields in groups.items():
        lines.append(f"| {group} | default | |\n| --- | --- | --- |")
        lines += [_row(field, help_texts(cls)[field.name]) for field in fields]
        lines.append("")
    return lines


def _row(field, text):
    meta = field.metadata
    name = f"`--{field.name}`" + ("*" if meta["free"] else "")
    default = "" if field.default is None else f"`{shown(field.default)}`"
    if meta["choices"]:
        text = f"{text} One of {', '.join(f'`{choice}`' for choice in meta['choices'])}."
    if meta["stage"]:
        text = f"{text} Read by stage {meta['stage']} alone."
    return f"| {name} | {default} | {text.replace('|', chr(92) + '|')} |"


def presets_page(text: str) -> str:
    """The text of docs/PRESETS.md with the table of presets of today."""
    rows = [(f"`{name}`", *said) for name, *said in map(described, preset_names())]
    lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
    table = re.compile(r"^\| preset \|.*?(?=\n\n)", re.DOTALL | re.MULTILINE)
    return table.sub("\n".join(lines), text, count=1)


if __name__ == "__main__":
    PAGE.write_text(page())
    PRESETS_PAGE.write_text(presets_page(PRESETS_PAGE.read_text()))
