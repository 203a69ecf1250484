"""metrics/words.py: figures in plain words, and spreads as text."""

import re
from pathlib import Path

import pytest

from metrics.words import in_words, short_spread, why_missing

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "COMPARISON.md"


@pytest.mark.parametrize(
    "figure, words",
    [
        ("transfer_hair_accuracy", ("swaps: hair of the right source", "higher")),
        ("swap_action_leak_excess", ("swaps: action of the wrong source, above chance", "0")),
        ("transfer_prior_variety", ("variety of identities from the prior", "1")),
        ("transfer_fitted_start_intra_entropy",
         ("H(y|x) of start with codes from the fitted density, nats", "lower")),
        ("stage1_consistency_identity_code_body_shuffled",
         ("body from the identity code, learnt from shuffled labels", "chance")),
        ("fid_release_sampled", ("FID of sampled clips, as in the release", "lower")),
        ("of_tomorrow", ("", "")),
    ],
)  # fmt: skip
def test_figures_in_words(figure, words):
    assert in_words(figure) == words


def test_every_figure_of_the_result_pages_has_words():
    names = set(re.findall(r"`((?:transfer|swap|consistency|dci|continuation)_\w+)`",
                           PAGE.read_text()))  # fmt: skip
    assert len(names) > 20
    assert [name for name in names if not in_words(name)[0]] == []


def test_spreads_below_rounding_are_zero():
    values = (1.1e-16, -3e-13, 2e-12, 0.01234, float("nan"), None)
    assert [short_spread(value) for value in values] == ["0", "0", "2e-12", "0.012", "", ""]


def test_why_a_figure_has_no_value():
    assert why_missing("swap_colour_leak") == "no two sources differ in it"
    assert why_missing("transfer_prior_period_ks_p") == "no drawn clip was readable"
    assert why_missing("stage1_dci_completeness") == "it needs two factors and two dimensions"
    assert why_missing("other") == "no clip counts for it"
