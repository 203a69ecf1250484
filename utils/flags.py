"""Flags as fields of a settings dataclass, each declared by `flag`.

The docstring under a field is the help text. Nothing here imports torch or NumPy, so that `--help`
answers at once.
"""

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from utils.errors import UserError

LARGEST = 10**6  # of the numbers whose flag declares no other bound


def flag(
    default,
    group,
    *,
    kind=None,
    choices=None,
    low=None,
    high=None,
    free=False,
    stage=None,
    count=None,
):
    """A settings field with its default, in the group `group` of `--help`.

    kind: function that reads the text of the flag, by default the default's type. low, high:
    inclusive bounds; those of a number are 0 and LARGEST unless declared. free: the flag may differ
    when a run is resumed, because it does not change what is learnt. stage: name of the only stage
    that reads it; it may differ for another stage. count: of its values, if it has several.
    """
    kind = kind or (boolean if isinstance(default, bool) else type(default))
    if kind in (int, float, number):
        low, high = 0 if low is None else low, LARGEST if high is None else high
    meta = {"group": group, "kind": kind, "choices": choices, "low": low, "high": high}
    return dataclasses.field(
        default=default, metadata={**meta, "free": free, "stage": stage, "count": count}
    )


def redefault(cls, name, value):
    """The field `name` of the settings class `cls` with another default, for a derived class."""
    return dataclasses.field(default=value, metadata=cls.__dataclass_fields__[name].metadata)


@functools.cache
def help_texts(cls: type) -> dict[str, str]:
    """{field: help text} of `cls`: the docstrings under its fields and those of its bases."""
    texts = {}
    for base in reversed(cls.__mro__[:-1]):
        definition = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        for field, text in itertools.pairwise(getattr(definition, "body", [])):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                name, value = ast.unparse(field.target), ast.literal_eval(text.value)
                texts[name] = " ".join(value.split())
    return texts


def wrong_value(text: str, expected: str) -> argparse.ArgumentTypeError:
    """The error of a flag whose value is `text`."""
    return argparse.ArgumentTypeError(f"found '{text}', expected {expected}")


def boolean(text) -> bool:
    """True, 1 or yes; False, 0 or no; in upper or lower case."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise wrong_value(text, "True or False")


def number(text) -> float:
    """A finite float. NaN and infinity are refused: training would run and learn nothing."""
    try:
        value = float(text)
    except ValueError:
        raise wrong_value(text, "a number") from None
    if not math.isfinite(value):
        raise wrong_value(text, "a finite number")
    return value


def integers(text) -> tuple[int, ...]:
    """Positive integers joined by commas."""
    return _positive(text, int, "positive integers joined by commas")


def numbers(text) -> tuple[float, ...]:
    """Positive finite numbers joined by commas, none of them twice."""
    expected = "different positive numbers joined by commas"
    values = _positive(text, number, expected)
    if len(set(values)) < len(values):
        raise wrong_value(text, expected)
    return values


def _positive(text, kind, expected):
    try:
        values = tuple(kind(part) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise wrong_value(text, expected) from None
    if not 0 < min(values) <= max(values) <= LARGEST:
        raise wrong_value(text, f"{expected}, at most {LARGEST}")
    return values


def plain_name(text) -> str:
    """The name of a folder: letters, digits, '.', '_' and '-'."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text) or set(text) == {"."}:
        raise wrong_value(text, "a plain name of letters, digits, '.', '_' and '-'")
    return text


STAGE = re.compile(r"--stage([0-9]+)\.(?=.)")  # what a flag of one stage begins with
# argparse's options of a boolean flag, which means True if no value follows it
OR_ALONE: dict[str, Any] = {"nargs": "?", "const": True}


