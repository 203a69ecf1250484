"""Released checkpoints: their tensors' names, shapes and order, mapped to ours and back. Tensors in, tensors out.

Both programs lay every tensor out alike (LSTM gates and directions, banks [K, C_in, C_out, 4, 4], halves of the heads: loc
first), so the mapping is one of names and no number is touched. The order is that of the release's state dict: the order in
which its modules register their tensors, a module's own parameters before its children (VDSM_release/VDSM.py, modules.py).
Adam's state in a released file goes by position: stage 1 hands it every parameter, stage 2 those whose names lack 'image'.
"""

from collections import OrderedDict
from typing import NamedTuple

import torch

from models.vdsm.networks import IDENTITY_HIDDEN, KERNEL, LSTM_WEIGHTS

FIDELITY = "release"  # the only one under which a released file is the model that it was
MARK = {
    "EncDec": "enc.muvar.weight",
    "Seq": "image_enc.muvar.weight",
}  # tells a released file, and its stage
CONVS, BLURS = (0, 3, 6, 9, 12), (2, 5, 8, 11)  # positions in the release's nn.Sequential
MOMENTS = ("exp_avg", "exp_avg_sq")
GROUP = (
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "amsgrad",
)  # of torch 1.6's Adam, which the release ran


class Tensor(NamedTuple):
    """One tensor of a released file; ours: its name here, None where the release holds it and never uses it."""

    released: str
    ours: str | None
    shape: tuple


def layout(stage, sizes):
    """The tensors of a released file of `stage` ('EncDec' or 'Seq') in its order. sizes: as `sizes_of` gives them."""
    pose, k = sizes["z_dim"], sizes["n_e_w"]
    identity = [
        *_linear("id_layers.loc_layer", "identity.loc", k, k),
        *_linear("id_layers.scale_layer", "identity.scale", k, k),
    ]
    if stage == "EncDec":
        return [
            *_encoder("enc", "encoder", sizes),
            *_decoder("dec", "decoder", sizes),
            *identity,
            *_linear("ID_loc_layer", None, k, k),
            *_linear("ID_scale_layer", None, k, k),
        ]
    d, r, layers = sizes["dynamics_dim"], sizes["rnn_dim"], sizes["rnn_layers"]
    return [
        Tensor("h_0_enc", "dynamics.h_0", (1, 1, r)),
        Tensor("c_0_enc", "dynamics.c_0", (1, 1, r)),
        Tensor("c_0_dec", None, (1, 1, r)),
        Tensor("z_q_0", "combiner.z_0", (pose,)),
        Tensor("dec_inp_0", "context.first", (r,)),
        *identity,
        *_decoder("image_dec", "encdec.decoder", sizes),
        *_encoder("image_enc", "encdec.encoder", sizes),
        *_lstm("seq2seq_enc.rnn", "dynamics.rnn", pose, r, layers, ("", "_reverse")),
        *_linear("seq2seq_enc.fc_out.0", None, 2 * r, pose),
        *_lstm("seq2seq_dec", "context.rnn", r, r, layers, ("",)),
        *_linear("comb.h_rnn_to_hidden", "combiner.from_context", d + r, r),
        *_linear("comb.lin_z_to_hidden", "combiner.from_pose", pose, r),
        *_linear("comb.lin_hidden_to_loc", "combiner.loc", r, pose),
        *_linear("comb.lin_hidden_to_scale", "combiner.scale", r, pose),
        *_linear("transitions.lin_gate_z_to_hidden", "transition.gate_hidden", pose + d, r),
        *_linear("transitions.lin_gate_hidden_to_z", "transition.gate", r, pose),
        *_linear(
            "transitions.lin_proposed_mean_z_to_hidden", "transition.proposal_hidden", pose + d, r
        ),
        *_linear("transitions.lin_proposed_mean_hidden_to_z", "transition.proposal", r, pose),
        *_linear("transitions.lin_sig", "transition.scale", pose, pose),
        *_linear("transitions.lin_z_to_loc", "transition.linear", pose, pose),
        *_linear("cats", "dynamics.code", 2 * layers * r, 2 * d),
        *_linear("dz_to_dec_h", "context.to_h", d, layers * r),
        *_linear("dz_to_dec_c", "context.to_c", d, layers * r),
    ]


def _linear(released, ours, n_in, n_out):
    shapes = {"weight": (n_out, n_in), "bias": (n_out,)}
    return [
        Tensor(f"{released}.{part}", ours and f"{ours}.{part}", shape)
        for part, shape in shapes.items()
    ]


