"""pictures/codes.py: what a traversal changes, and the table of experts."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.pendulum import make
from models.view import VideoModel
from pictures.codes import STEPS, draw_codes, expert_use
from pictures.files import Album
from tests.tiny import FEW

LENGTH = 5


class Coded(VideoModel):
    """Codes s (per clip), d (per clip) and z (per frame) whose dimension 1 varies most.

    Frames are grey. Their brightness is dimension 1 of the varied code, and falls with time.
    """

    def encode(self, frames):
        return torch.zeros(len(frames), 1), torch.zeros(len(frames), 1)

    def codes(self, static, dynamic, frames):
        scale = torch.linspace(0, 1, len(static))[:, None] * torch.tensor([0.1, 1.0, 0.5])
        return {"s": scale, "d": scale, "z": scale[:, None].expand(-1, frames, -1)}

    def vary(self, codes, letter, values, frames):
        assert {code.shape[0] for code in codes.values()} == {1}
        assert codes["z"].shape[1] == frames
        grey = values[..., 1].reshape(len(values), -1)[:, :1]
        fading = grey * torch.linspace(1, 0.5, frames)
        return fading[..., None, None, None].expand(-1, -1, 3, 64, 64)


@pytest.fixture
def drawn(tmp_path):
    dataset = make(9, 0, FEW)
    album = Album(tmp_path, 3, dataset.fps, lambda *_: None)
    draw_codes(Coded(), dataset, dataset.split("test"), LENGTH, album, "seq_")
    return tmp_path


def test_a_traversal_per_code_and_a_film_of_the_code_of_a_whole_motion(drawn):
    assert {path.name for path in drawn.iterdir()} == {
        *(f"seq_traverse_{code}_3.png" for code in "sdz"),
        "seq_traverse_d_3.gif",
    }
    assert len(iio.imread(drawn / "seq_traverse_d_3.gif", index=None)) == LENGTH


def test_the_first_row_is_the_dimension_that_varies_most_over_its_values(drawn):
    tiles = iio.imread(drawn / "seq_traverse_s_3.png")[2::65, 2::65, 0].astype(int)
    assert tiles.shape == (3, STEPS)
    low, high = np.quantile(np.linspace(0, 1, FEW["test"]), [0.02, 0.98])
    assert np.abs(tiles[0] - 255 * np.linspace(low, high, STEPS)).max() <= 1
    # The other dimensions keep the value of the first clip, 0.
    assert not tiles[1:].any()


def test_the_use_of_experts():
    weights = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    text = expert_use(weights, {"colour": (np.array([0, 1, 1]), ("red", "green", "blue"))})
    header, every, *groups = text.splitlines()
    assert header == "factor,value,clips,entropy,expert_1,expert_2,expert_3"
    assert every == f"all,,3,{np.log(2) / 3:.4g},0.5,0.5,0"
    # No clip is blue.
    assert groups == ["colour,red,1,0,1,0,0", f"colour,green,2,{np.log(2) / 2:.4g},0.25,0.75,0"]
