"""One table over runs: `python -m metrics.compare RUN RUN ... [--figures NAMES] [--format FORMAT]`.

Runs that differ only in their seed share a column: the mean and deviation over them. The column of
a single run has the spread from its metrics.json: the standard error, or else the
deviation over the seeds of the evaluation. The last column holds the figures printed in papers.
In Markdown and LaTeX, the best value of a row is bold where higher or lower is better.
"""

import csv
import dataclasses
import fnmatch
import io
import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np

from metrics.published import as_text, reported
from metrics.results import find_run
from metrics.words import in_words, short_spread
from utils.errors import UserError, in_one_line
from utils.files import read_json
from utils.flags import OneLineParser, did_you_mean
from utils.plan import of_today
from utils.settings import settings_class


class Run:
    """The figures in a run's folder: `numbers` and their `spread`, {figure: number}.

    reported: {figure: what papers print for it}.

    kind: equal for runs that differ only in their seed. Raises UserError if there are no figures.
    """

    def __init__(self, folder: Path):
        path = folder / "metrics.json"
        try:
            content = read_json(path)
            details = content.pop("details")
            self.numbers, self.spread, self.reported = {}, {}, {}
            for notes in details.values():
                for protocol in notes["protocols"].values():
                    present = [name for name in protocol["figures"] if name in content]
                    self.numbers |= {name: float(content[name]) for name in present}
                    self.spread |= protocol["seed spread"]
                    for name in present:
                        self.reported[name] = reported(notes["data"], name, protocol)
                self.spread |= notes["spread"]
            first = next(iter(details.values()))
            measured = [first[k] for k in ("model", "data", "split")]
            self.title = f"{folder.name} ({', '.join(measured)})"
            self.kind = json.dumps([*measured, _settings(folder)], sort_keys=True)
        except OSError as error:
            problem = f"{path}: {error.strerror}"
            raise UserError(f"{problem}: measure the run first (--evaluate default)") from None
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
            raise UserError(f"{path} is not a file of figures: measure the run again") from None


def _settings(folder):
    """The settings that decide what a run learns, without the seed. Without a file: the folder."""
    path, settings = folder / "config.json", {}
    try:
        for stage_name, values in read_json(path).items():
            values = of_today(values, stage_name)
            fields = dataclasses.fields(settings_class(values["model"], values["dataset_name"]))
            names = [f.name for f in fields if not f.metadata["free"] and f.name != "seed"]
            settings[stage_name] = {name: values.get(name) for name in names}
    except FileNotFoundError:
        return str(folder.resolve())
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is not a saved configuration: move it away") from None
    return settings


def compare(runs: list[Run]) -> tuple[list[str], list[tuple]]:
    """(header, rows) of the table: one column per kind of run, one row per figure.

    A row is (figure, [(value or None, spread or None) per column], {system: reported}).
    """
    kinds = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    columns, rows = kinds.values(), []
    seeds = [f", {len(column)} seeds" if len(column) > 1 else "" for column in columns]
    for name in dict.fromkeys(name for run in runs for name in run.numbers):
        papers = {}
        for run in runs:
            papers |= run.reported.get(name, {})
        rows.append((name, [_cell(column, name) for column in columns], papers))
    return [column[0].title + text for column, text in zip(columns, seeds)], rows


def chosen(rows: list[tuple], names: str) -> list[tuple]:
    """The rows of the figures `names`, joined by commas, in this order; each may be a pattern.

    Raises UserError if a name fits no figure.
    """
    known = {row[0]: row for row in rows}
    picked = {}
    for name in names.split(","):
        found = fnmatch.filter(known, name.strip())
        if not found:
            problem = f"--figures: no run has a figure {name.strip()}{did_you_mean(name, known)}"
            raise UserError(f"{problem}: give names of metrics.json, or patterns such as swap_*")
        picked |= {figure: known[figure] for figure in found}
    return list(picked.values())


def best(name: str, cells: list[tuple]) -> list[bool]:
    """Which cells of a figure hold its best value, as it is printed; none if no value is better."""
    values = [value for value, _ in cells if value is not None]
    better = {"higher": max, "lower": min}.get(in_words(name)[1])
    if len(values) < 2 or better is None:
        return [False] * len(cells)
    top = _number(better(values))
    same = [value is not None and _number(value) == top for value, _ in cells]
    return [cell and not all(same) for cell in same]


