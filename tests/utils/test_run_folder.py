"""utils/run_folder.py: places of a run; the newest checkpoint is found by number."""

import os
from dataclasses import replace

import pytest

from models.vdsm.settings import VDSMSettings
from utils.errors import UserError
from utils.guards import saves
from utils.run_folder import RunFolder


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return VDSMSettings(RUN="r")


def test_places(settings):
    def places(**flags):
        folder = RunFolder(replace(settings, **flags))
        names = "root", "images", "checkpoints", "tensorboard", "codes"
        return " ".join(str(getattr(folder, name)) for name in names)

    assert places() == "runs/r runs/r/images runs/r/checkpoints runs/r/tensorboard runs/r/codes"
    paths = {"image_path": "i", "model_save_path": "m", "log_dir": "l", "code_path": "c"}
    assert places(**paths) == "runs/r i/r m/r l/r c/r"


def test_epochs_are_numbers(settings):
    folder = RunFolder(settings)
    assert folder.epochs("EncDec") == [] and folder.choose("EncDec") is None
    folder.make()
    for name in ("9", "10", "100", "x", "²"):
        (folder.checkpoints / f"{name}_VDSM_EncDec.pth").touch()
    (folder.checkpoints / "200_VDSM_EncDec.pth.part").touch()
    (folder.checkpoints / "step_4_2_VDSM_EncDec.pth").touch()
    (folder.checkpoints / "300_VDSM_seq.pth").touch()
    assert folder.epochs("EncDec") == [9, 10, 100] and folder.epochs("Seq") == [300]
    assert folder.choose("EncDec").name == "100_VDSM_EncDec.pth"
    assert folder.choose("EncDec", 9).name == "9_VDSM_EncDec.pth"
    with pytest.raises(UserError, match="there are 9, 10, 100"):
        folder.choose("EncDec", 11)


def test_places_are_by_number_and_a_step_is_after_its_epoch(settings):
    folder = RunFolder(settings)
    folder.make()
    assert folder.newest("Seq") is None
    names = ["9", "10", "step_11_3", "step_9_20", "step_10_0", "11", "step_12_0"]
    for name in names:
        (folder.checkpoints / f"{name}_VDSM_seq.pth").touch()
    assert [place for place, _ in folder.places("Seq")] == [
        (9, 20),
        (10, 0),
        (10, 0),
        (11, 0),
        (11, 3),
        (12, 0),
        (12, 0),
    ]
    assert (
        folder.newest("Seq").name == "step_12_0_VDSM_seq.pth"
        and folder.choose("Seq").name == "11_VDSM_seq.pth"
    )
    folder.prune("Seq", folder.checkpoint("Seq", 11), keep=2, spared=(9, None))
    assert {path.name.split("_V")[0] for _, path in folder.places("Seq")} == {"9", "10", "11"}
    folder.prune("Seq", folder.checkpoint("Seq", 11), keep=1)
    assert folder.epochs("Seq") == [11]


def test_set_aside_loses_nothing(settings):
    folder = RunFolder(replace(settings, image_path="pictures"))
    assert folder.set_aside() == []
    for times in (1, 2):
        folder.make()
        assert folder.set_aside() == [
            f"runs/r.kept{times}"
        ]  # empty folders of pictures are not worth a name
    folder.make()
    (folder.images / "a.png").touch()
    assert folder.set_aside() == ["runs/r.kept3", "pictures/r.kept1"]
    assert os.listdir("pictures/r.kept1") == ["a.png"]


@pytest.mark.parametrize(
    "epochs, interval, expected", [(1, 2, [0]), (6, 2, [2, 4, 5]), (4, 1, [1, 2, 3]), (3, 9, [2])]
)
def test_saves(epochs, interval, expected):
    settings = VDSMSettings(epochs=epochs, model_save_interval=interval)
    assert [epoch for epoch in range(epochs) if saves(settings, epoch)] == expected
