"""metrics/findings.py: the sentences at the end of the notebooks say what the figures say."""

import numpy as np
import pytest

from metrics.findings import in_words, listed

FACTORS = ("hair", "action")


def found(identity=(1.0, 0.11), dynamics=(0.2, 1.0), judge=1.0):
    """The sentences for accuracies of hair and action, read from the two codes."""
    codes = {"majority_hair": 0.2, "majority_action": 0.11}
    for code, shares in (("identity_code", identity), ("dynamics_code", dynamics)):
        for factor, share, chance in zip(FACTORS, shares, (0.18, 0.1)):
            codes |= {f"{code}_{factor}": share, f"{code}_{factor}_shuffled": chance}
    right = {"hair": 1.0, "action": judge, "joint": judge}
    agreement = {"accuracy": 0.9, "accuracy_per_factor": 0.95, "hair": 0.9, "action": 1.0}
    drawn = {"hair": np.eye(4)[[0, 1, 2, 3]], "action": np.eye(4)[[0, 0, 0, 0]]}
    return in_words(right, agreement, codes, ("action",), drawn)


def test_codes_that_are_apart():
    trust, same, identity, dynamics, verdict, draws = found()
    assert "can be trusted" in trust and "90.0% of the clips" in same and "hair (90.0%)" in same
    assert identity == (
        "The identity code holds hair (100%, by chance 20%); it does not hold action (11%, by "
        "chance 11%)."
    )
    assert dynamics.startswith("The dynamics code holds action (100%, by chance 11%); it does not")
    assert verdict.startswith("Identity and motion are kept apart")
    assert "50% of the largest" in draws and "least in action (0%)" in draws


@pytest.mark.parametrize(
    "shares, words",
    [
        ({"identity": (1.0, 0.5)}, "it holds a part of action"),
        ({"dynamics": (0.8, 1.0)}, "it mostly holds hair"),
        ({"identity": (0.2, 0.11)}, "The identity code does not hold hair"),
    ],
)
def test_codes_that_are_not_apart(shares, words):
    text = " ".join(found(**shares))
    assert words in text and "are not fully kept apart" in text


def test_a_weak_judge_is_said_first():
    assert "least for action. Its verdicts mean little (required: 99%)." in found(judge=0.95)[0]


def test_lists():
    assert [listed(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a", "a and b", "a, b and c"
    ]  # fmt: skip
