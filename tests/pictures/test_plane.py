"""pictures/plane.py: what lies where in the figures of a two-dimensional dynamic code."""

from dataclasses import replace

import numpy as np
import torch

from data.pendulum import make
from models.view import VideoModel
from pictures import plane, sheets
from tests.tiny import FEW


class Painter(VideoModel):
    """Decodes to uniform frames: red is the first static number, green z_1, blue z_2."""

    def decode(self, static, dynamic, frames):
        colour = torch.cat([static[:, None, :1].expand(-1, frames, -1), dynamic[:, :frames]], -1)
        return colour[..., None, None].expand(-1, -1, -1, 64, 64)


def test_the_grid_has_z_1_to_the_right_and_z_2_upwards_and_a_block_per_static_code():
    points = np.stack(np.meshgrid(np.linspace(0, 1, 51), np.linspace(0, 1, 51)), -1)
    dynamic = torch.tensor(points.reshape(1, -1, 2), dtype=torch.float32)
    codes, side = torch.tensor([[0.0, 9.0], [1.0, 9.0]]), plane.SIDE * 65 - 1
    picture = plane.grid(Painter(), codes, dynamic, ["one", "other"])
    height, width = picture.shape[0], (picture.shape[1] - 12) // 2
    bottom, right = height - sheets.EDGE, width - sheets.EDGE
    for start, red in ((0, 0), (width + 12, 255)):
        block = picture[bottom - side : bottom, start + right - side : start + right]
        west, east, north, south = block[:, 5], block[:, -5], block[5], block[-5]
        assert (block[5, 5, 0], block[-5, -5, 0]) == (red, red)
        assert west[[5, -5], 1].max() < 15 and east[[5, -5], 1].min() > 240
        assert south[[5, -5], 2].max() < 15 and north[[5, -5], 2].min() > 240


def test_frames_are_coloured_by_what_moves_and_what_stays():
    dataset = make(16, 0, FEW)
    clips, rows = dataset.split("test"), np.arange(4)
    colours = plane.colourings(dataset, rows, 9)
    assert list(colours) == ["angle in degrees", "colour"]
    angles = np.rad2deg(clips.label("angles")[:4, :9])
    np.testing.assert_allclose(colours["angle in degrees"], angles)
    np.testing.assert_array_equal(colours["colour"], np.tile(clips.label("colour")[:4, None], 9))


def test_without_an_angle_frames_are_coloured_by_a_dynamic_factor_or_by_time():
    dataset = make(16, 0, FEW)
    action = np.arange(len(dataset.lengths)) % 3
    moving = replace(dataset, labels={"action": action}, classes={}, static=(), dynamic=("action",))
    rows = np.arange(4)
    expected = np.tile(moving.split("test").label("action", rows)[:, None], 9)
    np.testing.assert_array_equal(plane.colourings(moving, rows, 9)["action"], expected)
    unlabelled = replace(moving, labels={}, dynamic=())
    (name, values), *others = plane.colourings(unlabelled, rows, 9).items()
    assert name == "frame" and not others
    np.testing.assert_array_equal(values, np.tile(np.arange(9), (4, 1)))


def test_the_manifold_has_a_panel_per_colouring_and_depends_on_it():
    codes = np.random.default_rng(0).normal(size=(3, 5, 2))
    picture = plane.manifold(codes, {"a": np.zeros((3, 5)), "b": np.ones((3, 5))}, {})
    assert picture.shape == (400, 1000, 3) and picture.dtype == np.uint8
    values = np.arange(15.0).reshape(3, 5)
    other = plane.manifold(codes, {"a": values[::-1]}, {})
    assert not np.array_equal(plane.manifold(codes, {"a": values}, {}), other)


def test_the_values_of_a_factor_have_names_in_the_legend(monkeypatch):
    drawn = []
    monkeypatch.setattr(plane, "_pixels", lambda figure: drawn.append(figure))
    values = np.arange(15).reshape(3, 5) % 3
    plane.manifold(np.zeros((3, 5, 2)), {"hair": values}, {"hair": ("red", "$5", "blue")})
    (panel,) = drawn[0].axes
    words = [text.get_text() for text in panel.get_legend().get_texts()]
    assert words == ["red", r"\$5", "blue"] and panel.get_legend().get_title().get_text() == "hair"


def test_the_curve_shows_the_code_above_the_frames():
    codes = np.random.default_rng(0).normal(size=(5, 2))
    red = np.full((5, 64, 64, 3), (255, 0, 0), np.uint8)
    picture = plane.curve(codes, red)
    assert (picture[250:] == (255, 0, 0)).all(-1).sum() > 5 * 30**2
    assert not np.array_equal(picture[:250], plane.curve(codes[::-1], red)[:250])
