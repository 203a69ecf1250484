"""models/vdsm/release.py: the released names, to ours and back, to the last bit; the same weights are the same model."""

import copy

import pytest
import torch

from models.vdsm import release
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from tests.models import released
from utils.step import Stepper

SETTINGS = VDSMSettings(fidelity="release", **released.SIZES)
stages = pytest.mark.parametrize("stage", ["EncDec", "Seq"])


def ours(stage, settings=SETTINGS):
    network = EncDec(settings)
    return network if stage == "EncDec" else Seq(settings, network)


def stepper_of(network):
    return Stepper({1.0: [p for p in network.parameters() if p.requires_grad]})


def our_checkpoint(stage):
    """A checkpoint of ours after two steps of Adam, every tensor away from its start, and its stepper."""
    torch.manual_seed(1)
    network = ours(stage)
    stepper = stepper_of(network)
    for step in range(2):
        for i, parameter in enumerate(stepper.parameters):
            parameter.grad = torch.cos(torch.arange(parameter.numel()) + step + i).view_as(
                parameter
            )
        stepper.adam.step()
    state = {
        "epoch": 7, "model": network.state_dict(), "optimizer": stepper.adam.state_dict(),
        "settings": dict(vars(SETTINGS)), "data": "d", "rng": {},
    }  # fmt: skip
    return copy.deepcopy(state), network, stepper


def assert_same(a, b, path=""):
    """Equal to the last bit, types and order of the keys included."""
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
    given = copy.deepcopy(state)
    assert release.stage_of(state) == stage
    mine = release.to_ours(state)
    assert release.ours_stage(mine) == stage and release.stage_of(mine) is None
    assert_same(release.to_release(mine, ()), given)


@stages
def test_ours_and_back(stage):
    state, network, stepper = our_checkpoint(stage)
    there = release.to_release(state, stepper.names(network))
    assert list(there) == ["epoch", "model", "optimizer"] and release.stage_of(there) == stage
    unused = {name: t for name, t in there["model"].items() if name.startswith(released.UNUSED)}
    assert unused and not any(t.any() for t in unused.values())
    back = release.to_ours(there)
    assert back["epoch"] == state["epoch"] and back["settings"].items() <= state["settings"].items()
    assert back["model"].keys() == state["model"].keys()
    for name, tensor in state["model"].items():
        assert_same(tensor, back["model"][name], name)
    again = stepper_of(network).adam_state(back["optimizer"], network)
    assert list(again["state"]) == list(state["optimizer"]["state"])
    for i, moments in state["optimizer"]["state"].items():
        assert_same(dict(sorted(moments.items())), dict(sorted(again["state"][i].items())))


@stages
def test_the_releases_own_module_and_adam_take_what_we_write(stage):
    state, network, stepper = our_checkpoint(stage)
    there = release.to_release(state, stepper.names(network))
    module = released.MAKERS[stage](released.SIZES)
    module.load_state_dict(there["model"])  # strict
    assert list(there["model"]) == list(module.state_dict())
    adam = torch.optim.Adam([{"params": list(module.trained().values())}])
    adam.load_state_dict(there["optimizer"])
    held = {name: adam.state[p] for name, p in module.trained().items() if p in adam.state}
    assert held.keys() == {
        name for name in module.trained() if not name.startswith(released.UNUSED)
    }
    for name, moments in held.items():
        assert moments["exp_avg"].shape == module.get_parameter(name).shape and moments["step"] == 2


@stages
def test_the_same_weights_are_the_same_model(stage):
    state, module, _ = released.checkpoint(stage, 3)
    network = ours(stage).eval()
    network.load_state_dict(release.to_ours(state)["model"])
    clips = torch.rand(3, 5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        w, code = network.encode(clips, 2.0)
        z = network.poses(code, 5) if stage == "Seq" else code
        assert torch.allclose(network.decode(z, w), module.reconstruct(clips, 2.0), atol=1e-5)
        if stage == "Seq":
            for n in range(3):
                loc, scale = network.transition(z[n : n + 1, 0], code[n : n + 1])
                assert torch.allclose(
                    torch.cat([loc, scale]),
                    torch.stack(module.transit(z[n, 0], code[n])),
                    atol=1e-5,
                )


@stages
@pytest.mark.parametrize("old", [True, False])
def test_adam_goes_on(stage, old):
    state, module, adam = released.checkpoint(stage, 3, old=old)
    mine = release.to_ours(copy.deepcopy(state))
    network = ours(stage)
    network.load_state_dict(mine["model"])
    stepper = stepper_of(network)
    stepper.adam.load_state_dict(stepper.adam_state(mine["optimizer"], network))
    stepper.adam.param_groups[0]["lr"] = 0.001
    assert stepper.adam.param_groups[0]["fused"]
    names = {t.ours: t.released for t in release.layout(stage, released.SIZES)}
    same = {names[n]: p for n, p in network.named_parameters() if p.requires_grad}
    released.descend(module.trained(), adam, 5)
    released.descend(same, stepper.adam, 5)
    for name, parameter in same.items():
        assert torch.allclose(parameter, module.get_parameter(name), atol=1e-6), name


def test_positions_follow_the_files_own_order():
    state, _, _ = released.checkpoint("EncDec", 3)
    given = release.to_ours(state)["optimizer"]["moments"]
    order = [name for name in state["model"] if not name.endswith(".filt")]
    turned = order[::-1]
    held = state["optimizer"]["state"]
    state["model"] = {
        name: state["model"][name] for name in [*turned, *(set(state["model"]) - set(order))]
    }
    state["optimizer"]["state"] = {turned.index(order[i]): moments for i, moments in held.items()}
    found = release.to_ours(state)["optimizer"]["moments"]
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name]["exp_avg"], given[name]["exp_avg"]) for name in given)


def test_an_adam_that_does_not_fit_is_left():
    state, _, _ = released.checkpoint("Seq", 3)
    for spoil in (
        lambda adam: adam.clear(),
        lambda adam: adam["param_groups"][0]["params"].pop(),
        lambda adam: adam["state"][0].update(exp_avg=torch.zeros(2)),
        lambda adam: adam["state"][0].pop("step"),
    ):
        spoilt = {**state, "optimizer": copy.deepcopy(state["optimizer"])}
        spoil(spoilt["optimizer"])
        assert release.to_ours(spoilt)["optimizer"] == {"moments": {}}


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
def test_what_is_no_released_model(spoil, words):
    state, _, _ = released.checkpoint("EncDec", 3)
    spoil(state["model"])
    with pytest.raises(ValueError, match=words):
        release.to_ours(state)


def test_unused_tensors_may_be_missing_or_of_any_shape():
    state, _, _ = released.checkpoint("Seq", 3)
    del state["model"]["c_0_dec"]
    state["model"]["seq2seq_enc.fc_out.0.weight"] = torch.ones(5)
    back = release.to_release(release.to_ours(state), ())["model"]
    assert torch.equal(back["c_0_dec"], torch.zeros(1, 1, 6)) and list(back)[2] == "c_0_dec"
    assert torch.equal(back["seq2seq_enc.fc_out.0.weight"], torch.ones(5))


def test_other_things_are_not_released():
    for thing in ([], {}, {"model": []}, {"model": {}}, our_checkpoint("Seq")[0]):
        assert release.stage_of(thing) is None
    state, _, _ = released.checkpoint("EncDec", 3)
    for epoch in (None, "3", -1, True):
        with pytest.raises(ValueError, match="epoch"):
            release.to_ours({**state, "epoch": epoch})
