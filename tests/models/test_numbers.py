"""Every tensor on the way of both stages against tests/models/from_spec.py, for given weights.

Ours in float32 and the plain functions in float64 agree to 1e-5. The terms of the loss, which are
large sums, are compared in float64.
"""

import pytest
import torch
from pyro import poutine

from data import pendulum
from data.batches import Batches
from models.annealing import Annealed
from models.vdsm.encdec import EncDec, mixing_weights
from models.vdsm.functions import Blend
from models.vdsm.release import layout
from models.vdsm.seq import Seq, Sequences
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import EncDecStage, SeqStage
from tests.models import from_spec as spec
from utils.step import Stepper

N, T, LONGER = 3, 5, 12
SMALL = {
    "z_dim": 5, "n_e_w": 4, "dynamics_dim": 3, "rnn_dim": 6, "rnn_layers": 3, "trans_dim": 7,
    "enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4),
}  # fmt: skip
# The README's command for MUG-FED.
README = {
    "z_dim": 30, "n_e_w": 15, "dynamics_dim": 50,
    "rnn_dim": 512, "rnn_layers": 3, "rnn_dropout": 0.2,
}  # fmt: skip
WEIGHTS = {"s": 0.3, "d": 0.7, "z": 2.5, "temperature": 3.0}  # as from_spec takes them
ANNEALED = Annealed({"s": 0.3, "d": 0.7, "z": 2.5}, temperature=3.0)
fidelities = pytest.mark.parametrize("fidelity", ["paper", "release"])

# {our module: the released one}
STAGE_1 = {
    **{f"encoder.convs.{i}": f"enc.encoder.{place}" for i, place in enumerate(spec.CONVS)},
    **{f"encoder.blurs.{i}": f"enc.encoder.{place}" for i, place in enumerate(spec.BLURS)},
    "encoder.pose": "enc.muvar",
    "encoder.identity_hidden": "enc.BC_1", "encoder.identity": "enc.BC_2",
    **{f"decoder.kernels.{i}": f"dec.EW{i + 1}" for i in range(5)},
    **{f"decoder.biases.{i}": f"dec.EB{i + 1}" for i in range(5)},
    "identity.loc": "id_layers.loc_layer", "identity.scale": "id_layers.scale_layer",
}  # fmt: skip
STAGE_2 = {
    **{f"encdec.{ours}": name for ours, name in STAGE_1.items()},
    **{ours: name for ours, name in STAGE_1.items() if ours.startswith("identity.")},
    "dynamics.rnn": "seq2seq_enc.rnn", "dynamics.code": "cats",
    "dynamics.h_0": "h_0_enc", "dynamics.c_0": "c_0_enc",
    "context.rnn": "seq2seq_dec", "context.first": "dec_inp_0",
    "context.to_h": "dz_to_dec_h", "context.to_c": "dz_to_dec_c",
    "combiner.from_context": "comb.h_rnn_to_hidden", "combiner.from_pose": "comb.lin_z_to_hidden",
    "combiner.loc": "comb.lin_hidden_to_loc", "combiner.scale": "comb.lin_hidden_to_scale",
    "combiner.z_0": "z_q_0",
    "transition.gate_hidden": "transitions.lin_gate_z_to_hidden",
    "transition.gate": "transitions.lin_gate_hidden_to_z",
    "transition.proposal_hidden": "transitions.lin_proposed_mean_z_to_hidden",
    "transition.proposal": "transitions.lin_proposed_mean_hidden_to_z",
    "transition.linear": "transitions.lin_z_to_loc", "transition.scale": "transitions.lin_sig",
}  # fmt: skip


def released_name(ours, names):
    """The released name of our tensor. The layers of s, which both stages share, have one name."""
    return next(
        name + ours.removeprefix(module)
        for module, name in names.items()
        if ours == module or ours.startswith(f"{module}.")
    )


def randomise(net, names):
    """Put random weights into `net`, and return them in float64 under the released names."""
    generator, P = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for ours, tensor in net.state_dict().items():
            name = released_name(ours, names)
            if "blurs" not in ours:
                tensor.copy_(spec.random_weights(name, tensor.shape, generator))
            P[name] = tensor.double()
    return P


def settings(fidelity, sizes=SMALL):
    return VDSMSettings(fidelity=fidelity, **sizes)


def stage_1(fidelity, sizes=SMALL):
    net = EncDec(settings(fidelity, sizes)).eval()
    return net, randomise(net, STAGE_1)


