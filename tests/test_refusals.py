"""What a command refuses in one line, before anything is written."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data import pendulum
from data.base import Dataset
from tests.made import sprites
from tests.runs import tree
from tests.tiny import STAGE_1, STAGE_2, TINY

# --- what a command is not allowed to do ---


@pytest.mark.parametrize("name", ["mug", "Sprites"])
def test_data_set_that_is_not_there(refused, tmp_path, name):
    line = refused("--dataset_name", name, "--train_VDSMEncDec", "True")
    assert (
        f"'{name}'" in line
        and "--dataset_name is one of MUG-FED, moving-mnist, pendulum, shapes, sprites" in line
    )
    assert tree(tmp_path) == {}


def test_missing_files_of_mug(refused, tmp_path):
    line = refused("--train_VDSMEncDec", "True")  # the default data set
    assert "found no data/MUG-FED/MUG_0-255_OF_112x112_color.npz" in line and "--data_dir" in line
    assert tree(tmp_path) == {}


def test_missing_and_empty_folders_of_sprites(refused, tmp_path):
    flags = ["--dataset_name", "sprites", "--train_VDSMEncDec", "True", "--data_dir"]
    assert "nowhere" in refused(*flags, "nowhere")
    (tmp_path / "empty" / "sprites").mkdir(parents=True)
    assert "create_lpc_dataset.py" in refused(*flags, "empty")
    assert "no folder" in refused(*flags, "empty", "--source", "no-clone")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "wrong", [np.zeros((54, 8, 64, 64, 3), np.float32), np.zeros((54, 8, 32, 64, 6), np.uint8)]
)
def test_sprites_of_wrong_type_or_shape(refused, tmp_path, wrong):
    sprites(tmp_path)
    frames = tmp_path / "sprites" / "frames.npy"
    np.save(frames, wrong)
    metadata = tmp_path / "sprites" / "dataset.json"
    known = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**known, "bytes": frames.stat().st_size}))
    line = refused(
        "--dataset_name", "sprites", "--data_dir", tmp_path, "--train_VDSMEncDec", "True"
    )
    assert f"{wrong.dtype}" in line and "expected uint8 [54, 8, 64, 64, 3]" in line


def test_fewer_frames_than_needed(command, refused, tmp_path):
    sprites(tmp_path)
    flags = [
        *TINY,
        "--dataset_name",
        "sprites",
        "--data_dir",
        tmp_path,
        "--epochs",
        1,
        "--frames_per_clip",
        0,
    ]
    assert (
        command(*flags, *STAGE_1, "--seq_len", 16).code == 0
    )  # stage 1 joins two clips, whatever seq_len says
    before = tree(tmp_path)
    line = refused(*flags, *STAGE_2, "--seq_len", 9)
    assert "8 frames" in line and "--seq_len 8" in line
    assert "8 frames" in refused(*flags, "--seq_len", 9)  # both stages: said before stage 1 goes on
    assert tree(tmp_path) == before
    assert command(*flags, *STAGE_2, "--seq_len", 8).code == 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"frames": np.zeros((24, 64, 64, 3))}, "found float64 [24, 64, 64, 3], expected uint8"),
        ({"frames": np.zeros((24, 3, 64, 64), np.uint8)}, "[24, 3, 64, 64]"),
        ({"frames": np.zeros((0, 64, 64, 3), np.uint8), "labels": {}}, "no clip"),
        ({"lengths": np.full(6, 5)}, "24 frames for clips of 30"),
        ({"labels": {"colour": np.arange(5)}}, "'colour' has 5 values for 6 clips"),
        (
            {"splits": {"train": np.arange(6), "val": np.arange(0), "test": np.arange(1)}},
            "split 'val'",
        ),
        ({"splits": {"train": np.arange(5), "val": np.arange(5, 6)}}, "split 'test'"),
        (
            {"splits": {"train": np.arange(5), "val": np.arange(4, 5), "test": np.arange(5, 6)}},
            "clip 4 twice in the splits",
        ),
        (
            {"splits": {"train": np.arange(4), "val": np.arange(4, 5), "test": np.arange(5, 8)}},
            "found 0 to 7 as clips of the splits, of 6",
        ),
        (
            {"labels": {"colour": np.full(6, 0.5)}, "classes": {"colour": ("red", "blue")}},
            "label 'colour' is 0.5 to 0.5, expected whole numbers 0 to 1",
        ),
        (
            {"labels": {"colour": np.arange(6)}, "classes": {"colour": ("red", "blue")}},
            "label 'colour' is 0 to 5, expected whole numbers 0 to 1",
        ),
    ],
)
def test_arrays_of_wrong_shape_or_type(refused, monkeypatch, changes, words):
    good = {
        "name": "own", "frames": np.zeros((24, 64, 64, 3), np.uint8), "lengths": np.full(6, 4),
        "splits": {"train": np.arange(4), "val": np.arange(4, 5), "test": np.arange(5, 6)},
        "labels": {}, "classes": {}, "static": (), "dynamic": (), "fingerprint": "",
    }  # fmt: skip
    assert len(Dataset(**good).split("train")) == 4
    monkeypatch.setattr("data.pendulum.load", lambda config: Dataset(**{**good, **changes}))
    assert words in refused(*TINY)


def test_fewer_validation_clips_than_a_batch(command):
    assert command(*TINY, "--epochs", 1, "--bs", 12).code == 0  # 8 clips: drawn with replacement


def test_stage_2_without_stage_1(refused, tmp_path):
    line = refused(*TINY, *STAGE_2)
    assert "stage-1 checkpoint" in line and "--train_VDSMEncDec True" in line
    line = refused(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 7)
    assert "7_VDSM_EncDec.pth is not there" in line
    assert tree(tmp_path) == {}


def test_stage_2_on_other_sizes_says_which_flags_differ(refused, trained):
    before = tree(trained)
    line = refused(*TINY, *STAGE_2, "--z_dim", 5, "--dec_widths", "8,8,4,2", "--RUN", "demo")
    assert (
        "--z_dim is 5 here and 4 there" in line
        and "--dec_widths is 8,8,4,2 here and 8,8,4,4 there" in line
    )
    assert "n_e_w" not in line
    assert "--fidelity is release here and paper there" in refused(
        *TINY, *STAGE_2, "--fidelity", "release"
    )
    assert tree(trained) == before


def test_stage_2_on_other_data_or_on_another_stage_1(command, refused, tmp_path, trained):
    sprites(tmp_path)
    flags = [*TINY, *STAGE_2, "--dataset_name", "sprites", "--data_dir", tmp_path, "--seq_len", 8]
    assert "--dataset_name is sprites here and pendulum there" in refused(*flags)
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    said = command(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 1)
    assert "stands on runs/demo/checkpoints/1_VDSM_EncDec.pth" in said.out
    line = refused(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 2)
    assert "--pretrained_model_VDSMEncDec was 1 and is 2" in line
    said = command(*TINY, *STAGE_2)
    assert said.code == 0 and "stands on" not in said.out  # done before


def test_stages_of_one_command_that_do_not_fit(refused, tmp_path):
    assert "leaves 3" in refused(*TINY, "--pretrained_model_VDSMEncDec", 9)
    assert tree(tmp_path) == {}


def test_cuda_asked_for_and_absent(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(*TINY, "--device", "cuda")
    assert "no CUDA GPU" in line and "--device cpu" in line
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("flag", ["--runs_dir", "--image_path", "--model_save_path", "--log_dir"])
def test_a_file_where_a_folder_is_expected(refused, tmp_path, flag):
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(*TINY, flag, "taken")
    assert "taken" in refused(*TINY, flag, "taken", "--fresh", "True")
    assert (tmp_path / "taken").read_text() == "mine"
    assert not list(tmp_path.rglob("*.pth"))


def test_a_folder_that_cannot_be_written(refused, monkeypatch, tmp_path):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "cannot write to runs/demo (Permission denied)" in refused(*TINY)


def test_a_disk_that_fills_up_at_a_picture(refused, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("pictures.files.save_png", full)
    assert "No space left on device" in refused(*TINY)


LI = ["--dataset_name", "sprites-li", "--train_VDSMEncDec", "True"]


@pytest.mark.parametrize(
    "place, flags",
    [
        ("runs/demo/config.json", TINY),
        ("runs/demo/checkpoints/3_VDSM_EncDec.pth", TINY),
        ("runs/.demo.lock", TINY),
        ("given.json", ["--config", "given.json"]),
        ("given.pth", ["--convert", "given.pth", "--to", "ours"]),
        ("data/sprites-li/npy/walk_front_frames_train.npy", [*STAGE_1, *LI]),
    ],
)
def test_pipes_and_devices_under_the_names_of_files(refused, tmp_path, place, flags):
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    for make, kind in ((os.mkfifo, "pipe"), (lambda path: path.symlink_to("/dev/zero"), "device")):
        make(path)
        assert f"{place} is a {kind}, expected a regular file" in refused(*flags)
        path.unlink()


def test_text_that_is_no_utf_8(refused, tmp_path):
    for name in ("--data_dir", "--runs_dir", "--source", "--config"):
        line = refused(*TINY, name, os.fsdecode(b"caf\xe9"))
        assert r"found 'caf\udce9' on the command line, expected text in UTF-8: rename" in line
    assert tree(tmp_path) == {}


def test_a_set_that_is_cut_between_two_epochs(refused, monkeypatch):
    monkeypatch.setattr(Dataset, "cut", lambda _: "frames.npy was cut")
    assert refused(*TINY) == "main.py: frames.npy was cut\n"


def test_a_folder_that_holds_another_run(refused, command, trained):
    before = tree(trained)
    line = refused(*TINY, "--bs", 3, "--lr_VDSMEncDec", 0.5)
    assert "--bs was 2 and is 3" in line and "--lr_VDSMEncDec was 0.002 and is 0.5" in line
    assert "--fresh True" in line and "--RUN" in line
    assert tree(trained) == before
    said = command(*TINY, "--bs", 3, "--epochs", 1, "--fresh", "True")
    assert said.code == 0 and "demo.kept1" in said.out
    assert tree(trained.with_name("demo.kept1")) == before
    assert command(*TINY, "--bs", 3, "--epochs", 1, "--fresh=True").code == 0
    assert (
        trained.with_name("demo.kept2").is_dir() and tree(trained.with_name("demo.kept1")) == before
    )


def test_a_folder_that_was_trained_on_other_data(refused, trained, monkeypatch):
    before, changed = tree(trained), dataclasses.replace(pendulum.make(), fingerprint="other")
    monkeypatch.setattr(pendulum, "load", lambda config: changed)
    assert "other data" in refused(*TINY)
    assert tree(trained) == before


def test_fresh_sets_the_releases_folders_aside_too(command, tmp_path):
    flags = [
        *TINY,
        "--epochs",
        1,
        "--image_path",
        "images",
        "--model_save_path",
        "models",
        "--log_dir",
        "logs",
    ]
    assert command(*flags, "--tboard_log", "True").code == 0
    places = ("runs/demo", "images/demo", "models/demo", "logs/demo")
    before = {place: tree(tmp_path / place) for place in places}
    assert all(before.values()) and "0_VDSM_seq.pth" in before["models/demo"]
    assert command(*flags, "--bs", 3, "--fresh", "True").code == 0
    for place in places:
        assert tree(tmp_path / f"{place}.kept1") == before[place]


def test_fresh_with_stage_2_alone_keeps_its_stage_1(command, refused, trained):
    before = tree(trained)
    assert "needs a stage-1" in refused(*TINY, *STAGE_2, "--fresh", "True", "--RUN", "other")
    assert "--z_dim" in refused(*TINY, *STAGE_2, "--fresh", "True", "--z_dim", 5)
    assert tree(trained) == before
    said = command(*TINY, *STAGE_2, "--fresh", "True", "--lr_VDSMSeq", 0.1)
    assert said.code == 0, said
    kept, now = tree(trained.with_name("demo.kept1")), tree(trained)
    assert kept == before
    assert now["checkpoints/3_VDSM_EncDec.pth"] == before["checkpoints/3_VDSM_EncDec.pth"]
    assert now["checkpoints/3_VDSM_seq.pth"] != before["checkpoints/3_VDSM_seq.pth"]
    assert set(json.loads((trained / "config.json").read_text())) == {"EncDec", "Seq"}


def test_a_flag_of_stage_2_may_change_when_stage_1_is_done(command, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    assert command(*TINY, "--lr_VDSMSeq", 0.01, "--dynamics_dim", 3).code == 0
