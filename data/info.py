"""python -m data.info NAME [--FLAG VALUE ...]: what a data set holds, or what is missing for it. The flags are
main.py's."""

import sys

import numpy as np

import data
from data.base import SPLITS
from utils.errors import UserError, in_one_line
from utils.plan import parse
from utils.settings import DATASETS


def dataset_of(argv, usage):
    """(Dataset, settings) that the command line NAME --FLAG VALUE ... names. Raises UserError."""
    if not argv or argv[0].startswith("-"):
        raise UserError(
            f"usage: {usage} NAME [--FLAG VALUE ...]; NAME is one of {', '.join(sorted(DATASETS))}"
        )
    settings = parse(["--dataset_name", *argv]).first
    return data.load(settings), settings


def describe(dataset):
    """Lines of text: counts, shapes, split, factors, bytes, fingerprint."""
    used = np.concatenate([dataset.splits[name] for name in SPLITS])
    lengths, clips = dataset.lengths[used], {name: dataset.split(name) for name in SPLITS}
    span = (
        f"{lengths.min()}"
        if lengths.min() == lengths.max()
        else f"{lengths.min()} to {lengths.max()}"
    )
    total = int(lengths.sum())
    lines = [
        f"{dataset.name}: {len(used):,} clips of {span} frames, {total:,} frames of "
        f"{' x '.join(map(str, dataset.frames.shape[1:]))} {dataset.frames.dtype}",
        "  split        " + ", ".join(f"{name} {len(part):,}" for name, part in clips.items()),
    ]
    if dataset.group:
        groups = ", ".join(
            f"{name} {len(set(part.label(dataset.group))):,}" for name, part in clips.items()
        )
        lines.append(f"  {dataset.group + 's':12} {groups}")
    for kind, factors in (("static", dataset.static), ("dynamic", dataset.dynamic)):
        for factor in factors:
            values = dataset.classes[factor]
            shown = ", ".join(values[:12]) + (", ..." if len(values) > 12 else "")
            lines.append(f"  {kind:12} {factor}: {len(values)} values ({shown})")
    others = [
        name
        for name in dataset.labels
        if name not in (*dataset.static, *dataset.dynamic, dataset.group)
    ]
    if others:
        shapes = (f"{name} {list(dataset.labels[name].shape)}" for name in others)
        lines.append(f"  {'other labels':12} {', '.join(shapes)}")
    lines.append(f"  {'bytes':12} {total * dataset.frames[0].size:,} as frames")
    lines.append(f"  {'fingerprint':12} {dataset.fingerprint}")
    return lines


@in_one_line
def main(argv):
    """The exit status: 0, or 2 with one line on stderr where the set is not there or a flag is wrong."""
    dataset, _ = dataset_of(argv, "python -m data.info")
    print("\n".join(describe(dataset)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
