"""The released networks as the specification's text has them, under the released tensor names: the maker of 'released' files.

Plain modules, one sequence after another, nothing shared with `models.vdsm`. Registered in the order of the release.
"""

import copy

import torch
import torch.nn.functional as F
from antialiased_cnns import BlurPool
from torch import nn

SIZES = {
    "z_dim": 3, "n_e_w": 4, "dynamics_dim": 2, "rnn_dim": 6, "rnn_layers": 2,
    "enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4),
}  # fmt: skip


class Encoder(nn.Module):
    def __init__(self, z_dim, n_e_w, enc_widths):
        super().__init__()
        blocks, below = [], 3
        for width in enc_widths[:4]:
            blocks += [
                nn.Conv2d(below, width, 4, 1, 1),
                nn.LeakyReLU(1.0),
                BlurPool(width, filt_size=4, stride=2),
            ]
            below = width
        self.encoder = nn.Sequential(
            *blocks, nn.Conv2d(below, enc_widths[4], 4), nn.LeakyReLU(1.0), nn.Flatten()
        )
        self.muvar = nn.Linear(enc_widths[4], 2 * z_dim)
        self.BC_1 = nn.Linear(enc_widths[4], 128)
        self.BC_2 = nn.Linear(128, 2 * n_e_w)

    def forward(self, x):
        features = self.encoder(x)
        z_loc, z_raw = self.muvar(features).chunk(2, 1)
        s_loc, s_raw = self.BC_2(F.leaky_relu(self.BC_1(features), 0.01)).chunk(2, 1)
        return z_loc, F.softplus(z_raw), s_loc, F.softplus(s_raw)


class Decoder(nn.Module):
    def __init__(self, z_dim, n_e_w, dec_widths):
        super().__init__()
        channels = (z_dim + n_e_w, *dec_widths, 3)
        for i in range(5):
            bank = torch.randn(n_e_w, channels[i], channels[i + 1], 4, 4) / channels[i] ** 0.5
            self.register_parameter(f"EW{i + 1}", nn.Parameter(bank))
        for i in range(5):
            self.register_parameter(
                f"EB{i + 1}", nn.Parameter(0.1 * torch.randn(n_e_w, channels[i + 1]))
            )

    def forward(self, z, w):
        """One sequence: z [T, z_dim], w [K] -> frames [T, 3, 64, 64]."""
        x = torch.cat([z, w.expand(len(z), -1)], 1)[:, :, None, None]
        for i in range(1, 6):
            kernel = torch.einsum("k,kabij->abij", w, getattr(self, f"EW{i}"))
            bias = torch.einsum("k,kb->b", w, getattr(self, f"EB{i}"))
            x = F.conv_transpose2d(
                x, kernel, bias, stride=1 if i == 1 else 2, padding=0 if i == 1 else 1
            )
            x = F.leaky_relu(x, 0.01) if i < 5 else torch.sigmoid(x)
        return x


class IdentityLayers(nn.Module):
    def __init__(self, n_e_w):
        super().__init__()
        self.loc_layer = nn.Linear(n_e_w, n_e_w)
        self.scale_layer = nn.Linear(n_e_w, n_e_w)

    def weights(self, frame_loc, temperature):
        """One sequence's mixing weights [K] from its frames' loc [T, K]."""
        return torch.softmax(temperature * F.leaky_relu(self.loc_layer(frame_loc), 0.01).mean(0), 0)


class ReleasedEncDec(nn.Module):
    """Stage 1, whose state dict is that of `{e}_VDSM_EncDec.pth`."""

    def __init__(self, sizes):
        super().__init__()
        self.enc = Encoder(sizes["z_dim"], sizes["n_e_w"], sizes["enc_widths"])
        self.dec = Decoder(sizes["z_dim"], sizes["n_e_w"], sizes["dec_widths"])
        self.id_layers = IdentityLayers(sizes["n_e_w"])
        self.ID_loc_layer = nn.Linear(sizes["n_e_w"], sizes["n_e_w"])
        self.ID_scale_layer = nn.Linear(sizes["n_e_w"], sizes["n_e_w"])

    def reconstruct(self, clips, temperature):
        made = []
        for x in clips:
            z_loc, _, s_loc, _ = self.enc(x)
            made.append(self.dec(z_loc, self.id_layers.weights(s_loc, temperature)))
        return torch.stack(made)

    def trained(self):
        return dict(self.named_parameters())


class SeqEncoder(nn.Module):
    def __init__(self, z_dim, rnn_dim, rnn_layers):
        super().__init__()
        self.rnn = nn.LSTM(z_dim, rnn_dim, rnn_layers, bidirectional=True)
        self.fc_out = nn.Sequential(nn.Linear(2 * rnn_dim, z_dim))


class CombinerLayers(nn.Module):
    def __init__(self, z_dim, dynamics_dim, rnn_dim):
        super().__init__()
        self.h_rnn_to_hidden = nn.Linear(dynamics_dim + rnn_dim, rnn_dim)
        self.lin_z_to_hidden = nn.Linear(z_dim, rnn_dim)
        self.lin_hidden_to_loc = nn.Linear(rnn_dim, z_dim)
        self.lin_hidden_to_scale = nn.Linear(rnn_dim, z_dim)


