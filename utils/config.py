"""Every flag, written once: a field of a settings dataclass is the flag, its default, its help and its check.

A model brings its own dataclass derived from `RunSettings` (`MODELS` names it), so that argparse's groups, `--help`, the saved
JSON and the README's check come from one place. Nothing here imports torch: `--help` and a wrong flag answer at once.
"""

import argparse
import dataclasses
import importlib
import json
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from utils.errors import UserError

MODELS = {  # its settings' class; a new model is a line here
    "vdsm": ("models.vdsm.settings", "VDSMSettings"),
    "dsa": ("models.settings", "DSASettings"),
    "unordered": ("models.settings", "UnorderedSettings"),
}
PRESETS = Path(__file__).resolve().parent.parent / "presets"
IDLE = {  # flags of the release that do nothing, and why
    "T_0_frac": "the release never built the warm restarts that it is for",
    "T_mult": "the release never built the warm restarts that it is for",
}
ACTIONS = (
    "fresh",
    "dry_run",
    "convert",
    "to",
    "override_lock",
)  # asked of one command: a saved configuration does not repeat them


def flag(
    default, text, group, *, kind=None, choices=None, low=None, high=None, free=False, stage=None
):
    """A settings field. kind: its parser (default: the default's type); low, high: inclusive bounds of a number;
    free: may differ when a run is resumed (it changes what is shown or where, not what is learnt); stage: the only stage
    that it concerns, so that it may differ when another is resumed."""
    kind = kind or (boolean if isinstance(default, bool) else type(default))
    meta = {
        "help": text,
        "group": group,
        "kind": kind,
        "choices": choices,
        "low": low,
        "high": high,
    }
    return dataclasses.field(default=default, metadata={**meta, "free": free, "stage": stage})


def default(name, value, of=None):
    """The settings field `name` of the class `of` (RunSettings) with another default: a model's own."""
    field = (of or RunSettings).__dataclass_fields__[name]
    return dataclasses.field(default=value, metadata=field.metadata)


class StageInfo(NamedTuple):
    """One stage of a model's training, as flags and files know it. A settings class lists its own, in order, as STAGES."""

    name: str  # in config.json and metrics.json
    made_by: str  # module:class of the stage (see models.stage.Stage), imported when it is needed
    suffix: str  # of its checkpoints, {epoch}_{suffix}.pth
    sizes: tuple  # the flags that its network is made of
    train: str = "train"  # the flag that trains it,
    pretrained: str = "pretrained_model"  # that names its checkpoint,
    rate: str = "lr"  # and its learning rate
    joins: bool = False  # whether a sample is as many clips of an identity as the data set joins
    stands_on: str | None = None  # the stage whose trained network it is built over
    # Whether it models single frames and no motion; its pictures and figures are those of stage 1.
    frames_only: bool = False

    def stage(self):
        """The stage's class."""
        module, name = self.made_by.split(":")
        return getattr(importlib.import_module(module), name)


def boolean(text):
    """True, true, 1, yes / False, false, 0, no. Anything else is refused, not read as False."""
    lowered = str(text).lower()
    if lowered in ("true", "1", "yes"):
        return True
    if lowered in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"found '{text}', expected True or False")


def number(text):
    """A finite float: NaN or infinity would train without an error and learn nothing."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"found '{text}', expected a finite number")
    return value


def integers(text):
    """Positive integers joined by commas, as a tuple."""
    if isinstance(text, (list, tuple)):
        return tuple(text)
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(
            f"found '{text}', expected positive integers joined by commas"
        )
    return values


PROTOCOLS = ("consistency", "swap", "dci", "fid")


def protocols(text):
    """Names of PROTOCOLS joined by commas, in any order, or 'none' or 'default' (True and False are these): the same, in order."""
    text = {"true": "default", "false": "none"}.get(text.lower(), text)
    names = text.split(",")
    if text not in ("none", "default") and not set(names) <= set(PROTOCOLS):
        raise argparse.ArgumentTypeError(
            f"found '{text}', expected none, default or some of {','.join(PROTOCOLS)} joined by commas"
        )
    return (
        text
        if text in ("none", "default")
        else ",".join(name for name in PROTOCOLS if name in names)
    )


def numbers(text):
    """Positive finite numbers joined by commas, none twice, as a tuple."""
    if isinstance(text, (list, tuple)):
        return tuple(text)
    try:
        values = tuple(number(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        values = ()
    if not values or min(values) <= 0 or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(
            f"found '{text}', expected different positive numbers joined by commas"
        )
    return values


def plain_name(text):
    """A folder's name: letters, digits, '.', '_', '-'."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text) or set(text) == {"."}:
        raise argparse.ArgumentTypeError(
            f"found '{text}', expected a plain name of letters, digits, '.', '_' and '-'"
        )
    return text


