"""VDSM in its slow, literal form: what the fast form is held to, in value (float64) and in speed (benchmarks/step.py).

Equations 1, 2 and 4 as a program would first be written, and as the release runs them: kernels blended as a broadcast product and a
sum, one sequence after another; one Pyro sample site a sequence and, in stage 2, a time step; frozen codes computed anew.
Only the weights come from the modules of `models.vdsm`. Sites are named 'term/sequence' or 'term/sequence/step', so that
they add up to the fast form's terms.
"""

import math

import pyro
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions import Bernoulli, Normal

BLUR = (1.0, 3.0, 3.0, 1.0)


class NormalOf(Normal):
    """A Normal whose standard noise is handed in."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale, validate_args=False)
        self.noise = noise

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise


def normal(loc, scale, noise=None):
    """A vector or matrix of independent Normals, one event; drawn with `noise` where it is given."""
    made = Normal(loc, scale, validate_args=False) if noise is None else NormalOf(loc, scale, noise)
    return made.to_event(loc.dim())


def encode(encoder, x, slope):
    """Frames x [B, 3, 64, 64] -> z loc, z scale [B, pose_dim], s loc, s scale [B, K]."""
    for i, conv in enumerate(encoder.convs):
        x = F.leaky_relu(F.conv2d(x, conv.weight, conv.bias, padding=1 if i < 4 else 0), slope)
        if i < 4:
            row = torch.tensor(BLUR, dtype=x.dtype, device=x.device) / sum(BLUR)
            blur = torch.outer(row, row).expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(F.pad(x, (1, 2, 1, 2), mode="reflect"), blur, stride=2, groups=x.shape[1])
    features = x.reshape(len(x), -1)
    pose = encoder.pose(features)
    identity = encoder.identity(F.leaky_relu(encoder.identity_hidden(features), 0.01))
    pose_dim, experts = pose.shape[1] // 2, identity.shape[1] // 2
    return (
        pose[:, :pose_dim], F.softplus(pose[:, pose_dim:]),
        identity[:, :experts], F.softplus(identity[:, experts:]),
    )  # fmt: skip


def identity_posterior(layers, frame_loc, frame_scale):
    """One sequence: s loc, s scale of its frames [T, K] -> loc, scale [K], the means over the frames."""
    return F.leaky_relu(layers.loc(frame_loc), 0.01).mean(0), F.softplus(
        layers.scale(frame_scale)
    ).mean(0)


def decode(decoder, z, w):
    """One sequence: poses z [T, pose_dim], mixing weights w [K] -> logits [T, 3, 64, 64], by its own blended kernels."""
    x = torch.cat([z, w.expand(len(z), -1)], 1)[:, :, None, None]  # [T, pose_dim + K, 1, 1]
    for layer, (bank, biases) in enumerate(zip(decoder.kernels, decoder.biases)):
        kernel = (w[:, None, None, None, None] * bank).sum(0)  # [c_in, c_out, 4, 4]
        bias = (w[:, None] * biases).sum(0)
        if layer == 0:
            x = F.conv_transpose2d(x, kernel, bias)
        else:
            x = F.conv_transpose2d(F.leaky_relu(x, 0.01), kernel, bias, stride=2, padding=1)
    return x


def softmax(s, temperature):
    """Mixing weights of s [K], written out."""
    powers = torch.exp(temperature * (s - s.max()))
    return powers / powers.sum()


class EncDecReference:
    """Stage 1 over the weights of a `models.vdsm.encdec.EncDec`.

    noise: None, or the standard noise of the guide's sites: {'s': [N, K], 'z': [N, T, pose_dim]}.
    """

    def __init__(self, network, release, noise=None):
        self.network, self.slope, self.noise = network, 1.0 if release else 0.01, noise or {}

    def _noise(self, name, n):
        return self.noise[name][n] if name in self.noise else None

    def guide(self, x, weights):
        clips, frames = x.shape[:2]
        codes = [
            part.reshape(clips, frames, -1)
            for part in encode(self.network.encoder, x.flatten(0, 1), self.slope)
        ]
        for n in range(clips):
            z_loc, z_scale, frame_loc, frame_scale = (part[n] for part in codes)
            s_loc, s_scale = identity_posterior(self.network.identity, frame_loc, frame_scale)
            with poutine.scale(scale=weights["s"]):
                pyro.sample(f"s/{n}", normal(s_loc, s_scale, self._noise("s", n)))
            with poutine.scale(scale=weights["z"]):
                pyro.sample(f"z/{n}", normal(z_loc, z_scale, self._noise("z", n)))

    def model(self, x, weights):
        experts, pose_dim = self.network.experts, self.network.pose_dim
        for n in range(len(x)):
            with poutine.scale(scale=weights["s"]):
                s = pyro.sample(
                    f"s/{n}", normal(x.new_zeros(experts), x.new_full((experts,), 1 / experts))
                )
            with poutine.scale(scale=weights["z"]):
                shape = (x.shape[1], pose_dim)
                z = pyro.sample(f"z/{n}", normal(x.new_zeros(shape), x.new_ones(shape)))
            logits = decode(self.network.decoder, z, softmax(s, weights["temperature"]))
            pyro.sample(
                f"x/{n}", Bernoulli(logits=logits, validate_args=False).to_event(4), obs=x[n]
            )


class SeqReference:
    """Stage 2 over the weights of a `models.vdsm.seq.Seq`; x holds all frames, also where only those at `picked` [N, P] count.

    noise: None, or {'s': [N, K], 'd': [N, dynamics_dim], 'z_1': [N, pose_dim], 'z': [N, T - 1, pose_dim]}.
    """

    def __init__(self, network, release, noise=None):
        self.network, self.release, self.noise = network, release, noise or {}
        self.slope = 1.0 if release else 0.01

    def _noise(self, name, *where):
        return self.noise[name][where] if name in self.noise else None

    def _dynamics(self, poses):
        """All sequences: pose means [N, T, pose_dim] -> d loc, d scale [N, dynamics_dim]."""
        net = self.network.dynamics
        shape = (2 * net.rnn.num_layers, len(poses), net.rnn.hidden_size)
        start = (net.h_0.expand(shape).contiguous(), net.c_0.expand(shape).contiguous())
        h_n = net.rnn(poses, start)[1][0]  # [2 L, N, R]
        code = net.code(torch.cat(list(h_n), 1))
        half = code.shape[1] // 2
        return F.leaky_relu(code[:, :half], 0.01), F.softplus(code[:, half:])

    def _context(self, d, frames):
        """One sequence: d [dynamics_dim] -> h_1..h_T, each [R]."""
        net = self.network.context
        shape = (net.rnn.num_layers, 1, net.rnn.hidden_size)
        state = (net.to_h(d).reshape(shape), net.to_c(d).reshape(shape))
        step, outputs = net.first.reshape(1, 1, -1), []
        for _ in range(frames):
            step, state = net.rnn(step, state)
            outputs.append(step[0, 0])
        return outputs

    def _combine(self, z, h, d):
        net = self.network.combiner
        u = F.leaky_relu(net.from_context(torch.cat([h, d])), 0.01)
        v = (torch.tanh(net.from_pose(z)) + u) / 2
        return net.loc(v), F.softplus(net.scale(v))

    def _transit(self, z, d):
        net, x = self.network.transition, torch.cat([z, d])
        gate = torch.sigmoid(net.gate(F.relu(net.gate_hidden(x))))
        proposal = net.proposal(F.relu(net.proposal_hidden(x)))
        return (1 - gate) * net.linear(z) + gate * proposal, F.softplus(net.scale(F.relu(proposal)))

    def guide(self, x, picked, weights):
        clips, frames = x.shape[:2]
        codes = encode(self.network.encdec.encoder, x.flatten(0, 1), self.slope)
        poses, _, frame_loc, frame_scale = (part.reshape(clips, frames, -1) for part in codes)
        d_loc, d_scale = self._dynamics(poses)
        for n in range(clips):
            with poutine.scale(scale=weights["s"]):
                s_loc, s_scale = identity_posterior(
                    self.network.identity, frame_loc[n], frame_scale[n]
                )
                pyro.sample(f"s/{n}", normal(s_loc, s_scale, self._noise("s", n)))
            with poutine.scale(scale=weights["d"]):
                d = pyro.sample(f"d/{n}", normal(d_loc[n], d_scale[n], self._noise("d", n)))
            z = self.network.combiner.z_0
            for t, h in enumerate(self._context(d, frames)):
                noise = self._noise("z", n, t - 1) if t else self._noise("z_1", n)
                with poutine.scale(scale=weights["z"]):
                    z = pyro.sample(
                        f"z/{n}/{t}" if t else f"z_1/{n}", normal(*self._combine(z, h, d), noise)
                    )

    def model(self, x, picked, weights):
        experts, pose_dim = self.network.encdec.experts, self.network.encdec.pose_dim
        dynamics_dim, frames = self.network.dynamics_dim, x.shape[1]
        for n in range(len(x)):
            with poutine.scale(scale=weights["s"]):
                s = pyro.sample(
                    f"s/{n}", normal(x.new_zeros(experts), x.new_full((experts,), 1 / experts))
                )
            with poutine.scale(scale=weights["d"]):
                d = pyro.sample(
                    f"d/{n}",
                    normal(
                        x.new_zeros(dynamics_dim), x.new_full((dynamics_dim,), 1 / dynamics_dim)
                    ),
                )
            with poutine.scale(scale=1.0 if self.release else weights["z"]):
                path = [
                    pyro.sample(f"z_1/{n}", normal(x.new_zeros(pose_dim), x.new_ones(pose_dim)))
                ]
            for t in range(1, frames):
                with poutine.scale(scale=weights["z"]):
                    path.append(pyro.sample(f"z/{n}/{t}", normal(*self._transit(path[-1], d))))
            seen = range(frames) if picked is None else picked[n].tolist()
            logits = decode(
                self.network.encdec.decoder,
                torch.stack([path[t] for t in seen]),
                softmax(s, weights["temperature"]),
            )
            with poutine.scale(scale=frames / len(seen)):
                pyro.sample(
                    f"x/{n}",
                    Bernoulli(logits=logits, validate_args=False).to_event(4),
                    obs=x[n, list(seen)],
                )


def terms(reference, *args, kl):
    """{term: (raw, weighted)} of the negative ELBO, site by site: KL by the textbook ('analytic'), or log q - log p at the sample ('mc')."""
    guide = poutine.trace(reference.guide).get_trace(*args)
    model = poutine.trace(poutine.replay(reference.model, guide)).get_trace(*args)
    sums = {}
    for name, site in model.nodes.items():
        if site["type"] != "sample":
            continue
        p, value, weight = site["fn"], site["value"], site["scale"]
        if site["is_observed"]:
            raw = weighted = -weight * p.log_prob(value)
        else:
            q, weight_q = guide.nodes[name]["fn"], guide.nodes[name]["scale"]
            log_q, log_p = (
                (q.log_prob(value), p.log_prob(value))
                if kl == "mc"
                else _expected_logs(q.base_dist, p.base_dist)
            )
            raw, weighted = log_q - log_p, weight_q * log_q - weight * log_p
        before = sums.get(name.split("/")[0], (0.0, 0.0))
        sums[name.split("/")[0]] = (before[0] + raw, before[1] + weighted)
    return sums


def _expected_logs(q, p):
    """E_q log q and E_q log p of two diagonal Normals."""
    log_q = log_p = 0.0
    for m, s, mean, scale in zip(
        q.loc.flatten(), q.scale.flatten(), p.loc.flatten(), p.scale.flatten()
    ):
        log_q = log_q - 0.5 * math.log(2 * math.pi) - torch.log(s) - 0.5
        log_p = (
            log_p
            - 0.5 * math.log(2 * math.pi)
            - torch.log(scale)
            - (s**2 + (m - mean) ** 2) / (2 * scale**2)
        )
    return log_q, log_p
