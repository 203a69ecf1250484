"""Schedules: one value an epoch, shared by both stages and stored in no checkpoint, since the epoch gives them."""

import math

import numpy as np
from scipy.interpolate import interp1d

LOWEST, HIGHEST = 0.005, 80.0  # the release's clip of the spline


def cosine_ramp(start, end, frac, epochs):
    """[epochs] values: a half cosine from start to end over the first epochs / frac, then end (release; any integer frac >= 1).

    With n = ceil(epochs / frac): start + (end - start) (1 + cos(pi (n - 1 - e) / (epochs / frac))) / 2 for e < n.
    """
    ramp = math.ceil(epochs / frac)
    phase = np.cos(np.pi * (ramp - 1 - np.arange(ramp)) / (epochs / frac))
    return np.concatenate(
        [start + (end - start) * (1 + phase) / 2, np.full(epochs - ramp, end, float)]
    )


def quadratic_spline(values, midfracs, epochs):
    """[epochs] values: scipy's quadratic spline through (0, v0), (midfrac1 epochs, v1), (midfrac2 epochs, v2) and
    (epochs - 1, v3), clipped to [0.005, 80] (release). In very short runs nodes may coincide: then linear; or stand out of
    order: then scipy orders them."""
    nodes = np.array([0, epochs * midfracs[0], epochs * midfracs[1], epochs - 1], float)
    times = np.arange(epochs)
    order = np.argsort(nodes, kind="stable")
    if np.diff(nodes[order]).min() > 0:
        curve = interp1d(nodes, values, kind="quadratic")(times)
    else:
        curve = np.interp(times, nodes[order], np.asarray(values, float)[order])
    return np.clip(curve, LOWEST, HIGHEST)


def geometric(values, fracs, epochs):
    """[epochs] values: constant v[i] at the nodes fracs[i] (shares of the run), geometric between them, constant outside."""
    share = np.arange(epochs) / max(epochs - 1, 1)
    return np.exp(np.interp(share, fracs, np.log(values)))


def schedules(settings):
    """{'temperature', 's', 'd', 'z'}: arrays [epochs] of tau, lambda_s, lambda_d and lambda_z.

    settings.schedule 'release': cosine ramps and the spline. 'geometric': the weights move geometrically between the same values,
    lambda_s and lambda_d over the first 1 / frac, lambda_z from start at midfrac1 (through no middle value) to end at midfrac2.
    """
    c, epochs = settings, settings.epochs
    temperature = cosine_ramp(c.temp_id_start, c.temp_id_end, c.temp_id_frac, epochs)
    if c.schedule == "geometric":
        return {
            "temperature": temperature,
            "s": geometric([c.anneal_start_id, c.anneal_end_id], [0, 1 / c.anneal_frac_id], epochs),
            "d": geometric(
                [c.anneal_start_dynamics, c.anneal_end_dynamics],
                [0, 1 / c.anneal_frac_dynamics],
                epochs,
            ),
            "z": geometric(
                [c.anneal_start_t, c.anneal_end_t],
                [c.anneal_t_midfrac1, c.anneal_t_midfrac2],
                epochs,
            ),
        }
    return {
        "temperature": temperature,
        "s": cosine_ramp(c.anneal_start_id, c.anneal_end_id, c.anneal_frac_id, epochs),
        "d": cosine_ramp(
            c.anneal_start_dynamics, c.anneal_end_dynamics, c.anneal_frac_dynamics, epochs
        ),
        "z": quadratic_spline(
            [c.anneal_start_t, c.anneal_mid_t1, c.anneal_mid_t2, c.anneal_end_t],
            [c.anneal_t_midfrac1, c.anneal_t_midfrac2],
            epochs,
        ),
    }
