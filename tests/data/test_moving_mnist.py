"""data/moving_mnist.py: bouncing digits, kept apart by image, from IDX files or the public array; real digits where
VDSM_REAL_DATA names them."""

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
    """Digit images that tell their number by their brightness, and labels 0..9 in turn."""
    folder.mkdir(exist_ok=True)
    images = (
        np.zeros((count, 28, 28), np.uint8) + np.arange(1, count + 1, dtype=np.uint8)[:, None, None]
    )
    for kind, array in (
        ("images-idx3", images),
        ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
    ):
        head = np.array([2051 if array.ndim == 3 else 2049, *array.shape], ">i4").tobytes()
        path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
        with (gzip.open if packed else open)(path, "wb") as file:
            file.write(head + array.tobytes())
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(moving_mnist, "CLIPS", {"train": 12, "val": 3, "test": 4})


def test_digits_of_one_split_are_in_no_other(tmp_path):
    found = moving_mnist.load(config(tmp_path, write_idx(tmp_path / "raw")))
    assert {name: len(found.splits[name]) for name in SPLITS} == {"train": 12, "val": 3, "test": 4}
    seen = [set(found.split(name).label("image").ravel()) for name in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    for i, (a, b) in enumerate(found.labels["image"]):
        tones = set(np.unique(found.frames[20 * i : 20 * i + 20])) - {0}
        assert tones <= {a + 1, b + 1}, "only the clip's own two digits are drawn"
        assert (
            found.classes["digits"][found.labels["digits"][i]]
            == f"{min(a % 10, b % 10)} {max(a % 10, b % 10)}"
        )
    assert found.frames.shape == (19 * 20, 64, 64, 3) and found.frames.strides[-1] == 0, (
        "grey is kept once"
    )


def test_with_both_files_the_test_file_is_the_test_split(tmp_path):
    write_idx(tmp_path / "raw", "train", packed=False), write_idx(tmp_path / "raw", "t10k", 20)
    found = moving_mnist.load(config(tmp_path, tmp_path / "raw"))
    assert found.split("test").label("image").min() >= 60
    assert max(found.split(name).label("image").max() for name in ("train", "val")) < 60


def test_paths_go_straight_and_are_reflected():
    start, direction = np.array([[0.5, 0.95]]), np.array([0.0])  # to the right
    free = moving_mnist.paths(start, direction, 4)
    assert free[0].tolist() == [
        [18, 34],
        [18, 34],
        [18, 31],
        [18, 27],
    ]  # 0.95, 1.05, 1.15, 1.25, reflected at 1
    many = moving_mnist.paths(np.random.default_rng(0).random((50, 2)), np.linspace(0, 6, 50), 40)
    assert many.min() == 0 and many.max() == 36
    assert np.abs(np.diff(many, axis=1)).max() <= 4  # 3.6 px a frame


def test_the_brighter_of_two_digits_counts():
    frames = np.zeros((1, 1, 64, 64), np.uint8)
    for tone, place in ((100, (0, 0)), (50, (10, 10))):
        moving_mnist.draw(frames, np.full((1, 28, 28), tone, np.uint8), np.array([[place]]))
    assert [frames[0, 0, i, i] for i in (0, 15, 27, 28, 37, 38)] == [100, 100, 100, 50, 50, 0]


def test_a_seed_and_files_make_a_set_and_others_another(tmp_path, capsys):
    raw = write_idx(tmp_path / "raw")
    one = moving_mnist.load(config(tmp_path, raw)).fingerprint
    assert "making" in capsys.readouterr().out
    assert moving_mnist.load(config(tmp_path)).fingerprint == one, "kept, without its source"
    assert "making" not in capsys.readouterr().out
    assert moving_mnist.load(config(tmp_path, raw, 1)).fingerprint != one
    with pytest.raises(UserError, match="--data_seed 1"):
        moving_mnist.load(config(tmp_path))


def test_the_public_array(tmp_path, capsys):
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 64, 64), dtype=np.uint8)
    (tmp_path / "moving-mnist").mkdir()
    np.save(tmp_path / "moving-mnist" / "mnist_test_seq.npy", array)
    found = moving_mnist.load(config(tmp_path))
    assert "does not tell its digits" in capsys.readouterr().out
    assert np.array_equal(found.frames[..., 1].reshape(30, 20, 64, 64), array.swapaxes(0, 1))
    assert np.array_equal(
        np.sort(np.concatenate([found.splits[name] for name in SPLITS])), np.arange(30)
    )
    assert found.static == () and found.labels == {}


def test_torchvision_downloads_where_it_is_asked_to(tmp_path, monkeypatch):
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


@pytest.mark.parametrize("harm", [cut, not_gzip, other_header])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_files_that_are_not_mnists(tmp_path, harm, kind):
    raw = write_idx(tmp_path / "raw")
    harm(raw / f"t10k-{kind}-ubyte.gz")
    with pytest.raises(UserError, match=kind) as error:
        moving_mnist.load(config(tmp_path, raw))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "moving-mnist").iterdir()), "nothing stays"


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="--source torchvision"):
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
    assert len(np.unique(images.reshape(10000, -1), axis=0)) == 10000, (
        "no image twice: splits by number share no digit"
    )
    found = moving_mnist.load(config(tmp_path, folder))
    assert 30 < found.frames.reshape(19, -1).max() and found.frames.any((1, 2, 3)).all()