def stage_2(fidelity, sizes=SMALL):
    net = Seq(settings(fidelity, sizes), EncDec(settings(fidelity, sizes))).eval()
    return net, randomise(net, STAGE_2)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def close(ours, expected):
    """Equal to 1e-5, with values that differ between sequences."""
    ours, expected = [[x] if torch.is_tensor(x) else list(x) for x in (ours, expected)]
    assert len(ours) == len(expected)
    for fast, slow in zip(ours, expected):
        assert fast.dtype == torch.float32 and slow.dtype == torch.float64
        torch.testing.assert_close(fast.double(), slow, atol=1e-5, rtol=0)
        assert slow.std(0).max() > 1e-3


@pytest.mark.parametrize("stage, names", [("EncDec", STAGE_1), ("Seq", STAGE_2)])
def test_released_files_are_read_by_these_names(stage, names):
    for tensor in layout(stage, SMALL):
        if tensor.ours:
            assert released_name(tensor.ours, names) == tensor.released.removeprefix("image_")


@fidelities
@torch.no_grad()
def test_stage_1(fidelity):
    net, P = stage_1(fidelity)
    release, x = fidelity == "release", spec.clips(N, T)
    codes = net.frame_codes(x)
    expected = spec.encode_clips(P, x.double(), release)
    close(codes, expected)
    close(net.identity(*codes[2:]), spec.identity(P, *expected[2:]))
    w = spec.mixing(spec.identity(P, *expected[2:])[0], 2.0)
    close(net.encode(x, 2.0), (w, expected[0]))
    our_w, our_z = net.encode(x, 2.0)
    close(net.decode(our_z, our_w), spec.decode(P, expected[0], w))


@torch.no_grad()
def test_blended_kernels():
    net, P = stage_1("release")
    w = mixing_weights(noise(N, 4), 2.0)
    for layer in range(5):
        blended = zip(*(spec.blended(P, layer + 1, w_n) for w_n in w.double()))
        kernels, biases = (torch.stack(part) for part in blended)
        close(Blend.apply(w, net.decoder.kernels[layer]), kernels)
        close(w @ net.decoder.biases[layer], biases)


def assert_same_sequences(fidelity, sizes, n, frames, longer):
    """Every tensor of stage 2 from frames to generated frames, and the densities along a path."""
    net, P = stage_2(fidelity, sizes)
    release, x = fidelity == "release", spec.clips(n, frames)
    z_loc, _, s_loc, s_scale = spec.encode_clips(P, x.double(), release)
    codes = net.frame_codes(x)
    close(codes, (z_loc, s_loc, s_scale))
    w = spec.mixing(spec.identity(P, s_loc, s_scale)[0], 2.0)
    d, d_scale = spec.dynamics(P, z_loc)
    states = []
    hook = net.dynamics.code.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    close(net.dynamics(codes[0]), (d, d_scale))
    close(states, [spec.final_states(P, z_loc)])
    hook.remove()
    close(net.encode(x, 2.0), (w, d))

    d_32 = d.float()
    close(net.context(d_32, longer), spec.contexts(P, d, longer))
    loc, _ = spec.posterior_path(P, d, longer)
    close(net.poses(d_32, longer), loc)
    close(net.decode(net.poses(d_32, frames), w.float()), spec.decode(P, loc[:, :frames], w))

    path = noise(n, longer, net.encdec.pose_dim)
    first, rest = net.pose_posterior(d_32, longer)
    rest = rest(path[:, 0]).steps(path[:, 1:])
    posterior = [
        torch.cat([first.mean[:, None], rest.mean], 1),
        torch.cat([first.stddev[:, None], rest.stddev], 1),
    ]
    close(posterior, spec.posterior_path(P, d, longer, path.double()))
    prior = net.pose_prior(d_32, path[:, 0], longer).steps(path[:, 1:])
    steps = [spec.transit(P, path[:, t].double(), d) for t in range(longer - 1)]
    close((prior.mean, prior.stddev), [torch.stack(part, 1) for part in zip(*steps)])


@fidelities
@torch.no_grad()
def test_stage_2(fidelity):
    assert_same_sequences(fidelity, SMALL, N, T, LONGER)


@fidelities
@torch.no_grad()
def test_at_the_sizes_of_the_readme(fidelity):
    assert_same_sequences(fidelity, README, 2, 3, 4)


