"""Files as the authors' program (the release) writes them: names and order of tensors, Adam state.

The purpose of this form of VDSM is the format of the files. It computes nothing: what the tensors
mean is in tests/models/from_spec.py, which reads the same names. Nothing is shared with `models`.
"""

import copy

import torch
from antialiased_cnns import BlurPool
from torch import nn

SIZES = {
    "z_dim": 3, "n_e_w": 4, "dynamics_dim": 2, "rnn_dim": 6, "rnn_layers": 2,
    "enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4),
}  # fmt: skip
# Tensors that the release saves and never uses.
UNUSED = ("ID_loc_layer", "ID_scale_layer", "c_0_dec", "seq2seq_enc.fc_out")


def group(**modules):
    return nn.ModuleDict(modules)


def encoder(sizes):
    blocks, channels = [], (3, *sizes["enc_widths"])
    for c_in, c_out in zip(channels[:4], channels[1:5]):
        blur = BlurPool(c_out, filt_size=4, stride=2)
        blocks += [nn.Conv2d(c_in, c_out, 4, 1, 1), nn.LeakyReLU(1.0), blur]
    top = nn.Conv2d(channels[4], channels[5], 4)
    return group(
        encoder=nn.Sequential(*blocks, top, nn.LeakyReLU(1.0), nn.Flatten()),
        muvar=nn.Linear(channels[5], 2 * sizes["z_dim"]),
        BC_1=nn.Linear(channels[5], 128),
        BC_2=nn.Linear(128, 2 * sizes["n_e_w"]),
    )


def decoder(sizes):
    experts, module = sizes["n_e_w"], nn.Module()
    channels = (sizes["z_dim"] + experts, *sizes["dec_widths"], 3)
    for i, (c_in, c_out) in enumerate(zip(channels, channels[1:]), 1):
        bank = torch.randn(experts, c_in, c_out, 4, 4) / c_in**0.5
        module.register_parameter(f"EW{i}", nn.Parameter(bank))
    for i, c_out in enumerate(channels[1:], 1):
        module.register_parameter(f"EB{i}", nn.Parameter(0.1 * torch.randn(experts, c_out)))
    return module


def identity_layers(sizes):
    k = sizes["n_e_w"]
    return group(loc_layer=nn.Linear(k, k), scale_layer=nn.Linear(k, k))


def stage_1(sizes):
    """A module whose state dict is that of `{epoch}_VDSM_EncDec.pth`."""
    k = sizes["n_e_w"]
    return group(
        enc=encoder(sizes),
        dec=decoder(sizes),
        id_layers=identity_layers(sizes),
        ID_loc_layer=nn.Linear(k, k),
        ID_scale_layer=nn.Linear(k, k),
    )


def stage_2(sizes):
    """A module whose state dict is that of `{epoch}_VDSM_seq.pth`."""
    z, d, r = sizes["z_dim"], sizes["dynamics_dim"], sizes["rnn_dim"]
    layers = sizes["rnn_layers"]
    module = group(
        id_layers=identity_layers(sizes),
        image_dec=decoder(sizes),
        image_enc=encoder(sizes),
        seq2seq_enc=group(
            rnn=nn.LSTM(z, r, layers, bidirectional=True), fc_out=nn.Sequential(nn.Linear(2 * r, z))
        ),
        seq2seq_dec=nn.LSTM(r, r, layers),
        comb=group(
            h_rnn_to_hidden=nn.Linear(d + r, r),
            lin_z_to_hidden=nn.Linear(z, r),
            lin_hidden_to_loc=nn.Linear(r, z),
            lin_hidden_to_scale=nn.Linear(r, z),
        ),
        transitions=group(
            lin_gate_z_to_hidden=nn.Linear(z + d, r),
            lin_gate_hidden_to_z=nn.Linear(r, z),
            lin_proposed_mean_z_to_hidden=nn.Linear(z + d, r),
            lin_proposed_mean_hidden_to_z=nn.Linear(r, z),
            lin_sig=nn.Linear(z, z),
            lin_z_to_loc=nn.Linear(z, z),
        ),
        cats=nn.Linear(2 * layers * r, 2 * d),
        dz_to_dec_h=nn.Linear(d, layers * r),
        dz_to_dec_c=nn.Linear(d, layers * r),
    )
    initial = {"h_0_enc": (1, 1, r), "c_0_enc": (1, 1, r), "c_0_dec": (1, 1, r)}
    for name, shape in {**initial, "z_q_0": (z,), "dec_inp_0": (r,)}.items():
        module.register_parameter(name, nn.Parameter(0.3 * torch.randn(shape)))
    return module


MAKERS = {"EncDec": stage_1, "Seq": stage_2}


def trained(module):
    """{name: parameter} in the order of the release's Adam: none of the frozen networks."""
    return {name: p for name, p in module.named_parameters() if "image" not in name}


def checkpoint(stage_name, epoch, sizes=SIZES, seed=0, old=True, encdec=None):
    """A released checkpoint of `epoch`, its module, and its Adam after two steps.

    old: with the options and integer steps of Adam in torch 1.6. encdec: the module of stage 1 that
    stage 2 is trained on.
    """
    torch.manual_seed(seed)
    module = MAKERS[stage_name](sizes)
    if encdec is not None:
        for name, there in (("image_enc", "enc"), ("image_dec", "dec"), ("id_layers", "id_layers")):
            module[name] = encdec[there]
    adam = torch.optim.Adam([{"params": list(trained(module).values()), "lr": 0.001}])
    for step in range(2):
        descend(trained(module), adam, step)
    state = copy.deepcopy(
        {"epoch": epoch + 1, "model": module.state_dict(), "optimizer": adam.state_dict()}
    )
    if old:
        for moments in state["optimizer"]["state"].values():
            moments["step"] = int(moments["step"])
        for group in state["optimizer"]["param_groups"]:
            for key in set(group) - {"lr", "betas", "eps", "weight_decay", "amsgrad", "params"}:
                del group[key]
    return state, module, adam


def descend(parameters, adam, step):
    """One step of Adam with a gradient that follows from name and step; none for unused tensors."""
    for name, parameter in parameters.items():
        if not name.startswith(UNUSED):
            gradient = torch.sin(torch.arange(parameter.numel()) * (step + 1.0) + len(name))
            parameter.grad = gradient.view_as(parameter)
    adam.step()