class TransitionLayers(nn.Module):
    def __init__(self, z_dim, dynamics_dim, hidden):
        super().__init__()
        self.lin_gate_z_to_hidden = nn.Linear(z_dim + dynamics_dim, hidden)
        self.lin_gate_hidden_to_z = nn.Linear(hidden, z_dim)
        self.lin_proposed_mean_z_to_hidden = nn.Linear(z_dim + dynamics_dim, hidden)
        self.lin_proposed_mean_hidden_to_z = nn.Linear(hidden, z_dim)
        self.lin_sig = nn.Linear(z_dim, z_dim)
        self.lin_z_to_loc = nn.Linear(z_dim, z_dim)


class ReleasedSeq(nn.Module):
    """Stage 2, whose state dict is that of `{e}_VDSM_seq.pth`."""

    def __init__(self, sizes):
        super().__init__()
        z_dim, d, r, layers = (
            sizes[name] for name in ("z_dim", "dynamics_dim", "rnn_dim", "rnn_layers")
        )
        self.layers, self.rnn_dim = layers, r
        for name, shape in (("h_0_enc", (1, 1, r)), ("c_0_enc", (1, 1, r)), ("c_0_dec", (1, 1, r)), ("z_q_0", (z_dim,)),
                            ("dec_inp_0", (r,))):  # fmt: skip
            self.register_parameter(name, nn.Parameter(0.3 * torch.randn(shape)))
        self.id_layers = IdentityLayers(sizes["n_e_w"])
        self.image_dec = Decoder(z_dim, sizes["n_e_w"], sizes["dec_widths"])
        self.image_enc = Encoder(z_dim, sizes["n_e_w"], sizes["enc_widths"])
        self.seq2seq_enc = SeqEncoder(z_dim, r, layers)
        self.seq2seq_dec = nn.LSTM(r, r, layers)
        self.comb = CombinerLayers(z_dim, d, r)
        self.transitions = TransitionLayers(z_dim, d, r)
        self.cats = nn.Linear(2 * layers * r, 2 * d)
        self.dz_to_dec_h = nn.Linear(d, layers * r)
        self.dz_to_dec_c = nn.Linear(d, layers * r)

    def reconstruct(self, clips, temperature):
        made = []
        for x in clips:
            z_loc, _, s_loc, _ = self.image_enc(x)
            path = self.path(self.dynamics(z_loc), len(x))
            made.append(self.image_dec(path, self.id_layers.weights(s_loc, temperature)))
        return torch.stack(made)

    def dynamics(self, z_loc):
        """One sequence's d [dynamics_dim] from its pose means [T, z_dim]."""
        start = [
            given.expand(2 * self.layers, 1, -1).contiguous()
            for given in (self.h_0_enc, self.c_0_enc)
        ]
        _, (h, _) = self.seq2seq_enc.rnn(z_loc[:, None], tuple(start))
        return F.leaky_relu(self.cats(h.flatten()).chunk(2)[0], 0.01)

    def path(self, d, frames):
        """The pose means [frames, z_dim] that d generates."""
        h, c = (
            to(d).view(self.layers, 1, self.rnn_dim) for to in (self.dz_to_dec_h, self.dz_to_dec_c)
        )
        fed, z, out = self.dec_inp_0.view(1, 1, -1), self.z_q_0, []
        for _ in range(frames):
            fed, (h, c) = self.seq2seq_dec(fed, (h, c))
            u = F.leaky_relu(self.comb.h_rnn_to_hidden(torch.cat([fed.flatten(), d])), 0.01)
            z = self.comb.lin_hidden_to_loc((torch.tanh(self.comb.lin_z_to_hidden(z)) + u) / 2)
            out.append(z)
        return torch.stack(out)

    def transit(self, z, d):
        """Loc and scale of p(z_t | z_{t-1}, d)."""
        net, x = self.transitions, torch.cat([z, d])
        gate = torch.sigmoid(net.lin_gate_hidden_to_z(F.relu(net.lin_gate_z_to_hidden(x))))
        proposal = net.lin_proposed_mean_hidden_to_z(F.relu(net.lin_proposed_mean_z_to_hidden(x)))
        return (1 - gate) * net.lin_z_to_loc(z) + gate * proposal, F.softplus(
            net.lin_sig(F.relu(proposal))
        )

    def trained(self):
        return {name: p for name, p in self.named_parameters() if "image" not in name}


UNUSED = ("ID_loc_layer", "ID_scale_layer", "c_0_dec", "seq2seq_enc.fc_out")
MAKERS = {"EncDec": ReleasedEncDec, "Seq": ReleasedSeq}


def checkpoint(stage, epoch, sizes=SIZES, seed=0, old=True, encdec=None):
    """A released checkpoint of epoch `epoch`, its module and its Adam, which made two steps. old: as torch 1.6 keeps them, steps as
    integers; encdec: the stage-1 module that stage 2 stands on."""
    torch.manual_seed(seed)
    module = MAKERS[stage](sizes)
    if encdec is not None:
        module.image_enc, module.image_dec, module.id_layers = (
            encdec.enc,
            encdec.dec,
            encdec.id_layers,
        )
    adam = torch.optim.Adam([{"params": list(module.trained().values()), "lr": 0.001}])
    for step in range(2):
        descend(module.trained(), adam, step)
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


def descend(named, adam, step):
    """One step of Adam along a gradient that name and step tell; what the release never uses gets none."""
    for name, parameter in named.items():
        if not name.startswith(UNUSED):
            parameter.grad = torch.sin(
                torch.arange(parameter.numel()) * (step + 1.0) + len(name)
            ).view_as(parameter)
    adam.step()
