"""Checkpoints of the authors' program (the release), converted to ours and back.

Both programs store every tensor in the same layout: gates and directions of LSTMs, banks
[K, C_in, C_out, 4, 4], heads with the loc first. The conversion therefore changes names and no
number. The order of a released file is that of the release's state dict, in which a module's own
parameters come before those of its children (VDSM_release/VDSM.py, modules.py).
"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn

from models.vdsm.networks import IDENTITY_HIDDEN, KERNEL

FIDELITY = "release"  # under any other, the tensors of a released file are another model
# The tensor that tells a released file and its stage.
MARK = {"EncDec": "enc.muvar.weight", "Seq": "image_enc.muvar.weight"}
CONVS, BLURS = (0, 3, 6, 9, 12), (2, 5, 8, 11)  # positions in the release's nn.Sequential
MOMENTS = ("exp_avg", "exp_avg_sq")
GROUP = ("lr", "betas", "eps", "weight_decay", "amsgrad")  # Adam's options in torch 1.6


class Tensor(NamedTuple):
    """One tensor of a released file. ours: its name here, or None if the release never uses it."""

    released: str
    ours: str | None
    shape: tuple


def layout(stage_name: str, sizes: dict) -> list[Tensor]:
    """The tensors of a released file of the stage, in its order. sizes: as in `sizes_of`."""
    pose, k = sizes["z_dim"], sizes["n_e_w"]
    identity = [
        *_layer("id_layers.loc_layer", "identity.loc", k, k),
        *_layer("id_layers.scale_layer", "identity.scale", k, k),
    ]
    if stage_name == "EncDec":
        return [
            *_encoder("enc", "encoder", sizes),
            *_decoder("dec", "decoder", sizes),
            *identity,
            *_layer("ID_loc_layer", None, k, k),
            *_layer("ID_scale_layer", None, k, k),
        ]
    d, r, layers = sizes["dynamics_dim"], sizes["rnn_dim"], sizes["rnn_layers"]
    z_d = pose + d
    return [
        Tensor("h_0_enc", "dynamics.h_0", (1, 1, r)),
        Tensor("c_0_enc", "dynamics.c_0", (1, 1, r)),
        Tensor("c_0_dec", None, (1, 1, r)),
        Tensor("z_q_0", "combiner.z_0", (pose,)),
        Tensor("dec_inp_0", "context.first", (r,)),
        *identity,
        *_decoder("image_dec", "encdec.decoder", sizes),
        *_encoder("image_enc", "encdec.encoder", sizes),
        *_lstm("seq2seq_enc.rnn", "dynamics.rnn", pose, r, layers, bidirectional=True),
        *_layer("seq2seq_enc.fc_out.0", None, pose, 2 * r),
        *_lstm("seq2seq_dec", "context.rnn", r, r, layers),
        *_layer("comb.h_rnn_to_hidden", "combiner.from_context", r, d + r),
        *_layer("comb.lin_z_to_hidden", "combiner.from_pose", r, pose),
        *_layer("comb.lin_hidden_to_loc", "combiner.loc", pose, r),
        *_layer("comb.lin_hidden_to_scale", "combiner.scale", pose, r),
        *_layer("transitions.lin_gate_z_to_hidden", "transition.gate_hidden", r, z_d),
        *_layer("transitions.lin_gate_hidden_to_z", "transition.gate", pose, r),
        *_layer("transitions.lin_proposed_mean_z_to_hidden", "transition.proposal_hidden", r, z_d),
        *_layer("transitions.lin_proposed_mean_hidden_to_z", "transition.proposal", pose, r),
        *_layer("transitions.lin_sig", "transition.scale", pose, pose),
        *_layer("transitions.lin_z_to_loc", "transition.linear", pose, pose),
        *_layer("cats", "dynamics.code", 2 * d, 2 * layers * r),
        *_layer("dz_to_dec_h", "context.to_h", layers * r, d),
        *_layer("dz_to_dec_c", "context.to_c", layers * r, d),
    ]


def _layer(released, ours, *shape):
    """The weight, of this shape, and the bias of a layer."""
    return [
        Tensor(f"{released}.{part}", ours and f"{ours}.{part}", part_shape)
        for part, part_shape in (("weight", shape), ("bias", shape[:1]))
    ]


def _lstm(released, ours, *sizes, bidirectional=False):
    weights = nn.LSTM(*sizes, bidirectional=bidirectional, device="meta").named_parameters()
    return [
        Tensor(f"{released}.{name}", f"{ours}.{name}", tuple(weight.shape))
        for name, weight in weights
    ]


def _encoder(released, ours, sizes):
    widths, tensors = sizes["enc_widths"], []
    for i, (c_in, c_out) in enumerate(zip((3, *widths), widths)):
        there = f"{released}.encoder"
        tensors += _layer(f"{there}.{CONVS[i]}", f"{ours}.convs.{i}", c_out, c_in, KERNEL, KERNEL)
        if i < len(BLURS):
            blur = f"{ours}.blurs.{i}.filt"
            tensors.append(Tensor(f"{there}.{BLURS[i]}.filt", blur, (c_out, 1, 4, 4)))
    return [
        *tensors,
        *_layer(f"{released}.muvar", f"{ours}.pose", 2 * sizes["z_dim"], widths[-1]),
        *_layer(f"{released}.BC_1", f"{ours}.identity_hidden", IDENTITY_HIDDEN, widths[-1]),
        *_layer(f"{released}.BC_2", f"{ours}.identity", 2 * sizes["n_e_w"], IDENTITY_HIDDEN),
    ]


def _decoder(released, ours, sizes):
    k = sizes["n_e_w"]
    channels = (sizes["z_dim"] + k, *sizes["dec_widths"], 3)
    kernels, biases = [], []
    for i, (c_in, c_out) in enumerate(zip(channels, channels[1:])):
        shape = (k, c_in, c_out, KERNEL, KERNEL)
        kernels.append(Tensor(f"{released}.EW{i + 1}", f"{ours}.kernels.{i}", shape))
        biases.append(Tensor(f"{released}.EB{i + 1}", f"{ours}.biases.{i}", (k, c_out)))
    return kernels + biases


def stage_of(state) -> str | None:
    """The stage, 'EncDec' or 'Seq', of the released checkpoint `state`; None for anything else."""
    model = state.get("model") if isinstance(state, dict) else None
    names = model if isinstance(model, dict) else ()
    return next((stage_name for stage_name, mark in MARK.items() if mark in names), None)


def sizes_of(model: dict, stage_name: str) -> dict:
    """The sizes of a released model, under the names of our flags."""
    enc, dec = ("enc", "dec") if stage_name == "EncDec" else ("image_enc", "image_dec")
    sizes = {
        "z_dim": model[f"{enc}.muvar.weight"].shape[0] // 2,
        "n_e_w": model[f"{dec}.EW1"].shape[0],
        "single_decoder": False,
        "whiten_identity": False,
        "enc_widths": tuple(model[f"{enc}.encoder.{i}.weight"].shape[0] for i in CONVS),
        "dec_widths": tuple(model[f"{dec}.EW{i}"].shape[2] for i in range(1, 5)),
    }
    if stage_name == "Seq":
        sizes["dynamics_dim"] = model["cats.weight"].shape[0] // 2
        sizes["rnn_dim"] = model["dec_inp_0"].shape[0]
        sizes["rnn_layers"] = sum(name.startswith("seq2seq_dec.weight_ih_l") for name in model)
    return sizes


def adopt(state) -> dict | None:
    """A released checkpoint as one of ours; None if `state` is not a released checkpoint.

    A released file holds no settings, fingerprint or random state: 'settings' are the sizes alone,
    'data' and 'rng' are None. 'optimizer' is {'moments': {our name: Adam's state}}, which
    `utils.step.Stepper` reads; no moments if the state does not fit the tensors. 'release' keeps
    the rest for `to_release`. ValueError if tensors are missing or have other shapes.
    """
    stage_name = stage_of(state)
    if stage_name is None:
        return None
    model = state["model"]
    if type(state.get("epoch")) is not int or state["epoch"] < 0:
        raise ValueError("found no number under 'epoch'")
    try:
        sizes = sizes_of(model, stage_name)
    except (KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"its tensors do not tell its sizes ({error})") from None
    entries = layout(stage_name, sizes)
    unused = [t.released for t in entries if t.ours is None]
    _check_shapes(model, {t.released: t.shape for t in entries if t.ours}, unused)
    names = {t.released: t.ours for t in entries}
    ours = {t.ours: model[t.released] for t in entries if t.ours}
    moments = _moments(model, state.get("optimizer"))
    if stage_name == "Seq":
        # Our stage 2 holds the identity layers under the name of stage 1 too.
        ours |= {f"encdec.{name}": ours[name] for name in ours if name.startswith("identity.")}
    return {
        "epoch": state["epoch"],
        "model": ours,
        "optimizer": {"moments": {names[n]: adam for n, adam in moments.items() if names[n]}},
        "settings": {"fidelity": FIDELITY, **sizes},
        "data": None,
        "rng": None,
        "release": {
            "model": {name: model[name] for name in unused if name in model},
            "optimizer": state.get("optimizer"),
        },
    }


def to_release(state: dict, trained: list[str]) -> dict:
    """Our checkpoint as a released one: its names, shapes, types and order, and nothing else.

    trained: our names of the parameters, in the order of our optimiser's state. A checkpoint from
    `adopt` gives back its file. In any other, the tensors that the release never uses are zero.
    ValueError if tensors are missing or have other shapes.
    """
    stage_name, model = ours_stage(state), state["model"]
    kept = state.get("release", {"model": {}})
    entries = layout(stage_name, state["settings"])
    twins = [f"encdec.{name}" for name in model if name.startswith("identity.")]
    _check_shapes(model, {t.ours: t.shape for t in entries if t.ours}, twins)
    released = OrderedDict()
    for name, ours, shape in entries:
        unused = ours is None
        released[name] = kept["model"].get(name, torch.zeros(shape)) if unused else model[ours]
    if "optimizer" in kept:
        optimizer = kept["optimizer"]
    else:
        order = _adam_orders(released)[stage_name == "Seq"]
        optimizer = _optimizer(state["optimizer"], trained, entries, order)
    return {"epoch": state["epoch"], "model": released, "optimizer": optimizer}


def _optimizer(saved, trained, entries, order):
    """Our Adam's state as that of a released Adam, which numbers the tensors as in `order`."""
    names = {t.ours: t.released for t in entries}
    adam = {}
    for i, moments in saved["state"].items():
        kept = {moment: moments[moment] for moment in MOMENTS}
        adam[order.index(names[trained[i]])] = {"step": int(moments["step"]), **kept}
    group = {key: saved["param_groups"][0][key] for key in GROUP} | {
        "params": list(range(len(order)))
    }
    return {"state": dict(sorted(adam.items())), "param_groups": [group]}


def ours_stage(state: dict) -> str:
    """The stage, 'EncDec' or 'Seq', of one of our checkpoints."""
    return "Seq" if any(name.startswith("encdec.") for name in state["model"]) else "EncDec"


def _check_shapes(model, shapes, ignored):
    """ValueError unless the model has float tensors of these shapes, and at most `ignored` more."""
    for name, value in model.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise ValueError(f"'{name}' is not a tensor of floats")
    for name, shape in shapes.items():
        if name not in model:
            raise ValueError(f"'{name}' is not in it")
        if tuple(model[name].shape) != tuple(shape):
            raise ValueError(f"'{name}' is {list(model[name].shape)}, expected {list(shape)}")
    if more := sorted(set(model) - set(shapes) - set(ignored)):
        raise ValueError(f"'{more[0]}' is not a tensor of the release")


def _adam_orders(model):
    """The parameters in the order in which a released Adam numbers them: stage 1's, stage 2's."""
    # Stage 2's Adam lacks the frozen ones, whose names contain 'image'.
    parameters = [name for name in model if not name.endswith(".filt")]
    return parameters, [name for name in parameters if "image" not in name]


def _moments(model, optimizer):
    """A released Adam's state by tensor name; {} unless it fits the tensors."""
    try:
        keys = [key for group in optimizer["param_groups"] for key in group["params"]]
        order = next(names for names in _adam_orders(model) if len(names) == len(keys))
        moments = {}
        for name, key in zip(order, keys):
            if saved := optimizer["state"].get(key):
                if any(saved[moment].shape != model[name].shape for moment in MOMENTS):
                    return {}
                step = torch.tensor(float(saved["step"]))
                moments[name] = {"step": step, **{moment: saved[moment] for moment in MOMENTS}}
        return moments
    except (TypeError, KeyError, AttributeError, StopIteration, ValueError, RuntimeError):
        return {}
