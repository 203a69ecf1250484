"""DSA: layers as the reproduction's text has them, terms against torch.distributions and Monte Carlo, both fidelities and posteriors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from models.dsa import DSA, DSAStage
from models.settings import DSASettings
from models.view import View

N, T = 3, 4
WEIGHTS = {"f": 3.0, "z": 0.5}
SMALL = {"width": 3, "hidden": 8, "conv_dim": 7, "rnn_dim": 6, "f_dim": 5, "z_dim": 2}
both_fidelities = pytest.mark.parametrize("fidelity", ["paper", "release"])
both_posteriors = pytest.mark.parametrize("posterior", ["factorised", "full"])


def small(**changes):
    torch.manual_seed(0)
    return DSA(DSASettings(**{**SMALL, **changes})).double().eval()


def clips(n=N, frames=T):
    return torch.rand(n, frames, 3, 64, 64, dtype=torch.float64)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# --- layers ---


@pytest.mark.parametrize("posterior, dynamic", [
    ("factorised", 2048 * 512 + 512 + 2 * (512 * 32 + 32)),
    ("full", 2 * 4 * 512 * (2048 + 256 + 512 + 2) + 512 * (1024 + 512 + 2) + 2 * (512 * 32 + 32)),
])  # fmt: skip
def test_published_sizes(posterior, dynamic):
    with torch.device("meta"):
        dsa, x = DSA(DSASettings(posterior=posterior)), torch.empty(4, 3, 64, 64)
    sizes = []
    for part in (dsa.encoder, dsa.decoder):
        for layer in part.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)):
                layer.register_forward_hook(lambda _, args, out: sizes.append(tuple(out.shape[1:])))
    assert dsa.encoder(x).shape == (4, 2048)
    assert dsa.decoder(torch.empty(4, 288, device="meta")).shape == (4, 3, 64, 64)
    assert sizes == [
        (256, 64, 64), (256, 32, 32), (256, 16, 16), (256, 8, 8), (4096,), (2048,),
        (4096,), (16384,), (256, 16, 16), (256, 32, 32), (256, 64, 64), (3, 64, 64),
    ]  # fmt: skip

    def affine(c_in, c_out, kernel=1, norm=2):
        return c_out * (c_in * kernel**2 + 1 + norm)  # weights, bias, and a batch norm's two

    assert parameters(dsa.encoder) == sum(
        [affine(3, 256, 5), 3 * affine(256, 256, 5), affine(16384, 4096), affine(4096, 2048)]
    )
    assert parameters(dsa.decoder) == sum(
        [affine(288, 4096), affine(4096, 16384), 3 * affine(256, 256, 5), affine(256, 3, 5, 0)]
    )
    assert parameters(dsa.static) == 2 * 4 * 512 * (2048 + 512 + 2) + 2 * affine(1024, 256, norm=0)
    assert parameters(dsa.prior) == 4 * 512 * (32 + 512 + 2) + 2 * affine(512, 32, norm=0)
    assert parameters(dsa.dynamic) == dynamic
    assert parameters(dsa) == sum(parameters(part) for part in dsa.children())


def test_published_setting():
    c = DSASettings()
    assert (c.bs, c.seq_len, c.epochs, c.lr, c.dataset_name) == (25, 8, 200, 0.0002, "sprites-li")


def test_static_posterior_reads_both_last_states():
    dsa, v = small(), torch.randn(N, T, SMALL["conv_dim"], dtype=torch.float64)
    out, _ = dsa.static.rnn(v)
    features = torch.cat([out[:, -1, : SMALL["rnn_dim"]], out[:, 0, SMALL["rnn_dim"] :]], -1)
    loc, scale = dsa.static(v)
    torch.testing.assert_close(loc, dsa.static.heads.loc(features))
    torch.testing.assert_close(scale.square().log(), dsa.static.heads.log_variance(features))


def test_release_has_leaky_heads_of_f_and_norms_that_start_at_one():
    dsa = small(fidelity="release")
    heads, features = dsa.static.heads, torch.randn(50, 2 * SMALL["rnn_dim"], dtype=torch.float64)
    loc, scale = heads(features)
    torch.testing.assert_close(loc, F.leaky_relu(heads.loc(features), 0.2))
    torch.testing.assert_close(
        scale.square().log(), F.leaky_relu(heads.log_variance(features), 0.2)
    )
    for fidelity, bias in (("paper", 0), ("release", 1)):
        norms = [m for m in small(fidelity=fidelity).modules() if "BatchNorm" in type(m).__name__]
        assert len(norms) == 6 + 5 and all((norm.bias == bias).all() for norm in norms)
    assert dsa.dynamic.heads.slope == dsa.prior.heads.slope == 1


@both_posteriors
def test_what_z_t_is_read_from(posterior):
    dsa, x = small(posterior=posterior), clips()
    other = x.clone()
    other[:, -1] = torch.rand_like(other[:, -1])
    v, v_other, f = (
        dsa._features(x),
        dsa._features(other),
        torch.randn(2, N, SMALL["f_dim"], dtype=torch.float64),
    )
    z, from_other, with_other_f = (
        dsa.dynamic(*given)[0] for given in ((v, f[0]), (v_other, f[0]), (v, f[1]))
    )
    own_frame_alone = torch.equal(z[:, :-1], from_other[:, :-1]) and torch.equal(z, with_other_f)
    assert own_frame_alone == (posterior == "factorised") and not torch.equal(
        z[:, -1], from_other[:, -1]
    )


# --- the prior ---


def step_by_step(prior, given=None, noise=None):
    """loc, scale of each step, by a cell that is fed with the codes given [N, T, z_dim], or with its own samples by the noise."""
    weights = [
        getattr(prior.rnn, name)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    ]
    z = torch.zeros(N, SMALL["z_dim"], dtype=torch.float64)
    h = c = torch.zeros(N, SMALL["rnn_dim"], dtype=torch.float64)
    steps = []
    for t in range(T):
        h, c = torch.lstm_cell(z, (h, c), *weights)
        steps.append((prior.heads.loc(h), torch.exp(0.5 * prior.heads.log_variance(h))))
        z = given[:, t] if noise is None else steps[-1][0] + steps[-1][1] * noise[:, t]
    return [torch.stack(part, 1) for part in zip(*steps)]


def test_prior_with_teacher_forcing_is_the_recurrence():
    prior, z = small().prior, torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64)
    for fast, slow in zip(prior(z), step_by_step(prior, z)):
        torch.testing.assert_close(fast, slow)


def test_prior_on_its_own_samples_is_the_recurrence():
    prior, noise = small().prior, torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64)
    z, *fast = prior.walk(noise[:, :0], noise)
    for mine, slow in zip(fast, step_by_step(prior, noise=noise)):
        torch.testing.assert_close(mine, slow)
    torch.testing.assert_close(z, fast[0] + fast[1] * noise)
    torch.testing.assert_close(
        prior.walk(z[:, :2], noise[:, 2:])[0], z[:, 2:]
    )  # going on is not starting anew


# --- the objective ---


@both_fidelities
@both_posteriors
def test_terms_against_distributions_and_monte_carlo(fidelity, posterior):
    draws = 100
    dsa, x = small(fidelity=fidelity, posterior=posterior), clips()
    v, pictures = dsa._features(x).detach(), dsa._pictures
    dsa._features = lambda x: v  # the pixels' part, once
    dsa._pictures = lambda f, z: 2 * x - 1
    kept = []
    with torch.no_grad():
        for seed in range(draws):
            if seed == draws - 1:
                dsa._pictures = pictures
            torch.manual_seed(seed)
            terms = dsa.loss(x, WEIGHTS)
            torch.manual_seed(seed)
            q_f = Normal(*dsa.static(v))
            f = q_f.rsample()
            q_z = Normal(*dsa.dynamic(v, f))
            z = q_z.rsample()
            own = torch.randn_like(z) if fidelity == "release" else None
            p_z = Normal(*step_by_step(dsa.prior, z, own))
            of_f, of_z = (
                (q.log_prob(s) - p.log_prob(s)).sum()
                for q, p, s in ((q_f, Normal(0.0, 1.0), f), (q_z, p_z, z))
            )
            kept.append(torch.stack([terms["f"].raw, terms["z"].raw, of_f, of_z]))
        mean = dsa._pictures(f, z)
    likelihood = Normal(mean, math.sqrt(0.5)).log_prob(
        2 * x - 1
    ).sum() + x.numel() * 0.5 * math.log(math.pi)
    torch.testing.assert_close(terms["x"].raw, -likelihood)
    torch.testing.assert_close(terms["z"].raw, kl_divergence(q_z, p_z).sum())
    torch.testing.assert_close(terms["f"].raw, kl_divergence(q_f, Normal(0.0, 1.0)).sum())
    assert [terms[name].weighted / terms[name].raw for name in "fzx"] == pytest.approx([3, 0.5, 1])
    kept = torch.stack(kept)
    error = kept.std(0)[2:] / math.sqrt(draws)
    assert ((kept.mean(0)[2:] - kept.mean(0)[:2]).abs() < 4 * error).all() and (error < 1).all()


def test_the_objective_is_divided_by_the_batch():
    stage = DSAStage(DSASettings(**SMALL))
    terms = stage.network.loss(clips().float(), WEIGHTS)
    torch.testing.assert_close(
        stage.objective(terms, N) * N, sum(term.weighted for term in terms.values())
    )


@both_fidelities
@both_posteriors
def test_every_parameter_has_a_gradient(fidelity, posterior):
    dsa = small(fidelity=fidelity, posterior=posterior).train()
    sum(term.weighted for term in dsa.loss(clips(), WEIGHTS).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in dsa.prior.parameters())
    assert all(p.grad is not None for p in dsa.parameters())


@both_fidelities
def test_the_pixels_reach_both_posteriors_through_the_samples(fidelity):
    dsa = small(fidelity=fidelity).train()
    dsa.loss(clips(), WEIGHTS)["x"].raw.backward()
    for heads in (dsa.static.heads, dsa.dynamic.heads):
        assert all(head.weight.grad.any() for head in (heads.loc, heads.log_variance))


def test_the_kl_reaches_the_posterior_through_the_prior_too():
    dsa, scale = small(), 1e-6  # a sample is its loc
    z = torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64, requires_grad=True)
    dsa.dynamic.forward = lambda v, f: (z, torch.full_like(z, scale))
    dsa.loss(clips(), WEIGHTS)["z"].raw.backward()
    got, z.grad = z.grad, None
    kl_divergence(Normal(z, scale), Normal(*step_by_step(dsa.prior, z))).sum().backward()
    torch.testing.assert_close(got, z.grad, rtol=1e-4, atol=1e-4)
    own = z.detach().requires_grad_()
    kl_divergence(
        Normal(own, scale), Normal(*(p.detach() for p in step_by_step(dsa.prior, z)))
    ).sum().backward()
    assert (got - own.grad).abs().max() > 0.01


@both_fidelities
def test_scales_start_where_the_flags_say(fidelity):
    dsa = small(fidelity=fidelity, f_scale_start=0.1, z_scale_start=1.5)
    v = dsa._features(clips())
    f, scale = dsa.static(v)
    torch.testing.assert_close(scale, torch.full_like(scale, 0.1))
    scale = dsa.dynamic(v, f)[1]
    torch.testing.assert_close(scale, torch.full_like(scale, 1.5))


# --- its uses ---


def test_uses():
    dsa = small()
    view, x = View(dsa), clips(frames=3)
    f, z = view.encode(x)
    assert f.shape == (N, SMALL["f_dim"]) and z.shape == (N, 3, SMALL["z_dim"])
    made = view.decode(f, z, 6)
    assert made.shape == (N, 6, 3, 64, 64) and 0 <= made.min() <= made.max() <= 1
    torch.testing.assert_close(made[:, :2], view.decode(f, z, 2))
    more = z.new_zeros(N, 3, SMALL["z_dim"])
    on = dsa.prior.walk(z, more)[0]  # beyond the codes: the prior's means
    torch.testing.assert_close(made, view.decode(f, torch.cat([z, on], 1), 6))
    assert view.sample(2, 5).shape == (2, 5, 3, 64, 64)
    drawn = view.draw_dynamic(f, 5)
    assert drawn.shape == (N, 5, SMALL["z_dim"]) and not torch.equal(drawn, view.draw_dynamic(f, 5))


def test_pictures_start_at_a_colour():
    dsa, colour = small(), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    dsa.start_at(colour)
    torch.nn.init.zeros_(dsa.decoder.convs[-2].weight)
    made = dsa.decode(torch.zeros(1, 5).double(), torch.zeros(1, 2, 2).double(), 2)
    torch.testing.assert_close(made, colour.view(3, 1, 1).expand_as(made))
