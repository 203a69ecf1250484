"""Figures and their spread from values per clip."""

import numpy as np
import pytest

from metrics.summary import Measure, figures, over_seeds, spreads


def test_means_medians_and_clips_that_do_not_count():
    measures = {
        "mean": Measure(np.array([1.0, 0.0, np.nan, 0.5])),
        "median": Measure(np.array([[1.0, 9.0], [2.0, np.nan]]), "median"),
        "none": Measure(np.array([np.nan, np.nan])),
    }
    numbers = figures(measures)
    assert (numbers["mean"], numbers["median"]) == (0.5, 2.0)
    assert np.isnan(numbers["none"]) and np.isnan(spreads(measures)["none"])


def test_spread_is_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    spread = spreads({"x": Measure(values)})["x"]
    assert spread == pytest.approx(values.std() / np.sqrt(400), rel=0.2)
    assert spreads({"x": Measure(values)})["x"] == spread
    assert spreads({"x": Measure(np.ones(10, bool))})["x"] == 0


@pytest.mark.parametrize("how", ["mean", "median"])
def test_resampled_figures_are_those_of_the_resampled_clips(how):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 3))
    values[rng.random(values.shape) < 0.4] = np.nan
    values[0] = np.nan
    measure, rows = Measure(values, how), rng.integers(12, size=(50, 12))
    one_by_one = [measure.figure(clips) for clips in rows]
    times = np.stack([np.bincount(clips, minlength=12) for clips in rows])
    assert measure.resampled(times) == pytest.approx(one_by_one, rel=1e-12)
    # Only the first clip, whose values do not count.
    assert np.isnan(measure.resampled(np.eye(12, dtype=int)[:1])).all()


@pytest.mark.parametrize("how", ["mean", "median"])
def test_clips_of_one_character_are_drawn_together(how):
    """Nine clips that agree carry as much as one: the error is that over the characters."""
    of_characters = np.random.default_rng(0).normal(size=60)
    clips, character = np.repeat(of_characters, 9), np.repeat(np.arange(60) + 100, 9)
    apart = spreads({"x": Measure(clips, how)})["x"]
    together = spreads({"x": Measure(clips, how)}, character)["x"]
    assert together == spreads({"x": Measure(of_characters, how)})["x"]
    assert together > 2 * apart


def test_units_of_different_sizes():
    values, unit = np.array([1.0, 1, 1, 0]), np.array([5, 5, 5, 2])
    # The two units are drawn as (0, 0), (0, 1), (1, 0), (1, 1): figures 0, 3/4, 3/4, 1.
    expected = np.std([0, 0.75, 0.75, 1])
    assert spreads({"x": Measure(values)}, unit)["x"] == pytest.approx(expected, rel=0.1)


def test_over_seeds_pools_measures_and_averages_numbers():
    first = {"share": Measure(np.array([1.0, 0.0])), "number": 2}
    second = {"share": Measure(np.array([1.0, np.nan])), "number": 4}
    outcome = over_seeds([first, second], {"seeds": (0, 1)})
    # Three values count; the two seeds alone have 0.5 and 1.
    assert outcome.figures == {"share": pytest.approx(2 / 3), "number": 3}
    assert outcome.seed_spread == {"share": 0.25, "number": 1}
    assert set(outcome.spread) == {"share"} and outcome.notes == {"seeds": (0, 1)}
