"""utils/schema.py: a file that is whole and wrong is not taken for a checkpoint."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models import released
from tests.tiny import TINY
from utils.checkpoints import Damaged, Place, save_checkpoint, state_of
from utils.plan import parse
from utils.run_folder import RunFolder
from utils.settings import MODELS, settings_class
from utils.step import Stepper

CPU = torch.device("cpu")
SMALL = {
    "width": 4, "hidden": 4, "conv_dim": 4, "rnn_dim": 8, "enc_widths": (4, 4, 4, 4, 8),
    "dec_widths": (8, 8, 4, 4),
}  # fmt: skip
# Look into a wrong checkpoint of every stage, and say whether torch's compiler was imported.
LOOK = """
import sys
from utils.schema import check
from utils.settings import MODELS, settings_class
for model in MODELS:
    for fidelity in ("paper", "release"):
        settings = settings_class(model)(fidelity=fidelity)
        for info in settings.STAGES:
            state = {"epoch": 0, "model": {}, "settings": {"model": model, "fidelity": fidelity}}
            try:
                check(state, info, settings)
                sys.exit("accepted")
            except ValueError as error:
                assert "it has no tensor" in str(error)
sys.exit("torch._dynamo" in sys.modules)
"""


def state(settings, stage_name, steps):
    """A checkpoint after so many steps, each with a gradient of ones."""
    stage = settings.info(stage_name).stage().build(settings)
    stepper = Stepper(stage.trainable())
    for _ in range(steps):
        for parameter in stepper.parameters:
            parameter.grad = torch.ones_like(parameter)
        stepper.adam.step()
    within = steps % settings.bs_per_epoch
    place = Place(steps, {"x": [torch.ones(2)] * within} if within else {}, rate=0.1)
    return state_of(stage, stepper, place, "data", CPU)


@pytest.fixture(scope="module")
def settings():
    return parse(TINY).first


@pytest.fixture(scope="module")
def states(settings):
    """A checkpoint of each stage after two epochs, and one of stage 1 a step later."""
    made = {name: state(settings, name, 4) for name in ("EncDec", "Seq")}
    return made | {"step": state(settings, "EncDec", 5)}


@pytest.fixture
def folder(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(settings)
    folder.make()
    return folder


def read(folder, path, state, stage_name="EncDec"):
    save_checkpoint(path, state)
    return [folder.load(path, stage_name, mapped) for mapped in (False, True)]


def without(parts, *names):
    return {name: value for name, value in parts.items() if name not in names}


def spoil(state, *keys, to=None):
    """A copy of the state in which the value under these keys is another, or none at all."""
    first, *rest = keys
    if rest:
        return {**state, first: spoil(state[first], *rest, to=to)}
    return without(state, first) if to is None else {**state, first: to}


def test_whole_files_of_every_kind_load(folder, states):
    for stage_name in ("EncDec", "Seq"):
        path = folder.checkpoint(stage_name, 1)
        for found in read(folder, path, states[stage_name], stage_name):
            assert found["epoch"] == 2
    read(folder, folder.checkpoint_at("EncDec", 2, 1), states["step"])


def test_files_of_the_first_version_load(folder, states):
    whole, path = states["EncDec"], folder.checkpoint("EncDec", 1)
    old = spoil(whole, "settings", "single_decoder") | {"place": {**whole["place"], "losses": []}}
    old["settings"]["n_decoders"] = None
    found, _ = read(folder, path, old)
    assert found["settings"]["single_decoder"] is False
    read(folder, path, without(whole, "place"))


def test_shapes_are_known_at_once():
    root = Path(__file__).resolve().parent.parent.parent
    assert subprocess.run([sys.executable, "-c", LOOK], cwd=root).returncode == 0


@pytest.mark.parametrize("model", MODELS)
def test_files_of_every_model_load(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    cls = settings_class(model)
    known = {name: value for name, value in SMALL.items() if name in cls.__dataclass_fields__}
    settings = cls(**known)
    folder = RunFolder(settings)
    folder.make()
    for info in settings.STAGES:
        path = folder.checkpoint(info.name, 0)
        read(folder, path, state(settings, info.name, settings.bs_per_epoch), info.name)


def test_released_files_load(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(dataclasses.replace(settings, fidelity="release"))
    folder.make()
    for stage_name in ("EncDec", "Seq"):
        file, path = released.checkpoint(stage_name, 7)[0], folder.checkpoint(stage_name, 7)
        adopted, _ = read(folder, path, file, stage_name)
        read(folder, path, adopted, stage_name)  # as --convert writes it
        other = "Seq" if stage_name == "EncDec" else "EncDec"
        with pytest.raises(Damaged, match="is no checkpoint of stage"):
            read(folder, folder.checkpoint(other, 6), file, other)


@pytest.mark.parametrize(
    "keys, to, words",
    [
        (("settings",), {}, "its settings lack --z_dim"),
        (("settings",), [1], "AttributeError"),
        (("settings", "bs_per_epoch"), None, "its settings lack --bs_per_epoch"),
        (("settings", "model"), "dsa", "it is of --model dsa, expected vdsm"),
        (("settings", "model"), "none", "is no checkpoint of stage 1"),
        (("settings", "z_dim"), 5, r"'encoder.pose.weight' is \[8, 8\], expected \[10, 8\]"),
        (("settings", "z_dim"), "many", "is no checkpoint of stage 1"),
        (("model", "encoder.pose.bias"), None, "it has no tensor 'encoder.pose.bias'"),
        (("model", "encoder.pose.bias"), 3.0, "it has no tensor 'encoder.pose.bias'"),
        (("model", "encoder.pose.bias"), torch.ones(8, dtype=torch.int64), "is torch.int64"),
        (("model", "encoder.pose.bias"), torch.ones(8).to_sparse(), "is torch.sparse_coo"),
        (("model", "more"), torch.ones(2), "it has a tensor 'more'"),
        (("model",), [1], "is no checkpoint of stage 1"),
        (("optimizer",), (), "is no checkpoint of stage 1"),
        (("optimizer", "state"), None, "KeyError"),
        (("optimizer", "state", 0, "exp_avg"), torch.ones(3), r"'exp_avg of 0' is \[3\]"),
        (("optimizer", "state", 0, "exp_avg_sq"), None, "it has no tensor 'exp_avg_sq of 0'"),
        (("optimizer", "state", 99), {"step": 1}, "its optimiser is of other tensors"),
        (("optimizer", "param_groups"), [{"params": [0]}], r"its optimiser trains \[1\] tensors"),
        (("rng",), {}, "KeyError"),
        (("rng", "cpu"), torch.zeros(7, dtype=torch.uint8), "is no checkpoint of stage 1"),
        (("data",), None, "it does not say on which data"),
        (("epoch",), 1, "it stands at step 4, epoch 1 of 4 of 2 steps"),
        (("epoch",), True, "it has no number of epochs"),
        (("epoch",), "2", "it has no number of epochs"),
        (("place", "step"), 10**9, "it stands at step 1000000000, epoch 2 of 4 of 2 steps"),
        (("place", "step"), -2, "it stands at step -2"),
        (("place", "step"), 4.5, "is no checkpoint of stage 1"),
        (("place", "best"), (7, 1.0), "its best epoch is 7"),
        (("place", "best"), 3, "is no checkpoint of stage 1"),
        (("place", "scale"), 0.5j, "is no checkpoint of stage 1"),
        (("place", "scale"), 2.0, "its learning rate is out of range"),
        (("place", "retries"), -1, "its learning rate is out of range"),
        (("place", "rate"), float("nan"), "its learning rate is out of range"),
        (("place", "losses"), {"x": torch.ones(1, 2)}, "it does not hold the losses of 0 steps"),
        (("place", "more"), 1, "is no checkpoint of stage 1"),
        (("place",), 3, "is no checkpoint of stage 1"),
    ],
)
def test_what_is_whole_and_wrong_is_told(folder, states, keys, to, words):
    path = folder.checkpoint("EncDec", 1)
    with pytest.raises(Damaged, match=words) as caught:
        read(folder, path, spoil(states["EncDec"], *keys, to=to))
    assert str(path) in str(caught.value)


def test_a_part_that_is_none_is_told(folder, states):
    for part in ("optimizer", "rng", "model", "settings", "place"):
        with pytest.raises(Damaged, match="is no checkpoint of stage 1"):
            read(folder, folder.checkpoint("EncDec", 1), {**states["EncDec"], part: None})


def test_a_file_under_the_name_of_another_is_told(folder, states):
    with pytest.raises(Damaged, match="it has no tensor|it has a tensor"):
        read(folder, folder.checkpoint("EncDec", 1), states["Seq"])
    with pytest.raises(Damaged, match="after 3 epochs and 0 steps, in fact after 2 and 0"):
        read(folder, folder.checkpoint("EncDec", 2), states["EncDec"])
    with pytest.raises(Damaged, match="after 2 epochs and 0 steps, in fact after 2 and 1"):
        read(folder, folder.checkpoint_at("EncDec", 2, 0), states["step"])


def test_the_newest_good_one_is_used_and_the_others_are_set_aside(folder, states):
    good = folder.checkpoint("EncDec", 1)
    save_checkpoint(good, states["EncDec"])
    save_checkpoint(folder.checkpoint("EncDec", 2), states["EncDec"])
    save_checkpoint(folder.checkpoint_at("EncDec", 2, 1), spoil(states["step"], "rng", "cpu"))
    folder.inspect()
    assert folder.newest("EncDec") == folder.choose("EncDec") == good
    lines = []
    folder.put_away(lines.append)
    assert len(lines) == 2 and all("is no checkpoint of stage 1 (" in line for line in lines)
    assert [path for _, path in folder.places("EncDec")] == [good]
