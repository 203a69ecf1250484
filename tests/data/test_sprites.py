"""data/sprites: cells, draw order, alpha, split, files, the release's folders, on synthetic sheets of the upstream layout;
the real art where VDSM_REAL_DATA names a folder that holds lpc/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from data import sprites
from data.base import fingerprint
from data.sprites import compose, release, store
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "data" / "sprites" / "create_lpc_dataset.py"
BANDS = dict(
    zip(compose.DRAW_ORDER, (64, 48, 32, 16), strict=True)
)  # rows of each cell that a factor's layer covers, from 0
CENTRES = dict(
    zip(compose.DRAW_ORDER, (56, 40, 24, 8), strict=True)
)  # a row where it is the topmost


def code(factor, value):
    """The blue of a synthetic layer: factor and value, told apart."""
    return 60 * compose.DRAW_ORDER.index(factor) + 8 * value + 5


def write_clone(root):
    """Sheets whose cell (row, column) has the colour (row, column, code of the layer), down to the factor's band."""
    row, column = np.indices((compose.SHEET_ROWS * 64, compose.SHEET_COLUMNS * 64))
    for factor, names in compose.FACTORS.items():
        for value, name in enumerate(names):
            sheet = np.zeros((*row.shape, 4), np.uint8)
            sheet[..., 0], sheet[..., 1], sheet[..., 2] = (
                row // 64,
                column // 64,
                code(factor, value),
            )
            sheet[..., 3] = 255 * (row % 64 < BANDS[factor])
            path = root / compose.sheet_path(factor, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sheet).save(path, compress_level=1)
    return root


def config(data_dir, source=None):
    return SimpleNamespace(data_dir=str(data_dir), source=source and str(source))


def run(command, **more):
    return subprocess.run(command, check=False, capture_output=True, text=True, **more)


def one_line(error, *parts):
    """The message of a caught UserError is one line that holds the parts."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return True


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
    shutil.rmtree(data_dir)  # 743 MB


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
    assert [(table[:, i].min(), table[:, i].max() + 1) for i in range(6)] == [
        (0, n) for n in (*sizes.values(), 840)
    ]
    assert (np.bincount(dataset.labels["character"]) == 9).all()


def test_every_frame_comes_from_its_cell_and_layers_lie_in_order(dataset):
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


def test_split_is_by_character_seeded_and_stored(dataset, whole):
    characters = {name: set(dataset.split(name).label("character")) for name in store.SPLITS}
    assert {name: len(found) for name, found in characters.items()} == {
        "train": 714,
        "val": 42,
        "test": 84,
    }
    assert set.union(*characters.values()) == set(range(840))
    assert sum(len(dataset.splits[name]) for name in store.SPLITS) == 7560
    again = store.draw_split(np.arange(840))
    stored = store.read(whole / "sprites")[0]["split"]
    for name in store.SPLITS:
        assert np.array_equal(again[name], stored[name])
        assert set(again[name]) == characters[name]
    for factor in dataset.static:
        assert set(dataset.split("test").label(factor)) == set(range(len(dataset.classes[factor])))


def test_fingerprint_is_of_what_is_stored(dataset, whole):
    clips = dataset.frames.reshape(-1, 8, 64, 64, 3)
    assert dataset.fingerprint == fingerprint(clips, dataset.labels, dataset.splits)
    assert store.verify(whole / "sprites")


def test_script_keeps_a_whole_set(whole, clone):
    before = (whole / "sprites" / store.FRAMES).stat().st_mtime_ns
    done = run([SCRIPT, "--lpc", clone, "--data_dir", whole], env=venv_first())
    assert (done.returncode, done.stderr) == (0, "")
    assert (whole / "sprites" / store.FRAMES).stat().st_mtime_ns == before


def venv_first():
    """The script's shebang finds this interpreter."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_script_needs_no_torch(clone, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not wanted here')")
    command = [sys.executable, SCRIPT, "--lpc", tmp_path / "nowhere"]
    done = run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


