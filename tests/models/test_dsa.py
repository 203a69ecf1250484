"""DSA: sizes of the reproduction's layers; terms against torch.distributions and Monte Carlo."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from models.annealing import Annealed
from models.dsa import DSA, DSAStage
from models.settings import DSASettings
from models.view import View
from utils.checkpoints import check_sizes
from utils.errors import UserError
from utils.plan import of_today

N, T = 3, 4
ANNEALED = Annealed({"f": 3.0, "z": 0.5})
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

    # Weights, bias, and the two vectors of a batch norm.
    def affine(c_in, c_out, kernel=1, norm=2):
        return c_out * (c_in * kernel**2 + 1 + norm)

    convs = 3 * affine(256, 256, 5)
    encoder = affine(3, 256, 5) + convs + affine(16384, 4096) + affine(4096, 2048)
    decoder = affine(288, 4096) + affine(4096, 16384) + convs + affine(256, 3, 5, 0)
    assert (parameters(dsa.encoder), parameters(dsa.decoder)) == (encoder, decoder)
    assert parameters(dsa.static) == 2 * 4 * 512 * (2048 + 512 + 2) + 2 * affine(1024, 256, norm=0)
    assert parameters(dsa.prior) == 4 * 512 * (32 + 512 + 2) + 2 * affine(512, 32, norm=0)
    assert parameters(dsa.dynamic) == dynamic
    assert parameters(dsa) == sum(parameters(part) for part in dsa.children())


def test_published_setting():
    c = DSASettings()
    assert (c.bs, c.seq_len, c.epochs, c.lr, c.dataset_name) == (25, 8, 200, 0.0002, "sprites-li")
    assert DSASettings(fidelity="release").epochs == 200  # the trainer's 500 are asked for


def test_static_posterior_reads_the_last_states_of_both_directions():
    dsa, v = small(), torch.randn(N, T, SMALL["conv_dim"], dtype=torch.float64)
    out, _ = dsa.static.rnn(v)
    features = torch.cat([out[:, -1, : SMALL["rnn_dim"]], out[:, 0, SMALL["rnn_dim"] :]], -1)
    loc, scale = dsa.static(v)
    torch.testing.assert_close(loc, dsa.static.heads.loc(features))
    torch.testing.assert_close(scale.square().log(), dsa.static.heads.log_variance(features))


def test_release_has_leaky_heads_of_f_and_biases_of_norms_at_one():
    dsa = small(fidelity="release")
    heads, features = dsa.static.heads, torch.randn(50, 2 * SMALL["rnn_dim"], dtype=torch.float64)
    loc, scale = heads(features)
    torch.testing.assert_close(loc, F.leaky_relu(heads.loc(features), 0.2))
    torch.testing.assert_close(
        scale.square().log(), F.leaky_relu(heads.log_variance(features), 0.2)
    )
    for fidelity, bias, count in (("paper", 0, 6 + 5), ("release", 1, 6 + 4)):
        norms = [m for m in small(fidelity=fidelity).modules() if "BatchNorm" in type(m).__name__]
        assert len(norms) == count and all((norm.bias == bias).all() for norm in norms)
    assert dsa.dynamic.heads.slope == dsa.prior.heads.slope == 1


def shapes_of(network):
    """Shapes of the weights of a decoder, in the order in which its input passes them."""
    return [tuple(value.shape) for value in network.parameters()]


def test_the_decoder_of_the_release_layer_by_layer():
    width, hidden, code_dim = 3, 8, SMALL["f_dim"] + SMALL["z_dim"]
    dsa = small(fidelity="release").train()
    assert shapes_of(dsa.decoder) == [
        (hidden, code_dim), (hidden,), (64 * width, hidden), (64 * width,),
        *[(width, width, 5, 5), *[(width,)] * 3] * 3,
        (width, 3, 5, 5), *[(3,)] * 3,
    ]  # fmt: skip
    # Dense layers: affine, LeakyReLU. Convolutions: affine, batch norm, LeakyReLU; last a tanh.
    code = torch.randn(6, code_dim, dtype=torch.float64)
    weights = iter(list(dsa.decoder.parameters()))
    x = code
    for _ in range(2):
        x = x @ next(weights).T + next(weights)
        x = torch.where(x > 0, x, x / 5)
    x = x.reshape(6, width, 8, 8)
    for layer in range(4):
        kernel, bias, gain, shift = (next(weights) for _ in range(4))
        stride, more = (2, 1) if layer < 3 else (1, 0)
        x = F.conv_transpose2d(x, kernel, bias, stride, padding=2, output_padding=more)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (variance + 1e-5).sqrt() * gain[:, None, None] + shift[:, None, None]
        x = torch.where(x > 0, x, x / 5) if layer < 3 else x.tanh()
    torch.testing.assert_close(dsa.decoder(code), x)


def test_weights_of_the_release_start_kaiming_normal():
    sizes = {"width": 16, "hidden": 64, "conv_dim": 48, "rnn_dim": 32, "f_dim": 24, "z_dim": 16}
    for fidelity, squares in (("release", 2), ("paper", 1 / 3)):
        dsa, recurrent = small(fidelity=fidelity, **sizes), set()
        for layer in dsa.modules():
            if isinstance(layer, (torch.nn.LSTM, torch.nn.RNN)):
                recurrent |= set(layer.parameters())
        for name, weight in dsa.named_parameters():
            if weight.dim() == 1:
                continue
            if weight in recurrent:
                assert weight.abs().max() <= 1 / math.sqrt(32), name
                continue
            # torch counts the second dimension of a kernel, whichever way it is applied.
            spread = weight.std().item() * math.sqrt(weight[0].numel())
            error = 5 / math.sqrt(2 * weight.numel())
            assert spread == pytest.approx(math.sqrt(squares), rel=error), name
            # Of a normal, a share of .0027 lies beyond three deviations; of a uniform, none.
            beyond = (weight.abs() > 1.8 * weight.std()).double().mean().item()
            assert (beyond > 0.03) == (fidelity == "release"), name


def test_the_decoder_of_earlier_versions_is_a_flag():
    old, new = (small(fidelity="release", decoder=form) for form in ("text", None))
    paper, code = small(), small(decoder="code")
    assert shapes_of(old.decoder) == shapes_of(paper.decoder)
    assert shapes_of(new.decoder) == shapes_of(code.decoder)
    saved = {"model": "dsa", "fidelity": "release"}
    assert of_today(saved, "DSA")["decoder"] == "text"
    assert of_today(saved | {"decoder": None}, "DSA")["decoder"] is None
    assert of_today(saved | {"fidelity": "paper"}, "DSA")["decoder"] is None
    state, sizes = {"settings": of_today(saved, "DSA")}, DSASettings.SIZES
    with pytest.raises(UserError, match="give the flags it was trained with: --decoder text"):
        check_sizes(state, "199_DSA.pth", DSASettings(fidelity="release"), sizes)
    check_sizes(state, "199_DSA.pth", DSASettings(fidelity="release", decoder="text"), sizes)


@both_posteriors
def test_what_z_t_is_read_from(posterior):
    dsa, x = small(posterior=posterior), clips()
    other = x.clone()
    other[:, -1] = torch.rand_like(other[:, -1])
    v, v_other = dsa._features(x), dsa._features(other)
    f, other_f = torch.randn(2, N, SMALL["f_dim"], dtype=torch.float64)
    z, _ = dsa.dynamic(v, f)
    from_other, _ = dsa.dynamic(v_other, f)
    with_other_f, _ = dsa.dynamic(v, other_f)
    assert not torch.equal(z[:, -1], from_other[:, -1])
    assert torch.equal(z[:, :-1], from_other[:, :-1]) == (posterior == "factorised")
    assert torch.equal(z, with_other_f) == (posterior == "factorised")


# --- the prior ---


def step_by_step(prior, codes=None, noise=None):
    """loc, scale [N, T, z_dim] of the prior, one LSTM cell after another.

    Each step reads the one before: of the codes [N, T, z_dim], or a sample with the noise.
    """
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
        z = codes[:, t] if noise is None else steps[-1][0] + steps[-1][1] * noise[:, t]
    return [torch.stack(part, 1) for part in zip(*steps)]


def test_prior_with_teacher_forcing_is_the_recurrence():
    prior, z = small().prior, torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64)
    for fast, slow in zip(prior(z), step_by_step(prior, z)):
        torch.testing.assert_close(fast, slow)


def test_prior_on_its_own_samples_is_the_recurrence():
    prior, noise = small().prior, torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64)
    z, loc, scale = prior.walk(noise[:, :0], noise)
    torch.testing.assert_close([loc, scale], step_by_step(prior, noise=noise))
    torch.testing.assert_close(z, loc + scale * noise)
    torch.testing.assert_close(prior.walk(z[:, :2], noise[:, 2:])[0], z[:, 2:])


# --- the objective ---


@both_fidelities
@both_posteriors
def test_terms_against_distributions_and_monte_carlo(fidelity, posterior):
    draws = 100
    dsa, x = small(fidelity=fidelity, posterior=posterior), clips()
    v, pictures = dsa._features(x).detach(), dsa._pictures
    # Frames are encoded once and decoded in the last draw only.
    dsa._features = lambda x: v
    dsa._pictures = lambda f, z: 2 * x - 1
    rows = []
    with torch.no_grad():
        for seed in range(draws):
            if seed == draws - 1:
                dsa._pictures = pictures
            torch.manual_seed(seed)
            terms = dsa.loss(x, ANNEALED)
            torch.manual_seed(seed)
            q_f = Normal(*dsa.static(v))
            f = q_f.rsample()
            q_z = Normal(*dsa.dynamic(v, f))
            z = q_z.rsample()
            noise = torch.randn_like(z) if fidelity == "release" else None
            p_z = Normal(*step_by_step(dsa.prior, z, noise))
            mc_f = (q_f.log_prob(f) - Normal(0.0, 1.0).log_prob(f)).sum()
            mc_z = (q_z.log_prob(z) - p_z.log_prob(z)).sum()
            rows.append(torch.stack([terms["f"].raw, terms["z"].raw, mc_f, mc_z]))
        mean = dsa._pictures(f, z)
    likelihood = Normal(mean, math.sqrt(0.5)).log_prob(2 * x - 1).sum()
    constant = x.numel() * 0.5 * math.log(math.pi)
    torch.testing.assert_close(terms["x"].raw, -likelihood - constant)
    torch.testing.assert_close(terms["z"].raw, kl_divergence(q_z, p_z).sum())
    torch.testing.assert_close(terms["f"].raw, kl_divergence(q_f, Normal(0.0, 1.0)).sum())
    assert [terms[name].weighted / terms[name].raw for name in "fzx"] == pytest.approx([3, 0.5, 1])
    closed_form, monte_carlo = torch.stack(rows).split(2, 1)
    error = monte_carlo.std(0) / math.sqrt(draws)
    assert ((monte_carlo.mean(0) - closed_form.mean(0)).abs() < 4 * error).all()
    assert (error < 1).all()


def test_the_objective_is_divided_by_the_batch():
    stage = DSAStage(DSASettings(**SMALL))
    terms = stage.network.loss(clips().float(), ANNEALED)
    torch.testing.assert_close(
        stage.objective(terms, N) * N, sum(term.weighted for term in terms.values())
    )


@both_fidelities
@both_posteriors
def test_every_parameter_has_a_gradient(fidelity, posterior):
    dsa = small(fidelity=fidelity, posterior=posterior).train()
    sum(term.weighted for term in dsa.loss(clips(), ANNEALED).values()).backward()
    for name, parameter in dsa.named_parameters():
        # A batch norm takes the mean off, and with it the bias of the layer before.
        if parameter.dim() > 1 or "prior" in name:
            assert parameter.grad.abs().max() > 1e-9, name


@both_fidelities
def test_the_pixels_reach_both_posteriors_through_the_samples(fidelity):
    dsa = small(fidelity=fidelity).train()
    dsa.loss(clips(), ANNEALED)["x"].raw.backward()
    for heads in (dsa.static.heads, dsa.dynamic.heads):
        assert all(head.weight.grad.any() for head in (heads.loc, heads.log_variance))


def test_the_kl_reaches_the_posterior_through_the_prior_too():
    # With so small a scale, a sample is its loc.
    dsa, scale = small(), 1e-6
    z = torch.randn(N, T, SMALL["z_dim"], dtype=torch.float64, requires_grad=True)
    dsa.dynamic.forward = lambda v, f: (z, torch.full_like(z, scale))
    dsa.loss(clips(), ANNEALED)["z"].raw.backward()
    gradient, z.grad = z.grad, None
    prior = Normal(*step_by_step(dsa.prior, z))
    kl_divergence(Normal(z, scale), prior).sum().backward()
    torch.testing.assert_close(gradient, z.grad, rtol=1e-4, atol=1e-4)
    alone = z.detach().requires_grad_()
    fixed_prior = Normal(prior.loc.detach(), prior.scale.detach())
    kl_divergence(Normal(alone, scale), fixed_prior).sum().backward()
    assert (gradient - alone.grad).abs().max() > 0.01


@both_fidelities
def test_initial_posterior_scales(fidelity):
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
    frames = view.decode(f, z, 6)
    assert frames.shape == (N, 6, 3, 64, 64) and 0 <= frames.min() <= frames.max() <= 1
    torch.testing.assert_close(frames[:, :2], view.decode(f, z, 2))
    # The prior's means continue z.
    rest, *_ = dsa.prior.walk(z, z.new_zeros(N, 3, SMALL["z_dim"]))
    torch.testing.assert_close(frames, view.decode(f, torch.cat([z, rest], 1), 6))
    assert view.sample(2, 5).shape == (2, 5, 3, 64, 64)
    drawn = view.draw_dynamic(f, 5)
    assert drawn.shape == (N, 5, SMALL["z_dim"]) and not torch.equal(drawn, view.draw_dynamic(f, 5))


@both_fidelities
def test_pictures_start_at_a_colour(fidelity):
    dsa, colour = small(fidelity=fidelity), torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    dsa.start_at(colour)
    # Of the last convolution, or of the batch norm behind it.
    torch.nn.init.zeros_(dsa.decoder.convs[-2].weight)
    frames = dsa.decode(torch.zeros(1, 5).double(), torch.zeros(1, 2, 2).double(), 2)
    torch.testing.assert_close(frames, colour.view(3, 1, 1).expand_as(frames))
