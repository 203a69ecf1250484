"""data/moving_mnist.py: bouncing digits from IDX files or the public array, split by image.

Real digits are used if VDSM_REAL_DATA names a folder that holds mnist/.
"""

import gzip
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import moving_mnist
from data.base import SPLITS
from utils.errors import UserError


def config(data_dir, source=None, seed=0):
    return SimpleNamespace(data_dir=str(data_dir), source=source and str(source), data_seed=seed)


def write_idx(folder, name="t10k", count=60, packed=True):
    """Write digit images, image i of grey level i + 1, and labels 0..9 in turn."""
    folder.mkdir(exist_ok=True)
    levels = np.arange(1, count + 1, dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None], (count, 28, 28))
    labels = (np.arange(count) % 10).astype(np.uint8)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = np.array([2051 if array.ndim == 3 else 2049, *array.shape], ">i4").tobytes()
        path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
        with (gzip.open if packed else open)(path, "wb") as file:
            file.write(head + array.tobytes())
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(moving_mnist, "CLIPS", {"train": 12, "val": 3, "test": 4})


def test_no_digit_image_is_in_two_splits(tmp_path):
    dataset = moving_mnist.load(config(tmp_path, write_idx(tmp_path / "raw")))
    assert {name: len(dataset.splits[name]) for name in SPLITS} == moving_mnist.CLIPS
    images = [set(dataset.split(name).label("image").ravel()) for name in SPLITS]
    assert sum(map(len, images)) == len(set.union(*images))
    for i, (a, b) in enumerate(dataset.labels["image"]):
        levels = set(np.unique(dataset.frames[20 * i : 20 * i + 20])) - {0}
        assert levels == {a + 1, b + 1}, "a clip shows its own two digits"
        name = dataset.classes["digits"][dataset.labels["digits"][i]]
        assert name == f"{min(a % 10, b % 10)} {max(a % 10, b % 10)}"
    assert dataset.frames.shape == (19 * 20, 64, 64, 3)
    assert dataset.frames.strides[-1] == 0, "grey is stored once"


def test_with_both_files_the_test_file_is_the_test_split(tmp_path):
    write_idx(tmp_path / "raw", "train", packed=False)
    write_idx(tmp_path / "raw", "t10k", 20)
    dataset = moving_mnist.load(config(tmp_path, tmp_path / "raw"))
    assert dataset.split("test").label("image").min() >= 60
    assert max(dataset.split(name).label("image").max() for name in ("train", "val")) < 60


def test_paths_go_straight_and_are_reflected():
    # Direction 0 is to the right: columns 0.95, 1.05, 1.15, 1.25, reflected at 1.
    corners = moving_mnist.paths(np.array([[0.5, 0.95]]), np.array([0.0]), 4)
    assert corners[0].tolist() == [[18, 34], [18, 34], [18, 31], [18, 27]]
    many = moving_mnist.paths(np.random.default_rng(0).random((50, 2)), np.linspace(0, 6, 50), 40)
    assert many.min() == 0 and many.max() == 36
    # 3.6 px per frame.
    assert np.abs(np.diff(many, axis=1)).max() == 4


def test_the_brighter_of_two_digits_counts():
    frames = np.zeros((1, 1, 64, 64), np.uint8)
    for level, place in ((100, (0, 0)), (50, (10, 10))):
        moving_mnist.draw(frames, np.full((1, 28, 28), level, np.uint8), np.array([[place]]))
    assert [frames[0, 0, i, i] for i in (0, 15, 27, 28, 37, 38)] == [100, 100, 100, 50, 50, 0]


def test_the_set_is_made_once_for_a_seed_and_files(tmp_path, capsys):
    raw = write_idx(tmp_path / "raw")
    one = moving_mnist.load(config(tmp_path, raw)).fingerprint
    assert "making" in capsys.readouterr().out
    assert moving_mnist.load(config(tmp_path)).fingerprint == one, "kept without its source"
    assert "making" not in capsys.readouterr().out
    assert moving_mnist.load(config(tmp_path, raw, 1)).fingerprint != one
    with pytest.raises(UserError, match="--data_seed 1"):
        moving_mnist.load(config(tmp_path))


