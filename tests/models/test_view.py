"""Views of trained models: what they compute, and that they change neither mode nor gradients."""

import numpy as np
import pytest
import torch

from data.base import Clips
from models.dsa import DSA
from models.settings import DSASettings, UnorderedSettings
from models.unordered import Unordered
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from models.view import BLOCK, VideoModel, View, in_batches
from utils.frames import as_float, as_uint8

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
    codes, frames = view.codes(*view.encode(x), T), view.decode(*view.encode(x), T)
    assert list(codes) == {"stage 1": ["s", "z"], "stage 2": ["s", "d", "z"]}.get(name, ["f", "z"])
    for code, value in codes.items():
        values = torch.cat([value, value + 1 + torch.rand_like(value)])
        same, other = view.vary(codes, code, values, T)
        torch.testing.assert_close(same, frames[0], atol=1e-5, rtol=0)
        assert not torch.equal(other, same), code


@pytest.mark.parametrize("name", [*NAMES, "DSA"])
def test_the_kl_of_each_dimension_in_nats_per_clip(name):
    dsa = DSASettings(width=3, hidden=4, conv_dim=4, rnn_dim=4, f_dim=5, z_dim=2)
    view = views().get(name) or View(DSA(dsa).eval())
    x, state = torch.rand(BLOCK + 2, T, 3, 64, 64), torch.get_rng_state()
    kl, codes = view.kl(x), view.codes(*view.encode(x), T)
    assert {code: len(each) for code, each in kl.items()} == {
        code: value.shape[-1] for code, value in codes.items()
    }
    assert all((each > 0).all() for each in kl.values())
    assert torch.equal(torch.get_rng_state(), state)
    # A mean over clips.
    twice = view.kl(torch.cat([x[:BLOCK]] * 2))
    first = next(iter(kl))
    torch.testing.assert_close(twice[first], view.kl(x[:BLOCK])[first], atol=0, rtol=0.05)


def test_a_network_that_does_not_tell_its_kl():
    view = views()["one stage"]
    view.network.loss = lambda x, annealed: {}
    assert view.kl(torch.rand(1, 3, 3, 64, 64)) == {}


def test_mixing_weights_are_the_static_code_of_vdsm():
    view, x = views()["stage 1"], torch.rand(N, T, 3, 64, 64)
    w, z = view.encode(x)
    assert view.mixes and w.shape == (N, K)
    torch.testing.assert_close(w.sum(1), torch.ones(N))
    torch.testing.assert_close(view.codes(w, z, T)["s"].softmax(-1), w)


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


class Mean(VideoModel):
    """static: the mean of a clip; dynamic: that of each frame. Notes how many clips it encodes."""

    def __init__(self):
        self.encoded = []

    def encode(self, frames):
        self.encoded.append(len(frames))
        return frames.mean((1, 2, 3, 4)), frames.mean((2, 3, 4))

    def decode(self, static, dynamic, frames):
        pixels = (static[:, None] + dynamic)[:, :frames, None, None, None] / 2
        return pixels.expand(-1, -1, 3, 64, 64)

    def draw(self, clips, frames):
        return torch.rand(clips), torch.rand(clips, frames)


def clips_of_frames(seed):
    """2 BLOCK clips of 3 frames; the split holds all but the first."""
    count = 2 * BLOCK
    frames = np.random.default_rng(seed).integers(0, 256, (3 * count, 64, 64, 3), np.uint8)
    return Clips(frames, np.full(count, 3), {}, np.arange(1, count))


def test_a_view_encodes_a_clip_once():
    view, clips = Mean(), clips_of_frames(0)
    rows = np.array([5, 2, 9])
    static, dynamic = view.encode_clips(clips, rows, 2)
    expected = view.encode(as_float(torch.from_numpy(clips.take(rows, 0, 2))))
    assert torch.equal(static, expected[0]) and torch.equal(dynamic, expected[1])
    view.encoded.clear()
    every = view.encode_clips(clips, range(len(clips)), 2)
    assert sum(view.encoded) == len(clips) - 3 and max(view.encoded) <= BLOCK
    assert all(torch.equal(all_codes[rows], few) for all_codes, few in zip(every, expected))
    # The first clip of the whole set is another one than the first of the split.
    view.encoded.clear()
    view.encode_clips(Clips(clips.frames, clips.lengths, {}, np.arange(3)), [0, 1, 2], 2)
    assert view.encoded == [1]


def test_codes_of_other_frames_are_not_taken_from_memory():
    view, clips = Mean(), clips_of_frames(0)
    short, long = (view.encode_clips(clips, [4], length) for length in (2, 3))
    assert short[1].shape == (1, 2) and long[1].shape == (1, 3)
    other, again = clips_of_frames(1), Mean()
    assert torch.equal(view.encode_clips(other, [4], 2)[0], again.encode_clips(other, [4], 2)[0])


def test_decoded_blocks_are_pictures_in_order():
    view = Mean()
    static = torch.linspace(0, 1, BLOCK + 3)
    pictures = view.decode_uint8(static, static[:, None].expand(-1, 4), 3)
    assert pictures.shape == (BLOCK + 3, 3, 64, 64, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, as_uint8(view.decode(static, static[:, None].expand(-1, 4), 3)))


@pytest.mark.parametrize("name", NAMES)
def test_more_frames_continue_a_clip(name):
    view = views()[name]
    static, dynamic = view.encode(torch.rand(N, T, 3, 64, 64))
    long = view.decode(static, dynamic, T + 2 if view.continues else T)
    torch.testing.assert_close(view.decode(static, dynamic, T - 1), long[:, : T - 1])
