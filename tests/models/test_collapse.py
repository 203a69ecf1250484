"""models/vdsm/collapse.py: each sign of collapse names a flag that exists; good runs give none."""

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


def keywords(lines):
    """The keywords of the warnings, whose every flag must exist."""
    for line in lines.values():
        flags = re.findall(r"--(\w+)", line)
        assert flags and set(flags) <= {field.name for field in dataclasses.fields(VDSMSettings)}
    return set(lines)


@pytest.mark.parametrize("stage", ["EncDec", "Seq"])
@pytest.mark.parametrize(
    "spread, experts", [(0.035, 16), (0.03, 16), (0.016, 32), (0.0125, 40), (0.1, 8)]
)
def test_good_runs_give_no_warning(stage, spread, experts):
    assert collapsed(stage, codes(spread, experts), 10.0, KL) == {}


def test_no_spread_of_s():
    assert keywords(collapsed("EncDec", codes(0.0045), 30.0, KL)) == {"s the same for all clips"}
    assert keywords(collapsed("EncDec", codes(0.001), 10.0, KL)) == {
        "s the same for all clips",
        "uniform mixing weights",
    }


def test_uniform_mixing_weights_although_s_spreads():
    assert keywords(collapsed("EncDec", codes(0.03), 1.0, KL)) == {"uniform mixing weights"}


def test_one_expert_for_all_clips():
    s = codes(0.03)
    s[:, 5] += 1
    lines = collapsed("Seq", s, 10.0, KL)
    assert keywords(lines) == {"one expert"} and "expert 5 has" in lines["one expert"]
    one_expert_per_clip = torch.eye(16).repeat(2, 1)
    assert collapsed("EncDec", one_expert_per_clip, 10.0, KL) == {}


@pytest.mark.parametrize("stage, terms", [("EncDec", "sz"), ("Seq", "d")])
def test_a_kl_of_zero(stage, terms):
    for term in KL:
        lines = keywords(collapsed(stage, codes(0.03), 10.0, {**KL, term: 0.01}))
        assert lines == ({f"no KL of {term}"} if term in terms else set())


def test_a_model_with_one_expert_gives_no_warning():
    assert collapsed("EncDec", codes(0.5, 1), 10.0, KL) == {}


def test_no_warning_early_in_training():
    assert may_sleep(199, 400) and not may_sleep(200, 400)
    assert may_sleep(2499, 10_000) and not may_sleep(2500, 10_000)