def _cell(column, name):
    """(value, spread) of a figure over the runs of a column, None where there is none."""
    values = [run.numbers[name] for run in column if name in run.numbers]
    if len(values) > 1:
        return float(np.mean(values)), float(np.std(values, ddof=1))
    return (values[0], column[0].spread.get(name)) if values else (None, None)


def _number(value):
    return f"{value:.4g}"


def _text(cell, plus, bold=""):
    """A cell as text. bold: a pattern such as '**{}**' for the number."""
    value, spread = cell
    number = "" if value is None else _number(value)
    number = bold.format(number) if bold else number
    return number if spread is None else f"{number} {plus} {short_spread(spread)}"


def _escaped(text, special, with_words=()):
    """`text` in one line, a backslash before each of the letters `special`.

    with_words: {letter: what stands for it in place of the backslash and the letter}.
    """
    words = {letter: f"\\{letter}" for letter in special} | dict(with_words)
    return " ".join(text.translate(str.maketrans(words)).split())


def as_markdown(header, rows) -> str:
    def plain(text):
        return _escaped(text, r"\`*_[]<>|#~$", {"&": "&amp;"})

    lines = [f"| figure | {' | '.join(map(plain, header))} | reported |"]
    lines.append("| --- " * (len(header) + 2) + "|")
    for name, cells, papers in rows:
        bold = ["**{}**" if top else "" for top in best(name, cells)]
        values = " | ".join(_text(cell, "±", mark) for cell, mark in zip(cells, bold))
        code = _escaped(name.replace("`", "'"), "|")
        lines.append(f"| `{code}` | {values} | {as_text(papers)} |")
    return "\n".join(lines) + "\n"


def as_latex(header, rows) -> str:
    def plain(text):
        words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        return _escaped(text, "&%_#${}", words)

    lines = [r"% in the preamble: \usepackage{booktabs}"]
    lines += [r"\begin{tabular}{l" + "r" * len(header) + "l}", r"\toprule"]
    lines += [" & ".join(["figure", *map(plain, header), "reported"]) + r" \\", r"\midrule"]
    for name, cells, papers in rows:
        bold = [r"\mathbf{{{}}}" if top else "" for top in best(name, cells)]
        numbers = [_text(cell, r"\pm", mark) for cell, mark in zip(cells, bold)]
        # 1e-05 is written as a power of ten.
        numbers = [re.sub(r"e([+-])0*(\d+)", _power, number) for number in numbers]
        values = [f"${number}$" if number else "" for number in numbers]
        lines.append(" & ".join([plain(name), *values, as_text(papers)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _power(match):
    return rf" \cdot 10^{{{match[1].strip('+')}{match[2]}}}"


def as_csv(header, rows) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")

    def plain(text):  # a spreadsheet would compute a cell that begins so
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text

    header = [plain(title) for title in header]
    titles = [part for title in header for part in (title, "spread")]
    table.writerow(["figure", *titles, "reported"])
    for name, cells, papers in rows:
        table.writerow([plain(name), *itertools.chain(*cells), as_text(papers, "; ")])
    return out.getvalue()


FORMATS = {"markdown": as_markdown, "csv": as_csv, "latex": as_latex}


@in_one_line
def main(argv: list[str]) -> int:
    """Print the table that the flags ask for; returns the exit code."""
    about = __doc__.split("\n\n")[1]
    flags = OneLineParser(prog="python -m metrics.compare", description=about)
    flags.add_argument("runs", nargs="+", metavar="RUN", help="name of a run, or its folder")
    flags.add_argument("--runs_dir", default="./runs/", help="folder of the runs [./runs/]")
    names = "names of figures, joined by commas, or patterns such as 'swap_*' [all]"
    flags.add_argument("--figures", metavar="NAMES", help=names)
    flags.add_argument("--format", choices=tuple(FORMATS), default="markdown", help="[markdown]")
    asked = flags.parse_args(argv)
    folders = {}
    for name in asked.runs:
        folder = find_run(name, asked.runs_dir)
        if folders.setdefault(folder.resolve(), folder) is not folder:
            print(f"{name} is given twice: counted once", file=sys.stderr)
    runs = [Run(folder) for folder in folders.values()]
    header, rows = compare(runs)
    rows = chosen(rows, asked.figures) if asked.figures else rows
    sys.stdout.write(FORMATS[asked.format](header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
