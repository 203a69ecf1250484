"""models/stage.py: what the stages of the one-stage models share."""

import numpy as np
import pytest

from models.dsa import DSAStage
from models.settings import DSASettings

SMALL = {"width": 3, "hidden": 8, "conv_dim": 7, "rnn_dim": 6, "f_dim": 5, "z_dim": 2}


def test_kl_weights_stay_or_move_geometrically():
    settings = DSASettings(**SMALL, epochs=101, kl_f=2.0, kl_z=1.0, kl_z_start=16.0)
    weights = DSAStage(settings).schedules().weights
    assert weights["f"] == pytest.approx(np.full(101, 2.0))
    assert weights["z"][:26] == pytest.approx(np.full(26, 16.0))
    assert weights["z"][70:] == pytest.approx(np.ones(31))
    assert (np.diff(weights["z"][25:71]) < 0).all()
