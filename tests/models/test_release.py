"""models/vdsm/release.py: released checkpoints to ours and back, to the last bit."""

import copy

import pytest
import torch

from models.vdsm import release
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from tests.models import from_spec, released
from utils.step import Stepper

SETTINGS = VDSMSettings(fidelity="release", **released.SIZES)
stages = pytest.mark.parametrize("stage", ["EncDec", "Seq"])


def ours(stage, settings=SETTINGS):
    network = EncDec(settings)
    return network if stage == "EncDec" else Seq(settings, network)


def stepper_of(network):
    return Stepper({1.0: [p for p in network.parameters() if p.requires_grad]})


def our_checkpoint(stage):
    """A checkpoint of ours after two steps of Adam, with its network and its stepper."""
    torch.manual_seed(1)
    network = ours(stage)
    stepper = stepper_of(network)
    for step in range(2):
        for i, parameter in enumerate(stepper.parameters):
            gradient = torch.cos(torch.arange(parameter.numel()) + step + i)
            parameter.grad = gradient.view_as(parameter)
        stepper.adam.step()
    state = {
        "epoch": 7, "model": network.state_dict(), "optimizer": stepper.adam.state_dict(),
        "settings": dict(vars(SETTINGS)), "data": "d", "rng": {},
    }  # fmt: skip
    return copy.deepcopy(state), network, stepper