BASICS, DATA, SCHEDULE, OUTPUT, MACHINE = "run", "data", "optimisation", "output", "machine"


@dataclass
class RunSettings:
    """What every model's run is told. Flags and defaults of the release are marked 'release' in the README's table."""

    RUN: str = flag(
        "001",
        "name of the run; everything it writes lies under runs/RUN",
        BASICS,
        kind=plain_name,
        free=True,
    )
    model: str = flag("vdsm", f"which model: {', '.join(MODELS)}", BASICS)
    seed: int = flag(0, "seed of weights, batches and noise", BASICS, low=0, high=2**31 - 1)
    fresh: bool = flag(
        False, "start over, keeping what the run's folder holds under a new name", BASICS, free=True
    )
    override_lock: bool = flag(
        False, "train although another run holds the folder's lock", BASICS, free=True
    )
    dry_run: bool = flag(
        False, "print parameters, memory, disk and steps, then stop", BASICS, free=True
    )
    convert: str = flag(
        None,
        "rewrite this checkpoint, in a folder beside it, in the form that --to names",
        BASICS,
        kind=str,
        free=True,
    )
    to: str = flag(
        None, "form of --convert's copy", BASICS, kind=str, choices=("ours", "release"), free=True
    )
    fidelity: str = flag(
        "paper",
        "which side to take where the release departs from the paper",
        BASICS,
        choices=("paper", "release"),
    )
    test_harness: bool = flag(
        False,
        "the same as --evaluate default; the release reads it and never built it",
        BASICS,
        free=True,
    )

    dataset_name: str = flag(
        "MUG-FED",
        "data set: MUG-FED, moving-mnist, pendulum, sprites, sprites-li or video-folder",
        DATA,
    )
    data_dir: str = flag("./data/", "folder that holds the data sets", DATA, free=True)
    source: str = flag(
        None,
        "what a data set that data_dir lacks is made from: a clone of its art, a folder of its files, of your videos",
        DATA,
        kind=str,
        free=True,
    )
    data_seed: int = flag(
        0, "seed of a generated data set and of its split", DATA, low=0, high=2**31 - 1
    )
    num_clips: int = flag(
        0,
        "clips to use, drawn from each split in its share; 0 takes all",
        DATA,
        low=0,
        high=2**31 - 1,
    )
    pendulum_lengths: tuple = flag(
        None,
        "pendulum: lengths of the rods in m, joined by commas, as a factor; default: all 1",
        DATA,
        kind=numbers,
    )
    pendulum_dampings: tuple = flag(
        None,
        "pendulum: dampings in 1/s, joined by commas, as a factor; default: all 0.05",
        DATA,
        kind=numbers,
    )
    video_step: int = flag(1, "video-folder: take every n-th frame of a file", DATA, low=1)
    split_by: str = flag(
        "clip",
        "MUG-FED, video-folder: what is held out, clips or whole identities",
        DATA,
        choices=("clip", "identity"),
    )
    bs: int = flag(30, "sequences a batch", DATA, low=1)
    seq_len: int = flag(20, "frames a sequence", DATA, low=2)
    num_test_ids: int = flag(1, "sequences in the test pictures", DATA, low=1, free=True)

    epochs: int = flag(200, "epochs", SCHEDULE, low=1)
    bs_per_epoch: int = flag(2, "batches an epoch, each drawn afresh", SCHEDULE, low=1)
    lr_resume: float = flag(
        None,
        "learning rate that replaces the stage's own when a run is resumed",
        SCHEDULE,
        kind=number,
        low=0,
        free=True,
    )
    lr_warmup: int = flag(
        0, "steps over which the learning rate rises from 0; 0 is off", SCHEDULE, low=0
    )
    lr_final: float = flag(
        1.0,
        "share of the learning rate that a cosine decay leaves at the end; 1 is off",
        SCHEDULE,
        kind=number,
        low=0,
        high=1,
    )
    clip_grad: float = flag(
        0.0, "largest norm of the gradient; 0 is off", SCHEDULE, kind=number, low=0
    )
    nan_retries: int = flag(
        3,
        "times that a loss which is not finite sends a stage back to its last checkpoint; 0 stops at once (release)",
        SCHEDULE,
        low=0,
        free=True,
    )
    nan_lr_factor: float = flag(
        0.5,
        "what the learning rate is multiplied by each such time",
        SCHEDULE,
        kind=number,
        low=0.01,
        high=1,
        free=True,
    )
    T_0_frac: int = flag(
        6, "accepted and idle: the release never built these warm restarts", SCHEDULE, free=True
    )
    T_mult: int = flag(1, "accepted and idle, as T_0_frac", SCHEDULE, free=True)

    model_test_interval: int = flag(
        1, "epochs between test pictures and held-out losses", OUTPUT, low=1, free=True
    )
    model_save_interval: int = flag(2, "epochs between checkpoints", OUTPUT, low=1, free=True)
    save_every_steps: int = flag(
        0,
        "steps between checkpoints in the middle of an epoch, each replacing the last; 0 is off",
        OUTPUT,
        low=0,
        free=True,
    )
    keep_checkpoints: int = flag(
        0,
        "checkpoints of a stage to keep, the newest and the best; 0 keeps all",
        OUTPUT,
        low=0,
        free=True,
    )
    tboard_log: bool = flag(True, "write TensorBoard scalars and pictures", OUTPUT, free=True)
    evaluate: str = flag(
        "none",
        f"after training or testing, measure into metrics.json: some of {','.join(PROTOCOLS)}, or default: what applies to "
        "the data set and needs no download",
        OUTPUT,
        kind=protocols,
        free=True,
    )
    fid_weights: str = flag(
        None,
        "file of the network for fid: 3D ResNeXt-101 (Kinetics) or R3D-18; unset: torchvision's R3D-18, downloaded",
        OUTPUT,
        kind=str,
        free=True,
    )
    split: str = flag(
        "test",
        "clips that --evaluate measures on (val to choose settings, test to report) or --export_codes writes",
        OUTPUT,
        choices=("test", "val", "train", "all"),
        free=True,
    )
    export_codes: bool = flag(
        False,
        "after training stage 2 or testing, write codes and pictures to runs/RUN/codes",
        OUTPUT,
        free=True,
    )
    report: bool = flag(False, "write runs/RUN/report.html: the run on one page", OUTPUT, free=True)
    runs_dir: str = flag("./runs/", "folder of the runs", OUTPUT, free=True)
    image_path: str = flag(
        None,
        "folder of pictures instead of runs/RUN/images (release: ./images/)",
        OUTPUT,
        kind=str,
        free=True,
    )
    model_save_path: str = flag(
        None,
        "folder of checkpoints instead of runs/RUN/checkpoints (release: ./models)",
        OUTPUT,
        kind=str,
        free=True,
    )
    log_dir: str = flag(
        None,
        "folder of TensorBoard logs instead of runs/RUN/tensorboard (release: ./tensorboard_runs/)",
        OUTPUT,
        kind=str,
        free=True,
    )
    code_path: str = flag(
        None,
        "folder of exported codes instead of runs/RUN/codes (release: ./codes/)",
        OUTPUT,
        kind=str,
        free=True,
    )
    quiet: bool = flag(False, "no progress; warnings and errors remain", OUTPUT, free=True)

    device: str = flag(
        "auto",
        "where to compute: a CUDA GPU if there is one",
        MACHINE,
        choices=("auto", "cpu", "cuda"),
        free=True,
    )
    threads: int = flag(0, "CPU threads; 0 leaves torch's choice", MACHINE, low=0, free=True)

    STAGES: ClassVar[tuple] = ()

    def __post_init__(self):
        if (
            self.trains_on_test
        ):  # the loader that the release hands to MUG-FED's training is that of the test pictures
            self.bs = self.num_test_ids

    @property
    def trains_on_test(self):
        """Whether training takes the test clips: the release's way with MUG-FED."""
        return (
            self.model == "vdsm" and self.fidelity == "release" and self.dataset_name == "MUG-FED"
        )

    @classmethod
    def info(cls, stage):
        """The StageInfo of a stage, by name."""
        return next(info for info in cls.STAGES if info.name == stage)

    @classmethod
    def number(cls, stage):
        """Which stage it is, from 1."""
        return cls.STAGES.index(cls.info(stage)) + 1

    def joined(self, stage, dataset):
        """How many clips of one identity stage `stage` joins into a sample of `dataset` (a data.base.Dataset)."""
        return dataset.clips_per_sample if self.info(stage).joins else 1

    @property
    def measured(self):
        """What to measure: () for nothing, ('default',), or some of PROTOCOLS."""
        asked = "default" if self.test_harness and self.evaluate == "none" else self.evaluate
        return () if asked == "none" else tuple(asked.split(","))

    def check(self):
        """Raise UserError where two flags contradict each other."""
        if self.measured and self.split not in ("test", "val"):
            raise UserError(
                f"--split {self.split} is for --export_codes alone: --evaluate measures on test or val; "
                "give one of them, or --evaluate none"
            )
        if self.fid_weights and not Path(self.fid_weights).is_file():
            raise UserError(
                f"--fid_weights {self.fid_weights}: found no such file: give a file of weights, or leave it out"
            )
        if (self.convert is None) != (self.to is None):
            raise UserError("--convert PATH and --to ours (or release) go together: give both")


