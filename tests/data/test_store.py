"""data/store.py: a set on disk is complete or absent, damage is named, and a set is made once."""

import json
import os

import numpy as np
import pytest

from data.store import FRAMES, METADATA, Store, pack
from utils.errors import UserError

SHAPE = (6, 2, 8, 8, 3)
SPLITS = {"train": np.array([0, 2, 4, 5]), "val": np.array([1]), "test": np.array([3])}
LABELS = {"number": np.arange(6), "angle": np.linspace(0, 1, 6)}


def fill_with(value):
    """The `fill` of a small set whose pixels all have this value."""

    def fill(frames):
        frames[:] = value
        return pack(frames, LABELS, SPLITS, origin="test")

    return fill


@pytest.fixture
def stored(tmp_path):
    """A store that holds a set of sevens."""
    store = Store(tmp_path / "set", 1)
    store.write(SHAPE, fill_with(7))
    return store


def problem(store):
    """What is wrong with the files of a store; None if they can be read."""
    try:
        store.read()
    except UserError as error:
        return str(error)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(stored):
    metadata, frames = stored.read()
    assert isinstance(frames, np.memmap) and frames.shape == SHAPE and (frames == 7).all()
    assert metadata["origin"] == "test" and metadata["version"] == 1
    for name, values in LABELS.items():
        assert np.array_equal(metadata["labels"][name], values)
        assert metadata["labels"][name].dtype == values.dtype
    for name, rows in SPLITS.items():
        assert np.array_equal(metadata["splits"][name], rows)
    assert names(stored.folder) == [METADATA, FRAMES] and stored.verify()


def test_other_file_names(tmp_path):
    store = Store(tmp_path, 1, frames_file="a.npy", metadata_file="a.json")
    store.write(SHAPE, fill_with(3))
    assert names(tmp_path) == ["a.json", "a.npy"] and (store.read()[1] == 3).all()


def test_a_set_is_made_once(tmp_path):
    store, problems = Store(tmp_path / "set", 1), []

    def make(problem):
        problems.append(problem)
        store.write(SHAPE, fill_with(5))

    for _ in range(2):
        assert (store.load(make)[1] == 5).all()
    assert problems == [f"found no {tmp_path / 'set' / METADATA}"]


def test_a_failure_leaves_the_older_set_and_no_part_of_the_new_one(stored):
    def fill(frames):
        frames[0] = 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored.write(SHAPE, fill)
    assert stored.verify() and names(stored.folder) == [METADATA, FRAMES]
    new = Store(stored.folder.parent / "new", 1)
    with pytest.raises(KeyboardInterrupt):
        new.write(SHAPE, fill)
    assert names(new.folder) == []


def test_an_interruption_between_the_two_files_leaves_no_complete_set(stored, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stored.write(SHAPE, fill_with(8))
    assert problem(stored) == f"found no {stored.folder / METADATA}"


def test_a_full_disk_is_noticed_before_the_work(tmp_path):
    with pytest.raises(UserError, match="bytes free, .* choose another --data_dir"):
        Store(tmp_path, 1).write((10**9, 8, 64, 64, 3), fill_with(0))
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^cannot write .*--data_dir$"):
        Store(tmp_path / "file" / "set", 1).write(SHAPE, fill_with(1))


def change(**values):
    """Harm that gives these values to the metadata."""

    def harm(folder):
        path = folder / METADATA
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return harm


def truncate(folder):
    with open(folder / FRAMES, "r+b") as file:
        file.truncate(1000)


def save_other_type(folder):
    np.save(folder / FRAMES, np.zeros((3, *SHAPE[1:]), np.uint16))


def remove_frames(folder):
    (folder / FRAMES).unlink()


def cut_metadata(folder):
    text = (folder / METADATA).read_text()
    (folder / METADATA).write_text(text[: len(text) // 2])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (truncate, "has 1,000 bytes, expected 2,432"),
        (save_other_type, "is uint16 [3, 2, 8, 8, 3], expected uint8 [6, 2, 8, 8, 3]"),
        (remove_frames, f"{FRAMES}"),
        (cut_metadata, "JSONDecodeError"),
        (change(version=2), "has version 2, expected 1"),
        (change(shape=[3, 4, 8, 8, 3]), "expected uint8 [3, 4, 8, 8, 3]"),
        (change(labels={"number": [1, 2]}), "labels"),
        (change(labels=3), "damaged"),
        (change(splits={"train": [0, 6]}), "splits"),
    ],
)
def test_damage_is_named(stored, harm, words):
    harm(stored.folder)
    assert words in problem(stored) and not stored.verify()


def test_a_changed_pixel_is_found_by_verify_alone(stored):
    with open(stored.folder / FRAMES, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert problem(stored) is None and not stored.verify()


def test_a_refusal_of_unpack_is_passed_on(stored):
    def unpack(metadata, frames):
        raise UserError(f"made from {metadata['origin']}")

    assert problem(Store(stored.folder, 1, unpack)) == "made from test"
