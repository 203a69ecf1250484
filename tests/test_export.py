"""--export_codes: what is in the files, that they are whole or not there, and what is refused."""

import json
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch

import export
import train_test
from data import mug, sprites
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq
from tests import made
from tests.conftest import few
from tests.test_cli import tree
from tests.tiny import FEW, STAGE_1, TEST, TINY
from utils.plan import parse
from utils.run_folder import RunFolder

FILES = ("id", "dynamics", "labels", "test_images", "recon_images", "sampled_images")
EXPORT = [*TINY, "--export_codes", "True", "--num_test_ids", "3"]
T, K, D = 16, 3, 4


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)


def read(codes, name, key="arr_0"):
    """The batches of a file, each an array; nothing is unpickled."""
    count = json.loads((codes / "codes.json").read_text())["batches"]
    return [np.load(codes / f"{name}_{p}.npz", allow_pickle=False)[key] for p in range(count)]


def joined(codes, name, key="arr_0"):
    return np.concatenate(read(codes, name, key))


@pytest.fixture
def exported(command, trained):
    """The codes of TINY's run, from a command that only tests, batches of 3."""
    said = command(*EXPORT, *TEST)
    assert (
        said.code == 0 and "exported 8 clips (test) in 3 batches to runs/demo/codes" in said.out
    ), said
    return trained / "codes"


def test_files_and_shapes(exported):
    names = {f"{name}_{p}.npz" for name in FILES for p in range(3)} | {"codes.json"}
    assert {path.name for path in exported.iterdir()} == names
    assert not list(exported.parent.rglob("*.part"))
    shapes = {"id": (1, K), "dynamics": (D,), "labels": (1,)}
    for name in FILES:
        batches = read(exported, name)
        assert [batch.shape for batch in batches] == [
            (n, *shapes.get(name, (T, 3, 64, 64))) for n in (3, 3, 2)
        ]
        assert all(
            batch.dtype == (np.int64 if name == "labels" else np.float32) for batch in batches
        )
        assert all(np.isfinite(batch).all() for batch in batches)