def settings_class(model):
    """The settings dataclass of `model`, by name."""
    module, name = MODELS[model]
    return getattr(importlib.import_module(module), name)


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message} (python main.py --help lists the flags)")


class _Help(argparse.HelpFormatter):
    def _get_help_string(self, action):
        if (
            action.default is argparse.SUPPRESS
            or not action.option_strings
            or action.dest in ("help", "preset", "config")
        ):
            return action.help
        return f"{action.help} [{action.default}]"

    def _get_default_metavar_for_optional(self, action):
        return "VALUE"


def parser(cls):
    """argparse's parser of the settings dataclass `cls`, one group a `group`, plus --preset and --config."""
    made = _Parser(
        prog="main.py",
        usage="python main.py [--preset NAME | --config FILE] [--FLAG VALUE ...]",
        description="VDSM: who it is, what it does, how it looks now, learnt from unlabelled videos.",
        epilog="Booleans are written True or False. README.md explains the flags by use.",
        formatter_class=lambda prog: _Help(prog, max_help_position=30, width=120),
        allow_abbrev=False,
        argument_default=None,
    )
    groups = {BASICS: made.add_argument_group(BASICS)}
    presets = ", ".join(preset_names())
    groups[BASICS].add_argument(
        "--preset", metavar="NAME", help=f"a named run; flags after it override: {presets}"
    )
    groups[BASICS].add_argument(
        "--config", metavar="FILE", help="repeat the run of a saved config.json; flags override"
    )
    for field in dataclasses.fields(cls):
        meta = field.metadata
        if meta["group"] not in groups:
            groups[meta["group"]] = made.add_argument_group(meta["group"])
        default = shown(field.default) if isinstance(field.default, tuple) else field.default
        text = meta["help"].replace("%", "%%")
        groups[meta["group"]].add_argument(
            f"--{field.name}", type=_bounded(meta), choices=meta["choices"], default=default, help=text,
            metavar=None if meta["choices"] else "VALUE",
        )  # fmt: skip
    return made


