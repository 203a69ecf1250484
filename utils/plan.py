"""From the command line to a plan: flags, presets and saved configurations. Imports no torch."""

import argparse
import dataclasses
import functools
import itertools
import shlex
from dataclasses import dataclass

from utils.errors import UserError
from utils.files import read_json
from utils.flags import (
    OR_ALONE,
    Parser,
    boolean,
    did_you_mean,
    of_each_stage,
    parser,
    shown,
    value_of,
)
from utils.modules import module
from utils.presets import preset_names, sizes_by, stage_flags, table
from utils.settings import BASICS, DATASETS, FILES, MACHINE, MODELS, RunSettings, settings_class

# flags of the whole run, beside those of the groups BASICS and MACHINE
OF_THE_RUN = (
    "preset", "config", "list_presets", "dataset_name", "data_dir", "source", "runs_dir",
    "image_path", "model_save_path", "log_dir", "code_path",
)  # fmt: skip
# flags that belong to one command, so that a saved configuration does not repeat them
ACTIONS = ("fresh", "dry_run", "convert", "to", "override_lock", "remeasure")


@dataclass
class Plan:
    """What one command asks for."""

    stages: dict[str, RunSettings]  # {stage name: settings}, in order
    preset: str | None = None
    idle: tuple[str, ...] = ()  # given flags that do nothing, each with the reason

    @property
    def training(self) -> list[str]:
        """Names of the stages that train, in order."""
        return [name for name, s in self.stages.items() if getattr(s, s.info(name).train)]

    @property
    def asked(self) -> list[str]:
        """Names of the stages that train, or of all stages if none trains."""
        return self.training or list(self.stages)

    @property
    def first(self) -> RunSettings:
        """Settings of the first stage that is asked for."""
        return self.stages[self.asked[0]]


@functools.cache
def parser_of(cls: type[RunSettings]) -> Parser:
    """The parser of the flags of the settings class `cls`, with --preset and --config."""
    names = ", ".join(preset_names())
    first: dict[str, tuple[str | None, str]] = {
        "preset": ("NAME", f"A named run. Flags after it override its flags. One of: {names}"),
        "list_presets": (None, "List the presets, with what they train and take, then stop."),
        "config": ("FILE", "Repeat the run of a saved config.json. Flags override it."),
    }
    made = parser(cls, BASICS, first)
    made.owner = functools.partial(_owner, cls)
    return made


@functools.cache
def _read(cls: type[RunSettings], flags: tuple[str, ...]) -> dict:
    """{setting: value} that the flags of a preset or a saved configuration give.

    A sweep of thousands of runs reads these once.
    """
    return vars(parser_of(cls).parse_args(flags))


@functools.cache
def _first_parser() -> Parser:
    """The parser of the flags that decide which others there are."""
    first = Parser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--model", "--dataset_name"):
        first.add_argument(name)
    first.add_argument("--list_presets", type=boolean, **OR_ALONE)
    return first


def _owner(cls, flag):
    """' (a flag of ...)' with the data sets or models that have `flag`, unlike `cls`; or ''."""
    owners = {f"--dataset_name {name}": settings_class(cls.model, name) for name in DATASETS} | {
        f"--model {name}": settings_class(name) for name in MODELS
    }
    fields = {way: other.__dataclass_fields__ for way, other in owners.items()}
    having = [way for way, names in fields.items() if flag.removeprefix("--") in names]
    return f" (a flag of {' or '.join(having)})" if having else ""


def with_sizes(plan: Plan, argv: list[str]) -> Plan:
    """The plan with the sizes that its preset chooses by the data, if it does (`sizes_by`)."""
    if plan.preset is None or not (place := sizes_by(plan.preset)):
        return plan
    within, name = place.split(":")
    return parse(argv, getattr(module(within), name)(plan.first))