def test_script_without_arguments_says_what_to_pass():
    done = run([sys.executable, SCRIPT.name], cwd=SCRIPT.parent)
    assert done.returncode == 2
    assert "--lpc CLONE" in done.stderr
    assert done.stderr.count("\n") == 1


# pixels


def test_over_is_alpha_over_rounded_to_nearest():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    cells = np.stack([colour, colour, colour, alpha], -1).astype(np.uint8)
    for below in (0, 1, 100, 254, 255):
        found = compose.Layer(cells).over(np.full((256, 256, 3), below, np.uint8))
        exact = np.rint((colour * alpha + below * (255 - alpha)) / 255)
        assert (found == exact[..., None]).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 128])])
def test_palettes_with_transparency_are_read(tmp_path, transparency):
    image = Image.new("P", (832, 1344))
    image.putpalette([9, 9, 9, 10, 20, 30])
    image.paste(1, (0, 64, 64, 128))
    image.save(tmp_path / "sheet.png", transparency=transparency)
    sheet = compose.read_sheet(tmp_path / "sheet.png")
    assert sheet.shape == (1344, 832, 4)
    assert sheet[0, 0, 3] == 0
    half = 255 if transparency == 0 else 128
    assert sheet[64, 0].tolist() == [10, 20, 30, half]
    black = np.zeros((9, 8, 64, 64, 3), np.uint8)
    frame = compose.Layer(compose.cut(sheet)).over(black)[3, 0]  # spellcast left is row 1
    assert frame[0, 0].tolist() == [round(value * half / 255) for value in (10, 20, 30)]


def test_sheets_that_are_missing_or_wrong_are_named(tmp_path):
    with pytest.raises(UserError) as error:
        compose.read_sheet(tmp_path / "light.png")
    assert one_line(error, "light.png", compose.UPSTREAM)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UserError) as error:
        compose.read_sheet(tmp_path / "text.png")
    assert one_line(error, "text.png", "clone")
    Image.new("RGBA", (64, 64)).save(tmp_path / "small.png")
    with pytest.raises(UserError) as error:
        compose.read_sheet(tmp_path / "small.png")
    assert one_line(error, "64x64", "832x1344")


# files


def small_set(folder, clips=54, value=0):
    """A set of the store's form with `clips` clips, nine a character."""
    numbers = np.arange(clips)
    labels = {name: np.zeros(clips, np.int64) for name in compose.FACTORS}
    labels |= {"action": numbers % 9, "character": numbers // 9}

    def fill(frames):
        frames[:] = value
        return labels, store.draw_split(labels["character"])

    store.write(folder, (clips, 8, 64, 64, 3), fill, "composed")


def test_small_set_round_trips(tmp_path):
    small_set(tmp_path / "sprites", value=7)
    found = sprites.load(config(tmp_path))
    assert (found.frames == 7).all()
    assert {name: len(rows) for name, rows in found.splits.items()} == {
        "train": 36,
        "val": 9,
        "test": 9,
    }
    assert sorted(path.name for path in (tmp_path / "sprites").iterdir()) == [
        "dataset.json",
        "frames.npy",
    ]


def test_failure_leaves_the_old_set_and_no_rest(tmp_path):
    small_set(tmp_path, value=1)

    def fill(frames):
        frames[0] = 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path, (9, 8, 64, 64, 3), fill, "composed")
    assert store.verify(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "frames.npy"]


def test_too_small_a_disk_is_said_before_work(tmp_path):
    with pytest.raises(UserError) as error:
        store.write(tmp_path, (10**9, 8, 64, 64, 3), None, "composed")
    assert one_line(error, "bytes free", "--data_dir")


def test_a_data_dir_that_is_a_file_is_one_line(tmp_path, clone):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path / "file", clone))
    assert one_line(error, "cannot write", "--data_dir")


def truncate(folder):
    with open(folder / store.FRAMES, "r+b") as file:
        file.truncate(1000)


def other_type(folder):
    np.save(folder / store.FRAMES, np.zeros((27, 8, 64, 64, 3), np.uint16))  # as many bytes


