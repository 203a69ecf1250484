"""data/mug.py: pixels, split and labels are those of the authors' code; wrong files are named."""

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torchvision import transforms

from data import mug
from tests import made
from utils.errors import UserError

# Frames of 24 clips; two of them are too short for --seq_len 20, which takes 39 frames.
FILMS = [41, 40, 36, 52, 40, 39, 60, 40, 38, 44, 40, 40, 46] + [40] * 11


def config(folder, seq_len=20, seed=0, **more):
    flags = {"source": None, "split_by": "clip", "test_share": None, "quiet": False} | more
    return SimpleNamespace(data_dir=folder, seq_len=seq_len, seed=seed, **flags)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The folder of the files, films and labels of 24 clips of all nine actions."""
    return made.mug(tmp_path_factory.mktemp("data"), 24, FILMS, actions=range(9), people=5)


@pytest.fixture(scope="module")
def loaded(given):
    return mug.load(config(given[0].parent))


@pytest.fixture
def folder(tmp_path):
    """The folder of a few small clips, which a test may damage."""
    return made.mug(tmp_path, 8, 4)[0]


def test_pixels_are_the_authors_to_the_last_bit(given, loaded):
    _, films, _ = given
    assert loaded.lengths.tolist() == [(length + 1) // 2 for length in FILMS]
    assert isinstance(loaded.frames, np.memmap)
    authors = transforms.Compose(
        [transforms.CenterCrop(160), transforms.Resize(64), transforms.ToTensor()]
    )
    clips = loaded.split("test")
    for row, clip in enumerate(clips.index[:2]):
        ours = torch.from_numpy(clips.take([row], 0, 20)[0]).movedim(-1, 1) / 255
        theirs = torch.stack([authors(Image.fromarray(frame)) for frame in films[clip][:40:2]])
        assert torch.equal(ours, theirs)


def test_the_split_is_the_authors_before_any_clip_is_dropped(given, loaded):
    _, _, labels = given
    usable = [i for i in range(24) if labels[i, 1] not in (2, 5, 6) and FILMS[i] >= 39]
    train, test = train_test_split(np.arange(24), test_size=0.25, random_state=0)
    assert loaded.splits["test"].tolist() == [i for i in test if i in usable]
    kept = np.concatenate([loaded.splits["val"], loaded.splits["train"]]).tolist()
    assert kept == [i for i in train if i in usable] and len(loaded.splits["val"])
    shorter, other = (mug.load(config(given[0].parent, *c)) for c in ((10, 0), (20, 3)))
    assert all(set(rows) <= set(shorter.splits[name]) for name, rows in loaded.splits.items())
    assert len({d.fingerprint for d in (loaded, shorter, other)}) == 3


def test_another_share_of_the_clips_can_be_held_out(given):
    paper, release = (mug.load(config(given[0].parent, 10, test_share=s)) for s in (0.15, None))
    _, test = train_test_split(np.arange(24), test_size=0.15, random_state=0)
    assert set(paper.splits["test"]) == {i for i in test if paper.labels["action"][i] >= 0}
    assert len(paper.splits["test"]) < len(release.splits["test"])
    with pytest.raises(UserError, match=r"--test_share 0.9\d* of 24 leaves 1"):
        mug.load(config(given[0].parent, 10, test_share=0.95))


def test_labels_and_facts(given, loaded):
    _, _, labels = given
    renamed = {0: 0, 1: 1, 7: 2, 3: 3, 4: 4, 8: 5}
    for name, rows in loaded.splits.items():
        assert loaded.labels["action"][rows].tolist() == [renamed[a] for a in labels[rows, 1]], name
    assert loaded.labels["identity"].tolist() == labels[:, 0].tolist()
    assert loaded.classes["identity"] == ("0", "1", "2", "3", "4")
    assert loaded.classes["action"] == (
        "anger",
        "disgust",
        "sadness",
        "fear",
        "happiness",
        "surprise",
    )
    assert (loaded.static, loaded.dynamic) == (("identity",), ("action",))
    assert (loaded.fps, loaded.flips, loaded.split_flag) == (16, True, "seed")


def test_loading_twice_gives_the_same_labels(given, loaded):
    """The authors' code relabels in place, so it drops clips that it reads twice."""
    again = mug.load(config(given[0].parent))
    for name, values in loaded.labels.items():
        assert np.array_equal(again.labels[name], values)


def test_clips_too_short_are_counted_in_one_line(given, capsys):
    mug.load(config(given[0].parent))
    assert capsys.readouterr().out == "MUG-FED: 1 clips are shorter than --seq_len 20 and skipped\n"
    with pytest.raises(UserError, match="give a smaller --seq_len"):
        mug.load(config(given[0].parent, 31))


def stamp(folder):
    return [(folder / name).stat().st_mtime_ns for name in (mug.COPY, mug.ABOUT)]


def change(folder, **values):
    """Give the copy's metadata these values; None removes one."""
    metadata = json.loads((folder / mug.ABOUT).read_text()) | values
    kept = {name: value for name, value in metadata.items() if value is not None}
    (folder / mug.ABOUT).write_text(json.dumps(kept))


