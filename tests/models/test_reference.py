"""Our model and guide against benchmarks/reference.py: every term of the loss and every gradient.

Both forms run in float64 on the same weights and the same noise.
"""

import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from benchmarks import reference
from models.annealing import Annealed
from models.elbo import Chain
from models.vdsm.encdec import EncDec
from models.vdsm.networks import MixtureOfExpertsDecoder
from models.vdsm.seq import Seq, Sequences
from models.vdsm.settings import VDSMSettings

CLOSE = 1e-10
SIZES = {
    "z_dim": 3, "n_e_w": 4, "dynamics_dim": 2, "rnn_dim": 6, "rnn_layers": 2, "trans_dim": 5,
    "enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4),
}  # fmt: skip
ANNEALED = Annealed({"s": 0.3, "d": 0.7, "z": 2.5}, temperature=3.0)
CLIPS, FRAMES = 3, 4
both = pytest.mark.parametrize("kl", ["analytic", "mc"])
fidelities = pytest.mark.parametrize("fidelity", ["paper", "release"])


@pytest.fixture(autouse=True)
def double():
    """Everything in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def settings(fidelity="paper"):
    return VDSMSettings(fidelity=fidelity, **SIZES)


def stirred(module):
    """The module, with noise added to its weights: none is left at an initial zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.5 / parameter[0].numel() ** 0.5 if 2 <= parameter.dim() <= 4 else 0.2
            parameter.add_(spread * torch.randn_like(parameter))
    return module


def noise_of(guide, *args):
    """The standard noise that the guide will draw next; the random state is restored."""
    state = torch.random.get_rng_state()
    with torch.no_grad():
        sites = poutine.trace(guide).get_trace(*args).nodes
    torch.random.set_rng_state(state)
    noise = {}
    for name, site in sites.items():
        if name in ("s", "d", "z_1", "z"):
            q = site["fn"].steps(site["value"]) if isinstance(site["fn"], Chain) else site["fn"]
            noise[name] = (site["value"] - q.mean) / q.stddev
    return noise


def gradients(loss, module):
    parameters = dict(module.named_parameters())
    for parameter in parameters.values():
        parameter.grad = None
    loss.backward()
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}


def assert_same(ours, theirs, module):
    """Two dicts {term: (raw, weighted)} agree, and so do the gradients of the module's parameters.

    Returns our gradients by name.
    """
    assert set(ours) == set(theirs)
    for name in ours:
        for fast, slow in zip(ours[name], theirs[name]):
            torch.testing.assert_close(fast, slow, rtol=CLOSE, atol=0)
    losses = [sum(weighted for _, weighted in terms.values()) for terms in (ours, theirs)]
    torch.testing.assert_close(*losses, rtol=CLOSE, atol=0)
    fast, slow = (gradients(loss, module) for loss in losses)
    assert set(fast) == set(slow)
    for name in fast:
        assert (fast[name] - slow[name]).abs().max() <= CLOSE * slow[name].abs().max(), name
    return fast


