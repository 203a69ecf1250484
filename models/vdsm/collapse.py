"""Whether the codes still say anything: the usual ways in which a variational autoencoder's training dies while its loss looks well."""

import math

import torch

DEAD_SPREAD = 0.08  # of the prior's scale 1/K. At K 16 good runs spread s by 0.03 to 0.04, and identity was dead under 0.005
UNIFORM = 0.002  # nats that the mixing weights of a clip are from uniform: a dead spread at temperature 10, and a little
ALL = 0.95  # share of the mixture that one expert has over all clips
NOTHING = 0.05  # nats a sequence
PATIENCE, LEAST = 0.25, 200  # share of the steps, and steps, before which a code may sleep
LOWER = {  # the weight that keeps a term's KL down
    "EncDec": {"s": "anneal_end_id", "z": "anneal_end_t"},
    "Seq": {"d": "anneal_end_dynamics"},  # a z that the transition foretells is no collapse
}
LOWER_F = {"f": "kl_f, or --kl_f_start,"}  # of the models with one stage


def may_sleep(step, total):
    """Whether it is too early in a stage of `total` steps to speak of collapse."""
    return step < max(PATIENCE * total, LEAST)


def collapsed(stage, s, temperature, kl):
    """What has collapsed, {in a word: a line with the flag that usually helps}; {} if all is well.

    stage: its name; s [n > 1, K]: VDSM's posterior means of n clips, else None; kl: {term: nats a sequence}, each term of the ELBO.
    """
    found = {} if s is None else _of_identity(s, temperature)
    for term, weight in LOWER.get(stage, LOWER_F).items():
        if kl.get(term, NOTHING) < NOTHING:
            found[f"no KL of {term}"] = (
                f"the KL of {term} is {kl[term]:.2g} nats a sequence: the code is not used; a lower --{weight} usually helps"
            )
    return found


def _of_identity(s, temperature):
    found, experts = {}, s.shape[1]
    spread = s.std(0).mean().item()
    if spread < DEAD_SPREAD / experts:
        found["s the same for all clips"] = (
            f"s spreads by {spread:.2g} over clips (under {DEAD_SPREAD / experts:.2g}): all look the same; "
            "--encoder_init data or a later --anneal_t_midfrac1 usually helps"
        )
    if experts > 1:
        w = torch.softmax(temperature * s, -1)
        from_uniform = math.log(experts) + (w * w.clamp_min(1e-30).log()).sum(-1).mean().item()
        share, expert = w.mean(0).max(0)
        if from_uniform < UNIFORM:
            found["uniform mixing weights"] = (
                f"the mixing weights are uniform (to {from_uniform:.2g} nats): the experts are one; "
                "a higher --temp_id_start and --temp_id_end usually helps"
            )
        elif share > ALL:
            found["one expert"] = (
                f"expert {expert.item()} has {100 * share.item():.0f} % of the mixture in all clips; "
                "a higher --n_e_w or a lower --temp_id_end usually helps"
            )
    return found
