"""utils/checkpoints.py: a file is whole or not there, and nothing in it is run."""

import os
import subprocess
import threading
from contextlib import suppress

import pytest
import torch

from models.vdsm.settings import VDSMSettings
from utils import checkpoints
from utils.checkpoints import (
    Damaged,
    Saver,
    check_sizes,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from utils.errors import UserError
from utils.run_folder import RunFolder


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return VDSMSettings(RUN="r")


def state(**changes):
    return {
        "epoch": 1,
        "model": {"w": torch.ones(2)},
        "optimizer": {},
        "settings": {"z_dim": 20},
        "rng": {},
    } | changes


def test_a_checkpoint_comes_back(tmp_path):
    path = tmp_path / "c.pth"
    save_checkpoint(path, state())
    for mapped in (False, True):
        found = load_checkpoint(path, mapped=mapped)
        assert torch.equal(found["model"]["w"], torch.ones(2)) and found["epoch"] == 1
    assert os.listdir(tmp_path) == ["c.pth"]


def test_no_path_is_not_called_a_damaged_file():
    with pytest.raises(TypeError):
        load_checkpoint(None)


def test_any_change_of_a_checkpoint_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "c.pth"
    before = state(model={"w": torch.arange(300.0)}, rng={"cpu": torch.get_rng_state()})
    save_checkpoint(path, before)
    whole, noticed = path.read_bytes(), 0
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = load_checkpoint(path)
        except Damaged:
            noticed += 1
            continue
        assert (
            torch.equal(found["model"]["w"], before["model"]["w"])
            and found["epoch"] == before["epoch"]
        )
    assert noticed > len(whole) / 97 / 3  # the rest is padding, dates and the like
    for length in range(0, len(whole), 211):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            load_checkpoint(path)


def test_a_saver_writes_a_copy_one_at_a_time(settings, monkeypatch):
    folder = RunFolder(settings)
    folder.make()
    weights, started, go_on = torch.ones(2), [], threading.Event()
    write = checkpoints.save_checkpoint

    def slow(path, state):
        started.append(path.name)
        assert go_on.wait(10)
        write(path, state)

    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    with Saver(folder, "EncDec") as saver:
        saver.save(folder.checkpoint("EncDec", 0), state(model={"w": weights}))
        weights.zero_()  # training goes on while the disk is slow
        assert folder.epochs("EncDec") == []
        second = threading.Thread(
            target=saver.save, args=(folder.checkpoint("EncDec", 1), state(model={"w": weights}))
        )
        second.start()
        second.join(0.2)
        assert second.is_alive() and started == ["0_VDSM_EncDec.pth"]
        go_on.set()
        second.join()
    assert [
        load_checkpoint(folder.checkpoint("EncDec", e))["model"]["w"].sum().item() for e in (0, 1)
    ] == [2, 0]


def test_what_goes_wrong_in_the_background_is_said(settings):
    folder = RunFolder(settings)
    saver = Saver(folder, "EncDec")  # whose folder does not exist
    saver.save(folder.checkpoint("EncDec", 0), state())
    with pytest.raises(UserError, match="older checkpoints are whole"):
        saver.save(folder.checkpoint("EncDec", 1), state())
    with pytest.raises(UserError), Saver(folder, "EncDec") as saver:
        saver.save(folder.checkpoint("EncDec", 0), state())


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(options) mounts a small file system, or mounts it anew with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting is not permitted here")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True)


def test_a_full_disk_and_a_read_only_one(small_disk):
    place = small_disk("size=64k")
    save_checkpoint(place / "0.pth", state())
    for size in (5_000, 20_000, 10**6):  # full while it buffers, while it writes, at once
        with pytest.raises(UserError, match="No space left on device"):
            while True:
                save_checkpoint(
                    place / f"{len(os.listdir(place))}.pth", state(model={"w": torch.ones(size)})
                )
        assert all(load_checkpoint(place / name)["epoch"] == 1 for name in os.listdir(place))
    kept = os.listdir(place)
    small_disk("remount,ro")
    with pytest.raises(UserError, match="Read-only file system"):
        save_checkpoint(place / "9.pth", state())
    assert os.listdir(place) == kept


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    save_checkpoint(path, state())
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(UserError, match="older checkpoints are whole"):
        save_checkpoint(path, state(epoch=2))
    assert load_checkpoint(path)["epoch"] == 1 and os.listdir(tmp_path) == ["c.pth"]


class Boom:
    """Unpickled freely, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


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
    torch.save(state(model=Boom(tmp_path / "made")), path)
    with pytest.raises(Damaged):
        load_checkpoint(path)
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match="cannot read"):
        load_checkpoint(tmp_path / "missing.pth")


def test_no_warning_of_torch_reaches_the_user(tmp_path, recwarn):
    path = tmp_path / "c.pth"
    for wrong in (state(), [Boom(tmp_path / "made")]):
        for zipped in (True, False):
            torch.save(wrong, path, pickle_protocol=4, _use_new_zipfile_serialization=zipped)
            with suppress(Damaged):
                load_checkpoint(path)
    assert not recwarn.list


def test_sizes(settings):
    check_sizes(state(), "c.pth", settings, settings.info("EncDec").sizes)
    saved = {"z_dim": 20, "enc_widths": [32, 32, 64, 64, 256]}  # a list, as JSON has it
    check_sizes(state(settings=saved), "c.pth", settings, settings.info("EncDec").sizes)
    with pytest.raises(UserError, match="--z_dim is 20 here and 3 there") as caught:
        check_sizes(
            state(settings=saved | {"z_dim": 3, "bs": 9}),
            "c.pth",
            settings,
            settings.info("EncDec").sizes,
        )
    assert "bs" not in str(caught.value)


def test_noise_comes_back():
    device = torch.device("cpu")
    known = rng_state(device)
    first = torch.randn(3)
    set_rng_state(known, device)
    assert torch.equal(torch.randn(3), first)


def test_a_checkpoint_that_does_not_fit_into_memory_is_not_damaged(tmp_path, monkeypatch):
    """Else a whole file would be put away."""
    path = tmp_path / "0_VDSM_EncDec.pth"
    torch.save({"model": {}}, path)

    def no_memory(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr("torch.load", no_memory)
    with pytest.raises(RuntimeError, match="can't allocate"):
        load_checkpoint(path)
