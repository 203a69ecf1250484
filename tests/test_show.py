"""show.py, and the models in weights/."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import api
import share
from data import sprites
from metrics.card import as_markdown, drift
from models import load

RUN = "--RUN", "demo", "--device", "cpu", "--threads", "1"
HERE = sorted(share.ALL_MODELS.glob("*.safetensors"))


def test_show_draws_into_its_folder_alone(command, refused, exported, tmp_path, monkeypatch):
    (tmp_path / "some").mkdir()
    shutil.copy(exported / "half.safetensors", tmp_path / "some")
    monkeypatch.setattr("share.ALL_MODELS", tmp_path / "some")
    said = command("--show", *RUN[2:])
    assert said.code == 0 and said.out.count("\n") == 3 and not said.err, said
    kinds = [
        f"{kind}.{form}" for kind in ("samples", "swap", "transfer") for form in ("gif", "png")
    ]
    names = {f"half_{kind}" for kind in kinds}
    assert {path.name for path in (tmp_path / "runs" / "show").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "some"}
    for kind, frames, size in (
        ("swap", 16, (9, 9)),
        ("transfer", 40, (8, 3)),
        ("samples", 16, (6, 3)),
    ):
        with Image.open(tmp_path / "runs" / "show" / f"half_{kind}.gif") as film:
            assert all(film.size[i] >= 65 * n - 1 for i, n in enumerate(size))
            assert film.n_frames <= frames
    (tmp_path / "runs" / "show" / "config.json").write_text("{}")
    assert "is the folder of a run" in refused("--show")
    monkeypatch.setattr("share.ALL_MODELS", tmp_path)
    assert "found no .safetensors file" in refused("--show")


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_the_models_here_are_whole_small_and_credited(path):
    model = load(path)
    assert model.clips is not None and model.sample(1, 2, seed=0).shape == (1, 2, 64, 64, 3)
    assert path.with_suffix(".md").read_text() == as_markdown(model.card)
    text = json.dumps(model.card)
    assert not re.search(r'["\s=](/\w|[A-Za-z]:\\)|pypi|\.\./', text)
    assert model.card["figures"] and model.card["data"]["licence"] != "not stated"
    if "sprites" in model.settings.dataset_name:
        assert "CC-BY-SA" in text and "Redshrike" in text


def test_the_models_here_are_small_together():
    assert [path.stem for path in HERE] == ["pendulum", "sprites"]
    assert sum(path.stat().st_size for path in HERE) <= 30e6


def replayed(dataset, monkeypatch, runs_dir, wanted=None):
    """Lines about the figures of the model of `dataset` that differ, and the figures."""
    if wanted is not None:
        monkeypatch.setattr("metrics.evaluate.Evaluation.wanted", wanted)
    model = api.load(share.ALL_MODELS / f"{dataset.name.lower()}.safetensors", device="cpu")
    assert model.card["data"]["fingerprint"] == dataset.fingerprint
    about = model.card["measured"]
    kinds = {"evaluate": "default", "split": about["split"]}
    command = SimpleNamespace(judge=None, fid_weights=None, runs_dir=runs_dir, **kinds)
    figures, _ = share.measure(model, dataset, command)
    return drift(model.card, figures), figures


def test_the_pendula_of_weights_have_the_figures_of_their_card(pendula, monkeypatch):
    """Those of reconstructions. The slow test measures all."""
    monkeypatch.setattr("metrics.evaluate.Evaluation.continued_to", None)
    lines, figures = replayed(pendula, monkeypatch, "runs", ())
    assert all(line.startswith("continuation_") for line in lines), lines
    assert len(figures["reconstruction"]) >= 4


@pytest.mark.slow
def test_the_pendula_of_weights_have_all_the_figures_of_their_card(pendula, monkeypatch):
    lines, figures = replayed(pendula, monkeypatch, "runs")
    assert lines == [] and {"consistency", "swap", "dci"} <= figures.keys()


@pytest.fixture
def characters(tmp_path):
    """The sprites of the real art."""
    art = Path(os.environ.get("VDSM_REAL_DATA", "")) / "lpc"
    if not os.environ.get("VDSM_REAL_DATA") or not art.is_dir():
        pytest.skip("real LPC art not checked: VDSM_REAL_DATA does not name a folder with lpc/")
    yield sprites.load(SimpleNamespace(data_dir=tmp_path / "data", source=art, hold_out="none"))
    shutil.rmtree(tmp_path / "data")  # 743 MB


def test_the_sprites_of_weights_have_the_figures_of_their_card(characters, monkeypatch):
    """Those of reconstructions. The slow test measures all."""
    lines, figures = replayed(characters, monkeypatch, "runs", ())
    assert lines == [] and len(figures["reconstruction"]) >= 10


@pytest.mark.slow
def test_the_sprites_of_weights_have_all_the_figures_of_their_card(
    characters, monkeypatch, tmp_path
):
    lines, figures = replayed(characters, monkeypatch, tmp_path / "runs")
    assert lines == [] and {"consistency", "swap", "dci"} <= figures.keys()
