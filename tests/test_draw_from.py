"""--draw_from: what a run draws from, and the densities that it leaves beside its checkpoints."""

import csv
import os

import numpy as np
import pytest

from models import density
from tests.tiny import TEST, TINY

PATH = "checkpoints/3_VDSM_seq.fitted.npz"


@pytest.fixture
def fits(monkeypatch):
    """How many codes were fitted."""
    seen, fit = [], density.fit
    monkeypatch.setattr(density, "fit", lambda *a: (seen.append(1), fit(*a))[1])
    return seen


def test_densities_lie_beside_the_checkpoint_and_are_made_anew(command, trained, fits):
    path = trained / PATH
    first, names = path.read_bytes(), {entry.name for entry in (trained / "images").iterdir()}
    assert "drawn_3.png" in names
    assert command(*TINY, *TEST).code == 0 and not fits
    path.unlink()
    assert command(*TINY, *TEST).code == 0 and len(fits) == 2
    # The same codes give the same densities, to the bit.
    assert path.read_bytes() == first
    # The densities of another epoch are not those of this one.
    assert command(*TINY, *TEST, "--pretrained_model_VDSMSeq", 2).code == 0 and len(fits) == 4
    os.replace(path.with_name("2_VDSM_seq.fitted.npz"), path)
    assert path.read_bytes() != first
    assert command(*TINY, *TEST).code == 0 and len(fits) == 6
    assert path.read_bytes() == first


def test_the_prior_needs_no_densities(command, trained, fits):
    (trained / PATH).unlink()
    assert command(*TINY, *TEST, "--draw_from", "prior").code == 0
    assert not fits and not (trained / PATH).exists()


def test_metrics_have_both_columns(command, trained, fits):
    flags = "--draw_from", "prior", "--evaluate", "swap"
    assert command(*TINY, *TEST, *flags).code == 0
    with (trained / "metrics.csv").open() as file:
        figures = {row["figure"]: row["value"] for row in csv.DictReader(file)}
    for kind in ("swap", "transfer"):
        for name in ("variety", "colour_accuracy", "amplitude_accuracy", "novelty"):
            for source in ("prior", "fitted"):
                assert figures[f"{kind}_{source}_{name}"]
    assert {"transfer_fitted_frames_read", "transfer_prior_one_colour"} <= figures.keys()


def test_a_pruned_checkpoint_takes_its_densities_along(trained):
    from utils.plan import parse
    from utils.run_folder import RunFolder

    folder = RunFolder(parse(TINY).stages["Seq"])
    folder.densities(folder.checkpoint("Seq", 2)).touch()
    folder.prune("Seq", folder.checkpoint("Seq", 3), keep=1)
    assert [p.name for p in folder.checkpoints.glob("*_seq.fitted.npz")] == [
        "3_VDSM_seq.fitted.npz"
    ]


def test_files_hold_plain_arrays(trained):
    with np.load(trained / PATH, allow_pickle=False) as file:
        assert {name.split(".")[0] for name in file.files} == {"s", "d", "about"}
