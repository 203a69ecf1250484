"""The swap protocol: chance agreement by counting, and clips that swap perfectly or not at all."""

from types import SimpleNamespace

import numpy as np
import pytest

from metrics.summary import Measure
from metrics.swap import chance_agreement, judged_draws, judged_swap, pairing


def brute_force(judged, right, wrong):
    """For each clip, try every other source whose value is not the right one."""
    out = []
    for verdict, own in zip(judged, right):
        others = [value for value in wrong if value != own]
        out.append(sum(value == verdict for value in others) / len(others) if others else 0.0)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_chance_agreement_by_counting(seed):
    draw = np.random.default_rng(seed)
    judged, right, wrong = draw.integers(0, 5, (3, 40))
    assert chance_agreement(judged, right, wrong) == pytest.approx(
        brute_force(judged, right, wrong)
    )


def test_chance_agreement_at_the_edges():
    same = np.zeros(4, np.int64)
    # No pair differs.
    assert chance_agreement(same, same, same).tolist() == [0, 0, 0, 0]
    # No source has the judged value.
    assert chance_agreement(same + 7, same, same + 1).tolist() == [0, 0, 0, 0]
    assert chance_agreement(same + 1, same, same + 1).tolist() == [1, 1, 1, 1]


def test_a_judge_at_random_leaks_no_more_than_chance():
    draw = np.random.default_rng(0)
    judged, right, wrong = draw.integers(0, 4, (3, 20_000))
    differ = right != wrong
    leak = (judged == wrong)[differ].mean()
    assert leak == pytest.approx(chance_agreement(judged, right, wrong)[differ].mean(), abs=0.01)
    assert leak == pytest.approx(1 / 4, abs=0.02)


# --- both columns, with a judge that is sure of its verdicts ---

DATASET = SimpleNamespace(static=("hair",), dynamic=("action",))


def sure(**values):
    """Probabilities of 0 and 1 with these verdicts."""
    return {factor: np.eye(9)[value] for factor, value in values.items()}


def numbers(measures):
    return {n: v.figure() if isinstance(v, Measure) else v for n, v in measures.items()}


@pytest.fixture
def labels():
    draw = np.random.default_rng(1)
    return {
        "hair": draw.permutation(np.arange(90) % 3),
        "action": draw.permutation(np.arange(90) % 9),
    }


def test_a_perfect_swap_scores_1_and_an_ignored_static_code_leaks(labels):
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
    judged = sure(hair=always, action=always)
    constant = numbers(judged_swap(DATASET, labels, judged, pairing(90, 0)))
    assert constant["hair_accuracy"] == pytest.approx(1 / 3)
    assert constant["action_accuracy"] == pytest.approx(1 / 9)
    assert constant["action_inception_score"] == pytest.approx(1)
    assert constant["action_inter_entropy"] == pytest.approx(0)
    prior = numbers(judged_draws(DATASET, labels, sure(**labels), judged, judged))
    assert prior["prior_hair_accuracy"] == pytest.approx(1 / 3)
    assert prior["prior_variety"] == pytest.approx(0)


def test_variety_exposes_draws_of_one_character(labels):
    """As with VDSM's prior of s at the paper's size: right actions, always the same character."""
    always = np.zeros(90, np.int64)
    moving, standing = sure(hair=always, action=labels["action"]), sure(**labels)
    same = numbers(judged_draws(DATASET, labels, sure(**labels), moving, standing))
    assert same["prior_action_accuracy"] == same["prior_hair_accuracy"] == 1
    assert same["prior_variety"] == pytest.approx(0)
    varied = numbers(judged_draws(DATASET, labels, sure(**labels), standing, standing))
    assert varied["prior_variety"] == pytest.approx(1)


def test_each_pair_has_two_clips_and_each_clip_is_used_once():
    for seed in range(5):
        partner = pairing(40, seed)
        assert sorted(partner) == list(range(40)) and (partner != np.arange(40)).all()
