"""data/sprites_li.py: cells, drawing order, split and published arrays, on synthetic sheets.

The real art is used if VDSM_REAL_DATA names a folder that holds li_sprites/.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data import sprites_li
from data.base import fingerprint
from data.sprites_li import ACTIONS
from utils.errors import UserError

# The rows of each cell, from 0, that a factor's layer covers.
ROWS = dict(zip(sprites_li.FACTORS, (60, 50, 40, 30)))
PUBLISHED = {
    name: getattr(sprites_li, name)
    for name in ("VALUES", "NUM_CHARACTERS", "NUM_TRAIN", "NUM_VAL", "SHAPE")
}
FEW = (144, 8, 64, 64, 3)
# The cells of the eight frames, from the published description.
CELLS = {
    "walk left": [125, 118, 119, 120, 121, 122, 123, 124],
    "walk front": [138, 131, 132, 133, 134, 135, 136, 137],
    "spellcard right": [39, 40, 41, 42, 43, 44, 43, 45],
    "spellcard left": [13, 14, 15, 16, 17, 18, 17, 19],
    "slash front": [182, 183, 184, 185, 186, 187, 186, 182],
    "slash right": [195, 196, 197, 198, 199, 200, 199, 195],
}


def config(data_dir, source=None, poses="actions", hold_out="none"):
    source, given = source and str(source), {"poses": poses, "hold_out": hold_out}
    return SimpleNamespace(data_dir=str(data_dir), source=source, **given)


def layer(path, rows, value):
    """Write a sheet: red is the number of the cell, green is `value`, in the first `rows` rows."""
    path.parent.mkdir(exist_ok=True)
    row, column = np.indices((21 * 64, 13 * 64))
    sheet = np.zeros((*row.shape, 4), np.uint8)
    sheet[..., 0], sheet[..., 1] = row // 64 * 13 + column // 64, value
    sheet[..., 3] = 255 * (row % 64 < rows)
    Image.fromarray(sheet).save(path, compress_level=1)


@pytest.fixture(scope="module", autouse=True)
def few():
    """16 characters of two values per factor. `published` restores the numbers of the whole set."""
    small = {"VALUES": 2, "NUM_CHARACTERS": 16, "NUM_TRAIN": 12, "NUM_VAL": 2, "SHAPE": FEW}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(sprites_li, name, value)
        yield


@pytest.fixture
def published(monkeypatch):
    for name, value in PUBLISHED.items():
        monkeypatch.setattr(sprites_li, name, value)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    root = tmp_path_factory.mktemp("clone")
    for factor, rows in ROWS.items():
        for value in range(2):
            layer(root / factor / f"{value}.png", rows, rows + value)
    layer(root / "shoes" / "1.png", 20, 99)
    return root


@pytest.fixture(scope="module")
def composed(clone):
    frames = np.zeros(FEW, np.uint8)
    sprites_li.compose(clone, frames)
    return frames


def test_frames_come_from_their_cells(composed):
    for name, cells in CELLS.items():
        assert composed[9 * 13 + ACTIONS.index(name), :, 5, 5, 0].tolist() == cells
    assert ACTIONS[:3] == ("walk front", "walk left", "walk right") and len(ACTIONS) == 9


def test_layers_lie_in_order_and_show_the_labels(composed):
    labels = sprites_li.labels()
    for factor, rows in ROWS.items():
        assert np.array_equal(composed[:, 0, rows - 5, 0, 1], rows + labels[factor])
    assert (composed[:, :, 5, 0, 1] == 99).all() and not composed[:, :, 62].any()


def test_the_published_numbers_and_split(published):
    assert sprites_li.characters()[1000:1005].tolist() == [884, 1285, 252, 297, 947]
    labels = sprites_li.labels()
    c = labels["character"]
    parts = {name: set(c[rows]) for name, rows in sprites_li.splits().items()}
    counts = {name: len(part) for name, part in parts.items()}
    assert counts == {"train": 950, "val": 50, "test": 296}
    assert set.union(*parts.values()) == set(range(1296))
    assert parts["test"] == set(sprites_li.characters()[1000:])
    expected = (c // 216, c // 36 % 6, c // 6 % 6, c % 6)
    for factor, values in zip(sprites_li.FACTORS, expected, strict=True):
        assert np.array_equal(labels[factor], values)


def test_whole_sheets_have_178_poses_in_one_clip_per_character(clone, tmp_path, monkeypatch):
    """The poses of a sheet are 4 rows each of 7, 8, 9, 6 and 13 cells, and one row of 6."""
    lengths = np.repeat([7, 8, 9, 6, 13, 6], [4, 4, 4, 4, 4, 1])
    used = [13 * row + column for row, n in enumerate(lengths) for column in range(n)]
    assert sorted(sprites_li.SHEET) == used and len(used) == 178
    assert set(sprites_li.SHOWN) < set(used)
    monkeypatch.setattr(sprites_li, "fingerprint", lambda *_: sprites_li.COMPOSED_SHEETS)
    dataset = sprites_li.load(config(tmp_path, clone, "sheet"))
    assert dataset.lengths.tolist() == [178] * 16 and dataset.group is None
    assert (dataset.static, dataset.dynamic) == (sprites_li.FACTORS, ())
    shown = dataset.frames[178 * 13 : 178 * 14, 5, 5, 0].tolist()
    assert shown == [cell % 256 for cell in sprites_li.SHEET]
    assert sprites_li.SHEET[:9] == list(range(130, 139)), "walks to the front first"
    for name, values in sprites_li.labels().items():
        if name != "action":
            assert np.array_equal(dataset.labels[name], values[::9])
    assert set(dataset.splits["test"]) == set(sprites_li.characters()[12:])


def test_whole_sheets_need_the_clone(composed, tmp_path):
    with pytest.raises(
        UserError, match=r"34,996,224 bytes; give --source CLONE[^,]*, a clone of \S+$"
    ):
        sprites_li.load(config(tmp_path / "d", poses="sheet"))
    write_published(tmp_path / "npy", composed)
    with pytest.raises(UserError, match="found no .*body/0.png"):
        sprites_li.load(config(tmp_path / "d", tmp_path, "sheet"))


def write_published(folder, frames):
    folder.mkdir()
    order = sprites_li.characters()
    for action, name in enumerate(ACTIONS):
        for part, chosen in (("train", order[:12]), ("test", order[12:])):
            clips = frames.reshape(16, 9, *FEW[1:])[chosen, action].astype(np.float32) / 256
            np.save(folder / f"{name.replace(' ', '_')}_frames_{part}.npy", clips)


@pytest.mark.parametrize("known", [True, False])
def test_published_arrays_load_to_the_same_clips(composed, tmp_path, monkeypatch, capsys, known):
    if known:
        monkeypatch.setattr(sprites_li, "COMPOSED", fingerprint(composed, {}, {}))
    write_published(tmp_path / "npy", composed)
    dataset = sprites_li.load(config(tmp_path / "d", tmp_path))
    assert np.array_equal(dataset.frames, composed.reshape(-1, 64, 64, 3))
    assert ("other pixels" in capsys.readouterr().out) != known


def test_wrong_published_arrays_are_named(tmp_path):
    path = tmp_path / "walk_front_frames_train.npy"
    for array, words in ((np.zeros((12, 8, 64, 64)), "float64"), (np.array([None]), "cannot read")):
        np.save(path, array)
        with pytest.raises(UserError, match=words):
            sprites_li.load(config(tmp_path / "d", tmp_path))
    path.unlink()
    assert sprites_li.find_published(tmp_path) is None


def test_art_that_gives_other_pixels_is_refused_and_no_file_is_left(clone, tmp_path):
    with pytest.raises(UserError, match="other pixels"):
        sprites_li.load(config(tmp_path, clone))
    assert not list((tmp_path / "sprites-li").iterdir())


def test_the_set_is_made_once_and_again_if_damaged(clone, composed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sprites_li, "COMPOSED", fingerprint(composed, {}, {}))
    first = sprites_li.load(config(tmp_path, clone))
    assert "composing" in capsys.readouterr().out
    assert sprites_li.load(config(tmp_path)).fingerprint == first.fingerprint
    assert "composing" not in capsys.readouterr().out
    assert isinstance(first.frames, np.memmap) and first.frames.shape == (144 * 8, 64, 64, 3)
    with open(tmp_path / "sprites-li" / "frames.npy", "r+b") as file:
        file.truncate(10**6)
    assert sprites_li.load(config(tmp_path, clone)).fingerprint == first.fingerprint
    assert "composing" in capsys.readouterr().out


def test_missing_art_is_named(tmp_path):
    with pytest.raises(UserError, match="give --source CLONE"):
        sprites_li.load(config(tmp_path))
    with pytest.raises(UserError, match="no folder"):
        sprites_li.load(config(tmp_path, tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found no .*body/0.png"):
        sprites_li.load(config(tmp_path, tmp_path / "empty"))


@pytest.mark.slow
def test_the_real_art_gives_the_fingerprint_in_the_code(published):
    art = Path(os.environ.get("VDSM_REAL_DATA", "")) / "li_sprites"
    if not art.is_dir():
        pytest.skip("real art not checked: VDSM_REAL_DATA does not name a folder with li_sprites/")
    frames = np.zeros(sprites_li.SHAPE, np.uint8)
    sprites_li.compose(art, frames)
    assert fingerprint(frames, {}, {}) == sprites_li.COMPOSED
    few_poses, first = sprites_li.SHEET[:2], frames[:, 1].reshape(1296, 9, 64, 64, 3)[:, 0]
    frames = np.zeros((1296, 2, 64, 64, 3), np.uint8)
    sprites_li.compose(art, frames, few_poses)
    assert np.array_equal(frames[:, 1], first)
