"""export.py: what is in the files, that an export is whole or absent, and what is refused."""

import json
import os
import re
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

import export
import train_test
from data import mug, sprites
from models.density import fitted
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq
from tests import made
from tests.conftest import few
from tests.runs import tree
from tests.tiny import FEW, STAGE_1, TEST, TINY
from utils.errors import UserError
from utils.plan import parse
from utils.run_folder import RunFolder

PAGE = Path(__file__).resolve().parent.parent / "docs" / "CHECKPOINTS.md"
FILES = ("id", "dynamics", "labels", "test_images", "recon_images", "sampled_images")
EXPORT = [*TINY, "--export_codes", "True", "--num_test_ids", "3"]
T, K, D = 16, 3, 4


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Leave the pictures out, to save time."""
    monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)


def read(codes, name, key="arr_0"):
    """The arrays `key` of the files of a name, one per batch; nothing is unpickled."""
    count = json.loads((codes / "codes.json").read_text())["batches"]
    return [np.load(codes / f"{name}_{p}.npz", allow_pickle=False)[key] for p in range(count)]


def joined(codes, name, key="arr_0"):
    return np.concatenate(read(codes, name, key))


@pytest.fixture
def exported(command, trained):
    """The codes of TINY's run in batches of 3, from a command that only tests."""
    result = command(*EXPORT, *TEST)
    assert result.code == 0, result
    assert "exported 8 clips (test) in 3 batches to runs/demo/codes" in result.out
    return trained / "codes"


def test_files_and_shapes(exported):
    names = {f"{name}_{p}.npz" for name in FILES for p in range(3)} | {"codes.json"}
    names |= {f"factors_{p}.json" for p in range(3)}
    assert {path.name for path in exported.iterdir()} == names
    assert not list(exported.parent.rglob("*.part"))
    shapes = {"id": (1, K), "dynamics": (D,), "labels": (1,)}
    for name in FILES:
        batches = read(exported, name)
        shape = shapes.get(name, (T, 3, 64, 64))
        assert [batch.shape for batch in batches] == [(n, *shape) for n in (3, 3, 2)]
        assert {batch.dtype.name for batch in batches} == {
            "int64" if name == "labels" else "float32"
        }
        assert all(np.isfinite(batch).all() for batch in batches)


def test_clips_and_labels_are_those_of_the_split_in_its_order(exported):
    clips = few().split("test")
    frames = clips.take(np.arange(8)).transpose(0, 1, 4, 2, 3)
    np.testing.assert_array_equal(joined(exported, "test_images"), frames.astype(np.float32) / 255)
    np.testing.assert_array_equal(joined(exported, "labels")[:, 0], clips.label("colour"))
    for name in ("colour", "angle", "velocity", "angles"):
        np.testing.assert_array_equal(joined(exported, "labels", name), clips.label(name))
    np.testing.assert_array_equal(joined(exported, "labels", "position"), clips.index)
    assert set(joined(exported, "labels", "split")) == {"test"}


def test_codes_come_from_the_checkpoint_and_reconstructions_from_the_codes(exported):
    c = parse(TINY).stages["Seq"]
    net = Seq(c, EncDec(c))
    path = exported.parent / "checkpoints" / "3_VDSM_seq.pth"
    net.load_state_dict(torch.load(path, weights_only=True)["model"])
    view = VDSM(net.eval(), c.temp_id_end)
    id_, dynamics, frames, rebuilt, sampled = (
        torch.from_numpy(joined(exported, name)) for name in FILES if name != "labels"
    )
    static, dynamic = view.encode(frames)
    torch.testing.assert_close(id_, static[:, None], atol=1e-6, rtol=0)
    torch.testing.assert_close(dynamics, dynamic, atol=1e-6, rtol=0)
    torch.testing.assert_close(id_.sum(-1), torch.ones(8, 1))
    torch.testing.assert_close(rebuilt, view.decode(id_[:, 0], dynamics, T), atol=1e-6, rtol=0)
    # The preset draws from the densities that the run has left beside its checkpoint.
    densities = path.with_suffix(".fitted.npz")
    assert c.draw_from == "fitted" and densities.exists()
    view.draw_from, view.fit = "fitted", lambda: fitted(view, net, few(), T, densities)
    torch.manual_seed(c.seed)
    expected = torch.cat([view.sample(n, T) for n in (3, 3, 2)])
    torch.testing.assert_close(sampled, expected, atol=1e-6, rtol=0)


