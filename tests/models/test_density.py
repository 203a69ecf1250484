"""models/density.py: the fitted densities draw codes like those they were fitted to."""

import json
import os

import numpy as np
import pytest
import torch

from models import density
from models.density import fit, load, save

ABOUT = {"weights": 1}
CORNERS = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [-3.0, 3.0], [3.0, 3.0]])


def corners(count, seed=0):
    """Codes [count, 2] around four points, to which no single Gaussian fits."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return CORNERS[torch.arange(count) % 4] + 0.1 * noise


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in density.FIELDS)


def test_draws_are_like_the_codes_and_no_copies():
    train = corners(200)
    fitted = fit(train, corners(40, seed=1), np.arange(200))
    assert len(fitted.weights) >= 4
    torch.manual_seed(0)
    drawn = fitted.sample(400)
    distance = torch.cdist(drawn, CORNERS)
    # A single Gaussian puts most draws between the corners.
    assert (distance.amin(1) < 1).all()
    assert torch.bincount(distance.argmin(1)).min() > 60
    new, rows = fitted.nearest(drawn)
    assert 0.3 < new.median() / fitted.typical < 3
    torch.testing.assert_close(torch.cdist(drawn, train).amin(1), new)
    assert torch.equal(train[rows], fitted.codes[torch.cdist(drawn, train).argmin(1)])
    copied, rows = fitted.nearest(train)
    assert copied.max() < 1e-2 and torch.equal(rows, torch.arange(200))


def test_few_noisy_identities_share_a_covariance_and_stay_apart():
    # 8 identities in 16 dimensions, of which 13 hold noise only, as in the demo
    draw = np.random.default_rng(0)
    identity = np.arange(400) % 8
    codes = draw.normal(size=(400, 16))
    codes[:, :3] = 0.3 * codes[:, :3] + 4 * (identity[:, None] >> np.arange(3) & 1)
    state = torch.get_rng_state()
    train, val = torch.tensor(codes[:320]).float(), torch.tensor(codes[320:]).float()
    fitted = fit(train, val, np.arange(320))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(fitted.factors, fitted.factors[:1].expand_as(fitted.factors))
    # Draws between two identities are far from both.
    torch.manual_seed(0)
    off = ((fitted.sample(1000)[:, :3] + 2) % 4 - 2).abs().amax(1)
    assert (off > 1.5).float().mean() < 0.01


def test_groups_of_unequal_shape_have_covariances_of_their_own():
    wide, flat = torch.tensor([1.0, 0.01]), torch.tensor([0.01, 1.0])
    torch.manual_seed(0)
    codes = torch.randn(500, 2) * torch.stack([wide, flat]).repeat(250, 1)
    fitted = fit(codes[:400], codes[400:], np.arange(400))
    assert len(fitted.weights) > 1
    assert not torch.equal(fitted.factors, fitted.factors[:1].expand_as(fitted.factors))
    assert fitted.sample(1000).abs().amin(1).median() < 0.02


def test_validation_codes_choose_one_component_for_one_gaussian():
    codes = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    assert len(fit(codes[:500], codes[500:], np.arange(500)).weights) == 1


def test_codes_per_frame_are_joined_and_few_are_enough(monkeypatch):
    monkeypatch.setattr(density, "MOST", 5)
    codes, rows = torch.arange(24.0).view(4, 3, 2), np.array([7, 3, 9, 1])
    fitted = fit(codes, codes[:1], rows)
    assert fitted.rows.tolist() == [7, 3, 9, 1] and fitted.codes[1].tolist() == [6, 7]
    alone = fit(torch.ones(1, 2), torch.ones(1, 2), np.arange(1))
    torch.testing.assert_close(alone.sample(3), torch.ones(3, 2), atol=1e-4, rtol=0)


def test_densities_are_read_back_and_others_are_not(tmp_path):
    path, fitted = tmp_path / "0.fitted.npz", fit(corners(40), corners(8), np.arange(40))
    assert load(path, ABOUT) is None
    save(path, {"s": fitted, "d": fitted}, ABOUT)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    again = load(path, ABOUT)
    assert list(again) == ["s", "d"] and same(again["d"], fitted)
    assert load(path, {"weights": 2}) is None
    path.write_bytes(path.read_bytes()[:-300])
    assert load(path, ABOUT) is None


def test_a_file_with_a_pickle_is_not_read(tmp_path):
    path = tmp_path / "0.fitted.npz"
    np.savez(path, about=np.array({"weights": 1}, object))
    assert load(path, ABOUT) is None


def test_a_folder_that_is_not_writable_costs_a_line(tmp_path, capsys):
    save(tmp_path / "absent" / "0.fitted.npz", {"s": fit(corners(8), corners(4), np.arange(8))}, {})
    assert "will be fitted again" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["vdsm", "dsa", "unordered"])
def test_a_view_draws_what_decode_takes(model):
    from models.dsa import DSA
    from models.settings import DSASettings, UnorderedSettings
    from models.unordered import Unordered
    from models.vdsm.model import VDSM
    from models.view import View
    from tests.models.test_view import views

    small = dict(f_dim=3, z_dim=2, width=3, hidden=4)
    made = {
        "vdsm": views,
        "dsa": lambda: {"": View(DSA(DSASettings(**small, conv_dim=4, rnn_dim=4)).eval())},
        "unordered": lambda: {"": View(Unordered(UnorderedSettings(**small)).eval())},
    }
    for view in made[model]().values():
        if model == "vdsm" and not isinstance(view, VDSM):
            continue
        codes = view.encode(torch.rand(8, 4, 3, 64, 64))
        named = view.fitted_codes(*codes).items()
        view.fit = {n: fit(code, code, np.arange(8)) for n, code in named}.copy
        static, dynamic = view.draw_fitted(5, 4)
        assert static.shape == (5, *codes[0].shape[1:])
        assert dynamic.shape == (5, *codes[1].shape[1:])
        assert view.decode(static, dynamic, 4).shape == (5, 4, 3, 64, 64)
        assert view.novelty(static, dynamic) > 0
        view.draw_from = "fitted"
        torch.manual_seed(0)
        clips = view.sample(5, 4)
        torch.manual_seed(0)
        torch.testing.assert_close(clips, view.decode(*view.draw_fitted(5, 4), 4))


def test_damaged_and_foreign_files_give_none(tmp_path):
    path, about = tmp_path / "0.fitted.npz", {"weights": 1}
    save(path, {"s": fit(corners(40), corners(8), np.arange(40))}, about)
    content = path.read_bytes()
    assert load(path, about).keys() == {"s"}
    flags = bytearray(content)
    flags[content.index(b"PK\x01\x02") + 8] ^= 0x20  # "compressed patched data"
    path.write_bytes(flags)
    assert load(path, about) is None
    np.savez(path, about=np.array(json.dumps(about | {"codes": ["s"]})))
    assert load(path, about) is None
    found = fit(corners(40), corners(8), np.arange(40))
    found.means *= float("nan")
    save(path, {"s": found}, about)
    assert load(path, about) is None
    path.unlink()
    os.mkfifo(path)  # nobody writes into it
    assert load(path, about) is None
