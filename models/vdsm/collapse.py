"""Signs that the identity s of VDSM has collapsed although the loss looks well."""

import math

import torch

# Spread of s over clips, as a share of the prior's scale 1/K, below which s carries nothing. At K
# 16, good runs have a spread of 0.03 to 0.04, and failed runs had less than 0.005.
DEAD_SPREAD = 0.08
# Nats from uniform mixing weights that a dead spread gives at temperature 10, and a little more.
UNIFORM = 0.002
ALL = 0.95  # share of the mixture above which one expert has taken over


def identity_warnings(s: torch.Tensor, temperature: float) -> dict[str, str]:
    """{keyword: a line} about posterior means s [n > 1, K] of n clips, with flags that may help."""
    lines, experts = {}, s.shape[1]
    spread, least = s.std(0).mean().item(), DEAD_SPREAD / experts
    if spread < least:
        lines["s the same for all clips"] = (
            f"s spreads by {spread:.2g} over clips (under {least:.2g}): all look the same; "
            "--start data or a later --anneal_t_midfrac1 usually helps"
        )
    if experts > 1:
        w = torch.softmax(temperature * s, -1)
        entropy = -(w * w.clamp_min(1e-30).log()).sum(-1)
        from_uniform = math.log(experts) - entropy.mean().item()
        share, expert = w.mean(0).max(0)
        if from_uniform < UNIFORM:
            lines["uniform mixing weights"] = (
                f"the mixing weights are uniform (to {from_uniform:.2g} nats): all experts act as "
                "one; a higher --temp_id_start and --temp_id_end usually helps"
            )
        elif share > ALL:
            lines["one expert"] = (
                f"expert {expert.item()} has {100 * share.item():.0f} % of the mixture in all "
                "clips; a higher --n_e_w or a lower --temp_id_end usually helps"
            )
    return lines
