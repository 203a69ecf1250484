"""models/vdsm/collapse.py: each way of dying is named with a flag that exists; what lives is left alone."""

import dataclasses
import re

import pytest
import torch

from models.vdsm.collapse import collapsed, may_sleep
from models.vdsm.settings import VDSMSettings

KL = {"s": 3.0, "d": 7.0, "z_1": 5.0, "z": 60.0}


def codes(spread, experts=16, clips=32):
    torch.manual_seed(0)
    return spread * torch.randn(clips, experts)


def words(found):
    for line in found.values():
        (name,) = {re.search(r"--(\w+)", line)[1]}
        assert name in {field.name for field in dataclasses.fields(VDSMSettings)}
    return set(found)


@pytest.mark.parametrize("stage", ["EncDec", "Seq"])
@pytest.mark.parametrize(
    "spread, experts", [(0.035, 16), (0.03, 16), (0.016, 32), (0.0125, 40), (0.1, 8)]
)
def test_good_runs_are_left_alone(stage, spread, experts):
    assert collapsed(stage, codes(spread, experts), 10.0, KL) == {}


def test_a_spread_that_fell_to_nothing():
    assert words(collapsed("EncDec", codes(0.0045), 30.0, KL)) == {"s the same for all clips"}
    assert words(collapsed("EncDec", codes(0.001), 10.0, KL)) == {
        "s the same for all clips",
        "uniform mixing weights",
    }


def test_mixing_weights_that_stay_uniform_though_s_spreads():
    assert words(collapsed("EncDec", codes(0.03), 1.0, KL)) == {"uniform mixing weights"}


def test_one_expert_that_takes_all():
    s = codes(0.03)
    s[:, 5] += 1
    found = collapsed("Seq", s, 10.0, KL)
    assert words(found) == {"one expert"} and "expert 5 has" in found["one expert"]
    each = torch.eye(16).repeat(2, 1)  # every clip an expert of its own is no collapse
    assert collapsed("EncDec", each, 10.0, KL) == {}


@pytest.mark.parametrize("stage, terms", [("EncDec", "sz"), ("Seq", "d")])
def test_a_kl_that_fell_to_nothing(stage, terms):
    for term in KL:
        found = words(collapsed(stage, codes(0.03), 10.0, {**KL, term: 0.01}))
        assert found == ({f"no KL of {term}"} if term in terms else set())


def test_one_expert_alone_is_no_collapse():
    assert words(collapsed("EncDec", codes(0.5, 1), 10.0, KL)) == set()


def test_a_code_may_sleep_at_first():
    assert may_sleep(199, 400) and not may_sleep(200, 400)
    assert may_sleep(2499, 10_000) and not may_sleep(2500, 10_000)
