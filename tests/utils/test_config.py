"""utils/config.py beyond what tests/test_cli.py says to it: lists of flags and what keeps a run from going on."""

import argparse
import json
from dataclasses import asdict

import pytest

from models.vdsm.settings import VDSMSettings
from utils.plan import differences, parse
from utils.settings import as_flags, boolean, integers, number, plain_name, shown, without


@pytest.mark.parametrize("text", ["ja", "", "2", "TrueFalse", "None"])
def test_what_is_no_boolean(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected True or False"):
        boolean(text)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999"])
def test_what_is_no_finite_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="finite"):
        number(text)


@pytest.mark.parametrize("text", ["a/b", "..", "", " ", "a b", "é"])
def test_what_is_no_plain_name(text):
    with pytest.raises(argparse.ArgumentTypeError, match="plain name"):
        plain_name(text)


def test_integers():
    assert integers("3,4") == integers([3, 4]) == (3, 4)
    for text in ("", "3,", "0,1", "-1", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError):
            integers(text)


def test_without():
    flags = ["--a", "1", "--b=2", "--a=3", "--c", "--a"]
    assert without(flags, "--a") == ["--b=2", "--c"]
    assert without(flags, "--b") == ["--a", "1", "--a=3", "--c", "--a"]
    assert (
        without(["x", "--fresh", "True", "y"], "--fresh")
        == ["x", "y"]
        == without(["x", "y"], "--fresh")
    )


def test_settings_and_their_flags_say_the_same():
    settings = VDSMSettings(
        bs=3, enc_widths=(1, 2, 3, 4, 5), train_VDSMSeq=True, lr_VDSMSeq=1e-5, lr_resume=0.0008
    )
    assert parse(as_flags(settings)).stages["Seq"] == settings
    assert as_flags(VDSMSettings()) == []


def test_shown():
    assert [shown(value) for value in ((1, 2), [1, 2], None, True, 0.001)] == [
        "1,2",
        "1,2",
        "None",
        "True",
        "0.001",
    ]


def test_differences():
    def differ(stage, **changes):
        saved = json.loads(json.dumps(asdict(VDSMSettings())))
        return differences(saved, VDSMSettings(**changes), stage)

    assert differ("Seq") == []
    assert (
        differ("Seq", RUN="other", device="cpu", lr_resume=0.1, model_test_interval=9) == []
    )  # nothing learnt otherwise
    assert differ("Seq", bs=3, enc_widths=(1, 2, 3, 4, 5)) == ["bs", "enc_widths"]
    assert (
        differ("EncDec", lr_VDSMSeq=1.0, rnn_dim=3)
        == []
        != differ("Seq", lr_VDSMSeq=1.0, rnn_dim=3)
    )
    assert (
        differ("Seq", lr_VDSMEncDec=1.0, frames_per_clip=3)
        == []
        != differ("EncDec", lr_VDSMEncDec=1.0)
    )
    assert (
        differences({}, VDSMSettings(bs=3), "Seq") == []
    )  # a setting that an older version did not have
