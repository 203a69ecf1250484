"""data/sprites: the composed set, on synthetic sheets and on the real art.

The real art is used if VDSM_REAL_DATA names a folder that holds lpc/.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data import sprites
from data.base import SPLITS, fingerprint
from data.sprites import compose
from data.store import FRAMES, METADATA
from tests import made
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data" / "sprites" / "create_lpc_dataset.py"
# The rows of each cell, from 0, that a factor's layer covers.
BANDS = dict(zip(compose.DRAW_ORDER, (64, 48, 32, 16), strict=True))
# A row in which the factor's layer is the topmost.
CENTRES = dict(zip(compose.DRAW_ORDER, (56, 40, 24, 8), strict=True))


def code(factor, value):
    """The blue of a synthetic layer, different for every factor and value."""
    return 60 * compose.DRAW_ORDER.index(factor) + 8 * value + 5


def write_clone(root):
    """Sheets whose cells show (row, column, code of the layer), down to the factor's band."""
    row, column = np.indices((compose.SHEET_ROWS * 64, compose.SHEET_COLUMNS * 64))
    for factor, names in compose.FACTORS.items():
        for value, name in enumerate(names):
            sheet = np.zeros((*row.shape, 4), np.uint8)
            sheet[..., 0], sheet[..., 1] = row // 64, column // 64
            sheet[..., 2] = code(factor, value)
            sheet[..., 3] = 255 * (row % 64 < BANDS[factor])
            path = root / compose.sheet_path(factor, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet).save(path, compress_level=1)
    return root


def config(data_dir, source=None):
    source = source and str(source)
    return SimpleNamespace(data_dir=str(data_dir), source=source, hold_out="none")


def run(command, **options):
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


def refusal(data_dir, source=None):
    """The message with which the set is refused: one line."""
    with pytest.raises(UserError) as error:
        sprites.load(config(data_dir, source))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return write_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def whole(clone, tmp_path_factory):
    """data_dir of the whole set, made by the script from inside its folder."""
    data_dir = tmp_path_factory.mktemp("whole")
    command = [sys.executable, SCRIPT.name, "--lpc", clone, "--data_dir", data_dir]
    done = run(command, cwd=SCRIPT.parent)
    assert done.returncode == 0, done.stderr
    yield data_dir
    # 743 MB
    shutil.rmtree(data_dir)


@pytest.fixture(scope="module")
def dataset(whole):
    return sprites.load(config(whole))


# the composed set


def test_counts_and_labels(dataset):
    assert dataset.frames.shape == (7560 * 8, 64, 64, 3) and (dataset.lengths == 8).all()
    assert isinstance(dataset.frames, np.memmap)
    sizes = {"body": 7, "shirt": 4, "legs": 5, "hair": 6, "action": 9}
    assert {name: len(values) for name, values in dataset.classes.items()} == sizes
    assert dataset.classes["action"][::4] == ("walk left", "spellcast front", "slash right")
    assert (dataset.static, dataset.dynamic) == (("body", "shirt", "legs", "hair"), ("action",))
    assert (dataset.group, dataset.clips_per_sample, dataset.fps) == ("character", 2, 10)
    table = np.stack([dataset.labels[name] for name in (*sizes, "character")], 1)
    assert table.dtype == np.int64
    assert len(np.unique(table[:, :5], axis=0)) == 7560
    assert table.min(0).tolist() == [0] * 6
    assert table.max(0).tolist() == [count - 1 for count in (*sizes.values(), 840)]
    assert (np.bincount(dataset.labels["character"]) == 9).all()


def test_every_frame_shows_its_cell_and_layers_lie_in_order(dataset):
    rows = np.array([9, 10, 11, 1, 2, 3, 13, 14, 15])
    columns = np.array(
        [[0, 1, 2, 3, 4, 5, 6, 7]] * 3
        + [[0, 1, 2, 3, 4, 5, 6, 6]] * 3
        + [[0, 1, 2, 3, 4, 5, 5, 5]] * 3
    )
    action = dataset.labels["action"]
    for factor, height in CENTRES.items():
        pixel = np.asarray(dataset.frames[:, height, 32]).reshape(-1, 8, 3)
        assert (pixel[..., 0] == rows[action][:, None]).all()
        assert (pixel[..., 1] == columns[action]).all()
        assert (pixel[..., 2] == code(factor, dataset.labels[factor])[:, None]).all()


