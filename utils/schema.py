"""What a checkpoint must hold, checked when it is read: a file that is whole may still be wrong."""

import math
from dataclasses import fields, replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from utils.checkpoints import Place
from utils.settings import RunSettings, StageInfo

MOMENTS = "exp_avg", "exp_avg_sq"


class Unfilled(TorchFunctionMode):
    """Leaves tensors without normal numbers: the meta device would import torch's compiler."""

    def __torch_function__(self, func, types, args: tuple = (), kwargs=None):
        return args[0] if func is torch.Tensor.normal_ else func(*args, **(kwargs or {}))


def check(
    state: dict, info: StageInfo, settings: RunSettings, at: tuple[int, int] | None = None
) -> None:
    """Raise ValueError, which says what was found, unless `state` is a checkpoint of a stage.

    state: its settings are under the flags of today. info: of the stage. settings: any of its
    model. at: (epochs done, steps of the next) that the name of the file says, or None.
    """
    saved, ours = state["settings"], state.get("data") is not None
    if (model := saved.get("model", RunSettings.model)) != settings.model:
        raise ValueError(f"it is of --model {model}, expected {settings.model}")
    needed = (*info.sizes, "epochs", "bs_per_epoch") if ours else ()
    if missing := [name for name in needed if name not in saved]:
        raise ValueError(f"its settings lack --{missing[0]}")
    if type(state["epoch"]) is not int or state["epoch"] < 0:
        raise ValueError("it has no number of epochs")
    known = {field.name for field in fields(settings)} & saved.keys()
    stage = check_network(state["model"], info, replace(settings, **{n: saved[n] for n in known}))
    _check_adam(state["optimizer"], stage)
    if ours:
        torch.Generator().set_state(state["rng"]["cpu"])
        _check_place(state, at)
    elif state["rng"] is not None:
        raise ValueError("it does not say on which data it was trained")


def check_network(weights: dict, info: StageInfo, settings: RunSettings) -> Any:
    """The stage of these settings, unfilled; ValueError unless `weights` fit its network."""
    with torch.device("meta"), Unfilled():
        stage = info.stage().build(settings)
    expected = stage.network.state_dict()
    for name, there in expected.items():
        _check_tensor(name, weights.get(name), there)
    if more := sorted(weights.keys() - expected.keys()):
        raise ValueError(f"it has a tensor '{more[0]}'")
    return stage


def _check_tensor(name, value, like):
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"it has no tensor '{name}'")
    if value.shape != like.shape:
        raise ValueError(f"'{name}' is {list(value.shape)}, expected {list(like.shape)}")
    if value.is_floating_point() != like.is_floating_point():
        raise ValueError(f"'{name}' is {value.dtype}, expected {like.dtype}")
    if value.layout != torch.strided:
        raise ValueError(f"'{name}' is {value.layout}, expected torch.strided")


def _check_adam(saved, stage):
    """ValueError unless `saved` is a state of Adam over what the stage trains."""
    groups = [list(group) for group in stage.trainable().values()]
    parameters = dict(stage.network.named_parameters())
    states = saved.get("moments")  # of a released file: by the name of the parameter
    if states is None:
        parameters = dict(enumerate(p for group in groups for p in group))
        states, sizes = saved["state"], [len(group["params"]) for group in saved["param_groups"]]
        if sizes != [len(group) for group in groups]:
            raise ValueError(f"its optimiser trains {sizes} tensors")
    for key, state in states.items():
        if key not in parameters or not math.isfinite(state["step"]):
            raise ValueError("its optimiser is of other tensors")
        for moment in MOMENTS:
            _check_tensor(f"{moment} of {key}", state.get(moment), parameters[key])


def _check_place(state, at):
    """ValueError unless the place in the training fits the number of epochs and the settings."""
    each, last = state["settings"]["bs_per_epoch"], state["settings"]["epochs"]
    place = Place.of(state, each, torch.device("cpu"))
    epochs, steps = divmod(place.step, each)
    if epochs != state["epoch"] or not 0 <= place.step <= last * each:
        found = f"step {place.step}, epoch {state['epoch']} of {last} of {each} steps"
        raise ValueError(f"it stands at {found}")
    if at not in (None, (epochs, steps)):
        name = f"after {at[0]} epochs and {at[1]} steps"
        raise ValueError(f"by its name it stands {name}, in fact after {epochs} and {steps}")
    best, score = place.best or (0, 0.0)
    if not (0 <= best <= epochs and math.isfinite(score)):
        raise ValueError(f"its best epoch is {best} with an ELBO of {score}")
    if not (place.retries >= 0 and 0 <= place.scale <= 1 and place.rate >= 0):
        rates = f"rate {place.rate} times {place.scale}, lowered {place.retries} times"
        raise ValueError(f"its learning rate is out of range: {rates}")
    if any(len(v) != steps or v[0].shape != (2,) for v in place.losses.values()):
        raise ValueError(f"it does not hold the losses of {steps} steps")