def _bounded(meta):
    def parse(text):
        kind = meta["kind"]
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"found '{text}', expected {'an integer' if kind is int else kind.__name__}"
            ) from None
        if meta["low"] is not None and value < meta["low"]:
            raise argparse.ArgumentTypeError(f"found {text}, expected at least {meta['low']}")
        if meta["high"] is not None and value > meta["high"]:
            raise argparse.ArgumentTypeError(f"found {text}, expected at most {meta['high']}")
        return value

    return parse


@dataclass
class Plan:
    """What one command asks for: the settings of each stage of one model, in order, and which stages train."""

    stages: dict
    preset: str | None = None
    idle: tuple = ()  # flags given that do nothing

    @property
    def training(self):
        """Names of the stages that train, in order."""
        return [
            stage
            for stage, settings in self.stages.items()
            if getattr(settings, settings.info(stage).train)
        ]

    @property
    def asked(self):
        """Names of the stages that train, or of all where none does."""
        return self.training or list(self.stages)

    @property
    def first(self):
        """Settings of the first stage that is asked for."""
        return self.stages[self.asked[0]]


def parse(argv):
    """The Plan that the flags `argv` (without the program's name) ask for. Raises UserError; `--help` exits 0.

    --preset NAME or --config FILE gives each stage its own list of flags; the flags of the command line override both.
    """
    first = _Parser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--model"):
        first.add_argument(name)
    chosen, _ = first.parse_known_args(argv)
    if chosen.preset and chosen.config:
        raise UserError("found both --preset and --config: give one of them")
    lists = (
        _preset(chosen.preset) if chosen.preset else _saved(chosen.config) if chosen.config else []
    )
    model = chosen.model or (_value_of(lists[0], "--model") if lists else None) or RunSettings.model
    if model not in MODELS:
        raise UserError(f"unknown model '{model}': --model is one of {', '.join(MODELS)}")
    cls, stages = settings_class(model), {}
    lists = lists or [[] for _ in cls.STAGES]
    if len(lists) != len(cls.STAGES):
        raise UserError(
            f"--model {model} has {len(cls.STAGES)} stages, and what --preset or --config names {len(lists)}: leave one out"
        )
    for stage, flags in zip([info.name for info in cls.STAGES], lists):
        known = parser(cls).parse_args([*flags, *argv])
        settings = cls(**{f.name: getattr(known, f.name) for f in dataclasses.fields(cls)})
        settings.check()
        stages[stage] = settings
    given = {flag.split("=")[0] for flag in argv}
    plan = Plan(stages, chosen.preset, tuple(name for name in IDLE if f"--{name}" in given))
    if chosen.preset and "--RUN" not in given:
        _own_folder(plan, lists)
    return plan