def test_the_split_is_by_character_seeded_and_stored(dataset, whole):
    characters = {name: set(dataset.split(name).label("character")) for name in SPLITS}
    counts = {name: len(members) for name, members in characters.items()}
    assert counts == {"train": 714, "val": 42, "test": 84}
    assert set.union(*characters.values()) == set(range(840))
    assert sum(len(dataset.splits[name]) for name in SPLITS) == 7560
    drawn = compose.draw_split(np.arange(840))
    stored = json.loads((whole / "sprites" / METADATA).read_text())["split"]
    for name in SPLITS:
        assert drawn[name].tolist() == stored[name] == sorted(characters[name])
    for factor in dataset.static:
        assert set(dataset.split("test").label(factor)) == set(range(len(dataset.classes[factor])))


def test_the_fingerprint_is_of_what_is_stored(dataset, whole):
    clips = dataset.frames.reshape(-1, 8, 64, 64, 3)
    assert dataset.fingerprint == fingerprint(clips, dataset.labels, dataset.splits)
    assert sprites.stored(whole / "sprites").verify()


def test_the_script_keeps_a_complete_set(whole, clone):
    frames = whole / "sprites" / FRAMES
    before = frames.stat().st_mtime_ns
    # Run by its shebang, which must find this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run([SCRIPT, "--lpc", clone, "--data_dir", whole], env=os.environ | {"PATH": path})
    assert (done.returncode, done.stderr) == (0, "")
    assert "already" in done.stdout and frames.stat().st_mtime_ns == before


def test_the_script_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not wanted here')")
    command = [sys.executable, SCRIPT, "--lpc", tmp_path / "nowhere"]
    done = run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "nowhere" in done.stderr and done.stderr.count("\n") == 1


# pixels


def test_over_is_alpha_over_rounded_to_nearest():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    cells = np.stack([colour, colour, colour, alpha], -1).astype(np.uint8)
    for below in (0, 1, 100, 254, 255):
        mixed = compose.Layer(cells).over(np.full((256, 256, 3), below, np.uint8))
        exact = np.rint((colour * alpha + below * (255 - alpha)) / 255)
        assert (mixed == exact[..., None]).all()


@pytest.mark.parametrize(("transparency", "alpha"), [(0, 255), (bytes([0, 128]), 128)])
def test_palettes_with_transparency_are_read(tmp_path, transparency, alpha):
    image = Image.new("P", (832, 1344))
    image.putpalette([9, 9, 9, 10, 20, 30])
    image.paste(1, (0, 64, 64, 128))
    image.save(tmp_path / "sheet.png", transparency=transparency)
    cells = compose.read_sheet(tmp_path / "sheet.png")
    assert cells.shape == (21, 13, 64, 64, 4) and cells[0, 0, 0, 0, 3] == 0
    assert cells[1, 0, 0, 0].tolist() == [10, 20, 30, alpha]
    black = np.zeros((9, 8, 64, 64, 3), np.uint8)
    # Spellcast left, the fourth action, is row 1 of the sheet.
    frame = compose.Layer(compose.cut(cells)).over(black)[3, 0]
    assert frame[0, 0].tolist() == [round(value * alpha / 255) for value in (10, 20, 30)]


