"""Figures and their spread from clip-wise measures."""

import numpy as np
import pytest

from metrics.summary import Measure, figures, spreads


def test_means_medians_and_clips_that_do_not_count():
    measures = {
        "mean": Measure(np.array([1.0, 0.0, np.nan, 0.5])),
        "median": Measure(np.array([[1.0, 9.0], [2.0, np.nan]]), "median"),
        "none": Measure(np.array([np.nan, np.nan])),
    }
    found = figures(measures)
    assert found["mean"] == 0.5
    assert found["median"] == 2.0
    assert np.isnan(found["none"])


def test_spread_is_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=400)
    spread = spreads({"x": Measure(values)})["x"]
    assert spread == pytest.approx(values.std() / np.sqrt(400), rel=0.2)
    assert spreads({"x": Measure(values)})["x"] == spread  # seeded
    assert spreads({"x": Measure(np.ones(10, bool))})["x"] == 0
