"""Views of trained models: what they compute, and that they change neither mode nor gradients."""

import pytest
import torch

from models.settings import UnorderedSettings
from models.unordered import Unordered
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from models.view import View, in_batches

N, T, K, POSE = 3, 4, 5, 6
SETTINGS = VDSMSettings(
    n_e_w=K, z_dim=POSE, dynamics_dim=2, rnn_dim=6, rnn_layers=1, trans_dim=5,
    enc_widths=(4, 5, 3, 6, 7), dec_widths=(8, 6, 5, 4),
)  # fmt: skip


NAMES = ["stage 1", "stage 2", "one stage"]


def views():
    torch.manual_seed(0)
    encdec = EncDec(SETTINGS)
    unordered = Unordered(UnorderedSettings(width=3, hidden=4, f_dim=5, z_dim=2))
    seq = Seq(SETTINGS, encdec)
    made = VDSM(encdec.eval(), 2.0), VDSM(seq.eval(), 2.0), View(unordered.eval())
    return dict(zip(NAMES, made))


@pytest.mark.parametrize("name", NAMES)
def test_a_view_codes_decodes_swaps_and_samples(name):
    view, x = views()[name], torch.rand(N, T, 3, 64, 64)
    static, dynamic = view.encode(x)
    frames = view.decode(static, dynamic, T)
    assert frames.shape == x.shape and not frames.requires_grad
    swapped = view.decode(static.flip(0), dynamic, T)
    for n in range(N):
        alone = view.decode(static[[N - 1 - n]], dynamic[[n]], T)
        torch.testing.assert_close(swapped[[n]], alone)
    torch.manual_seed(1)
    sampled = view.sample(2, T)
    torch.manual_seed(1)
    assert torch.equal(sampled, view.decode(*view.draw(2, T), T))
    assert view.continues == (name == "stage 2")


@pytest.mark.parametrize("name", NAMES)
def test_varied_codes_with_a_clips_own_value_give_the_clip(name):
    view, x = views()[name], torch.rand(1, T, 3, 64, 64)
    codes, frames = view.codes(x), view.decode(*view.encode(x), T)
    assert list(codes) == {"stage 1": ["s", "z"], "stage 2": ["s", "d", "z"]}.get(name, ["f", "z"])
    for code, value in codes.items():
        values = torch.cat([value, value + 1 + torch.rand_like(value)])
        same, other = view.vary(codes, code, values, T)
        torch.testing.assert_close(same, frames[0], atol=1e-5, rtol=0)
        assert not torch.equal(other, same), code


def test_mixing_weights_are_the_static_code_of_vdsm():
    view, x = views()["stage 1"], torch.rand(N, T, 3, 64, 64)
    w = view.mixing_weights(x)
    assert torch.equal(w, view.encode(x)[0]) and w.shape == (N, K)
    torch.testing.assert_close(view.codes(x)["s"].softmax(-1), w)


@pytest.mark.parametrize("training", [True, False])
def test_a_view_leaves_the_mode_of_its_network(training):
    for view in views().values():
        network = view.network.train(training)
        again = View(network) if isinstance(view, View) else VDSM(network, 2.0)
        again.encode(torch.rand(1, 3, 3, 64, 64))
        assert network.training == training


def test_blocks_are_joined_in_order():
    x = torch.arange(7.0)
    doubled, squares = in_batches(lambda a, b: (a + b, a * b), x, x, batch=3)
    assert torch.equal(doubled, 2 * x) and torch.equal(squares, x**2)
    assert torch.equal(in_batches(lambda a: a + 1, x, batch=3), x + 1)