def shown(value: Any) -> str:
    """The value of a setting as one writes it on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def as_flags(settings, **defaults) -> list[str]:
    """The list of flags that gives `settings`; flags at their defaults are left out.

    defaults: defaults that count in place of those of the settings class.
    """
    flags = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None and value != defaults.get(field.name, field.default):
            several = field.metadata["count"]
            flags += [f"--{field.name}", *(value if several else [shown(value)])]
    return flags


def value_of(flags, name) -> str | None:
    """The last value of the flag `name` in a list of flags ('--name value' or '--name=value')."""
    value = None
    for i, part in enumerate(flags):
        if part == name:
            value = flags[i + 1]
        elif part.startswith(f"{name}="):
            value = part.split("=", 1)[1]
    return value


def without(flags, name) -> list[str]:
    """The list of flags without the flag `name` and its value, if it has one, in every form."""
    kept, awaits_value = [], False
    for part in flags:
        is_name = STAGE.sub("--", part).split("=")[0] == name
        is_value = awaits_value and not part.startswith("--")
        awaits_value = is_name and "=" not in part
        if not is_name and not is_value:
            kept.append(part)
    return kept


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser, which reports a wrong flag in one line on stderr and exits with code 2."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (--help lists the flags)\n")


def of_each_stage(flags: Iterable[str]) -> tuple[list[str], dict[int, list[str]]]:
    """The flags of all stages, and {stage number: its flags}, which are written --stage2.NAME."""
    common, own = [], {}
    chosen = common
    for part in flags:
        match = STAGE.match(part)
        if part.startswith("--"):
            chosen = own.setdefault(int(match[1]), []) if match else common
        chosen.append(STAGE.sub("--", part))
    return common, own


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)' with the names of `known` that resemble `text`; '' without any."""
    names, dashes = {name.lower().lstrip("-"): name for name in known}, text.startswith("--")
    text = text.lower().lstrip("-")
    close = [text] if text in names else difflib.get_close_matches(text, names, cutoff=0.7)
    close = close or [name for name in names if len(text) > 1 and name.startswith(text)][:3]
    # `--lr` is like other flags, and a stray word like none
    close = [names[name] for name in close if names[name].startswith("--") == dashes]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


class Parser(argparse.ArgumentParser):
    """argparse's parser. A wrong flag is a UserError that names the flags which it resembles.

    owner: a function of an unknown flag that gives ' (what has this flag)', or ''.
    """

    owner: Callable[[str], str] = staticmethod(lambda flag: "")

    def parse_args(self, args=None, namespace=None):
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].split("=")[0]
            meant = self.owner(name) + did_you_mean(name, self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return values

    def error(self, message):
        raise UserError(f"{message} (python main.py --help lists the flags)")


class _Help(argparse.HelpFormatter):
    def _get_help_string(self, action):
        if action.dest in ("help", "preset", "list_presets", "config"):
            return action.help
        return f"{action.help} [{action.default}]"


def parser(cls: Any, first_group: str, first_flags: dict[str, tuple[str | None, str]]) -> Parser:
    """The parser of the settings dataclass `cls`, with one group of `--help` per flag group.

    first_flags: {flag: (metavar, help text)} of flags that are no settings, shown in `first_group`;
    without a metavar, the flag is a boolean.
    """
    parser = Parser(
        prog="main.py",
        usage="python main.py [--preset NAME | --config FILE] [--FLAG VALUE ...]",
        description="Learns identity, dynamics and pose from unlabelled videos.",
        epilog="A boolean alone, such as --quiet, means True. docs/FLAGS.md lists every flag.",
        formatter_class=lambda prog: _Help(prog, max_help_position=30, width=100),
        allow_abbrev=False,
    )
    groups = {first_group: parser.add_argument_group(first_group)}
    for name, (metavar, text) in first_flags.items():
        options: dict = {"metavar": metavar} if metavar else {"type": boolean, **OR_ALONE}
        groups[first_group].add_argument(f"--{name}", help=text, **options)
    for field in dataclasses.fields(cls):
        meta, group = field.metadata, field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        groups[group].add_argument(
            f"--{field.name}",
            type=functools.partial(_read, meta),
            choices=meta["choices"],
            default=shown(field.default) if isinstance(field.default, tuple) else field.default,
            help=help_texts(cls)[field.name].replace("%", "%%"),
            metavar=None if meta["choices"] else "VALUE",
            **(OR_ALONE if meta["kind"] is boolean else {"nargs": meta["count"]}),
        )
    return parser


def _read(meta, text):
    """The value of a flag with the field metadata `meta`; refused if it is out of bounds."""
    kind = meta["kind"]
    try:
        value = kind(text)
    except ValueError:
        raise wrong_value(text, "an integer" if kind is int else kind.__name__) from None
    low, high = meta["low"], meta["high"]
    if low is not None and not low <= value <= high:
        raise wrong_value(text, f"a number of at least {low} and at most {high}")
    return value
