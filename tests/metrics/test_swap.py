"""metrics/swap.py: chance agreement as counting finds it, and measures of clips that swap perfectly or not at all."""

from types import SimpleNamespace

import numpy as np
import pytest

from metrics import swap
from metrics.swap import chance_agreement


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
    assert chance_agreement(judged, right, wrong) == pytest.approx(brute_force(judged, right, wrong))


def test_chance_agreement_at_the_edges():
    same = np.zeros(4, np.int64)
    assert chance_agreement(same, same, same).tolist() == [0, 0, 0, 0]  # no pair differs
    assert chance_agreement(same + 7, same, same + 1).tolist() == [0, 0, 0, 0]  # a verdict that no source has
    assert chance_agreement(same + 1, same, same + 1).tolist() == [1, 1, 1, 1]


def test_a_judge_at_random_leaks_no_more_than_chance():
    draw = np.random.default_rng(0)
    judged, right, wrong = draw.integers(0, 4, (3, 20_000))
    differ = right != wrong
    excess = (judged == wrong)[differ].mean() - chance_agreement(judged, right, wrong)[differ].mean()
    assert abs(excess) < 0.01


def test_measures_of_perfect_swaps_and_of_none(monkeypatch):
    draw = np.random.default_rng(1)
    labels = {"hair": draw.integers(0, 3, 60), "action": draw.integers(0, 9, 60)}
    clips = SimpleNamespace(label=lambda name: labels[name])
    dataset = SimpleNamespace(static=("hair",), dynamic=("action",))
    partner = np.roll(np.arange(60), 1)
    monkeypatch.setattr(swap, "load_or_train_judge", lambda *_, **__: (None, {"accuracy": {"hair": 0.99}}))

    def judged(hair, action):
        monkeypatch.setattr(swap, "predict", lambda *_: {"hair": hair, "action": action})
        measures, accuracy = swap.judged_swap(dataset, clips, None, partner, "nowhere", "cpu")
        assert accuracy == {"hair": 0.99}
        return {name: measure.figure() for name, measure in measures.items()}

    perfect = judged(labels["hair"][partner], labels["action"])
    assert perfect["hair_accuracy"] == perfect["action_accuracy"] == 1
    assert perfect["hair_leak"] == perfect["action_leak"] == 0
    idle = judged(labels["hair"], labels["action"])
    assert idle["hair_leak"] == 1 and idle["action_accuracy"] == 1 and idle["hair_leak_excess"] > 0.3
    same = (labels["hair"] == labels["hair"][partner]).mean()
    assert idle["hair_accuracy"] == pytest.approx(same)
