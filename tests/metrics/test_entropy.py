"""Entropies of verdicts: their identities and their largest values."""

import numpy as np
import pytest

from metrics.entropy import entropies, variety


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("balanced", [False, True])
def test_the_inception_score_is_exp_of_the_difference(seed, balanced):
    draw = np.random.default_rng(seed)
    p = softmax(draw.normal(size=(50, 6)) * 3)
    inter, intra, kl = whole = entropies(p, draw.integers(0, 6, 50) if balanced else None)
    assert whole.inception_score == pytest.approx(np.exp(inter - intra))
    assert kl == pytest.approx(inter - intra) and 0 <= intra <= inter


@pytest.mark.parametrize("classes, ceiling", [(9, 2.197), (6, 1.792)])
def test_ceilings(classes, ceiling):
    sure = entropies(np.eye(classes)[np.arange(3 * classes) % classes])
    assert np.log(classes) == pytest.approx(ceiling, abs=5e-4)
    assert sure.inter == pytest.approx(np.log(classes))
    assert sure.intra == 0 and sure.inception_score == pytest.approx(classes)


def test_an_undecided_judge_and_a_constant_judge():
    undecided = entropies(np.full((8, 4), 0.25))
    assert undecided == pytest.approx((np.log(4), np.log(4), 0))
    assert undecided.inception_score == pytest.approx(1)
    assert entropies(np.eye(4)[np.zeros(8, int)]) == pytest.approx((0, 0, 0))


def test_balanced_classes_have_equal_weight():
    labels = np.array([0] * 98 + [1, 1])
    p = np.eye(2)[labels]
    assert entropies(p).inter < 0.1 and entropies(p, labels).inter == pytest.approx(np.log(2))


def test_an_undecided_judge_is_no_variety():
    real = np.eye(4)[np.arange(40) % 4]
    assert variety(real, real) == pytest.approx(1)
    assert variety(np.eye(4)[np.arange(40) % 2], real) == pytest.approx(0.5)
    assert 0 <= variety(np.full((756, 4), 0.25), real) < 1e-9
    assert np.isnan(variety(real, np.eye(4)[np.zeros(40, int)]))