def parse(argv: list[str], sizes: list[list[str]] | None = None) -> Plan:
    """The Plan that the flags `argv` (without the program's name) ask for.

    sizes: a list of flags per stage, which override those of the preset.

    --preset NAME or --config FILE gives each stage a list of flags, which `argv` overrides. Of
    these, --stage2.NAME is for stage 2 alone and overrides --NAME. Raises UserError. `--help` and
    `--list_presets` exit with code 0.
    """
    argv, own = of_each_stage(argv)
    chosen, _ = _first_parser().parse_known_args(argv)
    if chosen.list_presets:
        print(table())
        raise SystemExit(0)
    if chosen.preset and chosen.config:
        raise UserError("found both --preset and --config: give one of them")
    lists = []
    if chosen.preset or chosen.config:
        if chosen.preset and chosen.preset not in preset_names():
            raise _unknown("preset", chosen.preset, "--preset", preset_names())
        lists = stage_flags(chosen.preset) if chosen.preset else _saved(chosen.config)
        lists = [[*flags, *more] for flags, more in zip(lists, sizes or [[]] * len(lists))]
    given = [*lists[0], *argv] if lists else argv
    model = value_of(given, "--model") or RunSettings.model
    if model not in MODELS:
        raise _unknown("model", model, "--model", MODELS)
    dataset_name = value_of(given, "--dataset_name") or settings_class(model).dataset_name
    if dataset_name not in DATASETS:
        raise _unknown("data set", dataset_name, "--dataset_name", DATASETS)
    cls, stages = settings_class(model, dataset_name), {}
    lists = lists or [[] for _ in cls.STAGES]
    if len(lists) != len(cls.STAGES):
        names = f"--preset or --config names {len(lists)}"
        raise UserError(
            f"--model {model} has {len(cls.STAGES)} stages, {names}: leave one flag out"
        )
    _refuse_wrong_prefix(own, cls)
    for number, (info, flags) in enumerate(zip(cls.STAGES, lists), 1):
        given = [*argv, *own.get(number, [])]
        read = argparse.Namespace(**_read(cls, tuple(flags)))
        values = parser_of(cls).parse_args(given, read)
        settings = cls(**{f.name: getattr(values, f.name) for f in dataclasses.fields(cls)})
        settings.check()
        _stand_on_last(settings, info, lists, given, stages)
        stages[info.name] = settings
        # a preset with another seed than its own has a folder of its own
        if chosen.preset and not value_of(argv, "--RUN"):
            if settings.seed != int(value_of(flags, "--seed") or 0):
                settings.RUN += f"-s{settings.seed}"
    names = {part.split("=")[0] for part in [*argv, *itertools.chain(*own.values())]}
    idle = [(name, why) for name, why in cls.IDLE.items() if f"--{name}" in names]
    lines = tuple(f"--{name} is accepted and does nothing: {why}" for name, why in idle)
    return Plan(stages, chosen.preset, lines)


def _refuse_wrong_prefix(own, cls):
    """Raise UserError for --stageN.NAME if there is no stage N, or if NAME is of the whole run."""
    count = len(cls.STAGES)
    for number, flags in own.items():
        for name in [part[2:].split("=")[0] for part in flags if part.startswith("--")]:
            field, given = cls.__dataclass_fields__.get(name), f"--stage{number}.{name}"
            if not 1 <= number <= count:
                stages = "1 stage" if count == 1 else f"{count} stages"
                raise UserError(f"{given}: --model {cls.model} has {stages}: give --{name}")
            if name in OF_THE_RUN or (
                field and field.metadata["group"] in (BASICS, FILES, MACHINE)
            ):
                raise UserError(f"{given}: this flag is of the whole run: give --{name}")


def _stand_on_last(settings, info, lists, given, stages):
    """Let a preset's stage stand on the last epoch of the stage before, if --epochs changed that.

    The presets readme-* name this epoch, as the release does. lists: the flags of each stage in the
    preset. given: those of the command, which count as they are.
    """
    if info.stands_on is None:
        return
    below, first = settings.info(info.stands_on), stages[info.stands_on]
    planned = value_of(lists[settings.number(below.name) - 1], "--epochs")
    named, flag = getattr(settings, below.pretrained), f"--{below.pretrained}"
    if getattr(first, below.train) and planned and named == int(planned) - 1:
        if value_of(given, flag) is None:
            setattr(settings, below.pretrained, first.epochs - 1)


