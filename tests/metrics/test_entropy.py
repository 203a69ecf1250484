"""Entropies of verdicts: their identities and ceilings."""

import numpy as np
import pytest

from metrics.entropy import entropies, variety


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("balanced", [False, True])
def test_the_inception_score_is_exp_of_the_difference(seed, balanced):
    draw = np.random.default_rng(seed)
    p, labels = (
        softmax(draw.normal(size=(50, 6)) * 3),
        draw.integers(0, 6, 50) if balanced else None,
    )
    found = entropies(p, labels)
    assert found.inception_score == pytest.approx(np.exp(found.inter - found.intra))
    assert found.kl == pytest.approx(found.inter - found.intra) and 0 <= found.intra <= found.inter


@pytest.mark.parametrize("classes, ceiling", [(9, 2.197), (6, 1.792)])
def test_ceilings(classes, ceiling):
    found = entropies(np.eye(classes)[np.arange(3 * classes) % classes])
    assert found.inter == pytest.approx(np.log(classes)) == pytest.approx(ceiling, abs=5e-4)
    assert found.intra == 0 and found.inception_score == pytest.approx(classes)


def test_a_judge_at_a_loss_and_one_that_always_says_the_same():
    lost = entropies(np.full((8, 4), 0.25))
    assert (lost.inter, lost.intra) == pytest.approx(
        (np.log(4), np.log(4))
    ) and lost.inception_score == pytest.approx(1)
    assert entropies(np.eye(4)[np.zeros(8, int)]) == pytest.approx((0, 0, 0))


def test_classes_weigh_the_same_however_many_clips_they_have():
    labels = np.array([0] * 98 + [1, 1])
    p = np.eye(2)[labels]
    assert entropies(p).inter < 0.1 and entropies(p, labels).inter == pytest.approx(np.log(2))


def test_variety_is_of_what_the_judge_sees_not_of_its_doubt():
    real = np.eye(4)[np.arange(40) % 4]
    assert variety(real, real) == pytest.approx(1)
    assert variety(np.eye(4)[np.arange(40) % 2], real) == pytest.approx(0.5)
    assert 0 <= variety(np.full((756, 4), 0.25), real) < 1e-9
    assert np.isnan(variety(real, np.eye(4)[np.zeros(40, int)]))
