"""Both estimates of a KL term have the same expectation; a Chain is the product of its steps."""

import math

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal
from torch import nn

from models.annealing import Annealed
from models.elbo import Chain, centred, closed_terms, elbo_terms, normal, weighted_sample
from models.vdsm.encdec import EncDec, bernoulli
from models.vdsm.seq import Seq, Sequences
from models.vdsm.settings import VDSMSettings

ANNEALED = Annealed({"s": 0.3, "d": 0.7, "z": 2.5}, temperature=3.0)
DRAWS, CLIPS, FRAMES = 150, 40, 3
fidelities = pytest.mark.parametrize("fidelity", ["paper", "release"])


class NoPixels(nn.Module):
    """A decoder for tests of the latent variables alone."""

    def forward(self, z, w):
        return z.new_zeros(*z.shape[:2], 1, 1, 1)


def networks(fidelity):
    settings = VDSMSettings(
        fidelity=fidelity, z_dim=3, n_e_w=4, dynamics_dim=2, rnn_dim=6, rnn_layers=1, trans_dim=5,
        enc_widths=(2, 2, 2, 2, 3), dec_widths=(2, 2, 2, 2),
    )  # fmt: skip
    encdec = EncDec(settings)
    seq = Seq(settings, encdec)
    encdec.decoder = NoPixels()
    codes = (
        torch.randn(CLIPS, FRAMES, 3),
        torch.randn(CLIPS, FRAMES, 4),
        torch.rand(CLIPS, FRAMES, 4),
    )
    scale = torch.rand(CLIPS, FRAMES, 3) + 0.2
    encdec.frame_codes = lambda x: (codes[0], scale, *codes[1:])
    return encdec, seq, codes


def assert_same_mean(loss):
    """The means of both estimates differ by at most four standard errors, which are small.

    loss: a function kl -> {term: Term} that draws new noise. Returns the names of the latent terms.
    """
    draws = {"analytic": [], "mc": []}
    with torch.no_grad():
        for kl, rows in draws.items():
            for _ in range(DRAWS):
                terms = loss(kl)
                names = [name for name in terms if name != "x"]
                rows.append(torch.stack([part for name in names for part in terms[name]]))
    draws = {kl: torch.stack(rows).double() for kl, rows in draws.items()}
    analytic, mc = (values.mean(0) for values in draws.values())
    error = sum(values.var(0) for values in draws.values()).div(DRAWS).sqrt()
    assert (error < 0.05 * analytic.abs()).all(), "too few draws to tell"
    assert ((mc - analytic).abs() <= 4 * error + 1e-5).all(), (names, analytic, mc, error)
    return names


@fidelities
def test_stage_1_mean_of_the_draws_is_the_closed_form(fidelity):
    torch.manual_seed(0)
    encdec, _, _ = networks(fidelity)
    x = torch.zeros(CLIPS, FRAMES, 1, 1, 1)
    assert assert_same_mean(lambda kl: encdec.loss(x, ANNEALED, kl)) == ["s", "z"]


@fidelities
def test_stage_2_mean_of_the_draws_is_the_closed_form(fidelity):
    """In the release, the two sides of z_1 have different weights, and its term is no KL."""
    torch.manual_seed(0)
    _, seq, codes = networks(fidelity)
    # Move the posteriors away from the priors.
    with torch.no_grad():
        seq.combiner.loc.bias += 1
        seq.combiner.scale.bias -= 1
        seq.dynamics.code.bias += 0.5
    x = torch.zeros(CLIPS, FRAMES, 1, 1, 1)
    names = assert_same_mean(lambda kl: seq.loss(Sequences(codes, x), ANNEALED, kl))
    assert names == ["s", "d", "z_1", "z"]


def test_the_kl_of_each_dimension():
    """Known answer: q = N(m, 1), p = N(0, 1): m^2 / 2 nats per dimension, summed over 3 clips."""
    loc = torch.tensor([0.0, 1.0, 2.0]).expand(3, 3)
    given = {"f": (normal(loc, torch.ones(3), 1), centred((3, 3), 1, 1, loc))}
    terms = closed_terms(given, torch.tensor(7.0), {"f": 1.0}, "each")
    torch.testing.assert_close(terms["f"].raw, 3 * torch.tensor([0, 0.5, 2]))
    assert terms["x"].raw == 7


@fidelities
def test_the_dimensions_of_both_stages_add_up_to_their_terms(fidelity):
    torch.manual_seed(0)
    encdec, seq, codes = networks(fidelity)
    x = torch.zeros(CLIPS, FRAMES, 1, 1, 1)
    sizes = {"s": 4, "d": 2, "z_1": 3, "z": 3}
    for network, batch in ((encdec, x), (seq, Sequences(codes, x))):
        terms = []
        for kl in ("analytic", "each"):
            torch.manual_seed(1)
            terms.append(network.loss(batch, ANNEALED, kl))
        whole, each = terms
        assert not each.pop("x").raw.dim()
        for name, term in each.items():
            assert term.raw.shape == (sizes[name],)
            torch.testing.assert_close(term.raw.sum(), whole[name].raw)


