"""VDSM as plain functions over tensors with the released names, written from its description.

The purpose of this form is the numbers: every tensor on the way from frames to frames and to the
terms of the loss. It spells out LSTMs, transposed convolutions and densities, one sequence, step
and expert at a time, and shares nothing with `models`. (tests/models/released.py is the form of the
files; benchmarks/reference.py is a Pyro program over our weights, for gradients and for speed.)

P is a dict of tensors: 'enc.encoder.0.weight', 'dec.EW1', ...; those of stage 2 without 'image_'.
N sequences of T frames, K experts, pose size Z, dynamics size D, LSTMs of L layers and R units.
"""

import math

import torch
import torch.nn.functional as F

CONVS, BLURS = (0, 3, 6, 9, 12), (2, 5, 8, 11)  # positions in enc.encoder


def leaky(x, slope=0.01):
    return torch.where(x >= 0, x, slope * x)


def softplus(x):
    return torch.log(1 + torch.exp(x))


def linear(P, name, x):
    return x @ P[f"{name}.weight"].T + P[f"{name}.bias"]


def halves(x):
    size = x.shape[-1] // 2
    return x[..., :size], softplus(x[..., size:])


# --- inputs ---


def clips(n, frames):
    """[n, frames, 3, 64, 64]: each frame consists of 16 squares of random colours."""
    squares = torch.rand(n, frames, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return squares.repeat_interleave(16, 3).repeat_interleave(16, 4)


def random_weights(name, shape, generator):
    """Weights with which codes and frames differ between clips and nothing saturates."""
    if len(shape) == 1:
        inputs = 30
    else:
        inputs = 4 * shape[1] if len(shape) == 5 else math.prod(shape[1:])
    gain = 2.0 if name.startswith("dec.") else 1.2
    return gain / math.sqrt(inputs) * torch.randn(shape, generator=generator)


# --- the frame encoder, s, mixing weights ---


def blur(x):
    """The filter [1 3 3 1] / 8 down and across, at every second position.

    The picture is mirrored at its edges: one pixel before, two after.
    """
    side = x.shape[-1]
    positions = [1, *range(side), side - 2, side - 3]
    x = x[:, :, positions][:, :, :, positions]
    ends = (len(positions) - 4) // 2 * 2 + 1
    rows = sum(a * x[:, :, i : i + ends : 2] for i, a in enumerate((1, 3, 3, 1)))
    return sum(a * rows[:, :, :, i : i + ends : 2] for i, a in enumerate((1, 3, 3, 1))) / 64


def encode_frames(P, x, release):
    """x [B, 3, 64, 64] -> z loc, z scale [B, Z], s loc, s scale [B, K]."""
    slope = 1.0 if release else 0.01
    for i in CONVS[:4]:
        weight, bias = P[f"enc.encoder.{i}.weight"], P[f"enc.encoder.{i}.bias"]
        x = blur(leaky(F.conv2d(x, weight, bias, padding=1), slope))
    x = leaky(F.conv2d(x, P["enc.encoder.12.weight"], P["enc.encoder.12.bias"]), slope)[:, :, 0, 0]
    s = linear(P, "enc.BC_2", leaky(linear(P, "enc.BC_1", x)))
    return *halves(linear(P, "enc.muvar", x)), *halves(s)


def encode_clips(P, x, release):
    """x [N, T, 3, 64, 64] -> the same four, per frame: [N, T, .]."""
    return tuple(
        torch.stack(part) for part in zip(*(encode_frames(P, clip, release) for clip in x))
    )


def identity(P, frame_loc, frame_scale):
    """Per-frame loc, scale [N, T, K] -> s loc, s scale [N, K]."""
    loc = leaky(linear(P, "id_layers.loc_layer", frame_loc))
    scale = softplus(linear(P, "id_layers.scale_layer", frame_scale))
    return loc.mean(1), scale.mean(1)


def mixing(s, temperature):
    powers = torch.exp(temperature * s)
    return powers / powers.sum(-1, keepdim=True)


# --- the decoder ---


def blended(P, layer, w):
    """One sequence, w [K] -> kernel [c_in, c_out, 4, 4] and bias [c_out] of layer 1..5."""
    kernel = bias = 0.0
    for k, share in enumerate(w):
        kernel = kernel + share * P[f"dec.EW{layer}"][k]
        bias = bias + share * P[f"dec.EB{layer}"][k]
    return kernel, bias


def transposed(x, kernel, bias, stride, padding):
    """A transposed convolution, as a convolution of the picture with zeros between its pixels."""
    side = (x.shape[-1] - 1) * stride + 1
    dilated = x.new_zeros(*x.shape[:2], side, side)
    dilated[:, :, ::stride, ::stride] = x
    margin = kernel.shape[-1] - 1 - padding
    return F.conv2d(F.pad(dilated, [margin] * 4), kernel.transpose(0, 1).flip(2, 3), bias)


def decode(P, z, w):
    """z [N, T, Z], w [N, K] -> frames [N, T, 3, 64, 64]."""
    decoded = []
    for z_n, w_n in zip(z, w):
        x = torch.stack([torch.cat([frame, w_n]) for frame in z_n])[:, :, None, None]
        x = transposed(x, *blended(P, 1, w_n), stride=1, padding=0)
        for layer in (2, 3, 4, 5):
            x = transposed(leaky(x), *blended(P, layer, w_n), stride=2, padding=1)
        decoded.append(1 / (1 + torch.exp(-x)))
    return torch.stack(decoded)


# --- dynamics and poses ---


def cell(P, name, layer, x, h, c):
    """One step of one layer ('l0', 'l0_reverse', ...) of an LSTM: x [N, .], h, c [N, R] -> h, c."""
    gates = x @ P[f"{name}.weight_ih_{layer}"].T + P[f"{name}.bias_ih_{layer}"]
    gates = gates + h @ P[f"{name}.weight_hh_{layer}"].T + P[f"{name}.bias_hh_{layer}"]
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def layers_of(P, name):
    count = 0
    while f"{name}.weight_ih_l{count}" in P:
        count += 1
    return count


def final_states(P, poses):
    """Last hidden states [N, 2 L R] of the bi-LSTM over poses [N, T, Z].

    Layer by layer, forward before backward.
    """
    sequence, finals = list(poses.unbind(1)), []
    for layer in range(layers_of(P, "seq2seq_enc.rnn")):
        directions = []
        for suffix, steps in (("", sequence), ("_reverse", sequence[::-1])):
            h, c = (P[name][0].expand(len(poses), -1) for name in ("h_0_enc", "c_0_enc"))
            outputs = []
            for x in steps:
                h, c = cell(P, "seq2seq_enc.rnn", f"l{layer}{suffix}", x, h, c)
                outputs.append(h)
            finals.append(h)
            directions.append(outputs if suffix == "" else outputs[::-1])
        sequence = [torch.cat(pair, -1) for pair in zip(*directions)]
    return torch.cat(finals, -1)


def dynamics(P, poses):
    """Pose means [N, T, Z] -> d loc, d scale [N, D]."""
    code = linear(P, "cats", final_states(P, poses))
    size = code.shape[1] // 2
    return leaky(code[:, :size]), softplus(code[:, size:])


def contexts(P, d, frames):
    """d [N, D] -> h_1 .. h_T, [N, T, R]."""
    count = layers_of(P, "seq2seq_dec")
    h, c = (list(linear(P, f"dz_to_dec_{x}", d).reshape(len(d), count, -1).unbind(1)) for x in "hc")
    x, outputs = P["dec_inp_0"].expand(len(d), -1), []
    for _ in range(frames):
        for layer in range(count):
            h[layer], c[layer] = cell(P, "seq2seq_dec", f"l{layer}", x, h[layer], c[layer])
            x = h[layer]
        outputs.append(x)
    return torch.stack(outputs, 1)


def combine(P, z, h, d):
    """q(z_t | z_{t-1}, h_t, d): z [N, Z], h [N, R], d [N, D] -> loc, scale [N, Z]."""
    u = leaky(linear(P, "comb.h_rnn_to_hidden", torch.cat([h, d], -1)))
    v = 0.5 * (torch.tanh(linear(P, "comb.lin_z_to_hidden", z)) + u)
    scale = softplus(linear(P, "comb.lin_hidden_to_scale", v))
    return linear(P, "comb.lin_hidden_to_loc", v), scale


def posterior_path(P, d, frames, path=None):
    """loc, scale [N, T, Z] of the combiner along `path` [N, T, Z]. Default: along its locations."""
    z, steps = P["z_q_0"].expand(len(d), -1), []
    for t, h in enumerate(contexts(P, d, frames).unbind(1)):
        steps.append(combine(P, z, h, d))
        z = steps[-1][0] if path is None else path[:, t]
    return tuple(torch.stack(part, 1) for part in zip(*steps))


def transit(P, z, d):
    """p(z_t | z_{t-1}, d): z [N, Z], d [N, D] -> loc, scale [N, Z]."""
    x, name = torch.cat([z, d], -1), "transitions.lin_"
    gate = linear(P, name + "gate_hidden_to_z", torch.relu(linear(P, name + "gate_z_to_hidden", x)))
    gate = 1 / (1 + torch.exp(-gate))
    proposed = torch.relu(linear(P, name + "proposed_mean_z_to_hidden", x))
    proposed = linear(P, name + "proposed_mean_hidden_to_z", proposed)
    loc = (1 - gate) * linear(P, name + "z_to_loc", z) + gate * proposed
    return loc, softplus(linear(P, name + "sig", torch.relu(proposed)))


# --- the objective, site by site ---


def log_normal(x, loc, scale):
    return (-0.5 * math.log(2 * math.pi) - torch.log(scale) - (x - loc) ** 2 / (2 * scale**2)).sum()


def logs(value, q, p, analytic):
    """log q and log p of a site, each summed: at the value, or their expectation under q."""
    if not analytic:
        return log_normal(value, *q), log_normal(value, *p)
    (m, s), (mean, scale) = q, p
    log_q = -0.5 * math.log(2 * math.pi) - torch.log(s) - 0.5
    log_p = (
        -0.5 * math.log(2 * math.pi) - torch.log(scale) - (s**2 + (m - mean) ** 2) / (2 * scale**2)
    )
    return log_q.sum(), log_p.sum()


def likelihood(P, x, z, w):
    """log p(x | z, w): a Bernoulli per pixel, at values anywhere in [0, 1]."""
    p = decode(P, z, w)
    return (x * torch.log(p) + (1 - x) * torch.log(1 - p)).sum()


def standard(like, scale=1.0):
    return torch.zeros_like(like), torch.full_like(like, scale)


def terms(x, sites):
    """{term: (raw, weighted)}. sites: {term: (log q, log p, their weights)}; x: log likelihood."""
    kl = {name: (q - p, on_q * q - on_p * p) for name, (q, p, on_q, on_p) in sites.items()}
    return {**kl, "x": (-x, -x)}


def objective_1(P, x, s, z, weights, release, analytic):
    """Stage 1's terms at the sites s [N, K], z [N, T, Z]."""
    z_loc, z_scale, frame_loc, frame_scale = encode_clips(P, x, release)
    s_logs = logs(s, identity(P, frame_loc, frame_scale), standard(s, 1 / s.shape[1]), analytic)
    z_logs = logs(z, (z_loc, z_scale), standard(z), analytic)
    sites = {"s": (*s_logs, weights["s"], weights["s"]), "z": (*z_logs, weights["z"], weights["z"])}
    return terms(likelihood(P, x, z, mixing(s, weights["temperature"])), sites)


def objective_2(P, x, s, d, z, weights, release, analytic):
    """Stage 2's terms at the sites s [N, K], d [N, D], z [N, T, Z].

    The term 'z_1' is that of the first step, 'z' that of the others.
    """
    poses, _, frame_loc, frame_scale = encode_clips(P, x, release)
    s_logs = logs(s, identity(P, frame_loc, frame_scale), standard(s, 1 / s.shape[1]), analytic)
    d_logs = logs(d, dynamics(P, poses), standard(d, 1 / d.shape[1]), analytic)
    loc, scale = posterior_path(P, d, z.shape[1], z)
    first = logs(z[:, 0], (loc[:, 0], scale[:, 0]), standard(z[:, 0]), analytic)
    rest = (0.0, 0.0)
    for t in range(1, z.shape[1]):
        step = logs(z[:, t], (loc[:, t], scale[:, t]), transit(P, z[:, t - 1], d), analytic)
        rest = rest[0] + step[0], rest[1] + step[1]
    on_z = weights["z"]
    sites = {
        "s": (*s_logs, weights["s"], weights["s"]),
        "d": (*d_logs, weights["d"], weights["d"]),
        "z_1": (*first, on_z, 1.0 if release else on_z),
        "z": (*rest, on_z, on_z),
    }
    return terms(likelihood(P, x, z, mixing(s, weights["temperature"])), sites)
