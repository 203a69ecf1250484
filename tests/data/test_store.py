"""data/store.py: a set on disk is complete or absent, damage is named, and a set is made once."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data import store
from data.store import FRAMES, METADATA, Store, pack
from utils.errors import UserError
from utils.files import replacing

SHAPE = (6, 2, 8, 8, 3)
FILES = [METADATA, FRAMES, f"{FRAMES}.checked"]
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
    assert names(stored.folder) == FILES and stored.verify()


def test_other_file_names(tmp_path):
    store = Store(tmp_path, 1, frames_file="a.npy", metadata_file="a.json")
    store.write(SHAPE, fill_with(3))
    assert names(tmp_path) == ["a.json", "a.npy", "a.npy.checked"] and (store.read()[1] == 3).all()


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
    assert stored.verify() and names(stored.folder) == FILES
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


def say(content):
    return lambda folder: (folder / METADATA).write_bytes(content)


def nest(folder):
    (folder / METADATA).write_text("[" * 100_000)


def become_a_pipe(name):
    def harm(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return harm


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
        (change(splits={"train": [0, 1], "test": [1]}), "splits"),
        (change(splits={"train": [0.5]}), "splits"),
        (change(splits={"train": [10**30]}), "splits"),
        (change(labels={"number": ["a"] * 6}), "labels"),
        (change(fingerprint=[1]), "damaged"),
        (change(bytes=None), "damaged"),
        (nest, "nested too deeply"),
        (say(b"\xff"), "UnicodeDecodeError"),
        (say(b"[]"), "TypeError"),
        (become_a_pipe(METADATA), "is a pipe, expected a regular file"),
        (become_a_pipe(FRAMES), "is a pipe, expected a regular file"),
    ],
)
def test_damage_is_named(stored, harm, words):
    harm(stored.folder)
    assert words in problem(stored) and not stored.verify()


def change_a_pixel(path):
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")


@pytest.mark.parametrize("note", [True, False])
def test_a_changed_pixel_is_found_at_the_next_start(stored, note):
    if not note:  # a set that an earlier version made
        (stored.folder / f"{FRAMES}.checked").unlink()
    change_a_pixel(stored.folder / FRAMES)
    assert "changed since it was made" in problem(stored) and not stored.verify()


def test_a_changed_label_is_found_at_the_next_start(stored):
    change(labels={"number": [0, 1, 2, 3, 5, 4], "angle": LABELS["angle"].tolist()})(stored.folder)
    assert "changed since it was made" in problem(stored)


def test_a_pixel_that_the_disk_changed_is_found_in_the_sample(stored):
    times = os.stat(stored.folder / FRAMES)
    change_a_pixel(stored.folder / FRAMES)
    os.utime(stored.folder / FRAMES, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "changed since it was made" in problem(stored)


def test_a_copied_set_is_looked_at_once_and_a_known_one_is_not(stored, tmp_path):
    copied, whole = shutil.copytree(stored.folder, tmp_path / "copy"), []

    def matches(*given):
        whole.append(given)
        return store.matches(*given)

    os.utime(copied / FRAMES, ns=(1, 1))
    for _ in range(3):
        Store(copied, 1, matches=matches).read()
    assert len(whole) == 1


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(stored):
    dead = [stored.folder / f"{FRAMES}{ending}" for ending in (".7.part", ".part")]
    for path in dead:
        path.write_bytes(b"half")
    download = stored.folder / "mine.part"
    download.touch()
    with replacing(stored.folder / FRAMES) as living:
        living.write_bytes((stored.folder / FRAMES).read_bytes())
        stored.load(lambda _: None)
        assert living.exists() and download.exists() and not any(map(Path.exists, dead))


def test_a_disk_that_fills_up_while_the_set_is_made_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"^cannot write .*No space left.*--data_dir$"):
        Store(tmp_path, 1).write(SHAPE, fill_with(1))
    assert names(tmp_path) == []


def test_a_refusal_of_unpack_is_passed_on(stored):
    def unpack(metadata, frames):
        raise UserError(f"made from {metadata['origin']}")

    assert problem(Store(stored.folder, 1, unpack)) == "made from test"
