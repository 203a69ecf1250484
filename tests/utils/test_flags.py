"""utils/flags.py: what the kinds accept, lists of flags, and help texts under the fields."""

import argparse
from dataclasses import dataclass

import pytest

from utils.flags import (
    as_flags,
    boolean,
    flag,
    help_texts,
    integers,
    number,
    parser,
    plain_name,
    shown,
    without,
)


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
    assert integers("3,4") == (3, 4)
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


def test_shown():
    assert [shown(value) for value in ((1, 2), [1, 2], None, True, 0.001)] == [
        "1,2",
        "1,2",
        "None",
        "True",
        "0.001",
    ]


@dataclass
class Base:
    """Settings of a test."""

    size: int = flag(3, "sizes", low=1)
    "How large."
    name: str = flag("a", "names")
    """A text of
    two lines, 100 % of it."""


@dataclass
class Derived(Base):
    """More settings."""

    wide: bool = flag(False, "sizes")
    "Whether it is wide."


def test_the_docstring_under_a_field_is_its_help():
    assert help_texts(Derived) == {
        "size": "How large.",
        "name": "A text of two lines, 100 % of it.",
        "wide": "Whether it is wide.",
    }
    text = parser(Derived, "first", {"more": ("FILE", "A flag that is no setting.")}).format_help()
    for part in ("first:", "sizes:", "names:", "100 % of it. [a]", "--wide", "no setting."):
        assert part in text


def test_flags_of_settings_are_those_away_from_the_defaults():
    assert as_flags(Derived()) == []
    assert as_flags(Derived(size=4, wide=True)) == ["--size", "4", "--wide", "True"]
    assert as_flags(Derived(name="b"), name="b") == []
    assert as_flags(Derived(), name="b") == ["--name", "a"]
