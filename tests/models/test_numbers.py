"""Every tensor on the way of both stages against tests/models/from_spec.py, for given weights under the released names.

Ours in float32, the plain functions in float64, to 1e-5; the objective, whose sums are large, in float64.
"""

import math

import pytest
import torch
from pyro import poutine

from data import pendulum
from data.batches import FrameStore, Sampler
from models.vdsm.encdec import EncDec, mixing_weights
from models.vdsm.networks import Blend
from models.vdsm.release import layout
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import EncDecStage, SeqStage
from tests.models import from_spec as spec
from utils.step import Stepper

N, T, LONGER = 3, 5, 12
SMALL = {
    "z_dim": 5, "n_e_w": 4, "dynamics_dim": 3, "rnn_dim": 6, "rnn_layers": 3, "trans_dim": 7,
    "enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4),
}  # fmt: skip
README = {
    "z_dim": 30,
    "n_e_w": 15,
    "dynamics_dim": 50,
    "rnn_dim": 512,
    "rnn_layers": 3,
    "rnn_dropout": 0.2,
}  # MUG-FED
WEIGHTS = {"s": 0.3, "d": 0.7, "z": 2.5, "temperature": 3.0}
fidelities = pytest.mark.parametrize("fidelity", ["paper", "release"])

STAGE_1 = {  # our modules: the released ones
    **{f"encoder.convs.{i}": f"enc.encoder.{place}" for i, place in enumerate(spec.CONVS)},
    **{f"encoder.blurs.{i}": f"enc.encoder.{place}" for i, place in enumerate(spec.BLURS)},
    "encoder.pose": "enc.muvar", "encoder.identity_hidden": "enc.BC_1", "encoder.identity": "enc.BC_2",
    **{f"decoder.kernels.{i}": f"dec.EW{i + 1}" for i in range(5)},
    **{f"decoder.biases.{i}": f"dec.EB{i + 1}" for i in range(5)},
    "identity.loc": "id_layers.loc_layer", "identity.scale": "id_layers.scale_layer",
}  # fmt: skip
STAGE_2 = {
    **{f"encdec.{ours}": name for ours, name in STAGE_1.items()},
    **{ours: name for ours, name in STAGE_1.items() if ours.startswith("identity.")},
    "dynamics.rnn": "seq2seq_enc.rnn", "dynamics.h_0": "h_0_enc", "dynamics.c_0": "c_0_enc", "dynamics.code": "cats",
    "context.rnn": "seq2seq_dec", "context.first": "dec_inp_0",
    "context.to_h": "dz_to_dec_h", "context.to_c": "dz_to_dec_c",
    "combiner.from_context": "comb.h_rnn_to_hidden", "combiner.from_pose": "comb.lin_z_to_hidden",
    "combiner.loc": "comb.lin_hidden_to_loc", "combiner.scale": "comb.lin_hidden_to_scale", "combiner.z_0": "z_q_0",
    "transition.gate_hidden": "transitions.lin_gate_z_to_hidden", "transition.gate": "transitions.lin_gate_hidden_to_z",
    "transition.proposal_hidden": "transitions.lin_proposed_mean_z_to_hidden",
    "transition.proposal": "transitions.lin_proposed_mean_hidden_to_z",
    "transition.linear": "transitions.lin_z_to_loc", "transition.scale": "transitions.lin_sig",
}  # fmt: skip


def released_name(ours, names):
    """The released name of our tensor; s's layers are one in both stages and have one."""
    return next(
        name + ours.removeprefix(module)
        for module, name in names.items()
        if ours == module or ours.startswith(f"{module}.")
    )


def dressed(net, names):
    """Put random weights into `net`, and return them in float64 under the released names."""
    draw, P = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for ours, tensor in net.state_dict().items():
            if "blurs" not in ours:
                inputs = (
                    30
                    if tensor.dim() == 1
                    else tensor[0].numel()
                    if tensor.dim() < 5
                    else 4 * tensor.shape[1]
                )
                gain = (
                    2.0 if "decoder" in ours else 1.2
                )  # so that frames, codes and pictures differ and none saturates
                tensor.copy_(gain / math.sqrt(inputs) * torch.randn(tensor.shape, generator=draw))
            P[released_name(ours, names)] = tensor.double()
    return P


def settings(fidelity, sizes=SMALL):
    return VDSMSettings(fidelity=fidelity, **sizes)