def test_clips_and_labels_are_the_splits_in_its_order(exported):
    clips = few().split("test")
    frames = clips.take(np.arange(8)).transpose(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(joined(exported, "test_images"), frames.astype(np.float32) / 255)
    np.testing.assert_array_equal(joined(exported, "labels")[:, 0], clips.label("colour"))
    for name in ("colour", "angle", "velocity", "angles"):
        np.testing.assert_array_equal(joined(exported, "labels", name), clips.label(name))
    np.testing.assert_array_equal(joined(exported, "labels", "position"), clips.index)
    assert set(joined(exported, "labels", "split")) == {"test"}


def test_codes_are_the_checkpoints_and_the_reconstructions_are_decoded_from_them(exported):
    c = parse(TINY).stages["Seq"]
    net = Seq(c, EncDec(c))
    net.load_state_dict(
        torch.load(exported.parent / "checkpoints" / "3_VDSM_seq.pth", weights_only=True)["model"]
    )
    view = VDSM(net, c.temp_id_end)
    id_, dynamics, frames, rebuilt, sampled = (
        torch.from_numpy(joined(exported, name)) for name in FILES if name != "labels"
    )
    static, dynamic = view.encode(frames)
    torch.testing.assert_close(id_, static[:, None], atol=1e-6, rtol=0)
    torch.testing.assert_close(dynamics, dynamic, atol=1e-6, rtol=0)
    torch.testing.assert_close(id_.sum(-1), torch.ones(8, 1))
    torch.testing.assert_close(rebuilt, view.decode(id_[:, 0], dynamics, T), atol=1e-6, rtol=0)
    torch.manual_seed(c.seed)
    torch.testing.assert_close(
        sampled, torch.cat([view.sample(n, T) for n in (3, 3, 2)]), atol=1e-6, rtol=0
    )


def test_the_manifest_says_what_it_is_of(exported):
    said = json.loads((exported / "codes.json").read_text())
    assert said["data set"] == "pendulum" and said["fingerprint"] == few().fingerprint
    assert (said["split"], said["clips"], said["batches"]) == ("test", 8, 3)
    assert said["factors"] == {"colour": list(few().classes["colour"])}
    assert (
        said["checkpoint"].endswith("3_VDSM_seq.pth")
        and said["temperature"] == parse(TINY).stages["Seq"].temp_id_end
    )


@pytest.mark.parametrize("split", ["train", "all"])
def test_other_splits_and_the_releases_folder(command, trained, tmp_path, split):
    named = ["--pretrained_model_VDSMSeq", 2]
    assert command(*EXPORT, *TEST, "--split", split, "--code_path", "codes", *named).code == 0
    codes, dataset = tmp_path / "codes" / "demo", few()
    expected = np.arange(sum(FEW.values())) if split == "all" else dataset.splits["train"]
    np.testing.assert_array_equal(joined(codes, "labels", "position"), expected)
    own = joined(codes, "labels", "split")
    for name, positions in dataset.splits.items():
        np.testing.assert_array_equal(
            np.flatnonzero(own == name), positions if split in ("all", name) else []
        )
    assert json.loads((codes / "codes.json").read_text())["checkpoint"].endswith("2_VDSM_seq.pth")


def test_after_training_and_from_stage_2_alone(command, trained):
    for path in (trained / "checkpoints").glob("*_EncDec.pth"):
        path.unlink()
    assert command(*EXPORT, *TEST).code == 0
    before = tree(trained / "codes")
    assert command(*EXPORT, "--fresh", "True", "--epochs", 1).code == 0
    assert tree(trained.with_name("demo.kept1") / "codes") == before
    made = json.loads((trained / "codes" / "codes.json").read_text())
    assert made["checkpoint"].endswith("0_VDSM_seq.pth")


def test_an_older_export_is_kept_and_the_same_command_gives_the_same_files(command, exported):
    before = tree(exported)
    said = command(*EXPORT, *TEST)
    assert said.code == 0 and "kept the old export as runs/demo/codes.kept1" in said.out
    assert tree(exported.with_name("codes.kept1")) == before == tree(exported)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_half_an_export_leaves_the_old_one_and_nothing_else(command, exported, monkeypatch, stop):
    before, save = tree(exported.parent), np.savez

    def fail(path, *arrays, **more):
        if path.name == "recon_images_1.npz":
            raise stop
        save(path, *arrays, **more)

    monkeypatch.setattr(np, "savez", fail)
    said = command(*EXPORT, *TEST)
    assert said.code == (130 if stop is KeyboardInterrupt else 2) and said.err.count("\n") <= 2
    assert tree(exported.parent) == before


def test_what_a_killed_export_left_is_not_taken_over(command, trained):
    left = trained / ".codes.part"
    left.mkdir()
    (left / "id_99.npz").write_bytes(b"half")
    assert command(*EXPORT, *TEST).code == 0
    assert not left.exists() and not (trained / "codes" / "id_99.npz").exists()


def export_untrained(tmp_path, load, *flags):
    """Export a data set through a stage 2 as it starts: its settings and the folder."""
    c = parse(
        [*EXPORT, "--frames_per_clip", "0", "--code_path", str(tmp_path / "codes"), *flags]
    ).stages["Seq"]
    dataset, folder = load(c), RunFolder(c)
    folder.codes.parent.mkdir()
    export.export(VDSM(Seq(c, EncDec(c)), c.temp_id_end), dataset, folder, c, "none")
    return dataset, folder.codes


def test_sprites_labels_are_plain_arrays_by_name(tmp_path):
    made.sprites(tmp_path)
    flags = ["--dataset_name", "sprites", "--data_dir", str(tmp_path), "--seq_len", "8"]
    dataset, codes = export_untrained(tmp_path, sprites.load, *flags)
    clips, factors = dataset.split("test"), ["body", "shirt", "legs", "hair", "action"]
    assert list(json.loads((codes / "codes.json").read_text())["factors"]) == factors
    for column, factor in zip(joined(codes, "labels").T, factors, strict=True):
        np.testing.assert_array_equal(column, clips.label(factor))
        np.testing.assert_array_equal(joined(codes, "labels", factor), clips.label(factor))
    np.testing.assert_array_equal(joined(codes, "labels", "character"), clips.label("character"))


def test_mug_feds_labels_are_two_columns_and_its_clips_of_unequal_length_begin_at_the_first_frame(
    tmp_path,
):
    _, films, labels = made.mug(tmp_path, film=[14, 17, 20, 23] * 4)
    dataset, codes = export_untrained(
        tmp_path, mug.load, "--data_dir", str(tmp_path), "--seq_len", "7", "--split", "all"
    )
    position = joined(codes, "labels", "position")
    assert len(set(dataset.lengths[position])) > 1 and len(position) == len(films)
    expressions = {0: 0, 1: 1, 3: 3, 4: 4, 7: 2, 8: 5}
    expected = [[identity, expressions[action]] for identity, action in labels[position]]
    assert joined(codes, "labels").tolist() == expected
    first = dataset.split("all").take(np.arange(len(films)), 0, 7).transpose(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(joined(codes, "test_images"), first.astype(np.float32) / 255)


# --- what is refused, before anything is computed or written ---


def test_without_stage_2(refused, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    before = tree(trained)
    assert "there is none in runs/demo/checkpoints" in refused(*EXPORT, *TEST)
    assert "--train_VDSMSeq True" in refused(*EXPORT, *STAGE_1)
    assert "9_VDSM_seq.pth is not there" in refused(*EXPORT, *TEST, "--pretrained_model_VDSMSeq", 9)
    assert tree(trained) == before


def test_splits_of_the_figures(refused, tmp_path):
    for split in ("train", "all"):
        line = refused(*TINY, "--evaluate", "swap", "--split", split)
        assert f"--split {split}" in line and "test or val" in line and "--evaluate none" in line
    assert "--split" in refused(*EXPORT, "--split", "half")
    assert tree(tmp_path) == {}


def test_a_place_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(*EXPORT, "--code_path", "taken")
    assert not list(tmp_path.rglob("*.pth"))


def test_a_disk_that_is_too_full(refused, trained, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 0, 100))
    line = refused(*EXPORT, *TEST)
    assert "has 100 bytes free, 8 clips need 18,874,592" in line
    assert not any((trained / "codes").iterdir())


def test_dry_run_tells_the_bytes(command, exported):
    real = sum(path.stat().st_size for path in exported.glob("*.npz"))
    assert abs(8 * export.bytes_a_clip(parse(EXPORT).stages["Seq"]) - real) < 0.01 * real
    assert "160 clips (test), 377.5 MB" in command(*EXPORT, *TEST, "--dry_run", "True").out
    flags = [*EXPORT, "--dry_run", "True", "--dataset_name"]
    assert "export      756 clips (test)" in command(*flags, "sprites").out
    assert "export      7,560 clips (all)" in command(*flags, "sprites", "--split", "all").out
    assert (
        "export      2.4 MB a clip" in command(*flags, "MUG-FED").out
    )  # only its files know how many