def test_the_copy_is_made_once_and_again_if_damaged_or_outdated(folder):
    def load():
        return mug.load(config(folder.parent, 2))

    first = load()
    before = stamp(folder)
    load()
    assert stamp(folder) == before
    # Earlier versions did not write the shape.
    change(folder, shape=None)
    before = stamp(folder)
    assert load().fingerprint == first.fingerprint and stamp(folder) == before
    for damage in (
        lambda: (folder / mug.ABOUT).unlink(),
        lambda: (folder / mug.ABOUT).write_text("{"),
        lambda: (folder / mug.COPY).unlink(),
        lambda: (folder / mug.COPY).write_bytes((folder / mug.COPY).read_bytes()[:-9]),
        lambda: change(folder, version=0),
        lambda: change(folder, lengths=[1, 2]),
        lambda: change(folder, sha256=None),
    ):
        damage()
        again = load()
        assert again.fingerprint == first.fingerprint and np.array_equal(again.frames, first.frames)
    made.mug(folder.parent, 8, 4, seed=1)
    assert load().fingerprint != first.fingerprint
    names = {mug.CLIPS, mug.LABELS, mug.COPY, mug.ABOUT, f"{mug.COPY}.checked"}
    assert {path.name for path in folder.iterdir()} == names


def test_a_copy_that_fails_leaves_no_file(folder, monkeypatch):
    monkeypatch.setattr(mug, "small", lambda frame: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mug.load(config(folder.parent, 2))
    assert {path.name for path in folder.iterdir()} == {mug.CLIPS, mug.LABELS}


def films(count=8, **other):
    """Black clips; films(c3=array) replaces clip 3."""
    return [other.get(f"c{i}", np.zeros((4, 112, 112, 3), np.uint8)) for i in range(count)]


def labels(count=8, **other):
    """Three identities of action 0; labels(c3=9) gives clip 3 action 9."""
    return np.array([[i % 3, other.get(f"c{i}", 0)] for i in range(count)])


WRONG = {
    "no labels": (films(), None, ["found no", "labels.npz"]),
    "a float clip": (
        films(c3=np.zeros((4, 112, 112, 3))),
        labels(),
        ["clip 3", "float64 [4, 112, 112, 3]"],
    ),
    "a small clip": (
        films(c5=np.zeros((4, 64, 64, 3), np.uint8)),
        labels(),
        ["clip 5", "uint8 [4, 64, 64, 3]"],
    ),
    "an empty clip": (
        films(c0=np.zeros((0, 112, 112, 3), np.uint8)),
        labels(),
        ["clip 0", "[0, 112, 112, 3]"],
    ),
    "a number for a clip": (films(c1=7), labels(), ["clip 1", "is int"]),
    "labels of fewer": (films(), labels(7), ["labels for 7 clips", "expected 8"]),
    "labels of one column": (films(), labels()[:, :1], ["int64 [8, 1]", "[clips, 2]"]),
    "labels with a half": (films(), labels() + 0.5, ["float64 [8, 2]", "whole numbers"]),
    "labels with NaN": (films(), labels() * np.nan, ["whole numbers"]),
    "an unknown action": (films(), labels(c2=9), ["clip 2 has action 9", "0 to 8"]),
    "only short clips": (films(), labels(), ["--seq_len", "train and val and test"]),
    "only dropped actions": (films(), labels() + [0, 2], ["six actions"]),
    "two clips": (films(2), labels(2), ["2 clips"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_checker_and_the_loader_name_what_is_wrong(tmp_path, capsys, name):
    clips, marks, words = WRONG[name]
    folder = tmp_path / "MUG-FED"
    folder.mkdir()
    made.write_mug(folder, clips, np.zeros(1) if marks is None else marks)
    if marks is None:
        (folder / mug.LABELS).unlink()
    seq_len = 20 if name == "only short clips" else 2
    assert mug.main([str(folder), "--seq_len", str(seq_len)]) == 2
    err = capsys.readouterr().err
    with pytest.raises(UserError) as error:
        mug.load(config(tmp_path, seq_len))
    for word in words:
        assert word in err and word in str(error.value)


def test_the_checker_lists_every_problem_and_counts_many(tmp_path, capsys):
    folder = tmp_path / "MUG-FED"
    folder.mkdir()
    made.write_mug(folder, [np.zeros((4, 112, 112, 3), np.float32)] * 9, labels(8, c4=11))
    # The folder above is accepted too.
    assert mug.main([str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 9 and lines[-1].endswith("8 problems")
    assert "clip 4 " in lines[4] and "4 more clips" in lines[5]
    np.savez(folder / mug.CLIPS, clips=np.zeros(2))
    assert mug.main([str(tmp_path)]) == 2 and "expected arr_0" in capsys.readouterr().err
    assert mug.main([str(folder / mug.LABELS)]) == 2 and "expected arr_0" in capsys.readouterr().err
    assert mug.main([str(tmp_path / "nowhere")]) == 2 and "found no" in capsys.readouterr().err
    assert mug.main([]) == 2 and capsys.readouterr().err.startswith("usage: python -m data.mug")


def test_the_checker_as_a_command(given, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mug.py", str(given[0])])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(mug.__file__, run_name="__main__")
    out, err = capsys.readouterr()
    assert stop.value.code == 0 and err == ""
    assert "24 clips of 5 identities; 18 to 30 frames" in out and "the files are right" in out
    assert "left out: 8 of the numbers 2, 5 and 6" in out and "1 too short" in out


def test_clips_of_one_length_may_be_one_array(tmp_path):
    folder, films, labels = made.mug(tmp_path, 8, 4)
    np.savez(folder / mug.CLIPS, np.stack(films))
    whole = mug.load(config(tmp_path, 2))
    made.write_mug(folder, films, labels)
    assert mug.load(config(tmp_path, 2)).fingerprint == whole.fingerprint


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="--data_dir"):
        mug.load(config(tmp_path))
