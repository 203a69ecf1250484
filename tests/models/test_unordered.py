"""Unordered: Appendix C's layers; terms against torch.distributions and Monte Carlo; batches."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from data.base import Clips, Dataset
from data.batches import Batches
from data.pendulum import make
from models.annealing import Annealed
from models.settings import UnorderedSettings
from models.start import mean_colour
from models.unordered import Unordered, UnorderedStage, triples
from models.view import View
from tests.tiny import FEW

N, CPU = 3, torch.device("cpu")
ANNEALED = Annealed({"f": 3.0, "z": 0.5})
SMALL = {"width": 3, "hidden": 4, "f_dim": 5, "z_dim": 2}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Unordered(UnorderedSettings(**SMALL)).double()


def clips(frames=3):
    return torch.rand(N, frames, 3, 64, 64, dtype=torch.float64)


@pytest.mark.parametrize("f_dim", [64, 256])
def test_published_sizes(f_dim):
    with torch.device("meta"):
        network = Unordered(UnorderedSettings(f_dim=f_dim))
        h = network.features(torch.empty(6, 3, 64, 64))
        order = torch.empty(2, 1, 3, dtype=torch.long)
    assert h.shape == (6, 256, 4, 4)
    shapes = [m.weight.shape for m in network.features.convs]
    assert shapes == [(256, 3, 4, 4)] + 3 * [(256, 256, 4, 4)]
    for part in (network.features, network.decoder):
        assert all(conv.stride == (2, 2) for conv in part.convs)
    assert network.static.compare.weight.shape == (512, 512, 3, 3)
    assert network.static.join.weight.shape == (512, 1536, 3, 3)
    assert network.static.dense.weight.shape == (512, 512 * 16)
    assert network.static.heads.weight.shape == (2 * f_dim, 512)
    for part, inputs in ((network.dynamic, f_dim + 4096), (network.prior, f_dim)):
        shapes = [layer.weight.shape for layer in part.dense[::2]]
        assert shapes == [(512, inputs), (512, 512), (4, 512)]
    assert network.decoder.dense.weight.shape == (256 * 16, f_dim + 2)
    assert [m.weight.shape[1] for m in network.decoder.convs] == [256, 256, 256, 3]
    assert network.static(h.unflatten(0, (2, 3)), order)[0].shape == (2, f_dim)
    assert network.decoder(torch.empty(6, f_dim + 2, device="meta")).shape == (6, 3, 64, 64)


def test_published_setting():
    c = UnorderedSettings()
    assert (c.frames_per_clip, c.bs, c.lr, c.z_dim, c.f_dim) == (3, 120, 0.0001, 2, 64)
    assert (c.dataset_name, c.seq_len, c.epochs * c.bs_per_epoch) == ("moving-mnist", 20, 60_000)
    # Grey frames count each pixel three times.
    assert c.kl_f == c.kl_z == 3


def test_static_posterior_pair_by_pair(network):
    h = torch.randn(N, 5, SMALL["width"], 4, 4, dtype=torch.float64)
    order = triples(N, 5)
    layers, locs, variances = network.static, [], []
    for features, clip_triples in zip(h, order):
        for a, b, c in clip_triples:
            pairs = [torch.cat([features[i], features[j]]) for i, j in ((a, b), (a, c), (b, c))]
            compared = [F.relu(layers.compare(pair[None]))[0] for pair in pairs]
            joined = F.relu(layers.join(torch.cat(compared)[None])).flatten(1)
            heads = layers.heads(F.relu(layers.dense(joined)))[0]
            locs.append(heads[: SMALL["f_dim"]])
            variances.append(heads[SMALL["f_dim"] :].exp())
    loc, scale = layers(h, order)
    torch.testing.assert_close(loc, torch.stack(locs).view(N, 2, -1).mean(1))
    torch.testing.assert_close(scale**2, torch.stack(variances).view(N, 2, -1).mean(1))


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_triples_hold_every_frame(frames):
    drawn = triples(4, frames)
    assert drawn.shape == (4, math.ceil(frames / 3), 3)
    assert all(set(row.flatten().tolist()) == set(range(frames)) for row in drawn)
    shared = triples(4, frames, torch.Generator().manual_seed(0))
    assert torch.equal(shared, shared[:1].expand_as(shared))
    if frames == 7:
        assert not torch.equal(drawn, drawn[:1].expand_as(drawn))


def test_terms_against_distributions_and_monte_carlo(network):
    draws, x, rows = 100, clips(), []
    h, decode = network._features(x).detach(), network._logits
    # Frames are encoded once and decoded in the last draw only.
    network._features = lambda x: h
    network._logits = lambda f, z: torch.zeros_like(x)
    with torch.no_grad():
        for seed in range(draws):
            if seed == draws - 1:
                network._logits = decode
            torch.manual_seed(seed)
            terms = network.loss(x, ANNEALED)
            torch.manual_seed(seed)
            q_f = Normal(*network.static(h, triples(N, 3)))
            f = q_f.rsample()
            q_z = Normal(*network.dynamic(f, h))
            z = q_z.rsample()
            p_z = Normal(*(part[:, None].expand_as(z) for part in network.prior(f)))
            mc_f = (q_f.log_prob(f) - Normal(0.0, 1.0).log_prob(f)).sum()
            mc_z = (q_z.log_prob(z) - p_z.log_prob(z)).sum()
            rows.append(torch.stack([terms["f"].raw, terms["z"].raw, mc_f, mc_z]))
        logits = network._logits(f, z)
    likelihood = Bernoulli(logits=logits, validate_args=False).log_prob(x).sum()
    torch.testing.assert_close(terms["x"].raw, -likelihood)
    torch.testing.assert_close(terms["z"].raw, kl_divergence(q_z, p_z).sum())
    torch.testing.assert_close(terms["f"].raw, kl_divergence(q_f, Normal(0.0, 1.0)).sum())
    assert [terms[name].weighted / terms[name].raw for name in "fzx"] == pytest.approx([3, 0.5, 1])
    closed_form, monte_carlo = torch.stack(rows).split(2, 1)
    error = monte_carlo.std(0) / math.sqrt(draws)
    assert ((monte_carlo.mean(0) - closed_form.mean(0)).abs() < 4 * error).all()
    assert (error < 1).all()


def test_every_parameter_has_a_gradient(network):
    sum(term.weighted for term in network.loss(clips(), ANNEALED).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_z_is_read_from_its_own_frame_and_f(network):
    h = network._features(clips(4))
    order, f = torch.randperm(4), torch.randn(2, N, SMALL["f_dim"], dtype=torch.float64)
    loc = network.dynamic(f[0], h)[0]
    torch.testing.assert_close(network.dynamic(f[0], h[:, order])[0], loc[:, order])
    assert not torch.allclose(network.dynamic(f[1], h)[0], loc)


@pytest.mark.parametrize("frames", [2, 3, 8])
def test_uses(network, frames):
    view, x = View(network), clips(frames)
    f, z = view.encode(x)
    assert f.shape == (N, SMALL["f_dim"]) and z.shape == (N, frames, SMALL["z_dim"])
    assert all(torch.equal(a, b) for a, b in zip((f, z), view.encode(x)))
    decoded = view.decode(f, z, frames)
    assert decoded.shape == x.shape and 0 <= decoded.min() <= decoded.max() <= 1
    torch.manual_seed(0)
    drawn = view.draw_dynamic(f, 4000)
    loc, scale = network.prior(f)
    assert ((drawn.mean(1) - loc).abs() < 0.1 * scale).all()
    assert ((drawn.std(1) / scale - 1).abs() < 0.1).all()
    assert view.sample(2, 5).shape == (2, 5, 3, 64, 64)


def test_a_batch_holds_a_few_frames_of_each_clip():
    stage = UnorderedStage(UnorderedSettings(**SMALL, bs=7, seq_len=16))
    clip, time, _ = stage.batch(Batches(make(16, 0, FEW).split("train"), CPU, 16, 7), 3)
    assert clip.shape == time.shape == (7, 3)
    assert (np.diff(clip) == 0).all() and all(len(set(row)) == 3 for row in time)


def test_frames_come_from_the_whole_of_a_long_clip():
    lengths = np.array([16, 5, 40])
    frames = np.zeros((lengths.sum(), 64, 64, 3), np.uint8)
    stage = UnorderedStage(UnorderedSettings(**SMALL, bs=50, seq_len=4))
    batches = Batches(Clips(frames, lengths, {}, np.array([2, 1])), CPU, 4, 50)
    times_by_clip = {0: set(), 1: set()}
    for step in range(10):
        clip, time, _ = stage.batch(batches, step)
        assert (time < np.array([40, 5])[clip]).all() and all(len(set(row)) == 3 for row in time)
        for row, times in zip(clip[:, 0], time):
            times_by_clip[row] |= set(times.tolist())
    assert times_by_clip == {0: set(range(40)), 1: set(range(5))}


def test_frames_come_from_all_clips_that_a_sample_joins():
    labels = {"who": np.array([0, 0, 0, 1, 1, 1, 2, 3])}
    splits = {"train": np.arange(6), "val": np.array([6]), "test": np.array([7])}
    frames = np.zeros((32, 64, 64, 3), np.uint8)
    common = {
        "frames": frames,
        "lengths": np.full(8, 4),
        "labels": labels,
        "classes": {},
        "splits": splits,
    }
    common |= {"static": ("who",), "dynamic": (), "fingerprint": "", "name": "made"}
    grouped, ungrouped = Dataset(**common, group="who", clips_per_sample=2), Dataset(**common)
    settings = UnorderedSettings(**SMALL, bs=50, seq_len=4, clips_per_sample=3)
    assert settings.clips_per_sample_of("Unordered", grouped) == 3
    assert settings.clips_per_sample_of("Unordered", ungrouped) == 1
    assert UnorderedSettings().clips_per_sample_of("Unordered", grouped) == 2
    batches = Batches(grouped.split("train"), CPU, 4, 50, "who", 3)
    clip, _, _ = UnorderedStage(settings).batch(batches, 0)
    assert (clip // 3 == clip[:, :1] // 3).all() and any(len(set(row)) == 3 for row in clip)


def test_the_pixels_reach_both_posteriors_through_the_samples(network):
    network.loss(clips(), ANNEALED)["x"].raw.backward()
    for heads in (network.static.heads, network.dynamic.dense[-1]):
        assert all(half.any() for half in heads.weight.grad.chunk(2))


def test_pictures_start_at_the_mean_colour():
    clips = make(16, 0, FEW).split("train")
    stage = UnorderedStage.build(UnorderedSettings(**SMALL, start="data"))
    stage.start_from(Batches(clips, CPU, 16, 4))
    last = stage.network.decoder.convs[-1]
    torch.testing.assert_close(torch.sigmoid(last.bias), mean_colour(clips))
    # With zero weights, every pixel has the colour of the bias.
    torch.nn.init.zeros_(last.weight)
    f, z = torch.zeros(1, SMALL["f_dim"]), torch.zeros(1, 4, SMALL["z_dim"])
    colour = stage.network.decode(f, z, 4).mean((0, 1, 3, 4))
    torch.testing.assert_close(colour, mean_colour(clips))


def test_start_from_data_gives_f_unit_variance(network):
    x = clips().repeat(4, 1, 1, 1, 1) * torch.rand(4 * N, 1, 3, 1, 1, dtype=torch.float64)
    torch.manual_seed(1)
    network.start_from(x)
    torch.manual_seed(1)
    loc = network.static(network._features(x), triples(*x.shape[:2]))[0]
    torch.testing.assert_close(loc.std(0), torch.ones_like(loc[0]))
    torch.testing.assert_close(loc.mean(0), torch.zeros_like(loc[0]))


@pytest.mark.parametrize("size", [1, 2])
def test_a_small_batch_starts_as_a_large_one(size):
    settings, clips = UnorderedSettings(**SMALL, bs=size, start="data"), make(16, 0, FEW)
    train = clips.split("train")
    stage = UnorderedStage.build(settings)
    stage.start_from(Batches(train, CPU, 16, size))
    with torch.no_grad():
        terms, sequences = stage.loss(Batches(train, CPU, 16, 50), 1, ANNEALED.unweighted())
    # a start over one or two clips gave 1e4 nats to infinity
    assert terms["f"].raw / sequences < 100
    assert terms["x"].raw / sequences < 3 * 3 * 64**2


def test_start_from_data_gives_the_decoder_unit_variance_before_the_pixels(network):
    x, outputs = clips().repeat(4, 1, 1, 1, 1), {}
    for i, conv in enumerate(network.decoder.convs):
        conv.register_forward_hook(lambda _, args, out, i=i: outputs.update({i: out.clone()}))
    pixels = network.decoder.convs[-1].weight.clone()
    torch.manual_seed(1)
    network.start_decoder_from(x)
    torch.manual_seed(1)
    noise = torch.randn(4 * N, SMALL["z_dim"]).double()
    network.decoder(torch.cat([network.encode(x)[0], noise], -1))
    for i in range(3):
        std = outputs[i].std((0, 2, 3))
        torch.testing.assert_close(std, torch.ones_like(std))
    assert torch.equal(network.decoder.convs[-1].weight, pixels)


def test_initial_posterior_scales():
    network = Unordered(UnorderedSettings(**SMALL, f_scale_start=0.1, z_scale_start=0.3)).double()
    x = clips()
    h = network._features(x)
    f, scale = network.static(h, triples(N, 3))
    torch.testing.assert_close(scale, torch.full_like(f, 0.1))
    z, scale = network.dynamic(f, h)
    torch.testing.assert_close(scale, torch.full_like(z, 0.3))
    assert Unordered(UnorderedSettings(**SMALL)).static.heads.weight[SMALL["f_dim"] :].any()