def test_different_weights_of_guide_and_model():
    """Known answer: q = N(1, 2), p = N(0, 1), weights 3 and 1, in one dimension."""

    def guide():
        weighted_sample("a", Normal(torch.ones(1), 2 * torch.ones(1)).to_event(1), 3.0)

    def model():
        pyro.sample("a", Normal(torch.zeros(1), torch.ones(1)).to_event(1))

    negative_entropy = -0.5 * math.log(2 * math.pi) - math.log(2) - 0.5
    cross_entropy = 0.5 * math.log(2 * math.pi) + (2**2 + 1**2) / 2
    term = elbo_terms(model, guide)["a"]
    assert term.raw.item() == pytest.approx(negative_entropy + cross_entropy, rel=1e-6)
    assert term.weighted.item() == pytest.approx(3 * negative_entropy + cross_entropy, rel=1e-6)


def chain(length, clips=2, dim=3):
    drift = torch.randn(length, dim)

    def kernel(z, t):
        return 0.5 * z + drift[t], torch.exp(0.1 * z)

    return Chain(kernel, torch.randn(clips, dim), length), kernel


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("own", [True, False], ids=["own sample", "another path"])
def test_chain_is_the_product_of_its_steps(length, own):
    torch.manual_seed(0)
    path, kernel = chain(length)
    z = path.rsample()
    if not own:
        z = torch.randn_like(z)
    assert path.event_shape == z.shape[1:] == (length, 3) and path.batch_shape == (2,)
    before, total = path.start, 0.0
    for t in range(length):
        total = total + Normal(*kernel(before, t)).log_prob(z[:, t]).sum(-1)
        before = z[:, t]
    torch.testing.assert_close(path.log_prob(z), total)


def test_densities_of_the_sampled_path_are_not_computed_again():
    torch.manual_seed(0)
    path, kernel = chain(4)
    calls = []
    path.kernel = lambda z, t: calls.append(t) or kernel(z, t)
    z = path.rsample()
    sampled = path.log_prob(z)
    assert calls == [0, 1, 2, 3]
    torch.testing.assert_close(path.log_prob(z.clone()), sampled)
    assert calls[4:] == [slice(None)]


# --- the likelihood ---


@pytest.mark.parametrize("dtype, most", [(torch.float32, 15.942385), (torch.float64, 36.04365)])
def test_saturated_pixels_of_the_release(dtype, most):
    """The release builds its Bernoulli from the decoder's sigmoid; torch clamps probabilities."""
    at = torch.tensor([-40, -20, -7, 0, 3, 7, 20, 40], dtype=dtype).reshape(1, 1, 1, 1, -1)
    for target in (0.0, 1.0, 0.3):
        nlls, gradients = [], []
        for density in (
            lambda logits: bernoulli(logits),
            lambda logits: bernoulli(logits, release=True),
            lambda logits: Bernoulli(probs=torch.sigmoid(logits), validate_args=False),
        ):
            logits = at.clone().requires_grad_()
            nll = -density(logits).log_prob(torch.full_like(at, target)).sum()
            nlls.append(nll.detach())
            gradients.append(torch.autograd.grad(nll, logits)[0].flatten())
        # Rounding a probability near 1 costs the release accuracy.
        torch.testing.assert_close(nlls[1], nlls[2], rtol=1e-4, atol=0)
        torch.testing.assert_close(gradients[1], gradients[2], rtol=0, atol=1e-3)
        assert gradients[1][[0, -1]].tolist() == [0, 0]
        assert gradients[0][-1].item() == pytest.approx(1 - target)
    surely_wrong = at[..., -1:]
    for release, cost in ((False, 40), (True, most)):
        nll = -bernoulli(surely_wrong, release).log_prob(torch.zeros_like(surely_wrong))
        assert nll.item() == pytest.approx(cost, rel=1e-6)


@fidelities
def test_both_stages_take_the_likelihood_of_their_fidelity(fidelity):
    encdec, seq, codes = networks(fidelity)
    encdec.decoder.forward = lambda z, w: z.new_full((*z.shape[:2], 1, 1, 1), 30.0)
    x = torch.zeros(CLIPS, FRAMES, 1, 1, 1)
    most = 15.942385 if fidelity == "release" else 30
    for terms in (encdec.loss(x, ANNEALED), seq.loss(Sequences(codes, x), ANNEALED)):
        assert terms["x"].raw.item() == pytest.approx(CLIPS * FRAMES * most, rel=1e-5)
