"""Sheets, margins and GIFs read back as they were drawn; the grids of a run have the right source on the right margin."""

from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import torch

from data.base import Dataset, flat
from pictures.drawing import draw_stage
from pictures.files import save_gif, save_png, sheet, with_margins
from utils.frames import as_float, as_uint8


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
        picture = (
            static[:, None, :, None, None]
            * dynamic[:, :1].expand(-1, frames)[..., None, None, None]
        )
        return picture.expand(-1, -1, -1, 64, 64)

    def sample(self, clips, frames):
        return torch.zeros(clips, frames, 3, 64, 64)


def _dataset(clips=4, frames=2):
    colours = np.array([[200, 0, 0], [0, 100, 0], [0, 0, 60], [80, 80, 80]], np.uint8)
    pixels = np.broadcast_to(colours[:, None, None, None], (clips, frames, 64, 64, 3))
    every = np.arange(clips)
    splits = {"train": every, "val": every, "test": every}
    return Dataset(
        "colours",
        *flat(np.ascontiguousarray(pixels)),
        {},
        {},
        splits,
        (),
        (),
        "0",
        continuations=(3,),
    )


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


class Drawing(Painter):
    """A Painter with priors: every identity drawn is blue, every motion drawn is at half light."""

    def draw(self, clips, frames):
        return torch.tensor([0.0, 0.0, 1.0]).expand(clips, 3), self.draw_dynamic(
            torch.zeros(clips), frames
        )

    def draw_dynamic(self, static, frames):
        return torch.full((len(static), frames), 0.5)


def test_what_is_held_fixed_and_what_is_drawn(tmp_path):
    stage = _stage("DSA")
    stage.view = Drawing
    draw_stage(stage, _dataset(), None, None, tmp_path, 3, lambda *_: None, True)
    tiles = {
        held: iio.imread(tmp_path / f"fixed_{held}_3.png")[2::65, 2::65].astype(int)
        for held in "fz"
    }
    each = 3  # a clip, and under it two that were drawn
    for clip in range(len(tiles["f"]) // each):
        real = tiles["f"][each * clip, 0]
        light = real.max()
        for row in (each * clip + 1, each * clip + 2):
            assert (
                np.abs(tiles["f"][row] - real * 127.5 / light).max() <= 1
            )  # its identity in the light that was drawn
            assert (
                np.abs(tiles["z"][row] - np.array([0, 0, light])).max() <= 1
            )  # its light on the identity that was drawn


def test_stage_2_writes_the_releases_names_and_ours(tmp_path):
    draw_stage(_stage("Seq"), _dataset(), None, None, tmp_path, 3, lambda *_: None, True)
    names = {path.name for path in tmp_path.iterdir()}
    release = {
        "seq_3_rec.png",
        "seq_3_gt.png",
        "vid_3_gen.gif",
        "seq_swap_id_3_gen.png",
        "vid_swap_3_gen.gif",
    }
    ours = {
        "transfer_3.png",
        "samples_3.png",
        "samples_3.gif",
        "continue_3_3.png",
        "continue_3_3.gif",
    }
    assert names == release | ours
