"""The consistency protocol, of a constant judge and of codes that carry a factor or do not."""

import numpy as np
import pytest

from metrics.consistency import agreement, code_table, prior_entropies
from metrics.summary import figures

CLASSES = {"hair": 3, "action": 4}


def test_accuracies_expose_a_constant_judge():
    draw = np.random.default_rng(0)
    labels = {"hair": draw.integers(0, 3, 300), "action": draw.integers(0, 4, 300)}
    always = {factor: np.eye(count)[np.zeros(300, int)] for factor, count in CLASSES.items()}
    table = figures(agreement(always, always, labels))
    # The judge agrees with itself, and only its accuracies show that it is constant.
    assert table["accuracy"] == table["hair"] == table["action"] == 1
    assert table["real_hair"] == table["rebuilt_hair"] == pytest.approx(1 / 3, abs=0.06)
    assert table["real_joint"] < 0.2


def test_agreement_counts_clips_without_labels():
    labels = {"hair": np.array([0, 1, 2, 0]), "action": np.array([0, 1, 2, 3])}
    real = {factor: np.eye(CLASSES[factor])[values] for factor, values in labels.items()}
    rebuilt = {"hair": np.eye(3)[[0, 1, 2, 1]], "action": np.eye(4)[[0, 0, 2, 3]]}
    table = figures(agreement(real, rebuilt, labels))
    assert (table["hair"], table["action"], table["accuracy"]) == (0.75, 0.75, 0.5)
    assert table["accuracy_per_factor"] == 0.75
    assert table["real_joint"] == 1 and table["rebuilt_joint"] == 0.5
    wrong = {factor: np.roll(values, 1) for factor, values in labels.items()}
    assert figures(agreement(real, rebuilt, wrong))["accuracy"] == 0.5


def test_prior_entropies_are_means_over_factors():
    means = prior_entropies({"hair": np.eye(3)[[0, 1, 2]], "action": np.full((3, 4), 0.25)})
    assert means["inter_entropy"] == pytest.approx((np.log(3) + np.log(4)) / 2)
    assert means["intra_entropy"] == pytest.approx(np.log(4) / 2)
    assert means["kl"] == pytest.approx(np.log(3) / 2)


def test_each_code_tells_its_own_factor_and_chance_is_shown():
    draw = np.random.default_rng(0)

    def side(n):
        labels = {"hair": draw.integers(0, 3, n), "action": draw.integers(0, 4, n)}
        noise = draw.normal(size=(2, n, 4)) * 0.1
        codes = {
            "identity_code": np.eye(4)[labels["hair"]] + noise[0],
            "dynamics_code": np.eye(4)[labels["action"]] + noise[1],
        }
        # Codes may have any scale and shape.
        return {name: 100 + 5 * code.reshape(n, 2, 2) for name, code in codes.items()}, labels

    train, test = side(300), side(200)
    table = code_table(*train, *test, CLASSES)
    assert table["identity_code_hair"] > 0.95 and table["dynamics_code_action"] > 0.95
    for chance in ("identity_code_action", "identity_code_hair_shuffled"):
        assert table[chance] < 0.45, chance
    assert table["dynamics_code_hair"] < 0.5 and table["majority_hair"] < 0.45
    assert table == code_table(*train, *test, CLASSES)