def stage_1(fidelity, sizes=SMALL):
    net = EncDec(settings(fidelity, sizes)).eval()
    return net, dressed(net, STAGE_1)


def stage_2(fidelity, sizes=SMALL):
    net = Seq(settings(fidelity, sizes), EncDec(settings(fidelity, sizes))).eval()
    return net, dressed(net, STAGE_2)


def clips(n, frames):
    """Frames of 16 squares each, of random colours: no two alike."""
    squares = torch.rand(n, frames, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return squares.repeat_interleave(16, 3).repeat_interleave(16, 4)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def close(ours, expected):
    """To 1e-5, and not because the sequences are all alike."""
    ours, expected = [[x] if torch.is_tensor(x) else list(x) for x in (ours, expected)]
    assert len(ours) == len(expected)
    for mine, other in zip(ours, expected):
        assert mine.dtype == torch.float32 and other.dtype == torch.float64
        torch.testing.assert_close(mine.double(), other, atol=1e-5, rtol=0)
        assert other.std(0).max() > 1e-3


@pytest.mark.parametrize("stage, names", [("EncDec", STAGE_1), ("Seq", STAGE_2)])
def test_released_files_are_read_by_these_names(stage, names):
    for tensor in layout(stage, SMALL):
        if tensor.ours:
            assert released_name(tensor.ours, names) == tensor.released.removeprefix("image_")


@fidelities
@torch.no_grad()
def test_stage_1(fidelity):
    net, P = stage_1(fidelity)
    release, x = fidelity == "release", clips(N, T)
    codes = net.frame_codes(x)
    expected = spec.encode_clips(P, x.double(), release)
    close(codes, expected)
    close(net.identity(*codes[2:]), spec.identity(P, *expected[2:]))
    w = spec.mixing(spec.identity(P, *expected[2:])[0], 2.0)
    close(net.encode(x, 2.0), (w, expected[0]))
    close(net.decode(*reversed(net.encode(x, 2.0))), spec.decode(P, expected[0], w))


@torch.no_grad()
def test_blended_kernels():
    net, P = stage_1("release")
    w = mixing_weights(noise(N, 4), 2.0)
    for layer in range(5):
        expected = [spec.blended(P, layer + 1, w_n) for w_n in w.double()]
        close(
            Blend.apply(w, net.decoder.kernels[layer]),
            torch.stack([kernel for kernel, _ in expected]),
        )
        close(w @ net.decoder.biases[layer], torch.stack([bias for _, bias in expected]))


def assert_same_sequences(fidelity, sizes, n, frames, longer):
    """Every tensor of stage 2 from the frames to the generated pictures, and the densities along a path."""
    net, P = stage_2(fidelity, sizes)
    release, x = fidelity == "release", clips(n, frames)
    z_loc, _, s_loc, s_scale = spec.encode_clips(P, x.double(), release)
    codes = net.frame_codes(x)
    close(codes, (z_loc, s_loc, s_scale))
    w = spec.mixing(spec.identity(P, s_loc, s_scale)[0], 2.0)
    d, d_scale = spec.dynamics(P, z_loc)
    seen = []
    hook = net.dynamics.code.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    close(net.dynamics(codes[0]), (d, d_scale))
    close(seen, [spec.final_states(P, z_loc)])
    hook.remove()
    close(net.encode(x, 2.0), (w, d))

    short = d.float()
    close(net.context(short, longer), spec.contexts(P, d, longer))
    loc, _ = spec.posterior_path(P, d, longer)
    close(net.poses(short, longer), loc)
    close(net.decode(net.poses(short, frames), w.float()), spec.decode(P, loc[:, :frames], w))

    path = noise(n, longer, net.encdec.pose_dim)  # not the means: the densities of any path
    first, rest = net.pose_posterior(short, longer)
    rest = rest(path[:, 0]).steps(path[:, 1:])
    found = [
        torch.cat([getattr(first, p)[:, None], getattr(rest, p)], 1) for p in ("mean", "stddev")
    ]
    close(found, spec.posterior_path(P, d, longer, path.double()))
    prior = net.pose_prior(short, path[:, 0], longer).steps(path[:, 1:])
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
    drawn = iter([noise(N, 4), noise(N, 3) / 2, noise(N, 5) / 3, noise(N, T - 1, 5) / 4])
    s, d, z_1, e = [
        x.double()
        for x in (noise(N, 4) / 4, noise(N, 3) / 2 / 3, noise(N, 5) / 3, noise(N, T - 1, 5) / 4)
    ]
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(drawn))
    path = [z_1]
    for t in range(T - 1):
        loc, scale = spec.transit(P, path[-1], d)
        path.append(loc + scale * e[:, t])
    close(net.sample(N, T, 2.0), (spec.mixing(s, 2.0), torch.stack(path, 1)))