def assert_same(a, b, path=""):
    """Both are equal to the last bit, in types and order of keys too."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), path
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{path}/{i}")
    else:
        assert a == b, path


@stages
@pytest.mark.parametrize(
    "sizes", [{}, {"z_dim": 30, "n_e_w": 40, "dynamics_dim": 50}], ids=["defaults", "sprites"]
)
def test_names_shapes_and_order_at_full_size(stage, sizes):
    settings = VDSMSettings(fidelity="release", **sizes)
    with torch.device("meta"):
        expected = released.MAKERS[stage](vars(settings)).state_dict()
        made = ours(stage, settings).state_dict()
        entries = release.layout(stage, vars(settings))
    assert [(t.released, t.shape) for t in entries] == [
        (name, tuple(t.shape)) for name, t in expected.items()
    ]
    named = {t.ours: t.shape for t in entries if t.ours}
    twins = {f"encdec.{name}" for name in made if name.startswith("identity.")}
    assert named == {name: tuple(t.shape) for name, t in made.items() if name not in twins}
    assert {t.released for t in entries if not t.ours} == {
        n for n in expected if n.startswith(released.UNUSED)
    }
    assert release.sizes_of(expected, stage).items() <= vars(settings).items()


@stages
@pytest.mark.parametrize("old", [True, False])
def test_released_and_back(stage, old):
    state, _, _ = released.checkpoint(stage, 3, old=old)
    original = copy.deepcopy(state)
    assert release.stage_of(state) == stage
    adopted = release.adopt(state)
    assert release.ours_stage(adopted) == stage and release.stage_of(adopted) is None
    assert_same(release.to_release(adopted, ()), original)


@stages
def test_ours_and_back(stage):
    state, network, stepper = our_checkpoint(stage)
    converted = release.to_release(state, stepper.names(network))
    assert list(converted) == ["epoch", "model", "optimizer"]
    assert release.stage_of(converted) == stage
    unused = [t for name, t in converted["model"].items() if name.startswith(released.UNUSED)]
    assert unused and not any(t.any() for t in unused)
    back = release.adopt(converted)
    assert back["epoch"] == state["epoch"] and back["settings"].items() <= state["settings"].items()
    assert back["model"].keys() == state["model"].keys()
    for name, tensor in state["model"].items():
        assert_same(tensor, back["model"][name], name)
    again = stepper_of(network).adam_state(back["optimizer"], network)
    assert list(again["state"]) == list(state["optimizer"]["state"])
    for i, moments in state["optimizer"]["state"].items():
        assert_same(dict(sorted(moments.items())), dict(sorted(again["state"][i].items())))


@stages
def test_the_releases_own_module_and_adam_load_what_we_write(stage):
    state, network, stepper = our_checkpoint(stage)
    converted = release.to_release(state, stepper.names(network))
    module = released.MAKERS[stage](released.SIZES)
    module.load_state_dict(converted["model"])  # strict
    assert list(converted["model"]) == list(module.state_dict())
    parameters = released.trained(module)
    adam = torch.optim.Adam([{"params": list(parameters.values())}])
    adam.load_state_dict(converted["optimizer"])
    states = {name: adam.state[p] for name, p in parameters.items() if p in adam.state}
    assert states.keys() == {name for name in parameters if not name.startswith(released.UNUSED)}
    for name, moments in states.items():
        assert moments["exp_avg"].shape == parameters[name].shape and moments["step"] == 2


@stages
@torch.no_grad()
def test_the_same_weights_are_the_same_model(stage):
    """A released file through our networks and through the formulas of the description."""
    state, _, _ = released.checkpoint(stage, 3)
    P, generator = {}, torch.Generator().manual_seed(0)
    for full_name, tensor in state["model"].items():
        name = full_name.removeprefix("image_")
        if not name.endswith("filt"):
            tensor.copy_(from_spec.random_weights(name, tensor.shape, generator))
        P[name] = tensor.double()
    network = ours(stage).eval()
    network.load_state_dict(release.adopt(state)["model"])
    x = from_spec.clips(3, 5)
    z, _, s_loc, s_scale = from_spec.encode_clips(P, x.double(), release=True)
    w = from_spec.mixing(from_spec.identity(P, s_loc, s_scale)[0], 2.0)
    our_w, code = network.encode(x, 2.0)
    our_z = code
    if stage == "Seq":
        d, _ = from_spec.dynamics(P, z)
        z, _ = from_spec.posterior_path(P, d, 5)
        our_z = network.poses(code, 5)
        step = network.transition(z[:, 0].float(), code)
        for fast, slow in zip(step, from_spec.transit(P, z[:, 0], d)):
            torch.testing.assert_close(fast.double(), slow, atol=1e-5, rtol=0)
    frames = network.decode(our_z, our_w).double()
    torch.testing.assert_close(frames, from_spec.decode(P, z, w), atol=1e-5, rtol=0)
    assert frames.std(0).mean() > 0.01


@stages
@pytest.mark.parametrize("old", [True, False])
def test_adam_continues_as_in_the_release(stage, old):
    state, module, adam = released.checkpoint(stage, 3, old=old)
    adopted = release.adopt(copy.deepcopy(state))
    network = ours(stage)
    network.load_state_dict(adopted["model"])
    stepper = stepper_of(network)
    stepper.adam.load_state_dict(stepper.adam_state(adopted["optimizer"], network))
    stepper.adam.param_groups[0]["lr"] = 0.001
    assert stepper.adam.param_groups[0]["fused"]
    names = {t.ours: t.released for t in release.layout(stage, released.SIZES)}
    parameters = {names[n]: p for n, p in network.named_parameters() if p.requires_grad}
    released.descend(released.trained(module), adam, 5)
    released.descend(parameters, stepper.adam, 5)
    for name, parameter in parameters.items():
        assert torch.allclose(parameter, module.get_parameter(name), atol=1e-6), name


def test_positions_of_adam_follow_the_order_of_the_file():
    state, _, _ = released.checkpoint("EncDec", 3)
    expected = release.adopt(state)["optimizer"]["moments"]
    order = [name for name in state["model"] if not name.endswith(".filt")]
    reverse = order[::-1]
    others = set(state["model"]) - set(order)
    saved = state["optimizer"]["state"]
    state["model"] = {name: state["model"][name] for name in [*reverse, *others]}
    state["optimizer"]["state"] = {reverse.index(order[i]): adam for i, adam in saved.items()}
    moments = release.adopt(state)["optimizer"]["moments"]
    assert moments.keys() == expected.keys()
    assert all(torch.equal(moments[n]["exp_avg"], expected[n]["exp_avg"]) for n in expected)


def test_an_adam_that_does_not_fit_is_ignored():
    state, _, _ = released.checkpoint("Seq", 3)
    for spoil in (
        lambda adam: adam.clear(),
        lambda adam: adam["param_groups"][0]["params"].pop(),
        lambda adam: adam["state"][0].update(exp_avg=torch.zeros(2)),
        lambda adam: adam["state"][0].pop("step"),
    ):
        spoilt = {**state, "optimizer": copy.deepcopy(state["optimizer"])}
        spoil(spoilt["optimizer"])
        assert release.adopt(spoilt)["optimizer"] == {"moments": {}}


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda m: m.pop("dec.EW3"), "EW3"),
        (lambda m: m.pop("dec.EB3"), "'dec.EB3' is not in it"),
        (
            lambda m: m.update({"enc.BC_1.bias": torch.zeros(5)}),
            r"'enc.BC_1.bias' is \[5\], expected \[128\]",
        ),
        (lambda m: m.update({"enc.muvar.weight": torch.zeros(())}), "do not tell its sizes"),
        (lambda m: m.update({"enc.muvar.bias": [0.0]}), "not a tensor"),
        (lambda m: m.update(more=torch.zeros(1)), "'more' is not a tensor of the release"),
    ],
)
def test_a_released_file_that_does_not_fit_is_refused(spoil, words):
    state, _, _ = released.checkpoint("EncDec", 3)
    spoil(state["model"])
    with pytest.raises(ValueError, match=words):
        release.adopt(state)


def test_unused_tensors_may_be_missing_or_of_any_shape():
    state, _, _ = released.checkpoint("Seq", 3)
    del state["model"]["c_0_dec"]
    state["model"]["seq2seq_enc.fc_out.0.weight"] = torch.ones(5)
    back = release.to_release(release.adopt(state), ())["model"]
    assert torch.equal(back["c_0_dec"], torch.zeros(1, 1, 6)) and list(back)[2] == "c_0_dec"
    assert torch.equal(back["seq2seq_enc.fc_out.0.weight"], torch.ones(5))


def test_other_files_are_not_adopted():
    for state in ([], {}, {"model": []}, {"model": {}}, our_checkpoint("Seq")[0]):
        assert release.adopt(state) is None
    state, _, _ = released.checkpoint("EncDec", 3)
    for epoch in (None, "3", -1, True):
        with pytest.raises(ValueError, match="epoch"):
            release.adopt({**state, "epoch": epoch})