def _lstm(released, ours, n_in, hidden, layers, directions):
    out = []
    for layer in range(layers):
        below = n_in if layer == 0 else hidden * len(directions)
        shapes = ((4 * hidden, below), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,))
        for direction in directions:
            for part, shape in zip(LSTM_WEIGHTS, shapes):
                name = f"{part}_l{layer}{direction}"
                out.append(Tensor(f"{released}.{name}", f"{ours}.{name}", shape))
    return out


def _encoder(released, ours, sizes):
    widths, out = sizes["enc_widths"], []
    for i, (c_in, c_out) in enumerate(zip((3, *widths), widths)):
        there, here = f"{released}.encoder.{CONVS[i]}", f"{ours}.convs.{i}"
        out.append(Tensor(f"{there}.weight", f"{here}.weight", (c_out, c_in, KERNEL, KERNEL)))
        out.append(Tensor(f"{there}.bias", f"{here}.bias", (c_out,)))
        if i < len(BLURS):
            there, here = f"{released}.encoder.{BLURS[i]}.filt", f"{ours}.blurs.{i}.filt"
            out.append(Tensor(there, here, (c_out, 1, 4, 4)))
    return [
        *out,
        *_linear(f"{released}.muvar", f"{ours}.pose", widths[-1], 2 * sizes["z_dim"]),
        *_linear(f"{released}.BC_1", f"{ours}.identity_hidden", widths[-1], IDENTITY_HIDDEN),
        *_linear(f"{released}.BC_2", f"{ours}.identity", IDENTITY_HIDDEN, 2 * sizes["n_e_w"]),
    ]


def _decoder(released, ours, sizes):
    k = sizes["n_e_w"]
    channels = (sizes["z_dim"] + k, *sizes["dec_widths"], 3)
    pairs = list(enumerate(zip(channels, channels[1:])))
    return [
        *(
            Tensor(f"{released}.EW{i + 1}", f"{ours}.kernels.{i}", (k, *io, KERNEL, KERNEL))
            for i, io in pairs
        ),
        *(Tensor(f"{released}.EB{i + 1}", f"{ours}.biases.{i}", (k, io[1])) for i, io in pairs),
    ]


def stage_of(state):
    """'EncDec' or 'Seq' if the loaded file `state` is a released checkpoint of that stage, else None."""
    model = state.get("model") if isinstance(state, dict) else None
    return (
        next((stage for stage, name in MARK.items() if name in model), None)
        if isinstance(model, dict)
        else None
    )


def sizes_of(model, stage):
    """The sizes of a released model, by the names of our flags. KeyError or IndexError where its tensors cannot tell."""
    enc, dec = ("enc", "dec") if stage == "EncDec" else ("image_enc", "image_dec")
    sizes = {
        "z_dim": model[f"{enc}.muvar.weight"].shape[0] // 2,
        "n_e_w": model[f"{dec}.EW1"].shape[0],
        "n_decoders": None,  # one an expert
        "enc_widths": tuple(model[f"{enc}.encoder.{i}.weight"].shape[0] for i in CONVS),
        "dec_widths": tuple(model[f"{dec}.EW{i}"].shape[2] for i in range(1, 5)),
    }
    if stage == "Seq":
        sizes["dynamics_dim"] = model["cats.weight"].shape[0] // 2
        sizes["rnn_dim"] = model["dec_inp_0"].shape[0]
        sizes["rnn_layers"] = sum(name.startswith("seq2seq_dec.weight_ih_l") for name in model)
    return sizes


def to_ours(state):
    """A released checkpoint as one of ours: 'settings' are the sizes alone, 'data' and 'rng' None, for it holds no more.

    'optimizer' is {'moments': {our name: Adam's state}}, for `utils.step.Stepper`; empty where the file's does not fit its tensors.
    'release' keeps what has no place here, for the way back. ValueError, in words, if tensors lack or have other shapes.
    """
    stage, model = stage_of(state), state["model"]
    if type(state.get("epoch")) is not int or state["epoch"] < 0:
        raise ValueError("found no number under 'epoch'")
    _tensors(model)
    try:
        sizes = sizes_of(model, stage)
    except (KeyError, IndexError) as error:
        raise ValueError(f"its tensors do not tell its sizes ({error})") from None
    entries = layout(stage, sizes)
    unused = [t.released for t in entries if t.ours is None]
    _fit(model, {t.released: t.shape for t in entries if t.ours}, unused)
    names = {t.released: t.ours for t in entries}
    ours = {t.ours: model[t.released] for t in entries if t.ours}
    moments = {
        names[name]: adam
        for name, adam in _moments(model, state.get("optimizer")).items()
        if names[name]
    }
    if stage == "Seq":  # ours holds the identity layers under stage 1's name too
        ours |= {
            f"encdec.{name}": tensor
            for name, tensor in ours.items()
            if name.startswith("identity.")
        }
    return {
        "epoch": state["epoch"],
        "model": ours,
        "optimizer": {"moments": moments},
        "settings": {"fidelity": FIDELITY, **sizes},
        "data": None,
        "rng": None,
        "release": {
            "model": {name: model[name] for name in unused if name in model},
            "optimizer": state.get("optimizer"),
        },
    }


