"""data.load_stages: stages with equal flags for the data share one Dataset."""

import numpy as np
import pytest

import data
from data import pendulum
from tests.tiny import FEW, TINY
from utils.errors import UserError
from utils.plan import parse


@pytest.fixture
def made(monkeypatch):
    """What pendulum.make was asked for: (frames, seed) of each call."""
    calls, make = [], pendulum.make

    def few(frames, seed):
        calls.append((frames, seed))
        return make(frames, seed, FEW)

    monkeypatch.setattr(pendulum, "make", few)
    return calls


def stages(*flags):
    return parse([*TINY, *map(str, flags)]).stages


def test_equal_flags_share_one_data_set(made):
    given = stages()
    first, second = data.load_stages(given).values()
    assert first is second and made == [(16, 0)]


@pytest.mark.parametrize("flag, value", [("seq_len", 20), ("data_seed", 1), ("num_clips", 9)])
def test_a_flag_that_differs_gives_a_data_set_of_its_own(made, flag, value):
    given = stages()
    setattr(given["Seq"], flag, value)
    first, second = data.load_stages(given).values()
    assert first is not second and first.fingerprint != second.fingerprint
    assert len(made) == 2


def test_a_flag_that_the_data_set_does_not_read_may_differ(made):
    given = stages()
    given["Seq"].bs, given["Seq"].video_step = 7, 2
    first, second = data.load_stages(given).values()
    assert first is second


def test_every_stage_is_checked_for_its_length(monkeypatch):
    short = pendulum.make(8, 0, FEW)
    monkeypatch.setattr(pendulum, "load", lambda config: short)
    assert np.all(short.lengths == 8)
    given = stages("--seq_len", 8)
    given["Seq"].seq_len = 9
    with pytest.raises(UserError, match="--seq_len 8 or less"):
        data.load_stages(given)
