"""utils/checkpoints.py: files are whole or not there, the newest is found by number, folders are set aside and not lost."""

import os
from dataclasses import replace

import pytest
import torch

from models.vdsm.settings import VDSMSettings
from utils.checkpoints import (
    SIZES,
    RunFolder,
    check_sizes,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
    write_text,
)
from utils.errors import UserError
from utils.guards import not_finite, saves


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return VDSMSettings(RUN="r")


def state(**changes):
    return {"epoch": 1, "model": {"w": torch.ones(2)}, "optimizer": {}, "settings": {"z_dim": 20}, "rng": {}} | changes


def test_places(settings):
    folder = RunFolder(settings)
    assert [str(p) for p in (folder.root, folder.images, folder.checkpoints, folder.tensorboard, folder.codes)] == [
        "runs/r", "runs/r/images", "runs/r/checkpoints", "runs/r/tensorboard", "runs/r/codes"]  # fmt: skip
    folder = RunFolder(replace(settings, image_path="i", model_save_path="m", log_dir="l", code_path="c"))
    assert [str(p) for p in (folder.root, folder.images, folder.checkpoints, folder.tensorboard, folder.codes)] == [
        "runs/r", "i/r", "m/r", "l/r", "c/r"]  # fmt: skip


def test_epochs_are_numbers(settings):
    folder = RunFolder(settings)
    assert folder.epochs("EncDec") == [] and folder.choose("EncDec") is None
    folder.make()
    for name in ("9", "10", "100", "x", "²"):
        (folder.checkpoints / f"{name}_VDSM_EncDec.pth").touch()
    (folder.checkpoints / "200_VDSM_EncDec.pth.part").touch()
    (folder.checkpoints / "300_VDSM_seq.pth").touch()
    assert folder.epochs("EncDec") == [9, 10, 100] and folder.epochs("Seq") == [300]
    assert folder.choose("EncDec").name == "100_VDSM_EncDec.pth"
    assert folder.choose("EncDec", 9).name == "9_VDSM_EncDec.pth"
    with pytest.raises(UserError, match="there are 9, 10, 100"):
        folder.choose("EncDec", 11)


def test_a_checkpoint_comes_back(tmp_path):
    path = tmp_path / "c.pth"
    save_checkpoint(path, state())
    for mapped in (False, True):
        found = load_checkpoint(path, mapped)
        assert torch.equal(found["model"]["w"], torch.ones(2)) and found["epoch"] == 1
    assert os.listdir(tmp_path) == ["c.pth"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save_checkpoint(path, state())
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match="older checkpoints are whole"):
        save_checkpoint(path, state(epoch=2))
    assert load_checkpoint(path)["epoch"] == 1 and os.listdir(tmp_path) == ["c.pth"]


def test_a_text_is_replaced_whole(tmp_path):
    write_text(tmp_path / "t", "one")
    write_text(tmp_path / "t", "two")
    assert (tmp_path / "t").read_text() == "two" and os.listdir(tmp_path) == ["t"]


class Boom:
    """Unpickled freely, it would act."""

    def __reduce__(self):
        return (os.system, ("true",))


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "c.pth"
    for wrong in ([1], {"epoch": 1}, {k: v for k, v in state().items() if k != "rng"}):
        torch.save(wrong, path)
        with pytest.raises(UserError, match="not a checkpoint of this program"):
            load_checkpoint(path)
    for bytes_ in (b"", b"PK", b"\x80\x02garbage", os.urandom(500)):
        path.write_bytes(bytes_)
        with pytest.raises(UserError, match="truncated or not a checkpoint"):
            load_checkpoint(path)
    torch.save(state(model=Boom()), path)
    with pytest.raises(UserError):
        load_checkpoint(path)
    with pytest.raises(UserError, match="cannot read"):
        load_checkpoint(tmp_path / "missing.pth")


def test_sizes(settings):
    check_sizes(state(), "c.pth", settings, SIZES)
    saved = {"z_dim": 20, "enc_widths": [32, 32, 64, 64, 256]}  # a list, as JSON has it
    check_sizes(state(settings=saved), "c.pth", settings, SIZES)
    with pytest.raises(UserError, match="--z_dim is 20 here and 3 there") as caught:
        check_sizes(state(settings=saved | {"z_dim": 3, "bs": 9}), "c.pth", settings, SIZES)
    assert "bs" not in str(caught.value)


def test_set_aside_loses_nothing(settings):
    folder = RunFolder(replace(settings, image_path="pictures"))
    assert folder.set_aside() == []
    for times in (1, 2):
        folder.make()
        assert folder.set_aside() == [f"runs/r.kept{times}"]  # empty folders of pictures are not worth a name
    folder.make()
    (folder.images / "a.png").touch()
    assert folder.set_aside() == ["runs/r.kept3", "pictures/r.kept1"]
    assert os.listdir("pictures/r.kept1") == ["a.png"]


def test_noise_comes_back():
    device = torch.device("cpu")
    known = rng_state(device)
    first = torch.randn(3)
    set_rng_state(known, device)
    assert torch.equal(torch.randn(3), first)


@pytest.mark.parametrize("epochs, interval, expected", [(1, 2, [0]), (6, 2, [2, 4, 5]), (4, 1, [1, 2, 3]), (3, 9, [2])])
def test_saves(epochs, interval, expected):
    settings = VDSMSettings(epochs=epochs, model_save_interval=interval)
    assert [epoch for epoch in range(epochs) if saves(settings, epoch)] == expected


def test_not_finite_names_the_first():
    well = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert not_finite([well, well], "sz", [well]) is None
    for i, name in enumerate("sszz"):
        for value in ("nan", "inf", "-inf"):
            ill = well.clone()
            ill[i] = float(value)
            assert not_finite([well, ill, well * float("nan")], "sz") == f"the term '{name}' of the loss"
    assert not_finite([well], "sz", [well, well / 0]) == "the loss's gradient"