def test_decoder_is_one_blended_decoder_per_clip():
    decoder = stirred(MixtureOfExpertsDecoder(3, 4, (8, 6, 5, 4)))
    z, w = torch.randn(CLIPS, FRAMES, 3), torch.softmax(torch.randn(CLIPS, 4), -1)
    slow = torch.stack([reference.decode(decoder, z[n], w[n]) for n in range(CLIPS)])
    torch.testing.assert_close(decoder(z, w), slow, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("batch, widths", [(1, (4, 5, 3, 6, 7)), (5, (16, 16, 32, 32, 8))])
@fidelities
def test_encoder(fidelity, batch, widths):
    sizes = {**SIZES, "enc_widths": widths}
    net = stirred(EncDec(VDSMSettings(fidelity=fidelity, **sizes))).encoder
    x = torch.rand(batch, 3, 64, 64)
    slope = 1.0 if fidelity == "release" else 0.01
    for fast, slow in zip(net(x), reference.encode(net, x, slope)):
        torch.testing.assert_close(fast, slow, rtol=CLOSE, atol=CLOSE)


@both
@fidelities
def test_stage_1(fidelity, kl):
    net = stirred(EncDec(settings(fidelity)))
    x = torch.rand(CLIPS, FRAMES, 3, 64, 64)
    slow = reference.EncDecReference(net, fidelity == "release", noise_of(net.guide, x, ANNEALED))
    trained = assert_same(net.loss(x, ANNEALED, kl), reference.terms(slow, x, ANNEALED, kl=kl), net)
    assert set(trained) == {name for name, _ in net.named_parameters()}
    assert all(gradient.abs().max() > 0 for gradient in trained.values())


def stage_2(fidelity):
    net = stirred(Seq(settings(fidelity), EncDec(settings(fidelity)))).train()
    x = torch.rand(CLIPS, FRAMES, 3, 64, 64)
    return net, x


@pytest.mark.parametrize("picks", [None, 2], ids=["all frames", "some frames"])
@both
@fidelities
def test_stage_2(fidelity, kl, picks):
    net, x = stage_2(fidelity)
    codes = net.frame_codes(x)
    picked, frames = None, x
    if picks:
        picked = torch.stack([torch.randperm(FRAMES)[:picks] for _ in range(CLIPS)])
        frames = x[torch.arange(CLIPS)[:, None], picked]
    noise = noise_of(net.guide, Sequences(codes, frames, picked), ANNEALED)
    slow = reference.SeqReference(net, fidelity == "release", noise)
    trained = assert_same(
        net.loss(Sequences(codes, frames, picked), ANNEALED, kl),
        reference.terms(slow, x, picked, ANNEALED, kl=kl),
        net,
    )
    frozen = {name for name, _ in net.named_parameters() if name.startswith("encdec.")}
    if fidelity == "paper":
        frozen |= {name for name, _ in net.named_parameters() if name.startswith("identity.")}
    assert set(trained) == {name for name, _ in net.named_parameters()} - frozen
    assert {id(p) for p in net.trainable()} == {
        id(p) for name, p in net.named_parameters() if name in trained
    }
    assert all(gradient.abs().max() > 0 for gradient in trained.values())


@fidelities
def test_monte_carlo_terms_add_up_to_pyros_own_elbo(fidelity):
    net = stirred(EncDec(settings(fidelity)))
    x = torch.rand(CLIPS, FRAMES, 3, 64, 64)
    slow = reference.EncDecReference(net, fidelity == "release", noise_of(net.guide, x, ANNEALED))
    total = sum(weighted for _, weighted in net.loss(x, ANNEALED, "mc").values())
    theirs = Trace_ELBO().differentiable_loss(slow.model, slow.guide, x, ANNEALED)
    torch.testing.assert_close(total, theirs, rtol=CLOSE, atol=0)

    net, x = stage_2(fidelity)
    codes = net.frame_codes(x)
    slow = reference.SeqReference(
        net, fidelity == "release", noise_of(net.guide, Sequences(codes, x), ANNEALED)
    )
    total = sum(weighted for _, weighted in net.loss(Sequences(codes, x), ANNEALED, "mc").values())
    theirs = Trace_ELBO().differentiable_loss(slow.model, slow.guide, x, None, ANNEALED)
    torch.testing.assert_close(total, theirs, rtol=CLOSE, atol=0)


def test_all_frames_picked_give_the_likelihood_of_all_frames():
    net, x = stage_2("paper")
    codes, order = net.frame_codes(x), torch.stack([torch.randperm(FRAMES) for _ in range(CLIPS)])
    losses = []
    for picked, frames in ((None, x), (order, x[torch.arange(CLIPS)[:, None], order])):
        torch.manual_seed(1)
        losses.append(net.loss(Sequences(codes, frames, picked), ANNEALED)["x"].raw)
    torch.testing.assert_close(*losses, rtol=CLOSE, atol=0)
