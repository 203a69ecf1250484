"""VDSM in its slow, literal form, to which the tests hold the fast form's values and speed.

tests/models/test_reference.py compares the two in float64, term by term and gradient by gradient;
benchmarks/step.py compares their seconds. Equations 1, 2 and 4 are written here as one would write
them first, and as the authors' code runs them: kernels blended by a broadcast product and a sum,
one sequence after another, one Pyro site per sequence and (stage 2) per time step, and the frozen
codes computed in every step. Only the weights come from the modules of `models.vdsm`. A site's name
is 'term/sequence' or 'term/sequence/step': the sites of one term add up to the fast form's term.
"""

import math

import pyro
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions import Bernoulli, Normal

BLUR = (1.0, 3.0, 3.0, 1.0)


class NormalFromNoise(Normal):
    """A Normal that is sampled with the given standard noise."""

    def __init__(self, loc, scale, noise):
        super().__init__(loc, scale, validate_args=False)
        self.noise = noise

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise


def normal(loc, scale, noise=None):
    """Independent Normals as one event, sampled with `noise` where it is given."""
    if noise is None:
        density = Normal(loc, scale, validate_args=False)
    else:
        density = NormalFromNoise(loc, scale, noise)
    return density.to_event(loc.dim())


def prior(like, *shape, scale=1.0):
    """N(0, scale) over `shape`, of the type and on the device of `like`."""
    return normal(like.new_zeros(shape), like.new_full(shape, scale))


def sample(name, weight, density):
    """A Pyro site whose log-density counts `weight` times."""
    with poutine.scale(scale=weight):
        return pyro.sample(name, density)


def observe(n, frames, logits):
    """The likelihood of sequence n: Bernoulli per pixel, frames and logits [P, 3, 64, 64]."""
    density = Bernoulli(logits=logits, validate_args=False).to_event(4)
    pyro.sample(f"x/{n}", density, obs=frames)


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
    """One sequence: s loc, s scale per frame [T, K] -> their means over the frames [K]."""
    loc = F.leaky_relu(layers.loc(frame_loc), 0.01).mean(0)
    return loc, F.softplus(layers.scale(frame_scale)).mean(0)


def decode(decoder, z, w):
    """One sequence, with its own blended kernels.

    Poses z [T, pose_dim], mixing weights w [K] -> logits [T, 3, 64, 64].
    """
    # [T, pose_dim + K, 1, 1]
    x = torch.cat([z, w.expand(len(z), -1)], 1)[:, :, None, None]
    for layer, (bank, biases) in enumerate(zip(decoder.kernels, decoder.biases)):
        # [c_in, c_out, 4, 4]
        kernel = (w[:, None, None, None, None] * bank).sum(0)
        bias = (w[:, None] * biases).sum(0)
        if layer == 0:
            x = F.conv_transpose2d(x, kernel, bias)
        else:
            x = F.conv_transpose2d(F.leaky_relu(x, 0.01), kernel, bias, stride=2, padding=1)
    return x


def softmax(s, temperature):
    """Mixing weights w [K] of s [K], written out."""
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

    def guide(self, x, annealed):
        weights = annealed.weights
        codes = encode(self.network.encoder, x.flatten(0, 1), self.slope)
        codes = [code.reshape(*x.shape[:2], -1) for code in codes]
        for n in range(len(x)):
            z_loc, z_scale, frame_loc, frame_scale = (code[n] for code in codes)
            s_loc, s_scale = identity_posterior(self.network.identity, frame_loc, frame_scale)
            sample(f"s/{n}", weights["s"], normal(s_loc, s_scale, self._noise("s", n)))
            sample(f"z/{n}", weights["z"], normal(z_loc, z_scale, self._noise("z", n)))

    def model(self, x, annealed):
        weights = annealed.weights
        experts, pose_dim = self.network.experts, self.network.pose_dim
        for n in range(len(x)):
            s = sample(f"s/{n}", weights["s"], prior(x, experts, scale=1 / experts))
            z = sample(f"z/{n}", weights["z"], prior(x, x.shape[1], pose_dim))
            w = softmax(s, annealed.temperature)
            observe(n, x[n], decode(self.network.decoder, z, w))


