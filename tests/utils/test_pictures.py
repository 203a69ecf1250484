"""Sheets, margins and GIFs read back as they were drawn; the grids of a run have the right source on the right margin."""

from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import torch

from data.base import Dataset, flat
from utils.drawing import draw_stage
from utils.frames import as_float, as_uint8
from utils.pictures import save_gif, save_png, sheet, with_margins


def test_sheet_and_margins_place_every_tile(tmp_path):
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 255, (2, 3, 4, 4, 3), np.uint8)
    left, top = inside[:, 0] // 2, inside[0] // 3
    tiles = with_margins(inside, left, top)
    picture = sheet(tiles, gap=1)
    assert picture.shape == (3 * 5 - 1, 4 * 5 - 1, 3)
    assert np.array_equal(picture[5:9, 5:9], inside[0, 0])
    assert np.array_equal(picture[10:14, :4], left[1])
    assert np.array_equal(picture[:4, 15:19], top[2])
    assert not picture[:4, :4].any()
    save_png(tmp_path / "a.png", picture)
    assert np.array_equal(iio.imread(tmp_path / "a.png"), picture)
    save_gif(tmp_path / "a.gif", np.stack([picture, 255 - picture]), 10)
    assert iio.imread(tmp_path / "a.gif", index=None).shape[0] == 2
    assert not list(tmp_path.glob("*.part"))


def test_frames_convert_both_ways():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), np.uint8)
    assert np.array_equal(as_uint8(as_float(torch.from_numpy(frames))), frames)


class Painter:
    """A model that swaps perfectly: static is a clip's colour, dynamic its brightness a frame."""

    def encode(self, frames):
        light = frames.amax((2, 3, 4))
        return frames[:, 0, :, 0, 0] / light[:, :1], light

    def decode(self, static, dynamic, frames):
        picture = static[:, None, :, None, None] * dynamic[:, :1].expand(-1, frames)[..., None, None, None]
        return picture.expand(-1, -1, -1, 64, 64)

    def sample(self, clips, frames):
        return torch.zeros(clips, frames, 3, 64, 64)


def _dataset(clips=4, frames=2):
    colours = np.array([[200, 0, 0], [0, 100, 0], [0, 0, 60], [80, 80, 80]], np.uint8)
    pixels = np.broadcast_to(colours[:, None, None, None], (clips, frames, 64, 64, 3))
    every = np.arange(clips)
    splits = {"train": every, "val": every, "test": every}
    return Dataset("colours", *flat(np.ascontiguousarray(pixels)), {}, {}, splits, (), (), "0", continuations=(3,))


def _stage(name):
    settings = SimpleNamespace(num_test_ids=4, seq_len=2, bs=4)
    return SimpleNamespace(name=name, settings=settings, view=Painter)


def test_swap_grid_has_the_columns_identity_in_the_rows_pose(tmp_path):
    logged = {}
    draw_stage(
        _stage("EncDec"),
        _dataset(),
        None,
        None,
        tmp_path,
        7,
        lambda tag, value, epoch: logged.update({tag: value}),
        True,
    )
    picture = iio.imread(tmp_path / "swap_ep_7_rec.png")
    tile = picture[2::65, 2::65].astype(int)  # one pixel a tile
    assert tile.shape[:2] == (5, 5)
    for row in range(1, 5):
        for column in range(1, 5):
            hue = tile[0, column] / tile[0, column].max()
            assert np.abs(tile[row, column] - hue * tile[row, 0].max()).max() <= 1
    assert np.array_equal(logged["swap_ep_rec"], picture)


def test_stage_2_writes_the_releases_names_and_ours(tmp_path):
    draw_stage(_stage("Seq"), _dataset(), None, None, tmp_path, 3, lambda *_: None, True)
    names = {path.name for path in tmp_path.iterdir()}
    release = {"seq_3_rec.png", "seq_3_gt.png", "vid_3_gen.gif", "seq_swap_id_3_gen.png", "vid_swap_3_gen.gif"}
    ours = {"transfer_3.png", "samples_3.png", "samples_3.gif", "continue_3_3.png", "continue_3_3.gif"}
    assert names == release | ours