def to_release(state, trained):
    """Our checkpoint as a released one: the release's names, shapes, types and order, and nothing beside them.

    trained: our names of the parameters, in the order of our optimiser's state. A checkpoint that `to_ours` made gives back what
    it was made from; otherwise what the release never uses is zero. ValueError, in words, if tensors lack or have other shapes.
    """
    stage, model, kept = ours_stage(state), state["model"], state.get("release", {"model": {}})
    _tensors(model)
    entries = layout(stage, state["settings"])
    twins = [f"encdec.{name}" for name in model if name.startswith("identity.")]
    _fit(model, {t.ours: t.shape for t in entries if t.ours}, twins)
    found = {t.released: model[t.ours] for t in entries if t.ours}
    released = OrderedDict(
        (
            t.released,
            found[t.released] if t.ours else kept["model"].get(t.released, torch.zeros(t.shape)),
        )
        for t in entries
    )
    if "optimizer" in kept:
        optimizer = kept["optimizer"]
    else:
        optimizer = _optimizer(
            state["optimizer"], trained, entries, _candidates(released)[stage == "Seq"]
        )
    return {"epoch": state["epoch"], "model": released, "optimizer": optimizer}


def _optimizer(saved, trained, entries, order):
    """Our Adam's state as that of a released Adam over the tensors `order`."""
    names = {t.ours: t.released for t in entries}
    adam = {
        order.index(names[trained[i]]): {
            "step": int(held["step"]),
            **{moment: held[moment] for moment in MOMENTS},
        }
        for i, held in saved["state"].items()
    }
    group = {key: saved["param_groups"][0][key] for key in GROUP}
    return {
        "state": dict(sorted(adam.items())),
        "param_groups": [{**group, "params": list(range(len(order)))}],
    }


def ours_stage(state):
    """'EncDec' or 'Seq': the stage of a checkpoint of ours."""
    return "Seq" if any(name.startswith("encdec.") for name in state["model"]) else "EncDec"


def _tensors(model):
    for name, value in model.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise ValueError(f"'{name}' is not a tensor of floats")


def _fit(model, shapes, spare):
    """Raise ValueError unless model's tensors have these names and shapes; those of the names `spare` are let be."""
    for name, shape in shapes.items():
        if name not in model:
            raise ValueError(f"'{name}' is not in it")
        if tuple(model[name].shape) != tuple(shape):
            raise ValueError(f"'{name}' is {list(model[name].shape)}, expected {list(shape)}")
    if more := sorted(set(model) - set(shapes) - set(spare)):
        raise ValueError(f"'{more[0]}' is not of the release")


def _candidates(model):
    """What a released optimiser's positions may count: every parameter, or all but the frozen networks'; in the model's own order."""
    parameters = [name for name in model if not name.endswith(".filt")]
    return parameters, [name for name in parameters if "image" not in name]


def _moments(model, optimizer):
    """A released Adam's state by tensor name, {} unless it fits the tensors in number and shape."""
    try:
        keys = [key for group in optimizer["param_groups"] for key in group["params"]]
        order = next(names for names in _candidates(model) if len(names) == len(keys))
        found = {}
        for name, key in zip(order, keys):
            if saved := optimizer["state"].get(key):
                if any(saved[moment].shape != model[name].shape for moment in MOMENTS):
                    return {}
                step = torch.tensor(float(saved["step"]))
                found[name] = {"step": step, **{moment: saved[moment] for moment in MOMENTS}}
        return found
    except (TypeError, KeyError, AttributeError, StopIteration, ValueError, RuntimeError):
        return {}


def adopt(state):
    """A released checkpoint as one of ours; None if `state` is another file (see `to_ours`)."""
    return to_ours(state) if stage_of(state) else None