def test_the_manifest_names_data_factors_and_checkpoint(exported):
    about = json.loads((exported / "codes.json").read_text())
    assert about["data set"] == "pendulum" and about["fingerprint"] == few().fingerprint
    assert (about["split"], about["clips"], about["batches"]) == ("test", 8, 3)
    assert about["factors"] == {"colour": list(few().classes["colour"])}
    assert about["checkpoint"].endswith("3_VDSM_seq.pth")
    assert about["temperature"] == parse(TINY).stages["Seq"].temp_id_end


def test_an_export_is_read_back(exported):
    export_read, clips = export.load_export(exported, "pendulum"), few().split("test")
    splits = export_read.dataset.splits
    assert sorted(np.concatenate(list(splits.values()))) == list(range(8))
    for split, rows in splits.items():
        real, rebuilt, codes, labels = export_read.part(split)
        np.testing.assert_array_equal(real, clips.take(rows))
        np.testing.assert_array_equal(labels["colour"], clips.label("colour", rows))
        np.testing.assert_array_equal(codes["identity_code"], joined(exported, "id")[rows, 0])
        np.testing.assert_array_equal(codes["dynamics_code"], joined(exported, "dynamics")[rows])
        frames = joined(exported, "recon_images")[rows].transpose(0, 1, 3, 4, 2)
        np.testing.assert_array_equal(rebuilt, np.round(255 * frames).astype(np.uint8))


def test_an_export_that_lacks_clips_is_refused(exported):
    path = exported / "id_2.npz"
    np.savez(path, np.load(path)["arr_0"][:1])
    with pytest.raises(UserError, match=r"incomplete \({7, 8}|{8, 7} clips, expected 8\)"):
        export.load_export(exported, "pendulum")


def small_export(folder, **changes):
    """Write an export of four clips; changes: of codes.json."""
    about = {"data set": "pendulum", "batches": 2, "clips": 4, "factors": {"colour": ["a", "b"]}}
    about |= {"group": None, "fingerprint": "0"}
    folder.mkdir()
    for p in range(2):
        arrays = {
            f"{kind}_images": np.zeros((2, 2, 3, 64, 64), np.float32) for kind in export.KINDS
        }
        arrays |= {"id": np.zeros((2, 1, 3)), "dynamics": np.zeros((2, 4))}
        for name, array in arrays.items():
            np.savez(folder / f"{name}_{p}.npz", array)
        labels = {"colour": np.arange(2), "arr_0": np.arange(2)[:, None]}
        np.savez(folder / f"labels_{p}.npz", **labels, split=np.full(2, "test"))
    (folder / "codes.json").write_text(json.dumps(about | changes))
    return folder


MANIFESTS = [
    {"batches": "2"}, {"batches": -1}, {"batches": 10**9}, {"batches": 1.5}, {"clips": None},
    {"clips": 5}, {"factors": []}, {"factors": {"colour": 3}}, {"factors": {"a": [], "b": []}},
    {"group": 3}, {"group": "none"}, {"data set": ["x"]}, {"factors": {"colour": ["a"]}},
]  # fmt: skip
ARRAYS = [
    ("id", np.zeros((2, 3))), ("id", np.zeros(2)), ("id", np.full((2, 1, 3), np.nan)),
    ("id", np.zeros((2, 1, 4))), ("dynamics", np.float64(3)), ("dynamics", np.zeros((2, 4, 1))),
    ("test_images", np.zeros((2, 2, 64, 64, 3))), ("test_images", np.full((2, 2, 3, 64, 64), 7)),
    ("recon_images", np.full((2, 2, 3, 64, 64), np.inf)), ("sampled_images", np.zeros((1, 2))),
    ("recon_images", np.full((2, 2, 3, 64, 64), -3.0)), ("labels", np.array(["a", "b"])),
    ("labels", np.zeros((2, 1))), ("labels", np.zeros((2, 0), int)), ("id", np.array([None, 1])),
]  # fmt: skip