@fidelities
@torch.no_grad()
def test_sampling_draws_from_the_priors_and_the_transition(fidelity, monkeypatch):
    net, P = stage_2(fidelity)
    standard = [noise(N, 4), noise(N, 3) / 2, noise(N, 5) / 3, noise(N, T - 1, 5) / 4]
    draws = iter(standard)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(draws))
    s, d, z, eps = (draw.double() for draw in standard)
    s, d = s / 4, d / 3  # the priors' scales 1/K and 1/D
    path = [z]
    for t in range(T - 1):
        loc, scale = spec.transit(P, path[-1], d)
        path.append(loc + scale * eps[:, t])
    close(net.sample(N, T, 2.0), (spec.mixing(s, 2.0), torch.stack(path, 1)))


# --- the objective ---


def at_sites(net, *args, **values):
    """Let the guide of `net` give these values at its sites."""
    trace = poutine.trace(net.guide).get_trace(*args)
    for name, value in values.items():
        trace.nodes[name]["value"] = value
    net.guide = poutine.replay(net.guide, trace=trace)


def assert_same_terms(ours, expected):
    assert set(ours) == set(expected)
    for name in ours:
        for fast, slow in zip(ours[name], expected[name]):
            torch.testing.assert_close(fast, slow, rtol=1e-9, atol=0)


@fidelities
@pytest.mark.parametrize("kl", ["analytic", "mc"])
@torch.no_grad()
def test_terms_of_stage_1(fidelity, kl):
    net, P = stage_1(fidelity)
    net, x = net.double(), spec.clips(N, T).double()
    s, z = noise(N, 4).double() / 4, noise(N, T, 5).double()
    at_sites(net, x, ANNEALED, s=s, z=z)
    expected = spec.objective_1(P, x, s, z, WEIGHTS, fidelity == "release", kl == "analytic")
    assert_same_terms(net.loss(x, ANNEALED, kl), expected)


@fidelities
@pytest.mark.parametrize("kl", ["analytic", "mc"])
@torch.no_grad()
def test_terms_of_stage_2(fidelity, kl):
    net, P = stage_2(fidelity)
    net, x = net.double(), spec.clips(N, T).double()
    s, d, z = (noise(N, *shape).double() / 2 for shape in ((4,), (3,), (T, 5)))
    codes = net.frame_codes(x)
    at_sites(net, Sequences(codes, x), ANNEALED, s=s, d=d, z_1=z[:, 0], z=z[:, 1:])
    expected = spec.objective_2(P, x, s, d, z, WEIGHTS, fidelity == "release", kl == "analytic")
    assert_same_terms(net.loss(Sequences(codes, x), ANNEALED, kl), expected)
    raw, weighted = expected["z_1"]
    assert torch.isclose(weighted, WEIGHTS["z"] * raw) == (fidelity == "paper")


# --- what a stage trains ---

# Beginnings of the released names of what trains.
TRAINED = {
    "EncDec": ("enc.", "dec.", "id_layers."),
    "Seq": (
        "h_0_enc", "c_0_enc", "z_q_0", "dec_inp_0", "seq2seq_enc.", "seq2seq_dec.", "cats.",
        "dz_to_dec_", "comb.", "transitions.",
    ),
}  # fmt: skip


@fidelities
@pytest.mark.parametrize("name", ["EncDec", "Seq"])
def test_a_step_moves_what_its_stage_trains_and_nothing_else(fidelity, name):
    torch.manual_seed(0)
    c = VDSMSettings(fidelity=fidelity, bs=4, seq_len=T, **SMALL)
    stage = EncDecStage(c) if name == "EncDec" else SeqStage(c, EncDec(c))
    names = STAGE_1 if name == "EncDec" else STAGE_2
    randomise(stage.network, names)
    stage.network.train()
    clips = pendulum.make(T, 0, {"train": 4, "val": 1, "test": 1}).split("train")
    batches = Batches(clips, torch.device("cpu"), T, c.bs)
    before = {ours: tensor.clone() for ours, tensor in stage.network.state_dict().items()}
    terms, _ = stage.loss(batches, 0, ANNEALED)
    Stepper(stage.trainable())(sum(term.weighted for term in terms.values()), 0.01)
    after, released = stage.network.state_dict(), {n: released_name(n, names) for n in before}
    moved = {released[n] for n in before if not torch.equal(before[n], after[n])}
    trained = TRAINED[name] + (("id_layers.",) if (name, fidelity) == ("Seq", "release") else ())
    assert moved == {
        n for n in released.values() if n.startswith(trained) and not n.endswith(".filt")
    }
    gradients = {
        released[n]: p.grad for n, p in stage.network.named_parameters() if p.grad is not None
    }
    assert gradients.keys() == moved and all(g.isfinite().all() for g in gradients.values())
