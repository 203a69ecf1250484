"""metrics/swap.py: chance agreement as counting finds it, and measures of clips that swap perfectly or not at all."""

from types import SimpleNamespace

import numpy as np
import pytest

from metrics.summary import Measure
from metrics.swap import chance_agreement, judged_prior, judged_swap, pairing


def brute_force(judged, right, wrong):
    """For each clip, try every other source whose value is not the right one."""
    out = []
    for verdict, own in zip(judged, right):
        others = [value for value in wrong if value != own]
        out.append(sum(value == verdict for value in others) / len(others) if others else 0.0)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_chance_agreement_is_what_counting_finds(seed):
    draw = np.random.default_rng(seed)
    judged, right, wrong = draw.integers(0, 5, (3, 40))
    assert chance_agreement(judged, right, wrong) == pytest.approx(
        brute_force(judged, right, wrong)
    )


def test_chance_agreement_at_the_edges():
    same = np.zeros(4, np.int64)
    assert chance_agreement(same, same, same).tolist() == [0, 0, 0, 0]  # no pair differs
    assert chance_agreement(same + 7, same, same + 1).tolist() == [
        0,
        0,
        0,
        0,
    ]  # a verdict that no source has
    assert chance_agreement(same + 1, same, same + 1).tolist() == [1, 1, 1, 1]


def test_a_judge_at_random_leaks_no_more_than_chance():
    draw = np.random.default_rng(0)
    judged, right, wrong = draw.integers(0, 4, (3, 20_000))
    differ = right != wrong
    excess = (judged == wrong)[differ].mean() - chance_agreement(judged, right, wrong)[
        differ
    ].mean()
    assert abs(excess) < 0.01


# --- both columns, from what a judge is sure of ---

DATASET = SimpleNamespace(static=("hair",), dynamic=("action",))


def sure(**values):
    """A judge's probabilities that are 0 and 1."""
    return {factor: np.eye(9)[value] for factor, value in values.items()}


def numbers(found):
    return {
        name: value.figure() if isinstance(value, Measure) else value
        for name, value in found.items()
    }


@pytest.fixture
def labels():
    draw = np.random.default_rng(1)
    return {
        "hair": draw.permutation(np.arange(90) % 3),
        "action": draw.permutation(np.arange(90) % 9),
    }


def test_an_oracle_scores_1_and_one_that_ignores_its_static_code_leaks(labels):
    hair, action, partner = labels["hair"], labels["action"], pairing(90, 0)
    perfect = numbers(
        judged_swap(DATASET, labels, sure(hair=hair[partner], action=action), partner)
    )
    assert perfect["hair_accuracy"] == perfect["action_accuracy"] == 1
    assert perfect["hair_leak"] == perfect["action_leak"] == 0
    assert (
        perfect["action_inception_score"] == pytest.approx(9)
        and perfect["action_intra_entropy"] == 0
    )
    assert perfect["action_inter_entropy"] == pytest.approx(np.log(9))
    idle = numbers(judged_swap(DATASET, labels, sure(hair=hair, action=action), partner))
    assert (
        idle["hair_leak"] == 1 and idle["action_accuracy"] == 1 and idle["hair_leak_excess"] > 0.3
    )
    assert idle["hair_accuracy"] == pytest.approx((hair == hair[partner]).mean())


def test_a_model_that_ignores_its_codes_scores_chance(labels):
    always = np.zeros(90, np.int64)
    found = numbers(judged_swap(DATASET, labels, sure(hair=always, action=always), pairing(90, 0)))
    assert found["hair_accuracy"] == pytest.approx(1 / 3) and found[
        "action_accuracy"
    ] == pytest.approx(1 / 9)
    assert found["action_inception_score"] == pytest.approx(1) and found[
        "action_inter_entropy"
    ] == pytest.approx(0)
    prior = numbers(
        judged_prior(DATASET, labels, sure(**labels), *[sure(hair=always, action=always)] * 2)
    )
    assert prior["prior_hair_accuracy"] == pytest.approx(1 / 3) and prior[
        "prior_variety"
    ] == pytest.approx(0)


def test_draws_that_are_all_the_same_character_are_unmasked(labels):
    """The prior of s at the paper's size: the action is right on every draw, and the draws do not vary."""
    always = np.zeros(90, np.int64)
    moving, standing = sure(hair=always, action=labels["action"]), sure(**labels)
    same = numbers(judged_prior(DATASET, labels, sure(**labels), moving, standing))
    assert same["prior_action_accuracy"] == same["prior_hair_accuracy"] == 1
    assert same["prior_variety"] == pytest.approx(0)
    varied = numbers(judged_prior(DATASET, labels, sure(**labels), standing, standing))
    assert varied["prior_variety"] == pytest.approx(1)


def test_pairs_are_of_two_clips_each_used_once():
    for seed in range(5):
        partner = pairing(40, seed)
        assert sorted(partner) == list(range(40)) and (partner != np.arange(40)).all()