def no_labels(folder):
    text = (folder / store.METADATA).read_text()
    (folder / store.METADATA).write_text(text.replace('"labels"', '"marks"'))


def cut_metadata(folder):
    text = (folder / store.METADATA).read_text()
    (folder / store.METADATA).write_text(text[: len(text) // 2])


def wrong_label(folder):
    text = (folder / store.METADATA).read_text()
    (folder / store.METADATA).write_text(text.replace('"action": [0', '"action": [9'))


def no_frames(folder):
    (folder / store.FRAMES).unlink()


def no_metadata(folder):
    (folder / store.METADATA).unlink()


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (truncate, "1,000 bytes"),
        (other_type, "uint16"),
        (no_labels, "labels"),
        (cut_metadata, store.METADATA),
        (wrong_label, "action"),
        (no_frames, store.FRAMES),
        (no_metadata, store.METADATA),
    ],
)
def test_harmed_sets_are_refused_with_the_command(tmp_path, harm, word):
    small_set(tmp_path / "sprites")
    harm(tmp_path / "sprites")
    assert not store.verify(tmp_path / "sprites")
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path))
    assert one_line(error, word, sprites.COMMAND, compose.UPSTREAM, "743,178,240 bytes")


def test_pixels_changed_in_place_are_found_by_verify(tmp_path):
    small_set(tmp_path)
    with open(tmp_path / store.FRAMES, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert store.fault(tmp_path) is None
    assert not store.verify(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path))
    assert one_line(error, sprites.COMMAND, compose.UPSTREAM, "743,178,240 bytes")
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path, tmp_path / "no-clone"))
    assert one_line(error, "no-clone", compose.UPSTREAM)


def test_an_unfinished_set_is_made_anew_from_the_source(tmp_path, monkeypatch):
    small_set(tmp_path / "sprites")
    no_metadata(tmp_path / "sprites")
    asked = []
    monkeypatch.setattr(
        sprites, "make", lambda source, folder: (asked.append(source), small_set(folder, value=5))
    )
    assert (sprites.load(config(tmp_path, "CLONE")).frames == 5).all()
    assert asked == ["CLONE"]
    sprites.load(config(tmp_path, "CLONE"))
    assert asked == ["CLONE"]


# the release's folders


def write_release(root, train=(3, 500), test=(839,), directed=True):
    """train/ and test/ as the release's script leaves them; a frame's grey level tells clip and time."""
    for part, characters in (("train", train), ("test", test)):
        (root / part).mkdir(parents=True)
        for i, character in enumerate(characters):
            rest, hair = divmod(character, 6)
            rest, legs = divmod(rest, 5)
            body, shirt = divmod(rest, 4)
            for action in range(9):
                grey = torch.full((8, 3, 64, 64), -1.0)
                grey[:, 1, 5] = (torch.arange(8)[:, None] + 10 * action) / 127.5 - 1
                item = {"body": body, "shirt": shirt, "pant": legs, "hair": hair, "sprite": grey}
                item["action"] = action if directed else action // 3
                torch.save(item, root / part / f"{9 * i + action + 1}.sprite")
    return root


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("inside", ["", "lpc-dataset"])
def test_release_folders_load(tmp_path, capsys, directed, inside):
    write_release(tmp_path / "sprites" / inside, directed=directed)
    found = sprites.load(config(tmp_path))
    assert found.frames.shape == (27 * 8, 64, 64, 3)
    assert found.labels["action"].tolist() == list(range(9)) * 3
    assert found.labels["character"].tolist() == [3] * 9 + [500] * 9 + [839] * 9
    assert [found.labels[factor][-1] for factor in found.static] == [6, 3, 4, 5]
    assert (
        found.frames[:, 5, 9, 1].reshape(-1, 8)
        == np.arange(8) + 10 * found.labels["action"][:, None]
    ).all()
    assert not found.frames[..., 0].any()
    assert set(found.split("test").label("character")) == {839}
    assert {len(set(found.split(name).label("character"))) for name in ("train", "val")} == {1}
    assert store.read(tmp_path / "sprites")[0]["origin"] == "release"
    assert sprites.RELEASE_NOTE in capsys.readouterr().out
    shutil.rmtree(
        tmp_path / "sprites" / inside / "train"
    )  # converted once: the files are not read again
    assert sprites.load(config(tmp_path)).fingerprint == found.fingerprint


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("harm-done",))


