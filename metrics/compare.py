"""One table over runs: `python -m metrics.compare RUN RUN ... [--runs_dir DIR] [--format markdown|csv|latex]`.

Runs that differ in nothing but the seed share a column: mean and deviation over them. The column of a single run has the spread
that its metrics.json holds: the standard error over clips, else the deviation over the evaluation's seeds. The last column is
what papers print.
"""

import argparse
import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np

from metrics.published import reported
from utils.errors import UserError, in_one_line
from utils.settings import settings_class


class Run:
    """What a run's folder says: numbers {figure: value} and their spread {figure: number}, in order; its data set, its title, its
    seed, and `kind`, equal for runs that differ in nothing but the seed. Raises UserError where there is nothing to compare."""

    def __init__(self, folder):
        path = folder / "metrics.json"
        try:
            found = json.loads(path.read_text())
            details = found.pop("details")
            self.numbers, self.spread = {}, {}
            for notes in details.values():
                for protocol in notes["protocols"].values():
                    self.numbers |= {
                        name: float(found[name]) for name in protocol["figures"] if name in found
                    }
                    self.spread |= protocol["seed spread"]
                self.spread |= notes["spread"]
            one = next(iter(details.values()))
            self.data, self.seed = one["data"], one["seed"]
            self.title = f"{folder.name} ({one['model']}, {one['data']}, {one['split']})"
            self.kind = json.dumps(
                [one["model"], one["data"], one["split"], _settings(folder)], sort_keys=True
            )
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}: measure the run first (--evaluate default)"
            ) from None
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
            raise UserError(
                f"{path} is not a file of figures of this program: measure the run again"
            ) from None


def _settings(folder):
    """The settings that decide what a run learns, but for the seed; the folder itself where it has no configuration."""
    try:
        saved = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return str(folder.resolve())
    return {
        stage: {
            field.name: values.get(field.name)
            for field in dataclasses.fields(settings_class(values["model"]))
            if not field.metadata["free"] and field.name != "seed"
        }
        for stage, values in saved.items()
    }


def compare(runs):
    """(header, rows) of the table: a column a kind of run, a row a figure; rows are (name, [(value, spread or None) or None],
    {system: reported})."""
    groups = {}
    for run in runs:
        groups.setdefault(run.kind, []).append(run)
    header = [
        same[0].title if len(same) == 1 else f"{same[0].title}, {len(same)} seeds"
        for same in groups.values()
    ]
    names = dict.fromkeys(name for run in runs for name in run.numbers)
    rows = []
    for name in names:
        known = {}
        for run in runs:
            known |= reported(run.data, name)
        rows.append((name, [_cell(same, name) for same in groups.values()], known))
    return header, rows


def _cell(same, name):
    values = [run.numbers[name] for run in same if name in run.numbers]
    if not values:
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else same[
        0
    ].spread.get(name)


def _text(cell, plus):
    if cell is None:
        return ""
    value, spread = cell
    return f"{value:.4g}" + ("" if spread is None else f" {plus} {spread:.2g}")


def as_markdown(header, rows):
    lines = [
        "| figure | " + " | ".join(header) + " | reported |",
        "| --- " * (len(header) + 2) + "|",
    ]
    for name, cells, known in rows:
        said = ", ".join(f"{system} {number:g}" for system, number in known.items())
        lines.append(
            f"| `{name}` | " + " | ".join(_text(cell, "±") for cell in cells) + f" | {said} |"
        )
    return "\n".join(lines) + "\n"


def as_latex(header, rows):
    def plain(text):
        return text.replace("&", r"\&").replace("%", r"\%").replace("_", r"\_")

    lines = [r"\begin{tabular}{l" + "r" * len(header) + "l}", r"\hline"]
    lines += [" & ".join(["figure", *map(plain, header), "reported"]) + r" \\", r"\hline"]
    for name, cells, known in rows:
        said = ", ".join(f"{system} {number:g}" for system, number in known.items())
        lines.append(
            " & ".join(
                [plain(name), *(f"${_text(c, chr(92) + 'pm')}$" if c else "" for c in cells), said]
            )
            + r" \\"
        )
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_csv(header, rows):
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["figure", *(part for title in header for part in (title, "spread")), "reported"]
    )
    for name, cells, known in rows:
        said = "; ".join(f"{system} {number:g}" for system, number in known.items())
        table.writerow([name, *(part for cell in cells for part in (cell or (None, None))), said])
    return out.getvalue()


FORMATS = {"markdown": as_markdown, "csv": as_csv, "latex": as_latex}


@in_one_line
def main(argv):
    """Print the table that the flags `argv` ask for; returns the exit code: 2 with one line on stderr where the user can mend it."""
    flags = argparse.ArgumentParser(
        prog="python -m metrics.compare", description=__doc__.split("\n\n")[1]
    )
    flags.add_argument("runs", nargs="+", metavar="RUN", help="name of a run, or its folder")
    flags.add_argument("--runs_dir", default="./runs/", help="folder of the runs [./runs/]")
    flags.add_argument("--format", choices=tuple(FORMATS), default="markdown", help="[markdown]")
    asked = flags.parse_args(argv)
    folders = [
        next((f for f in (Path(asked.runs_dir) / run, Path(run)) if f.is_dir()), None)
        for run in asked.runs
    ]
    for run, folder in zip(asked.runs, folders):
        if folder is None:
            raise UserError(
                f"found no run {run} in {asked.runs_dir}: give a run's name, and --runs_dir"
            )
    sys.stdout.write(FORMATS[asked.format](*compare([Run(folder) for folder in folders])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
