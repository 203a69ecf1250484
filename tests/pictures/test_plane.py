"""The figures of a two-dimensional dynamic code: what lies where."""

import numpy as np
import torch

from data.pendulum import make
from pictures import plane
from tests.tiny import FEW


class Painter:
    """Decodes to plain frames: the static code's first number is red, z_1 is green, z_2 is blue."""

    def decode(self, static, dynamic, frames):
        colour = torch.cat([static[:, None, :1].expand(-1, frames, -1), dynamic[:, :frames]], -1)
        return colour[..., None, None].expand(-1, -1, -1, 64, 64)


def test_grid_has_z_1_to_the_right_z_2_upwards_and_a_block_a_static_code():
    points = np.stack(np.meshgrid(np.linspace(0, 1, 51), np.linspace(0, 1, 51)), -1).reshape(
        1, -1, 2
    )
    picture = plane.grid(
        Painter(), torch.tensor([[0.0, 9.0], [1.0, 9.0]]), torch.tensor(points, dtype=torch.float32)
    )
    block = plane.SIDE * 65 - 1
    assert picture.shape == (block, 2 * block + 8, 3)
    left, right = picture[:, :block], picture[:, block + 8 :]
    for part, red in ((left, 0), (right, 255)):
        corners = part[
            [5, 5, -5, -5], [5, -5, 5, -5]
        ]  # top left, top right, bottom left, bottom right
        assert (corners[:, 0] == red).all()
        assert (corners[[1, 3], 1] > 240).all() and (corners[[0, 2], 1] < 15).all()  # z_1
        assert (corners[[0, 1], 2] > 240).all() and (corners[[2, 3], 2] < 15).all()  # z_2


def test_frames_are_coloured_by_what_moves_and_what_stays():
    dataset = make(16, 0, FEW)
    found = plane.colourings(dataset, np.arange(4), 9)
    assert list(found) == ["angle in degrees", "colour"]
    clips = dataset.split("test")
    np.testing.assert_allclose(found["angle in degrees"], np.rad2deg(clips.label("angles")[:4, :9]))
    assert (found["colour"] == clips.label("colour")[:4, None]).all() and found["colour"].shape == (
        4,
        9,
    )


def test_manifold_and_curve_are_pictures():
    codes = np.random.default_rng(0).normal(size=(3, 5, 2))
    picture = plane.manifold(codes, {"a": np.zeros((3, 5)), "b": np.ones((3, 5))})
    assert picture.shape == (400, 1000, 3) and picture.dtype == np.uint8
    values = np.arange(15.0).reshape(3, 5)
    assert not np.array_equal(
        plane.manifold(codes, {"a": values}), plane.manifold(codes, {"a": values[::-1]})
    )
    red = np.full((5, 64, 64, 3), (255, 0, 0), np.uint8)
    picture = plane.curve(codes[0], red)
    assert (picture == (255, 0, 0)).all(-1).sum() > 5 * 30**2  # the frames are there
    assert not np.array_equal(
        picture[:250], plane.curve(codes[0, ::-1], red)[:250]
    )  # and the line is the code's