# --- the objective ---


def at_sites(net, *args, **values):
    """Have the guide of `net` give these values at its sites, whatever it would draw."""
    trace = poutine.trace(net.guide).get_trace(*args)
    for name, value in values.items():
        trace.nodes[name]["value"] = value
    net.guide = poutine.replay(net.guide, trace=trace)


def assert_same_terms(ours, expected):
    assert set(ours) == set(expected)
    for name in ours:
        for mine, other in zip(ours[name], expected[name]):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=0)


@fidelities
@pytest.mark.parametrize("kl", ["analytic", "mc"])
@torch.no_grad()
def test_terms_of_stage_1(fidelity, kl):
    net, P = stage_1(fidelity)
    net, x, s, z = (
        net.double(),
        clips(N, T).double(),
        noise(N, 4).double() / 4,
        noise(N, T, 5).double(),
    )
    at_sites(net, x, WEIGHTS, s=s, z=z)
    expected = spec.objective_1(P, x, s, z, WEIGHTS, fidelity == "release", kl == "analytic")
    assert_same_terms(net.loss(x, WEIGHTS, kl), expected)


@fidelities
@pytest.mark.parametrize("kl", ["analytic", "mc"])
@torch.no_grad()
def test_terms_of_stage_2(fidelity, kl):
    net, P = stage_2(fidelity)
    net, x, s, d, z = (
        net.double(),
        clips(N, T).double(),
        *(noise(N, *n).double() / 2 for n in ((4,), (3,), (T, 5))),
    )
    codes = net.frame_codes(x)
    at_sites(net, codes, x, None, WEIGHTS, s=s, d=d, z_1=z[:, 0], z=z[:, 1:])
    expected = spec.objective_2(P, x, s, d, z, WEIGHTS, fidelity == "release", kl == "analytic")
    assert_same_terms(net.loss(codes, x, WEIGHTS, None, kl), expected)
    raw, weighted = expected["z_1"]
    assert torch.isclose(weighted, WEIGHTS["z"] * raw) == (fidelity == "paper")


# --- what a stage trains ---

TRAINED = {  # released names, by their beginnings
    "EncDec": ("enc.", "dec.", "id_layers."),
    "Seq": ("h_0_enc", "c_0_enc", "z_q_0", "dec_inp_0", "seq2seq_enc.", "seq2seq_dec.", "cats.", "dz_to_dec_", "comb.",
            "transitions."),
}  # fmt: skip


@fidelities
@pytest.mark.parametrize("name", ["EncDec", "Seq"])
def test_a_step_moves_what_its_stage_trains_and_nothing_else(fidelity, name):
    torch.manual_seed(0)
    c = VDSMSettings(fidelity=fidelity, bs=4, seq_len=T, **SMALL)
    stage = EncDecStage(c) if name == "EncDec" else SeqStage(c, EncDec(c))
    names = STAGE_1 if name == "EncDec" else STAGE_2
    dressed(stage.network, names)
    stage.network.train()
    store = FrameStore(
        pendulum.make(T, 0, {"train": 4, "val": 1, "test": 1}).split("train"), torch.device("cpu")
    )
    before = {ours: tensor.clone() for ours, tensor in stage.network.state_dict().items()}
    found, _ = stage.loss(Sampler(store.clips, T), store, 0, WEIGHTS)
    Stepper(stage.trainable())(sum(term.weighted for term in found.values()), 0.01)
    after = stage.network.state_dict()
    moved = {
        released_name(ours, names)
        for ours, tensor in before.items()
        if not torch.equal(tensor, after[ours])
    }
    trained = TRAINED[name] + (("id_layers.",) if (name, fidelity) == ("Seq", "release") else ())
    released = {released_name(ours, names) for ours in before}
    assert moved == {
        tensor for tensor in released if tensor.startswith(trained) and not tensor.endswith(".filt")
    }
    graded = {
        released_name(ours, names): p.grad
        for ours, p in stage.network.named_parameters()
        if p.grad is not None
    }
    assert graded.keys() == moved and all(gradient.isfinite().all() for gradient in graded.values())
