"""Warnings of codes that carry nothing: each sign is named with flags that exist."""

import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch

from models.annealing import Annealed
from models.dsa import DSAStage
from models.settings import DSASettings
from models.stage import too_early
from models.vdsm.collapse import identity_warnings
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import EncDecStage, SeqStage

KL = {"s": 3.0, "d": 7.0, "z_1": 5.0, "z": 60.0}


def codes(spread, experts=16, clips=32):
    torch.manual_seed(0)
    return spread * torch.randn(clips, experts)


def keywords(warnings, cls=VDSMSettings):
    """The keywords, once every flag that the lines name is known to exist."""
    for line in warnings.values():
        flags = re.findall(r"--(\w+)", line)
        assert flags and set(flags) <= {field.name for field in dataclasses.fields(cls)}
    return set(warnings)


@pytest.mark.parametrize(
    "spread, experts", [(0.035, 16), (0.03, 16), (0.016, 32), (0.0125, 40), (0.1, 8)]
)
def test_good_runs_give_no_warning(spread, experts):
    assert identity_warnings(codes(spread, experts), 10.0) == {}


def test_a_spread_that_fell_to_nothing():
    assert keywords(identity_warnings(codes(0.0045), 30.0)) == {"s the same for all clips"}
    both = {"s the same for all clips", "uniform mixing weights"}
    assert keywords(identity_warnings(codes(0.001), 10.0)) == both


def test_mixing_weights_that_stay_uniform_though_s_spreads():
    assert keywords(identity_warnings(codes(0.03), 1.0)) == {"uniform mixing weights"}


def test_one_expert_that_takes_all():
    s = codes(0.03)
    s[:, 5] += 1
    warnings = identity_warnings(s, 10.0)
    assert keywords(warnings) == {"one expert"} and "expert 5 has" in warnings["one expert"]
    one_expert_per_clip = torch.eye(16).repeat(2, 1)
    assert identity_warnings(one_expert_per_clip, 10.0) == {}


def test_a_model_with_one_expert_gives_no_warning():
    assert identity_warnings(codes(0.5, 1), 10.0) == {}


@pytest.mark.parametrize("cls, terms", [(EncDecStage, "sz"), (SeqStage, "d")])
def test_a_kl_that_fell_to_nothing(cls, terms):
    stage = cls.__new__(cls)
    stage.identity = lambda batches, step: codes(0.03)
    for term in KL:
        kl = {**KL, term: 0.01}
        warnings = keywords(stage.warnings(None, kl, Annealed({}, temperature=10.0)))
        assert warnings == ({f"no KL of {term}"} if term in terms else set())
    stage.identity = lambda batches, step: codes(0.0045)
    warnings = keywords(stage.warnings(None, KL, Annealed({}, temperature=30.0)))
    assert warnings == {"s the same for all clips"}


def test_a_kl_of_a_model_with_one_stage():
    stage = DSAStage(DSASettings(width=3, hidden=8, conv_dim=7, rnn_dim=6, f_dim=5, z_dim=2))
    for kl, expected in (({"f": 0.01, "z": 9.0}, {"no KL of f"}), ({"f": 9.0, "z": 0.01}, set())):
        warnings = stage.warnings(SimpleNamespace(), kl, Annealed({}))
        assert keywords(warnings, DSASettings) == expected


def test_at_first_no_warning_is_given():
    assert too_early(199, 400) and not too_early(200, 400)
    assert too_early(2499, 10_000) and not too_early(2500, 10_000)