def _value_of(flags, name):
    """The last value that a list of flags, '--name value' or '--name=value', gives `name`; None if there is none."""
    found = None
    for i, part in enumerate(flags):
        if part == name:
            found = flags[i + 1]
        elif part.startswith(f"{name}="):
            found = part.split("=", 1)[1]
    return found


def without(flags, name):
    """The list of flags without `name` and its value, in either form."""
    kept, skip = [], False
    for part in flags:
        if not skip and part != name and not part.startswith(f"{name}="):
            kept.append(part)
        skip = not skip and part == name
    return kept


def _own_folder(plan, lists):
    """A preset with a seed other than its own writes to a folder of its own."""
    seed = next(iter(plan.stages.values())).seed
    if seed != int(_value_of(lists[0], "--seed") or 0):
        for settings in plan.stages.values():
            settings.RUN = f"{settings.RUN}-s{seed}"


def preset_names():
    """The presets there are."""
    return sorted(path.stem for path in PRESETS.glob("*.txt"))


def _preset(name):
    """The lists of flags of a preset, one a stage: a file with a line '[stage 1]', flags, a line '[stage 2]', flags; '#' comments."""
    path = PRESETS / f"{name}.txt"
    if name not in preset_names():
        raise UserError(f"unknown preset '{name}': --preset is one of {', '.join(preset_names())}")
    parts = re.split(r"^\[stage [12]\]\s*$", path.read_text(), flags=re.MULTILINE)
    if len(parts) == 1:
        raise UserError(
            f"presets/{name}.txt: expected a line [stage 1], and [stage 2] if there is one, each followed by flags"
        )
    return [shlex.split(text, comments=True) for text in parts[1:]]


def as_flags(settings):
    """Settings as the list of flags that gives them (those away from the defaults)."""
    flags = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        left_out = (
            RunSettings.model if field.name == "model" else field.default
        )  # no model is said: the first one
        if value is None or value == left_out:
            continue
        flags += [f"--{field.name}", shown(value)]
    return flags


def opening_lines(plan):
    """What a reader is told before anything runs: the commands that a preset expands to, the flags that do nothing."""
    lines = [f"--{name} is accepted and does nothing: {IDLE[name]}" for name in plan.idle]
    if any(plan.stages[stage].trains_on_test for stage in plan.training):
        lines.append(
            "--fidelity release: MUG-FED trains on its test clips, --num_test_ids a batch; its figures are not held out"
        )
    if plan.preset is not None:
        for i, settings in enumerate(plan.stages.values(), 1):
            lines.append(
                f"preset {plan.preset}, stage {i}: python main.py {shlex.join(as_flags(settings))}"
            )
    return lines


def _saved(path):
    """The lists of flags of a saved configuration, one a stage. A stage that it does not hold takes another's, as of one command."""
    try:
        saved = json.loads(Path(path).read_text())
        cls, flags = settings_class(next(iter(saved.values()))["model"]), []
        names = [info.name for info in cls.STAGES]
        known = {f.name for f in dataclasses.fields(cls)}
        for stage in names:
            values = (
                saved[stage]
                if stage in saved
                else next(saved[other] for other in names if other in saved)
            )
            unknown = sorted(set(values) - known)
            if unknown:
                raise UserError(
                    f"--config {path}: unknown setting '{unknown[0]}': is it another version's? remove it"
                )
            flags.append(
                [
                    f"--{name}={shown(value)}"
                    for name, value in values.items()
                    if value is not None and name not in ACTIONS
                ]
            )
        return flags
    except OSError as error:
        raise UserError(
            f"--config {path}: {error.strerror}: give the config.json of a run"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        raise UserError(
            f"--config {path}: not a saved configuration: give the config.json of a run"
        ) from None


def differences(saved, settings, stage):
    """What keeps a run of `stage` saved with the settings `saved` (a dict) from going on with `settings`: names of settings."""
    return [
        f.name
        for f in dataclasses.fields(settings)
        if not f.metadata["free"]
        and f.metadata["stage"] in (None, stage)
        and f.name in saved
        and shown(saved[f.name]) != shown(getattr(settings, f.name))
    ]


def shown(value):
    """A setting's value as one writes it on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