def replace_item(root, **values):
    path = root / "train" / "4.sprite"
    torch.save(torch.load(path, weights_only=True) | values, path)


@pytest.mark.parametrize(
    "values",
    [
        {"hair": Harmful()},
        {"hair": 6},
        {"hair": "blue"},
        {"action": 9},
        {"sprite": torch.zeros(8, 3, 32, 32)},
        {"sprite": torch.zeros(8, 3, 64, 64, dtype=torch.uint8)},
        {"sprite": torch.full((8, 3, 64, 64), 0.5)},  # in [0, 1], not [-1, 1]
        {"sprite": torch.full((8, 3, 64, 64), -2.0)},
        {"sprite": torch.full((8, 3, 64, 64), torch.nan)},
        {"sprite": None},
    ],
)
def test_other_sprite_files_are_refused(tmp_path, monkeypatch, values):
    monkeypatch.chdir(tmp_path)
    replace_item(write_release(tmp_path / "sprites"), **values)
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path))
    assert one_line(error, "4.sprite", "create_lpc_dataset.py")
    assert not (tmp_path / "harm-done").exists()
    assert not list((tmp_path / "sprites").glob("*.npy"))


def test_sprite_files_that_are_no_torch_files_are_refused(tmp_path):
    write_release(tmp_path / "sprites")
    (tmp_path / "sprites" / "test" / "2.sprite").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path))
    assert one_line(error, "2.sprite")


def test_release_folders_that_contradict_themselves_are_refused(tmp_path):
    write_release(tmp_path / "a" / "sprites", train=(3, 839))
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path / "a"))
    assert one_line(error, "character 839", "both")
    root = write_release(tmp_path / "b" / "sprites", directed=False)
    replace_item(root, action=2)
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path / "b"))
    assert one_line(error, "actions 0..2")
    (root / "test" / "readme.sprite").write_text("")
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path / "b"))
    assert one_line(error, "readme.sprite")
    write_release(tmp_path / "c" / "sprites", train=(3,))
    with pytest.raises(UserError) as error:
        sprites.load(config(tmp_path / "c"))
    assert one_line(error, "too few characters")


def test_release_is_not_found_where_a_half_is_missing(tmp_path):
    write_release(tmp_path)
    shutil.rmtree(tmp_path / "test")
    assert release.find(tmp_path) is None


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
    shutil.rmtree(data_dir)  # 743 MB


def test_real_clips_differ_and_are_on_black(real):
    first = real.frames.reshape(-1, 8, 64, 64, 3)[:, ::3]  # [7560, 3, 64, 64, 3]
    assert len({clip.tobytes() for clip in first}) == 7560
    assert not first[:, :, :8].any()
    assert (first.reshape(7560, -1).max(1) > 100).all()


def test_real_frames_agree_with_pillow(real, art):
    action = real.classes["action"].index("slash front")
    for character in (0, 333, 839):
        clip = 9 * character + action
        picture = Image.new("RGBA", (832, 1344), (0, 0, 0, 255))
        for factor in ("body", "legs", "shirt", "hair"):
            name = real.classes[factor][real.labels[factor][clip]]
            picture.alpha_composite(
                Image.open(art / compose.sheet_path(factor, name)).convert("RGBA")
            )
        cells = (
            np.asarray(picture.convert("RGB"))[14 * 64 : 15 * 64]
            .reshape(64, 13, 64, 3)
            .swapaxes(0, 1)
        )
        assert (
            np.abs(
                cells[[0, 1, 2, 3, 4, 5, 5, 5]].astype(int) - real.frames[8 * clip : 8 * clip + 8]
            ).max()
            <= 1
        )
