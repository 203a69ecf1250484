"""The two notebooks, run from top to bottom on small exports."""

import functools
import os
import re
import shutil
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest

import export
import main
from data import sprites
from data.base import SPLITS
from data.sprites import compose
from tests import made
from tests.tiny import TINY
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FLAGS = [*TINY, "--epochs", 1, "--num_test_ids", 4, "--export_codes", "True", "--split", "all"]


def real_sprites(clone, folder):
    """Eight characters of real art in folder/sprites: one value of legs, two of other parts."""
    values = {factor: names[: 1 + (factor != "legs")] for factor, names in compose.FACTORS.items()}
    layers = {
        factor: [
            compose.Layer(compose.cut(compose.read_sheet(clone / compose.sheet_path(factor, name))))
            for name in names
        ]
        for factor, names in values.items()
    }
    every = compose.labels()
    keep = np.all([every[factor] < len(names) for factor, names in values.items()], axis=0)
    labels = {name: label[keep] for name, label in every.items()}

    def fill(frames):
        for start in range(0, len(frames), 9):
            picture = np.zeros((9, *frames.shape[1:]), np.uint8)
            for factor in compose.DRAW_ORDER:
                picture = layers[factor][labels[factor][start]].over(picture)
            frames[start : start + 9] = picture
        return labels, compose.draw_split(labels["character"])

    sprites.write(folder / "sprites", (int(keep.sum()), *compose.SHAPE[1:]), fill, "composed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """exported(data set): the codes folder of a tiny run on a small set; do not write to it."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        if name == "MUG-FED":
            made.mug(folder, clips=32, film=8)
        elif (clone := Path(os.environ.get("VDSM_REAL_DATA", ""), "lpc")).is_dir():
            real_sprites(clone, folder)
        else:
            made.sprites(folder)
        flags = [
            *FLAGS,
            "--dataset_name",
            name,
            "--data_dir",
            folder,
            "--runs_dir",
            folder,
            "--seq_len",
            4,
        ]
        assert main.main([str(flag) for flag in flags]) == 0
        return folder / "demo" / "codes"

    return make


@pytest.mark.parametrize(
    "notebook, name", [("classifier_sprites", "sprites"), ("classifier_MUG", "MUG-FED")]
)
def test_a_notebook_runs_from_top_to_bottom(exported, notebook, name):
    page = nbformat.read(ROOT / f"{notebook}.ipynb", 4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in page.cells)
    first = next(cell for cell in page.cells if cell.cell_type == "code")
    first.source, paths = re.subn(
        r"CODES = .*", f"CODES = Path({str(exported(name))!r})", first.source
    )
    first.source, steps = re.subn(r"STEPS = \d+", "STEPS = 6", first.source)
    assert paths == steps == 1
    nbclient.NotebookClient(
        page, timeout=300, resources={"metadata": {"path": ROOT / "tests"}}
    ).execute()
    said = "".join(str(output) for cell in page.cells for output in cell.get("outputs", []))
    for words in (
        "reported, not re-run",
        "inter H(y)",
        "dynamics code, shuffled",
        "commonest value",
        "too weak",
    ):
        assert words in said
    assert said.count("image/png") == 5 and (str(0.9953) in said or str(0.9333) in said)


def test_an_export_is_divided_without_leak(exported, tmp_path):
    codes = shutil.copytree(exported("MUG-FED"), tmp_path / "codes")
    whole = export.load_export(codes, "MUG-FED")
    known = np.concatenate([np.load(path)["split"] for path in sorted(codes.glob("labels_*"))])
    assert [len(whole.dataset.splits[name]) for name in SPLITS] == [
        np.sum(known == name) for name in SPLITS
    ]
    real, rebuilt, parts, labels = whole.part("test")
    assert real.shape == rebuilt.shape and {
        len(part) for part in (*parts.values(), *labels.values())
    } == {len(real)}
    with pytest.raises(UserError, match="an export of MUG-FED, expected sprites"):
        export.load_export(codes, "sprites")
    path = codes / "dynamics_1.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="dynamics_1.npz is missing, truncated"):
        export.load_export(codes, "MUG-FED")
    (codes / export.MANIFEST).unlink()
    with pytest.raises(UserError, match="holds no export"):
        export.load_export(codes, "MUG-FED")


def test_groups_are_not_torn_apart():
    groups = np.random.default_rng(0).integers(0, 12, 100)
    splits = export.divide(groups)
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(100))
    kinds = [set(groups[rows]) for rows in splits.values()]
    assert (
        not kinds[0] & kinds[1]
        and not kinds[0] & kinds[2]
        and not kinds[1] & kinds[2]
        and all(kinds)
    )
    with pytest.raises(UserError, match="expected some for each split"):
        export.divide(np.array([0, 0, 1]))