class SeqReference:
    """Stage 2 over the weights of a `models.vdsm.seq.Seq`.

    x holds all frames, also when only the pixels of those at `picked` [N, P] count.
    noise: None, or the standard noise of the guide's sites: {'s': [N, K], 'd': [N, dynamics_dim],
    'z_1': [N, pose_dim], 'z': [N, T - 1, pose_dim]}.
    """

    def __init__(self, network, release, noise=None):
        self.network, self.release, self.noise = network, release, noise or {}
        self.slope = 1.0 if release else 0.01

    def _noise(self, name, *index):
        return self.noise[name][index] if name in self.noise else None

    def _dynamics(self, poses):
        """All sequences: pose means [N, T, pose_dim] -> d loc, d scale [N, dynamics_dim]."""
        net = self.network.dynamics
        shape = (2 * net.rnn.num_layers, len(poses), net.rnn.hidden_size)
        start = (net.h_0.expand(shape).contiguous(), net.c_0.expand(shape).contiguous())
        # [2 layers, N, rnn_dim]
        h_n = net.rnn(poses, start)[1][0]
        code = net.code(torch.cat(list(h_n), 1))
        half = code.shape[1] // 2
        return F.leaky_relu(code[:, :half], 0.01), F.softplus(code[:, half:])

    def _context(self, d, frames):
        """One sequence: d [dynamics_dim] -> h_1..h_T, each [rnn_dim]."""
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

    def guide(self, x, picked, annealed):
        weights = annealed.weights
        codes = encode(self.network.encdec.encoder, x.flatten(0, 1), self.slope)
        poses, _, frame_loc, frame_scale = (code.reshape(*x.shape[:2], -1) for code in codes)
        d_loc, d_scale = self._dynamics(poses)
        for n in range(len(x)):
            s = identity_posterior(self.network.identity, frame_loc[n], frame_scale[n])
            sample(f"s/{n}", weights["s"], normal(*s, self._noise("s", n)))
            d = normal(d_loc[n], d_scale[n], self._noise("d", n))
            d = sample(f"d/{n}", weights["d"], d)
            z = self.network.combiner.z_0
            for t, h in enumerate(self._context(d, x.shape[1])):
                name = f"z/{n}/{t}" if t else f"z_1/{n}"
                noise = self._noise("z", n, t - 1) if t else self._noise("z_1", n)
                z = sample(name, weights["z"], normal(*self._combine(z, h, d), noise))

    def model(self, x, picked, annealed):
        weights = annealed.weights
        experts, pose_dim = self.network.encdec.experts, self.network.encdec.pose_dim
        dynamics_dim, frames = self.network.dynamics_dim, x.shape[1]
        for n in range(len(x)):
            s = sample(f"s/{n}", weights["s"], prior(x, experts, scale=1 / experts))
            d = sample(f"d/{n}", weights["d"], prior(x, dynamics_dim, scale=1 / dynamics_dim))
            z = [sample(f"z_1/{n}", 1.0 if self.release else weights["z"], prior(x, pose_dim))]
            for t in range(1, frames):
                z.append(sample(f"z/{n}/{t}", weights["z"], normal(*self._transit(z[-1], d))))
            seen = list(range(frames)) if picked is None else picked[n].tolist()
            w = softmax(s, annealed.temperature)
            logits = decode(self.network.encdec.decoder, torch.stack([z[t] for t in seen]), w)
            # The pixels of the picked frames count for those of all frames.
            with poutine.scale(scale=frames / len(seen)):
                observe(n, x[n, seen], logits)


def terms(reference, *args, kl):
    """{term: (raw, weighted)} of the negative ELBO, added up site by site.

    kl: 'analytic' takes the textbook's KL, 'mc' takes log q - log p at the sample.
    """
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
            if kl == "mc":
                log_q, log_p = q.log_prob(value), p.log_prob(value)
            else:
                log_q, log_p = _expected_logs(q.base_dist, p.base_dist)
            raw, weighted = log_q - log_p, weight_q * log_q - weight * log_p
        term = name.split("/")[0]
        before = sums.get(term, (0.0, 0.0))
        sums[term] = before[0] + raw, before[1] + weighted
    return sums


def _expected_logs(q, p):
    """E_q log q and E_q log p of two diagonal Normals."""
    log_q = log_p = 0.0
    half_log_2_pi = 0.5 * math.log(2 * math.pi)
    parameters = (q.loc, q.scale, p.loc, p.scale)
    for q_loc, q_scale, p_loc, p_scale in zip(*(values.flatten() for values in parameters)):
        log_q = log_q - half_log_2_pi - torch.log(q_scale) - 0.5
        distance = (q_scale**2 + (q_loc - p_loc) ** 2) / (2 * p_scale**2)
        log_p = log_p - half_log_2_pi - torch.log(p_scale) - distance
    return log_q, log_p