def test_sheets_that_are_missing_or_wrong_are_named(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("RGBA", (64, 64)).save(tmp_path / "small.png")
    for name, words in (
        ("light.png", f"found no .*light.png: .* clone of {compose.UPSTREAM}"),
        ("text.png", "cannot read .*text.png .* again"),
        ("small.png", "64x64 pixels, expected 832x1344"),
    ):
        with pytest.raises(UserError, match=words) as error:
            compose.read_sheet(tmp_path / name)
        assert "\n" not in str(error.value)


# files


def test_a_small_set_is_read_back(tmp_path):
    made.sprites(tmp_path, value=7)
    dataset = sprites.load(config(tmp_path))
    assert (dataset.frames == 7).all()
    counts = {name: len(rows) for name, rows in dataset.splits.items()}
    assert counts == {"train": 36, "val": 9, "test": 9}
    assert {path.name for path in (tmp_path / "sprites").iterdir()} == {
        FRAMES,
        METADATA,
        f"{FRAMES}.checked",
    }


def test_the_files_of_earlier_versions_are_read(tmp_path):
    """Those users have on disk: the split by character, as written since the first version."""
    folder = tmp_path / "sprites"
    folder.mkdir()
    clips = np.random.default_rng(0).integers(0, 256, (4, 8, 64, 64, 3), np.uint8)
    np.save(folder / FRAMES, clips)
    labels = {name: [0] * 4 for name in ("body", "shirt", "legs", "hair")}
    metadata = {
        "version": 1,
        "origin": "composed",
        "fingerprint": "",
        "split_seed": 0,
        "split": {"train": [1, 2], "val": [0], "test": [5]},
        "labels": labels | {"action": [0, 1, 2, 3], "character": [5, 2, 0, 1]},
        "shape": [4, 8, 64, 64, 3],
        "bytes": (folder / FRAMES).stat().st_size,
    }
    arrays = {name: np.array(values) for name, values in metadata["labels"].items()}
    splits = {"train": np.array([1, 3]), "val": np.array([2]), "test": np.array([0])}
    metadata["fingerprint"] = fingerprint(clips, arrays, splits)
    (folder / METADATA).write_text(json.dumps(metadata))
    dataset = sprites.load(config(tmp_path))
    assert np.array_equal(dataset.frames.reshape(clips.shape), clips)
    rows = {name: rows.tolist() for name, rows in dataset.splits.items()}
    assert rows == {"train": [1, 3], "val": [2], "test": [0]}
    assert dataset.labels["action"].tolist() == [0, 1, 2, 3]
    assert dataset.fingerprint == metadata["fingerprint"]


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"labels"', '"marks"', "labels"),
        ('"action": [0', '"action": [9', "action"),
        ('"split"', '"parts"', "split"),
    ],
)
def test_damaged_sets_are_refused_with_the_command_to_run(tmp_path, old, new, word):
    made.sprites(tmp_path)
    path = tmp_path / "sprites" / METADATA
    path.write_text(path.read_text().replace(old, new))
    line = refusal(tmp_path)
    for part in (word, sprites.COMMAND, compose.UPSTREAM, "743,178,240 bytes"):
        assert part in line


def test_missing_sets_and_clones_are_named(tmp_path, clone):
    line = refusal(tmp_path)
    for part in (METADATA, sprites.COMMAND, compose.UPSTREAM, "743,178,240 bytes"):
        assert part in line
    line = refusal(tmp_path, tmp_path / "no-clone")
    assert "no-clone" in line and compose.UPSTREAM in line
    (tmp_path / "file").write_text("")
    assert "cannot write" in refusal(tmp_path / "file", clone)


def test_an_unfinished_set_is_made_anew_from_the_source(tmp_path, monkeypatch):
    made.sprites(tmp_path)
    (tmp_path / "sprites" / METADATA).unlink()
    sources = []

    def make(source, folder):
        sources.append(source)
        made.sprites(folder.parent, value=5)

    monkeypatch.setattr(sprites, "make", make)
    for _ in range(2):
        assert (sprites.load(config(tmp_path, "CLONE")).frames == 5).all()
    assert sources == ["CLONE"]


# the real art


@pytest.fixture(scope="module")
def art():
    folder = os.environ.get("VDSM_REAL_DATA")
    if not folder or not (Path(folder) / "lpc").is_dir():
        pytest.skip("real LPC art not checked: VDSM_REAL_DATA does not name a folder with lpc/")
    return Path(folder) / "lpc"


@pytest.fixture(scope="module")
def real(art, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("real")
    yield sprites.load(config(data_dir, art))
    # 743 MB
    shutil.rmtree(data_dir)


def test_real_clips_differ_and_are_on_black(real):
    # [7560, 3, 64, 64, 3]
    some_frames = real.frames.reshape(-1, 8, 64, 64, 3)[:, ::3]
    assert len({clip.tobytes() for clip in some_frames}) == 7560
    assert not some_frames[:, :, :8].any()
    assert (some_frames.reshape(7560, -1).max(1) > 100).all()


def test_real_frames_agree_with_pillow(real, art):
    action = real.classes["action"].index("slash front")
    for character in (0, 333, 839):
        clip = 9 * character + action
        picture = Image.new("RGBA", (832, 1344), (0, 0, 0, 255))
        for factor in ("body", "legs", "shirt", "hair"):
            name = real.classes[factor][real.labels[factor][clip]]
            layer = Image.open(art / compose.sheet_path(factor, name))
            picture.alpha_composite(layer.convert("RGBA"))
        row = np.asarray(picture.convert("RGB"))[14 * 64 : 15 * 64]
        cells = row.reshape(64, 13, 64, 3).swapaxes(0, 1)[[0, 1, 2, 3, 4, 5, 5, 5]]
        assert np.abs(cells.astype(int) - real.frames[8 * clip : 8 * clip + 8]).max() <= 1