def test_the_public_array(tmp_path, capsys):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 64, 64), dtype=np.uint8)
    (tmp_path / "moving-mnist").mkdir()
    np.save(tmp_path / "moving-mnist" / "mnist_test_seq.npy", array)
    dataset = moving_mnist.load(config(tmp_path))
    assert "has no digit labels" in capsys.readouterr().out
    assert np.array_equal(dataset.frames[..., 1].reshape(30, 20, 64, 64), array.swapaxes(0, 1))
    assert np.array_equal(dataset.split("all").index, np.arange(30))
    assert dataset.static == () and dataset.labels == {}


def test_torchvision_downloads_on_request(tmp_path, monkeypatch):
    import torchvision.datasets

    def fetched(root, train, download):
        raw = Path(root) / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        write_idx(raw, "train" if train else "t10k", packed=False)

    def offline(root, train, download):
        raise RuntimeError("no route")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(UserError, match="cannot download MNIST .no route.: give --source"):
        moving_mnist.load(config(tmp_path, "torchvision"))
    monkeypatch.setattr(torchvision.datasets, "MNIST", fetched)
    assert len(moving_mnist.load(config(tmp_path, "torchvision")).split("test")) == 4


def cut(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-5]))


def not_gzip(path):
    path.write_bytes(b"no gzip")


def other_header(path):
    path.write_bytes(gzip.compress(b"\0" * 40))


def four_bytes(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:4]))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [cut, not_gzip, other_header, four_bytes, pipe])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_other_idx_files_are_named(tmp_path, harm, kind):
    raw = write_idx(tmp_path / "raw")
    harm(raw / f"t10k-{kind}-ubyte.gz")
    with pytest.raises(UserError, match=kind) as error:
        moving_mnist.load(config(tmp_path, raw))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "moving-mnist").iterdir()), "no file is left"


def test_missing_and_wrong_files_are_named(tmp_path):
    with pytest.raises(UserError, match="--source FOLDER or torchvision"):
        moving_mnist.load(config(tmp_path))
    with pytest.raises(UserError, match="found neither"):
        moving_mnist.load(config(tmp_path, tmp_path / "none"))
    (tmp_path / "moving-mnist").mkdir()
    np.save(tmp_path / "moving-mnist" / "mnist_test_seq.npy", np.zeros((20, 5, 32, 32), np.uint8))
    with pytest.raises(UserError, match="expected uint8 .20, 10000, 64, 64."):
        moving_mnist.load(config(tmp_path))


def test_real_digits(tmp_path):
    folder = Path(os.environ.get("VDSM_REAL_DATA", "")) / "mnist"
    if not folder.is_dir():
        pytest.skip("real digits not checked: VDSM_REAL_DATA does not name a folder with mnist/")
    images = moving_mnist.read_idx(folder / "t10k-images-idx3-ubyte.gz", 2051)
    labels = moving_mnist.read_idx(folder / "t10k-labels-idx1-ubyte.gz", 2049)
    assert images.shape == (10000, 28, 28) and labels[:5].tolist() == [7, 2, 1, 0, 4]
    # No image occurs twice, so splits by position share no digit.
    assert len(np.unique(images.reshape(10000, -1), axis=0)) == 10000
    dataset = moving_mnist.load(config(tmp_path, folder))
    for clip, numbers in enumerate(dataset.labels["image"]):
        first = np.zeros((64, 64), np.uint8)
        for number, start in zip(numbers, dataset.labels["start"][clip]):
            row, column = np.rint(36 * start).astype(int)
            window = first[row : row + 28, column : column + 28]
            window[:] = np.maximum(window, images[number])
        assert np.array_equal(dataset.frames[20 * clip, ..., 0], first)
        digits = " ".join(map(str, sorted(labels[numbers])))
        assert dataset.classes["digits"][dataset.labels["digits"][clip]] == digits
