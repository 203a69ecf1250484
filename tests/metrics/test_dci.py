"""DCI: its closed forms, and codes that a forest reads."""

import numpy as np
import pytest

from metrics.dci import completeness, dci, disentanglement


def test_one_factor_per_dimension_scores_1():
    assert disentanglement(np.eye(5)) == completeness(np.eye(5)) == 1


@pytest.mark.parametrize("factors", [3, 10])
def test_one_dimension_that_carries_two_factors_equally(factors):
    table = np.zeros((1, factors))
    table[0, :2] = 0.5
    assert disentanglement(table) == pytest.approx(1 - np.log(2) / np.log(factors))
    assert completeness(table.T) == pytest.approx(1 - np.log(2) / np.log(factors))


def test_dimensions_weigh_by_their_importance():
    # The second dimension carries nothing and does not count.
    table = np.array([[1.0, 0, 0], [0, 0.0, 0], [0.5, 0.5, 0]])
    assert disentanglement(table) == pytest.approx((1 + 1 - np.log(2) / np.log(3)) / 2)
    assert disentanglement(np.ones((4, 3))) == pytest.approx(0)
    assert np.isnan(disentanglement(np.ones((4, 1)))) and np.isnan(completeness(np.ones((1, 3))))
    assert np.isnan(disentanglement(np.zeros((4, 3))))


def test_codes_that_hold_a_factor_each_and_codes_that_mix():
    draw = np.random.default_rng(0)
    hair, action = draw.integers(0, 4, (2, 600))
    labels = {"hair": ("static", hair), "action": ("dynamic", action)}
    halves = [
        {name: (kind, v[half]) for name, (kind, v) in labels.items()}
        for half in (slice(400), slice(400, None))
    ]

    def scores(static, dynamic):
        codes = [(static[half], dynamic[half]) for half in (slice(400), slice(400, None))]
        return dci(codes[0], halves[0], codes[1], halves[1])

    apart = scores(hair[:, None] + 0.0, action[:, None, None] + 0.0)
    assert apart == {name: pytest.approx(1) for name in apart} and len(apart) == 7
    # Each subset still carries factors of one kind.
    swapped = scores(action[:, None] + 0.0, hair[:, None] + 0.0)
    assert swapped["subset_disentanglement"] == pytest.approx(1)
    both = np.stack([hair, action], 1) + 0.0
    mixed = scores(both, both)
    assert mixed["subset_disentanglement"] < 0.1 and mixed["informativeness"] == 1
    noise = draw.normal(size=(600, 2))
    assert scores(noise, noise)["informativeness"] < 0.4
