"""python -m data.info NAME [--verify True] [--FLAG VALUE ...]: what a data set holds.

--verify True compares every stored byte with the fingerprint. The other flags are main.py's.
"""

import sys

import numpy as np

import data
from data.base import SPLITS, Dataset
from utils.errors import UserError, in_one_line
from utils.flags import Parser, boolean
from utils.plan import parse
from utils.settings import DATASETS, RunSettings


def dataset_of(argv: list[str], command: str) -> tuple[Dataset, RunSettings]:
    """The data set and settings of `NAME [--FLAG VALUE ...]`. Raises UserError.

    command: what the user types before NAME, for the message on usage.
    """
    if not argv or argv[0].startswith("-"):
        names = ", ".join(sorted(DATASETS))
        raise UserError(f"usage: {command} NAME [--FLAG VALUE ...]; NAME is one of {names}")
    settings = parse(["--dataset_name", *argv]).first
    return data.load(settings), settings


def describe(dataset: Dataset) -> list[str]:
    """Lines of text: counts, shapes, splits, factors, bytes, fingerprint."""
    clips = {name: dataset.split(name) for name in SPLITS}
    lengths = dataset.lengths[np.concatenate([dataset.splits[name] for name in SPLITS])]
    span = " to ".join(map(str, sorted({lengths.min(), lengths.max()})))
    total, shape = int(lengths.sum()), " x ".join(map(str, dataset.frames.shape[1:]))
    rows = [("split", ", ".join(f"{name} {len(part):,}" for name, part in clips.items()))]
    if dataset.group:
        counts = {name: len(set(part.label(dataset.group))) for name, part in clips.items()}
        groups = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        rows.append((f"{dataset.group}s", groups))
    for kind, factors in (("static", dataset.static), ("dynamic", dataset.dynamic)):
        for factor in factors:
            values = dataset.classes[factor]
            shown = ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
            rows.append((kind, f"{factor}: {len(values)} values ({shown})"))
    listed = (*dataset.factors, dataset.group)
    others = {name: values for name, values in dataset.labels.items() if name not in listed}
    if others:
        shapes = ", ".join(f"{name} {[*values.shape]}" for name, values in others.items())
        rows.append(("other labels", shapes))
    rows.append(("bytes", f"{total * dataset.frames[0].size:,} as frames"))
    rows.append(("fingerprint", dataset.fingerprint))
    clips_and_frames = f"{len(lengths):,} clips of {span} frames, {total:,} frames of {shape}"
    title = f"{dataset.name}: {clips_and_frames} {dataset.frames.dtype}"
    return [title, *(f"  {name:12} {text}" for name, text in rows)]


@in_one_line
def main(argv: list[str]) -> int:
    """Print the description; the exit status is 2 if the set is missing or a flag is wrong."""
    own = Parser(add_help=False, allow_abbrev=False)
    own.add_argument("--verify", type=boolean, default=False)
    asked, argv = own.parse_known_args(argv)
    dataset, _ = dataset_of(argv, "python -m data.info")
    lines = describe(dataset)
    if asked.verify and dataset.verify is None:
        lines.append("  verified     nothing is stored: the program makes these data at each start")
    elif asked.verify and dataset.verify is not None:
        if not dataset.verify():
            raise UserError(
                f"{dataset.name}: the stored bytes are not those of fingerprint "
                f"{dataset.fingerprint}: remove them, and the data are made again"
            )
        lines.append("  verified     every stored byte is that of the fingerprint")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
