"""The weighted ELBO of a Pyro model and its guide, term by term (VDSM, Eq. 4).

`weighted_sample` gives the site of a latent variable its KL weight, in the guide and in the model.
A weight is a number, or a tensor without dimensions, which a CUDA graph reads anew in every step.
There are two estimates of a KL term, with the same expectation:

analytic  in closed form; for a `Chain` at each step, given the sample of the step before (Eq. 4)
mc        Monte Carlo: log q - log p at the sample

A third way, 'each', is for looking at a trained model: closed forms, one per dimension of the code.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch.distributions import kl_divergence

from utils.distributed import rows

UNWEIGHTED = 1.0


class Term(NamedTuple):
    """One term of the loss, summed over the batch: two scalars, before and after weighting."""

    raw: torch.Tensor
    weighted: torch.Tensor


def noise(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Standard normal noise of `shape`, whose rows are sequences, with type and device of `like`.

    In a training step of several processes: this process's rows of the noise of the whole batch.
    """

    def draw(count):
        return torch.randn(count, *shape[1:], dtype=like.dtype, device=like.device)

    return rows(draw, shape[0])


class Normal(pyro.distributions.Normal):
    """A Normal that samples with `noise`."""

    def rsample(self, sample_shape=()):
        """Samples with gradients."""
        if sample_shape:
            return super().rsample(sample_shape)
        return self.loc + noise(self.loc.shape, self.loc) * self.scale


def normal(loc: torch.Tensor, scale: torch.Tensor, event: int):
    """A Normal whose last `event` dimensions form one event."""
    # On a GPU, each check of the arguments would wait for the device.
    return Normal(loc, scale, validate_args=False).to_event(event)


def centred(shape: Sequence[int], scale: float, event: int, like: torch.Tensor):
    """The prior N(0, scale) over tensors of `shape`, with the type and device of `like`."""
    return normal(like.new_zeros(shape), like.new_full((), scale), event)


class Weighted(Messenger):
    """Gives the sites of its block the entry 'weight'.

    Pyro's own `scale` would compare a weight on a GPU with 0, for which the host would wait.
    """

    def __init__(self, weight: Any):
        super().__init__()
        self.weight = weight

    def _process_message(self, msg: Any) -> None:
        msg["weight"] = self.weight


def weighted_sample(name: str, density: Any, weight: Any) -> torch.Tensor:
    """Sample the latent variable `name`, whose KL weight is `weight`."""
    with Weighted(weight):
        return pyro.sample(name, density)


class Chain(TorchDistribution):
    """A Markov chain of Normals, z_t ~ Normal(kernel(z_{t-1}, t)), t = 0 .. length-1.

    kernel(z_prev, t) -> loc, scale. For one step: z_prev [N, dim] and t an integer. For all steps
    at once: z_prev [N, length, dim] and t a slice. start: the z [N, dim] before the first step.
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(self, kernel: Callable, start: torch.Tensor, length: int):
        self.kernel, self.start, self.length = kernel, start, length
        self._last_path = None  # the last sample, its locations and its scales
        clips, dim = start.shape
        super().__init__(torch.Size([clips]), torch.Size([length, dim]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        """The chain itself, whose batch shape no plate changes."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        raise NotImplementedError("a Chain has the batch of its start")

    def rsample(self, sample_shape=()):
        """A path [N, length, dim], with gradients."""
        z, path = self.start, []
        steps = noise(self.batch_shape + self.event_shape, z)
        for t in range(self.length):
            loc, scale = self.kernel(z, t)
            z = loc + scale * steps[:, t]
            path.append((z, loc, scale))
        self._last_path = tuple(torch.stack(part, 1) for part in zip(*path))
        return self._last_path[0]

    def steps(self, z: torch.Tensor):
        """The Normals of all steps, given the path z [N, length, dim]."""
        # The locations and scales of the last sample are known and are not computed again.
        if self._last_path is not None and self._last_path[0] is z:
            loc, scale = self._last_path[1:]
        else:
            loc, scale = self.kernel(torch.cat([self.start[:, None], z[:, :-1]], 1), slice(None))
        return normal(loc, scale, 2)

    def log_prob(self, value):
        """Log density [N] of the paths [N, length, dim]."""
        return self.steps(value).log_prob(value)


def _cross_entropy(q, p):
    """-E_q log p of two factorised Normals, summed over everything."""
    second_moment = q.stddev**2 + (q.mean - p.mean) ** 2
    return (0.5 * second_moment / p.stddev**2 + p.stddev.log() + 0.5 * math.log(2 * math.pi)).sum()


def _kl_term(q, p, value, weight_q, weight_p, kl):
    q, p = (fn.steps(value) if isinstance(fn, Chain) else fn for fn in (q, p))
    if kl == "mc":
        log_q, log_p = q.log_prob(value).sum(), p.log_prob(value).sum()
        return Term(log_q - log_p, weight_q * log_q - weight_p * log_p)
    divergence = _divergence(q, p, kl)
    # Not ==: on a GPU, the host would wait for the values.
    if weight_q is weight_p:
        return Term(divergence, weight_q * divergence)
    # The two sides have weights of their own: z_1 in the authors' code.
    # E_q log q = KL(q || p) - cross entropy.
    cross_entropy = _cross_entropy(q, p)
    return Term(divergence, weight_q * (divergence - cross_entropy) + weight_p * cross_entropy)


def _divergence(q, p, kl):
    """KL(q || p) of two factorised Normals, summed over everything, with kl 'each' but for D."""
    if kl == "each":
        return kl_divergence(q.base_dist, p.base_dist).flatten(0, -2).sum(0)
    return kl_divergence(q, p).sum()


def closed_terms(
    codes: dict[str, tuple[Any, Any]],
    nll: torch.Tensor,
    weights: dict[str, Any],
    kl: str = "analytic",
) -> dict[str, Term]:
    """The terms of a loss whose KLs are closed forms, and 'x', the negative log likelihood `nll`.

    codes: {latent variable: (posterior, prior)}. weights: the KL weight of each. kl: 'analytic', or
    'each' (see the module).
    """
    divergences = {name: _divergence(q, p, kl) for name, (q, p) in codes.items()}
    terms = {name: Term(value, weights[name] * value) for name, value in divergences.items()}
    return terms | {"x": Term(nll, nll)}


def elbo_terms(model: Callable, guide: Callable, *args, kl: str = "analytic") -> dict[str, Term]:
    """The terms of the negative weighted ELBO by site; their sum, weighted, is the loss.

    Of a latent site the KL ('analytic', 'mc' or 'each', see the module), of an observed site the
    negative log likelihood. args: arguments of model and guide.
    """
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(*args)
    terms = {}
    for name, site in model_trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if site["is_observed"]:
            # The scale of an observed site: some pixels are counted for all.
            density: Any = site["fn"]
            nll = -site["scale"] * density.log_prob(site["value"]).sum()
            terms[name] = Term(nll, nll)
        else:
            q, p = guide_trace.nodes[name], site
            weights = (side.get("weight", UNWEIGHTED) for side in (q, p))
            terms[name] = _kl_term(q["fn"], p["fn"], p["value"], *weights, kl)
    return terms
