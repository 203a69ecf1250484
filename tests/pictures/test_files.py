"""pictures/files.py: sheets, margins, PNG and GIF files read back as they were written."""

import gc
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from pictures.files import save_gif, save_png, sheet, with_margins
from utils.frames import as_float, as_uint8


def test_sheet_and_margins_place_every_tile():
    inside = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 4, 3), np.uint8)
    left, top = inside[:, 0] // 2, inside[0] // 3
    picture = sheet(with_margins(inside, left, top), gap=1, shade=96)
    assert picture.shape == (3 * 5 - 1, 4 * 5 - 1, 3)
    assert np.array_equal(picture[5:9, 5:9], inside[0, 0])
    assert np.array_equal(picture[10:14, 15:19], inside[1, 2])
    assert np.array_equal(picture[10:14, :4], left[1])
    assert np.array_equal(picture[:4, 15:19], top[2])
    assert not picture[:4, :4].any()
    assert (picture[4] == 96).all() and (picture[:, 9] == 96).all()


def test_files_hold_what_was_written(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (14, 19, 3), np.uint8)
    save_png(tmp_path / "a.png", picture)
    assert np.array_equal(iio.imread(tmp_path / "a.png"), picture)
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    save_gif(tmp_path / "a.gif", np.stack([black, white, black]), 5)
    assert [frame.mean() for frame in iio.imread(tmp_path / "a.gif", index=None)] == [0, 255, 0]
    about = iio.immeta(tmp_path / "a.gif", index=0)
    # Milliseconds per frame; 0 means an endless loop.
    assert about["duration"] == 200 and about["loop"] == 0


def test_a_film_keeps_the_colours_of_its_frames(tmp_path):
    # 30 frames with more colours than the palette holds.
    ramp = np.arange(256, dtype=np.uint8)
    frames = np.zeros((30, 16, 256, 3), np.uint8)
    for t in range(30):
        frames[t, 4:, :, t % 3] = ramp
        frames[t, 8:, :, (t + 1) % 3] = ramp[::-1] // 2
    save_gif(tmp_path / "a.gif", frames, 10)
    film = np.stack(list(iio.imread(tmp_path / "a.gif", index=None)))
    assert film.shape == frames.shape
    off = np.abs(film.astype(int) - frames)
    assert off.mean() < 4 and off.max() <= 48 and off[:, :4].max() <= 2


def test_a_picture_that_fails_leaves_the_old_one(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    save_png(tmp_path / "a.png", picture)
    with pytest.raises(TypeError):
        save_png(tmp_path / "a.png", picture.astype(complex))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert np.array_equal(iio.imread(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("save", [save_png, lambda *given: save_gif(*given, 5)])
def test_a_full_disk_names_the_file_in_one_error(tmp_path, monkeypatch, capfd, save):
    def full(path, content):
        Path.open(path, "wb").write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    picture = np.zeros((2, 4, 4, 3) if save is not save_png else (4, 4, 3), np.uint8)
    with pytest.raises(OSError) as error:
        save(tmp_path / "a", picture)
    assert error.value.filename == str(tmp_path / "a") and not list(tmp_path.iterdir())
    gc.collect()
    assert capfd.readouterr().err == ""


def test_frames_convert_both_ways():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    tensor = as_float(torch.from_numpy(frames))
    assert tensor.shape == (2, 3, 3, 64, 64)
    assert tensor[1, 2, 0, 5, 7] == torch.tensor(frames[1, 2, 5, 7, 0] / 255).float()
    assert np.array_equal(as_uint8(tensor), frames)