def refusal(folder):
    try:
        export.load_export(folder, "pendulum")
    except UserError as error:
        return str(error)
    return "\n"


def test_a_damaged_export_is_one_line(tmp_path):
    assert len(export.load_export(small_export(tmp_path / "whole"), "pendulum").rebuilt) == 4
    for i, changes in enumerate(MANIFESTS):
        folder = small_export(tmp_path / f"m{i}", **changes)
        assert "\n" not in refusal(folder), changes
    folder = small_export(tmp_path / "arrays")
    for name, array in ARRAYS:
        path = folder / f"{name}_1.npz"
        before = path.read_bytes()
        np.savez(path, array)
        assert "\n" not in refusal(folder), (name, array)
        path.write_bytes(before)
    for content in (b"", b"PK", before[:300], None):
        path.unlink()
        path.write_bytes(content) if content is not None else os.mkfifo(path)
        with pytest.raises(UserError, match="is missing, truncated or no array file: export again"):
            export.load_export(folder, "pendulum")


@pytest.mark.parametrize("split", ["train", "all"])
def test_other_splits_and_the_releases_folder(command, trained, tmp_path, split):
    named = ["--pretrained_model_VDSMSeq", 2]
    assert command(*EXPORT, *TEST, "--split", split, "--code_path", "codes", *named).code == 0
    codes, dataset = tmp_path / "codes" / "demo", few()
    expected = np.arange(sum(FEW.values())) if split == "all" else dataset.splits["train"]
    np.testing.assert_array_equal(joined(codes, "labels", "position"), expected)
    names = joined(codes, "labels", "split")
    for name, positions in dataset.splits.items():
        there = positions if split in ("all", name) else []
        np.testing.assert_array_equal(expected[names == name], there)
    assert json.loads((codes / "codes.json").read_text())["checkpoint"].endswith("2_VDSM_seq.pth")


def test_after_training_and_from_stage_2_alone(command, trained):
    for path in (trained / "checkpoints").glob("*_EncDec.pth"):
        path.unlink()
    assert command(*EXPORT, *TEST).code == 0
    before = tree(trained / "codes")
    assert command(*EXPORT, "--fresh", "True", "--epochs", 1).code == 0
    assert tree(trained.with_name("demo.kept1") / "codes") == before
    about = json.loads((trained / "codes" / "codes.json").read_text())
    assert about["checkpoint"].endswith("0_VDSM_seq.pth")


def test_an_older_export_is_kept_and_the_same_command_gives_the_same_files(command, exported):
    before = tree(exported)
    result = command(*EXPORT, *TEST)
    assert result.code == 0 and "kept the old export as runs/demo/codes.kept1" in result.out
    assert tree(exported.with_name("codes.kept1")) == before == tree(exported)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_half_an_export_leaves_the_old_one_and_nothing_else(command, exported, monkeypatch, stop):
    before, save = tree(exported.parent), np.savez

    def fail(path, *arrays, **more):
        if path.name == "recon_images_1.npz":
            raise stop
        save(path, *arrays, **more)

    monkeypatch.setattr(np, "savez", fail)
    result = command(*EXPORT, *TEST)
    assert result.code == (130 if stop is KeyboardInterrupt else 2)
    assert result.err.count("\n") <= 2
    assert tree(exported.parent) == before


def test_what_a_killed_export_left_is_removed(command, trained):
    left = trained / ".codes.part"
    left.mkdir()
    (left / "id_99.npz").write_bytes(b"half")
    assert command(*EXPORT, *TEST).code == 0
    assert not left.exists() and not (trained / "codes" / "id_99.npz").exists()


def export_untrained(tmp_path, load, *flags):
    """Export a data set through an untrained stage 2; returns the data set and the folder."""
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


def read_as_the_release(root, kind):
    """The batches of a kind in the order of their numbers, chosen as the release's notebook does.

    It takes a file by the first of these words in its name, and unpickles what it finds.
    """
    words = "dynamics", "id", "labels", "recon", "test_images"
    paths = [path for path in root.iterdir() if any(word in path.name for word in words)]
    paths.sort(key=lambda path: int(re.search(r"\d+", path.name)[0]))
    named = {path: next(word for word in words if word in path.name) for path in paths}
    return [np.load(p, allow_pickle=True)["arr_0"] for p, word in named.items() if word == kind]