def _unknown(what, name, flag, known):
    meant = did_you_mean(name, known)
    return UserError(f"unknown {what} '{name}'{meant}: {flag} is one of {', '.join(known)}")


def opening_lines(plan: Plan) -> list[str]:
    """Lines to print before anything runs: flags that do nothing, and the commands of a preset."""
    lines = list(plan.idle)
    if any(plan.stages[name].trains_on_test for name in plan.training):
        chosen = f"--fidelity {plan.first.fidelity}: {plan.first.dataset_name}"
        batch = "--num_test_ids per batch; its figures are not held out"
        lines.append(f"{chosen} trains on its test clips, {batch}")
    if plan.preset is not None and not plan.first.quiet:
        for i, settings in enumerate(plan.stages.values(), 1):
            command = shlex.join(["python", "main.py", *settings.as_flags()])
            lines.append(f"preset {plan.preset}, stage {i}: {command}")
    return lines


def of_today(values: dict, stage_name: str | None) -> dict:
    """Saved settings {flag: value} under the flags of today (see `RunSettings.RENAMED`).

    What today's flags cannot express stays under its old name. values without 'model', as in a
    checkpoint of the release, are those of the default model.
    """
    cls = settings_class(values.get("model", RunSettings.model), values.get("dataset_name"))
    known, values = {field.name for field in dataclasses.fields(cls)}, dict(values)
    for row in cls.RENAMED:
        here = row.stage in (None, stage_name) and not known & row.old.keys()
        if not here or not row.old.keys() <= values.keys():
            continue
        if not row.old and row.new.keys() & values.keys():
            continue
        expected = {n: v(values) if callable(v) else v for n, v in row.old.items()}
        if all(value in (..., values[name]) for name, value in expected.items()):
            new = {n: v(values) if callable(v) else v for n, v in row.new.items()}
            first, *_ = [*(values.pop(name) for name in row.old), None]
            values |= {name: first if value is ... else value for name, value in new.items()}
    return values


def _saved(path):
    """The lists of flags of a saved configuration, one per stage.

    A stage that the file lacks takes the settings of another stage, as if one command gave both.
    """
    try:
        saved = read_json(path)
        any_stage = next(iter(saved.values()))
        cls, lists = settings_class(any_stage["model"], any_stage.get("dataset_name")), []
        names = [info.name for info in cls.STAGES]
        for name in names:
            source = name if name in saved else next(n for n in names if n in saved)
            values = of_today(saved[source], source)
            unknown = sorted(values.keys() - cls.__dataclass_fields__.keys())
            if unknown:
                setting = f"setting '{unknown[0]}' ({shown(values[unknown[0]])})"
                raise UserError(
                    f"--config {path}: {setting} is of another version and has no equal in this "
                    "one: remove it"
                )
            given = {n: v for n, v in values.items() if v is not None and n not in ACTIONS}
            lists.append([f"--{n}={shown(value)}" for n, value in given.items()])
        return lists
    except OSError as error:
        why = error.strerror
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        why = "not a saved configuration"
    raise UserError(f"--config {path}: {why}: give the config.json of a run")


def differences(saved: dict, settings: RunSettings, stage_name: str) -> list[str]:
    """Names of the settings because of which a run saved with `saved` cannot be resumed."""
    flags = {field.name: field.metadata for field in dataclasses.fields(settings)}
    may_differ = set(settings.without_effect)
    may_differ |= {n for n, meta in flags.items() if meta["free"]}
    may_differ |= {n for n, meta in flags.items() if meta["stage"] not in (None, stage_name)}
    before = saved.get("schedule_epochs") or saved.get("epochs", settings.span)
    if before == settings.span and saved.get("epochs", 0) <= settings.epochs:
        may_differ.add("epochs")  # a run may be extended where its schedules stay
    fixed = [name for name in flags if name in saved and name not in may_differ]
    changed = [name for name in fixed if shown(saved[name]) != shown(getattr(settings, name))]
    if before != settings.span and "epochs" not in changed:
        changed.append("schedule_epochs")
    return changed + sorted(set(saved) - set(flags))
