"""utils/run_folder.py: places of a run; the newest checkpoint is found by number."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models.vdsm.settings import VDSMSettings
from utils.errors import UserError
from utils.guards import refuse_at_once, saves
from utils.plan import Plan
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


@pytest.mark.parametrize(
    "every, names, left",
    [
        (0, "9 step_10_2 step_11_0", "step_11_0 step_10_2"),
        (8, "step_0_1 step_1_2 step_1_3", "step_1_3 step_1_2 step_0_1"),
        (4, "9 step_10_2 step_11_0 step_11_1", "step_11_1"),  # 44 steps are due, 45 are not
        (0, "step_0_0 step_0_3", "step_0_3"),  # the first is the retry of a start
        (0, "9", ""),
    ],
)
def test_checkpoints_left_by_signals(settings, every, names, left):
    """After a loss that is not finite, a run goes back as far as one that no signal stopped."""
    folder = RunFolder(replace(settings, save_every_steps=every, bs_per_epoch=4))
    folder.make()
    for name in names.split():
        (folder.checkpoints / f"{name}_VDSM_seq.pth").touch()
    found = [path.name.split("_V")[0] for path in folder.left_by_signals("Seq")]
    assert " ".join(found) == left


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
    assert not folder.left_by_signals("Seq"), "step_12_0 is the retry of 11"
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


FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.copyfile"}


def dies_before(count, action):
    """Call action in a process that is killed before its file operation number `count`, from 0.

    Returns whether it was killed; it ends well if it has fewer operations.
    """
    child = os.fork()
    if not child:
        left = iter(range(count))

        def look(event, _):
            if event in FILE_EVENTS and next(left, None) is None:
                os._exit(9)

        sys.addaudithook(look)
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("flags", [{}, {"model_save_path": "m", "image_path": "i"}])
def test_fresh_with_stage_2_alone_goes_on_from_wherever_it_was_killed(settings, flags):
    settings = replace(settings, train_VDSMSeq=True, fresh=True, device="cpu", **flags)
    plan, count, killed = Plan({"EncDec": settings, "Seq": settings}), 0, True
    while killed:
        for name in ("runs", "m", "i"):
            shutil.rmtree(name, ignore_errors=True)
        folder = RunFolder(settings)
        folder.make()
        folder.config.write_text(json.dumps({"EncDec": {"bs": 1}, "Seq": {}}))
        folder.checkpoint("EncDec", 1).write_text("stage 1")
        folder.checkpoint("Seq", 1).write_text("stage 2")
        (folder.images / "a.png").write_text("picture")
        keep = folder.choose("EncDec")
        killed, count = dies_before(count, lambda f=folder, k=keep: f.set_aside(k)), count + 1
        refuse_at_once(plan)
        folder = RunFolder(settings)
        keep = folder.choose("EncDec")
        assert keep and keep.read_text() == "stage 1", count
        assert folder.saved_settings()["EncDec"] == {"bs": 1}
        for old in ("1_VDSM_seq.pth", "a.png", "1_VDSM_EncDec.pth"):
            assert list(Path().rglob(old)), (count, old)
        folder.set_aside(keep)  # the same command again
        assert folder.epochs("EncDec") == [1] and folder.epochs("Seq") == []
        assert folder.saved_settings() == {"EncDec": {"bs": 1}}
        assert not list(Path().rglob("*.fresh")) and not list(Path().rglob("*.part"))
    assert count > 10


@pytest.mark.parametrize(
    "epochs, interval, expected", [(1, 2, [0]), (6, 2, [2, 4, 5]), (4, 1, [1, 2, 3]), (3, 9, [2])]
)
def test_saves(epochs, interval, expected):
    settings = VDSMSettings(epochs=epochs, model_save_interval=interval)
    assert [epoch for epoch in range(epochs) if saves(settings, epoch)] == expected