def test_the_cell_of_the_document_gives_what_the_releases_sprites_notebook_reads(
    tmp_path, monkeypatch
):
    made.sprites(tmp_path)
    flags = ["--dataset_name", "sprites", "--data_dir", str(tmp_path), "--seq_len", "8"]
    # 9 clips in batches of 4: the last is smaller
    dataset, codes = export_untrained(tmp_path, sprites.load, *flags, "--num_test_ids", "4")
    (cell,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    cell, paths = re.subn(r"runs/readme-sprites/codes", str(codes), cell)
    assert paths == 1
    monkeypatch.chdir(tmp_path / "codes")
    exec(cell, names := {})
    root = tmp_path / "codes" / "codes" / "release_test"
    assert names["model"] == "" and names["root"].resolve() == root
    labels, clips = read_as_the_release(root, "labels"), dataset.split("test")
    assert [len(batch.item()["body"]) for batch in labels] == [4, 4]
    ours = {"body": "body", "shirt": "shirt", "pant": "legs", "hair": "hair", "action": "action"}
    assert all(list(batch.item()) == list(ours) for batch in labels)
    for theirs, name in ours.items():
        values = [value for batch in labels for value in batch.item()[theirs]]
        assert values == clips.label(name, np.arange(8)).tolist()
    for kind, shape in (("id", (1, K)), ("dynamics", (D,)), ("recon", (8, 3, 64, 64))):
        assert np.asarray(read_as_the_release(root, kind)).shape == (2, 4, *shape)
    frames = np.asarray(read_as_the_release(root, "test_images")).reshape(8, 8, 3, 64, 64)
    np.testing.assert_array_equal(frames, joined(codes, "test_images")[:8])


def test_an_export_of_mug_fed_is_what_the_releases_notebook_reads(tmp_path):
    made.mug(tmp_path, film=14, clips=16)
    flags = ["--dataset_name", "MUG-FED", "--data_dir", str(tmp_path), "--seq_len", "7"]
    dataset, codes = export_untrained(tmp_path, mug.load, *flags, "--num_test_ids", "2")
    labels, clips = np.asarray(read_as_the_release(codes, "labels")), dataset.split("test")
    assert labels.shape == (len(clips) // 2, 2, 2) and len(labels) > 1
    for column, name in zip(labels.reshape(-1, 2).T, ("identity", "action")):
        np.testing.assert_array_equal(column, clips.label(name))
    for kind, shape in (("id", (1, K)), ("dynamics", (D,)), ("recon", (7, 3, 64, 64))):
        assert np.asarray(read_as_the_release(codes, kind)).shape == (len(labels), 2, *shape)


def test_mug_fed_has_two_label_columns_and_the_first_frames_of_unequal_clips(tmp_path):
    _, films, labels = made.mug(tmp_path, film=[14, 17, 20, 23] * 4)
    flags = ["--dataset_name", "MUG-FED", "--data_dir", str(tmp_path), "--seq_len", "7"]
    dataset, codes = export_untrained(tmp_path, mug.load, *flags, "--split", "all")
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
    assert "cannot write to taken/demo" in refused(*EXPORT, "--code_path", "taken")
    assert not list(tmp_path.rglob("*.pth"))


def test_a_disk_that_is_too_full(refused, trained, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 0, 100))
    line = refused(*EXPORT, *TEST)
    assert "has 100 bytes free, 8 clips need 18,874,592" in line
    assert not any((trained / "codes").iterdir())


def test_dry_run_prints_the_bytes(command, exported):
    real = sum(path.stat().st_size for path in exported.glob("*.npz"))
    assert abs(8 * export.bytes_a_clip(parse(EXPORT).stages["Seq"]) - real) < 0.01 * real
    assert "160 clips (test), 377.5 MB" in command(*EXPORT, *TEST, "--dry_run", "True").out
    flags = [*EXPORT, "--dry_run", "True", "--dataset_name"]
    assert "export      756 clips (test)" in command(*flags, "sprites").out
    assert "export      7,560 clips (all)" in command(*flags, "sprites", "--split", "all").out
    # only the files of MUG-FED tell how many clips it has
    assert "export      2.4 MB" in command(*flags, "MUG-FED").out
