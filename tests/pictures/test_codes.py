"""pictures/codes.py: what a traversal changes, and the table of experts."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.pendulum import make
from models.view import VideoModel
from pictures.codes import STEPS, account, draw_codes, expert_use
from pictures.files import Album
from pictures.sheets import Sheet
from tests.tiny import FEW

LENGTH = 5


class Coded(VideoModel):
    """Codes s (per clip), d (per clip) and z (per frame) whose dimension 1 varies most.

    Of s and d the KLs are known: dimension 2 has the largest, dimension 0 none. Frames are grey.
    Their brightness is dimension 1 of the varied code, and falls with time.
    """

    def encode(self, frames):
        return torch.zeros(len(frames), 1), torch.zeros(len(frames), 1)

    def codes(self, static, dynamic, frames):
        scale = torch.linspace(0, 1, len(static))[:, None] * torch.tensor([0.1, 1.0, 0.5])
        return {"s": scale, "d": scale, "z": scale[:, None].expand(-1, frames, -1)}

    def kl(self, frames):
        assert frames.shape == (FEW["test"], LENGTH, 3, 64, 64)
        return dict.fromkeys("sd", torch.tensor([0.0, 1.5, 12.25]))

    def vary(self, codes, letter, values, frames):
        assert {code.shape[0] for code in codes.values()} == {1}
        assert codes["z"].shape[1] == frames
        grey = values[..., 1].reshape(len(values), -1)[:, :1]
        fading = grey * torch.linspace(1, 0.5, frames)
        return fading[..., None, None, None].expand(-1, -1, 3, 64, 64)


@pytest.fixture
def sheets(monkeypatch):
    """The sheets that are drawn."""
    made = []

    def kept(*given, **more):
        made.append(Sheet(*given, **more))
        return made[-1]

    monkeypatch.setattr("pictures.files.Sheet", kept)
    return made


@pytest.fixture
def drawn(tmp_path, sheets):
    dataset = make(9, 0, FEW)
    album = Album(tmp_path, 3, dataset.fps, lambda *_: None)
    draw_codes(Coded(), dataset, dataset.split("test"), LENGTH, album, "seq_")
    return tmp_path


def test_a_traversal_per_code_and_a_film_of_the_code_of_a_whole_motion(drawn):
    assert {path.name for path in drawn.iterdir()} == {
        *(f"seq_traverse_{code}_3.{kind}" for code in "sdz" for kind in ("png", "json")),
        "seq_traverse_d_3.gif",
    }
    assert len(iio.imread(drawn / "seq_traverse_d_3.gif", index=None)) == LENGTH


def tiles_of(path, sheet):
    """One number per tile of a picture, of which `sheet` says where its tiles lie."""
    ys, xs = np.array(sheet.ys) + 2, np.array(sheet.xs) + 2
    return iio.imread(path)[ys[:, None], xs, 0].astype(int)


def test_rows_are_sorted_by_kl_named_with_values_and_without_dead_dimensions(sheets, drawn):
    sheet, tiles = sheets[0], tiles_of(drawn / "seq_traverse_s_3.png", sheets[0])
    assert sheet.labels.rows == ["s_3\n12.2 nats", "s_2\n1.50 nats"]
    assert "1 with less than 0.01 nats" in sheet.labels.note
    low, high = np.quantile(np.linspace(0, 1, FEW["test"]), [0.02, 0.98])
    values = np.linspace(low, high, STEPS)
    assert np.abs(tiles[1] - 255 * values).max() <= 1
    # Dimension 1 keeps the value of the first clip, 0, where dimension 2 changes.
    assert tiles.shape == (2, STEPS) and not tiles[0].any()
    assert list(sheet.labels.values[1]) == [f"{value:.2f}" for value in values]
    about = json.loads((drawn / "seq_traverse_s_3.json").read_text())
    assert (about["drawn"], about["dead"], about["kl"]) == ([2, 1], [0], [0, 1.5, 12.25])
    assert about["frames"] == LENGTH and np.allclose(about["values"][1], values)


def test_without_a_kl_rows_are_sorted_by_how_much_the_code_varies(sheets, drawn):
    last = sheets[-1]
    spread = np.linspace(0, 1, FEW["test"]).std()
    assert last.labels.rows[0] == f"z_2\n{spread:.2f} sd" and len(last.labels.rows) == 3
    assert "standard deviation" in last.labels.title and not last.labels.note
    assert "kl" not in json.loads((drawn / "seq_traverse_z_3.json").read_text())


def test_a_code_that_says_nothing_shows_one_row():
    about, values = account(torch.zeros(4, 3), torch.zeros(3))
    assert about["dead"] == [0, 1, 2] and about["drawn"] == [0] and values.shape == (1, STEPS)


def test_the_use_of_experts():
    weights = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])
    text = expert_use(weights, {"colour": (np.array([0, 1, 1]), ("red", "green", "blue"))})
    header, every, *groups = text.splitlines()
    assert header == "factor,value,clips,entropy,expert_1,expert_2,expert_3"
    assert every == f"all,,3,{np.log(2) / 3:.4g},0.5,0.5,0"
    # No clip is blue.
    assert groups == ["colour,red,1,0,1,0,0", f"colour,green,2,{np.log(2) / 2:.4g},0.25,0.75,0"]
