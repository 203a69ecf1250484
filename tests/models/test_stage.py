"""The schedules that all models with one stage share."""

import numpy as np
import pytest

from models.dsa import DSAStage
from models.settings import DSASettings

SMALL = {"width": 3, "hidden": 8, "conv_dim": 7, "rnn_dim": 6, "f_dim": 5, "z_dim": 2}


def test_kl_weights_are_constant_or_geometric():
    settings = DSASettings(**SMALL, epochs=101, kl_f=2.0, kl_z=1.0, kl_z_start=16.0)
    curves = DSAStage(settings).schedules()
    assert curves["f"] == pytest.approx(np.full(101, 2.0))
    assert curves["z"][:26] == pytest.approx(np.full(26, 16.0))
    assert curves["z"][70:] == pytest.approx(np.ones(31))
    assert (np.diff(curves["z"][25:71]) < 0).all()
