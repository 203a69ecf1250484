"""The two notebooks run on small exports, and an export that is read back is divided cleanly."""

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
from metrics.published import VDSM
from tests import made
from tests.tiny import TINY
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
FLAGS = [*TINY, "--epochs", 1, "--num_test_ids", 4, "--export_codes", "True", "--split", "all"]


def real_sprites(clone, folder):
    """Eight characters of real art in folder/sprites: one value of the legs, two of other parts."""
    values = {factor: names[: 1 + (factor != "legs")] for factor, names in compose.FACTORS.items()}

    def layer(factor, name):
        sheet = compose.read_sheet(clone / compose.sheet_path(factor, name))
        return compose.Layer(compose.cut(sheet))

    layers = {factor: [layer(factor, name) for name in names] for factor, names in values.items()}
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
    """exported(data set): the codes folder of a tiny run on a small set of that name. Read-only."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        if name == "MUG-FED":
            made.mug(folder, clips=32, film=8)
        elif (clone := Path(os.environ.get("VDSM_REAL_DATA", ""), "lpc")).is_dir():
            real_sprites(clone, folder)
        else:
            made.sprites(folder)
        places = ["--dataset_name", name, "--data_dir", folder, "--runs_dir", folder]
        assert main.main([str(flag) for flag in (*FLAGS, *places, "--seq_len", 4)]) == 0
        return folder / "demo" / "codes"

    return make


@pytest.mark.parametrize(
    "notebook, name",
    [
        ("classifier_sprites", "sprites"),
        pytest.param("classifier_MUG", "MUG-FED", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_runs_from_top_to_bottom(exported, notebook, name):
    page = nbformat.read(ROOT / f"{notebook}.ipynb", 4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in page.cells)
    first = next(cell for cell in page.cells if cell.cell_type == "code")
    codes = f"CODES = Path({str(exported(name))!r})"
    first.source, paths = re.subn(r"CODES = .*", codes, first.source)
    first.source, steps = re.subn(r"STEPS = \d+", "STEPS = 6", first.source)
    assert paths == steps == 1
    started_in = {"metadata": {"path": ROOT / "tests"}}
    nbclient.NotebookClient(page, timeout=300, resources=started_in).execute()
    shown = "".join(str(output) for cell in page.cells for output in cell.get("outputs", []))
    for words in (
        "reported, not re-run",
        "inter H(y)",
        "dynamics code, shuffled",
        "commonest value",
        "too weak",
        f"VDSM {VDSM[name]['consistency_accuracy']}",
        "Identity and motion are",
    ):
        assert words in shown, words
    # Clips, confusions of two kinds of clips and from two codes, contents of the codes, codes.
    assert shown.count("image/png") == 7
    words = re.sub(r"[\w+/=\\]{200,}", "", shown)  # without the pictures
    assert "NaN" not in words and "nan%" not in words


def test_the_newest_export_is_found(exported):
    codes = exported("MUG-FED")
    runs = codes.parent.parent
    assert export.newest_export(runs, "MUG-FED") == codes
    newer = shutil.copytree(codes, runs / "newer" / "codes")
    os.utime(newer / export.MANIFEST, (2e9, 2e9))
    assert export.newest_export(runs, "MUG-FED") == newer
    shutil.rmtree(runs / "newer")
    with pytest.raises(UserError, match="no run in .* has exported codes of sprites"):
        export.newest_export(runs, "sprites")


def test_the_quickstart_runs_from_top_to_bottom(trained_once):
    page = nbformat.read(ROOT / "examples" / "quickstart.ipynb", 4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in page.cells)
    first = next(cell for cell in page.cells if cell.cell_type == "code")
    run = f"RUN = {str(trained_once / 'runs' / 'demo')!r}"
    first.source, places = re.subn(r"RUN = .*", run, first.source)
    assert places == 1
    started_in = {"metadata": {"path": ROOT / "examples"}}
    nbclient.NotebookClient(page, timeout=300, resources=started_in).execute()
    shown = "".join(str(output) for cell in page.cells for output in cell.get("outputs", []))
    assert shown.count("image/png") == 5 and "<vdsm, stage Seq, 4 epochs, pendulum" in shown


def test_an_export_is_divided_without_leak(exported, tmp_path):
    codes = shutil.copytree(exported("MUG-FED"), tmp_path / "codes")
    whole = export.load_export(codes, "MUG-FED")
    known = np.concatenate([np.load(path)["split"] for path in sorted(codes.glob("labels_*"))])
    for name in SPLITS:
        assert np.array_equal(whole.dataset.splits[name], np.flatnonzero(known == name)), name
    real, rebuilt, parts, labels = whole.part("test")
    assert len(real) == np.sum(known == "test") > 0 and real.shape == rebuilt.shape
    assert {len(part) for part in (*parts.values(), *labels.values())} == {len(real)}
    with pytest.raises(UserError, match="an export of MUG-FED, expected sprites"):
        export.load_export(codes, "sprites")
    path = codes / "dynamics_1.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="dynamics_1.npz is missing, truncated"):
        export.load_export(codes, "MUG-FED")
    (codes / export.MANIFEST).unlink()
    with pytest.raises(UserError, match="holds no export"):
        export.load_export(codes, "MUG-FED")


def test_a_group_stays_in_one_split():
    groups = np.random.default_rng(0).integers(0, 12, 100)
    splits = export.divide(groups)
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(100))
    members = [set(groups[rows]) for rows in splits.values()]
    assert all(members) and sum(map(len, members)) == len(set.union(*members)) == 12
    with pytest.raises(UserError, match="expected some for each split"):
        export.divide(np.array([0, 0, 1]))
