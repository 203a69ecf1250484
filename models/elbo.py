"""The weighted ELBO of a Pyro model and guide, term by term (Eq. 4).

Every latent site's weight is the scale that `poutine.scale` gave it, on the prior and on the posterior side. With
kl='analytic' a site's Kullback-Leibler divergence is taken in closed form (for a chain: closed form at each step, given the
sampled step before it, as Eq. 4's second line has it); with kl='mc' as log q - log p at the sample. Same expectation.
"""

import math
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Normal, TorchDistribution
from torch.distributions import kl_divergence


class Term(NamedTuple):
    """One term of the objective, scalars summed over the batch: as it is, and as it counts in the loss (to be minimised)."""

    raw: torch.Tensor
    weighted: torch.Tensor


def normal(loc, scale, event):
    """A Normal whose last `event` dimensions are one event. Unchecked: on a GPU every check would wait for the device."""
    return Normal(loc, scale, validate_args=False).to_event(event)


class Chain(TorchDistribution):
    """Normals in a chain: z_t ~ kernel(z_{t-1}, t), t = 0..length-1, from a given z before the first. Event [length, dim].

    kernel(z_prev, t) -> loc, scale: for one step, z_prev [N, dim] and t an integer; or for all, [N, length, dim] and t a slice.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(self, kernel, start, length):
        self.kernel, self.start, self.length = kernel, start, length
        self._drawn = None
        super().__init__(
            start.shape[:1], torch.Size([length, start.shape[-1]]), validate_args=False
        )

    def expand(self, batch_shape, _instance=None):
        """Itself, for the batch that it has: no plate asks for another, which NotImplementedError would refuse."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        raise NotImplementedError("a Chain has the batch of its start")

    def _walk(self, noise):
        z, steps = self.start, []
        for t in range(self.length):
            loc, scale = self.kernel(z, t)
            z = loc if noise is None else loc + scale * noise[:, t]
            steps.append((z, loc, scale))
        return tuple(torch.stack(part, 1) for part in zip(*steps))

    def rsample(self, sample_shape=()):
        noise = torch.randn(
            *self.batch_shape, *self.event_shape, dtype=self.start.dtype, device=self.start.device
        )
        self._drawn = self._walk(noise)
        return self._drawn[0]

    def means(self):
        """The path of locations, each fed on to the next step: [N, length, dim]."""
        return self._walk(None)[0]

    def steps(self, z):
        """The Normals of all steps given the path z [N, length, dim]."""
        if self._drawn is not None and self._drawn[0] is z:
            loc, scale = self._drawn[1:]
        else:
            loc, scale = self.kernel(torch.cat([self.start[:, None], z[:, :-1]], 1), slice(None))
        return normal(loc, scale, 2)

    def log_prob(self, z):
        return self.steps(z).log_prob(z)


def _normals(fn, value):
    return fn.steps(value) if isinstance(fn, Chain) else fn


def _cross_entropy(q, p):
    """-E_q log p, for factorised Normals, summed over everything."""
    second_moment = q.stddev**2 + (q.mean - p.mean) ** 2
    return (0.5 * second_moment / p.stddev**2 + p.stddev.log() + 0.5 * math.log(2 * math.pi)).sum()


def _latent(q, p, value, weight_q, weight_p, kl):
    q, p = _normals(q, value), _normals(p, value)
    if kl == "mc":
        log_q, log_p = q.log_prob(value).sum(), p.log_prob(value).sum()
        return Term(log_q - log_p, weight_q * log_q - weight_p * log_p)
    divergence = kl_divergence(q, p).sum()
    if weight_q is weight_p or weight_q == weight_p:
        return Term(divergence, weight_q * divergence)
    # E_q log q = KL(q || p) - cross entropy: the two sides weigh differently (the release's z_1)
    cross = _cross_entropy(q, p)
    return Term(divergence, weight_q * (divergence - cross) + weight_p * cross)


def elbo_terms(model, guide, *args, kl="analytic"):
    """The terms of the negative weighted ELBO: {site: Term}, latent sites as their KL, observed ones as -log likelihood.

    Their weighted parts add up to the loss. kl is 'analytic' or 'mc'.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    terms = {}
    for name, site in model_trace.nodes.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        if site["is_observed"]:
            nll = (
                -site["scale"] * site["fn"].log_prob(site["value"]).sum()
            )  # a scale here is not a weight: pixels stand for others
            terms[name] = Term(nll, nll)
        else:
            q = guide_trace.nodes[name]
            terms[name] = _latent(q["fn"], site["fn"], site["value"], q["scale"], site["scale"], kl)
    return terms
