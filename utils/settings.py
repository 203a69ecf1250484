"""Settings of a run: the flags that every model shares, and the plan that one command line asks for.

A model brings a dataclass derived from `RunSettings`, which `MODELS` names. A data set may bring a
dataclass `Flags` in its module, which `DATASETS` names. Nothing here imports torch.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from utils.errors import UserError
from utils.flags import Parser, as_flags, flag, number, parser, plain_name, shown, value_of

MODELS = {  # name: module and class of its settings
    "vdsm": ("models.vdsm.settings", "VDSMSettings"),
    "dsa": ("models.settings", "DSASettings"),
    "unordered": ("models.settings", "UnorderedSettings"),
}
DATASETS = {  # name: module
    "MUG-FED": "data.mug",
    "moving-mnist": "data.moving_mnist",
    "pendulum": "data.pendulum",
    "sprites": "data.sprites",
    "sprites-li": "data.sprites_li",
    "video-folder": "data.videos",
}
PRESETS = Path(__file__).resolve().parent.parent / "presets"
PROTOCOLS = ("consistency", "swap", "dci", "fid")
NEVER_BUILT = "the authors' code never built the warm restarts that it is for"
IDLE = {"T_0_frac": NEVER_BUILT, "T_mult": NEVER_BUILT}  # flags that do nothing, and why
# flags that belong to one command, so that a saved configuration does not repeat them
ACTIONS = ("fresh", "dry_run", "convert", "to", "override_lock")
BASICS, DATA, SCHEDULE, OUTPUT, MACHINE = "run", "data", "optimisation", "output", "machine"


class StageInfo(NamedTuple):
    """What flags and files know of one stage. A settings class lists its stages, in order, as STAGES."""

    name: str  # in config.json and metrics.json
    made_by: str  # module:class of the stage (a models.stage.Stage), imported when it is needed
    suffix: str  # its checkpoints are {epoch}_{suffix}.pth
    sizes: tuple[str, ...]  # flags that decide the shapes of its network
    train: str = "train"  # flag that trains it
    pretrained: str = "pretrained_model"  # flag that names the epoch of its checkpoint
    rate: str = "lr"  # flag of its learning rate
    joins: bool = False  # a sample joins as many clips of one identity as the data set says
    frames_only: bool = False  # it models frames without their order: it swaps poses, not motion
    stands_on: str | None = None  # name of the stage whose trained network it is built over

    def stage(self) -> type:
        """The class of the stage."""
        module, name = self.made_by.split(":")
        return getattr(importlib.import_module(module), name)


class Renamed(NamedTuple):
    """Old flags and the flags that say the same today. See `RunSettings.RENAMED`."""

    stage: str | None  # the stage whose settings it reads; None: every stage
    old: dict  # {old flag: its value, ... for any value, or a function of all the settings}
    new: dict  # {flag of today: its value, or ... for the value of the first old flag}


def protocols(text) -> str:
    """'none', 'default' (True and False mean these), or names of PROTOCOLS joined by commas."""
    text = {"true": "default", "false": "none"}.get(text.lower(), text)
    names = text.split(",")
    if text in ("none", "default"):
        return text
    if not set(names) <= set(PROTOCOLS):
        expected = f"expected none, default or some of {','.join(PROTOCOLS)} joined by commas"
        raise argparse.ArgumentTypeError(f"found '{text}', {expected}")
    return ",".join(name for name in PROTOCOLS if name in names)


@dataclass
class RunSettings:
    """The flags that every model shares."""

    RUN: str = flag("001", BASICS, kind=plain_name, free=True)
    "Name of the run. Everything that the run writes lies under runs/RUN."
    model: str = flag("vdsm", BASICS)
    "Which model: vdsm, dsa or unordered. Its own flags are listed with --help --model NAME."
    seed: int = flag(0, BASICS, low=0, high=2**31 - 1)
    "Seed of weights, batches and noise."
    fresh: bool = flag(False, BASICS, free=True)
    "Start over. The old folder of the run is kept under a new name."
    override_lock: bool = flag(False, BASICS, free=True)
    "Train although another run holds the lock of the folder."
    dry_run: bool = flag(False, BASICS, free=True)
    "Print parameters, memory, disk space and steps, then stop."
    convert: str = flag(None, BASICS, kind=str, free=True)
    "Write a copy of this checkpoint, in a folder beside it, in the form that --to names."
    to: str = flag(None, BASICS, kind=str, choices=("ours", "release"), free=True)
    "Form of the copy that --convert writes."
    fidelity: str = flag("paper", BASICS, choices=("paper", "release"))
    "Which side to follow where the authors' code (the release) departs from the paper."
    test_harness: bool = flag(False, BASICS, free=True)
    "The same as --evaluate default. The release reads this flag and never built it."

    dataset_name: str = flag("MUG-FED", DATA)
    """Data set: MUG-FED, moving-mnist, pendulum, sprites, sprites-li or video-folder. Its own flags
    are listed with --help --dataset_name NAME."""
    data_dir: str = flag("./data/", DATA, free=True)
    "Folder that holds the data sets."
    source: str = flag(None, DATA, kind=str, free=True)
    """What to make the data set from if data_dir lacks it: a clone of its art, a folder of its
    files, or a folder of your videos."""
    data_seed: int = flag(0, DATA, low=0, high=2**31 - 1)
    "Seed of a generated data set and of its split."
    num_clips: int = flag(0, DATA, low=0, high=2**31 - 1)
    "Clips to use, drawn from each split in proportion. 0 takes all."
    bs: int = flag(30, DATA, low=1)
    "Sequences per batch."
    seq_len: int = flag(20, DATA, low=2)
    "Frames per sequence."
    num_test_ids: int = flag(1, DATA, low=1, free=True)
    "Sequences in the test pictures."

    epochs: int = flag(200, SCHEDULE, low=1)
    "Epochs."
    bs_per_epoch: int = flag(2, SCHEDULE, low=1)
    "Batches per epoch, each drawn anew."
    lr_resume: float = flag(None, SCHEDULE, kind=number, low=0, free=True)
    "Learning rate that replaces that of the stage when a run is resumed."
    lr_warmup: int = flag(0, SCHEDULE, low=0)
    "Steps over which the learning rate rises from 0. 0: no warm-up."
    lr_final: float = flag(1.0, SCHEDULE, kind=number, low=0, high=1)
    "Share of the learning rate that a cosine decay leaves at the end. 1: no decay."
    clip_grad: float = flag(0.0, SCHEDULE, kind=number, low=0)
    "Largest norm of the gradient. 0: no clipping."
    nan_retries: int = flag(3, SCHEDULE, low=0, free=True)
    """How often a loss that is not finite sends a stage back to its last checkpoint, at half the
    learning rate. 0 stops at once, as the release does."""
    T_0_frac: int = flag(6, SCHEDULE, free=True)
    "Accepted and ignored: the release never built the warm restarts."
    T_mult: int = flag(1, SCHEDULE, free=True)
    "Accepted and ignored, like T_0_frac."

    model_test_interval: int = flag(1, OUTPUT, low=1, free=True)
    "Epochs between test pictures and validation losses."
    model_save_interval: int = flag(2, OUTPUT, low=1, free=True)
    "Epochs between checkpoints."
    save_every_steps: int = flag(0, OUTPUT, low=0, free=True)
    "Steps between checkpoints within an epoch. Each replaces the one before. 0: none."
    keep_checkpoints: int = flag(0, OUTPUT, low=0, free=True)
    "How many of the newest checkpoints of a stage to keep, beside the best. 0 keeps all."
    tboard_log: bool = flag(True, OUTPUT, free=True)
    "Write scalars and pictures for TensorBoard."
    evaluate: str = flag("none", OUTPUT, kind=protocols, free=True)
    """What to measure after training or testing, into metrics.json: some of
    consistency,swap,dci,fid, or default: what applies to the data set and needs no download."""
    fid_weights: str = flag(None, OUTPUT, kind=str, free=True)
    """File with the weights of the network for fid: 3D ResNeXt-101 (Kinetics) or R3D-18. Default:
    torchvision's R3D-18, which is downloaded."""
    split: str = flag("test", OUTPUT, choices=("test", "val", "train", "all"), free=True)
    """Clips that --evaluate measures (val to choose settings, test to report) or that
    --export_codes writes."""
    export_codes: bool = flag(False, OUTPUT, free=True)
    "After training the last stage or testing, write codes and pictures to runs/RUN/codes."
    report: bool = flag(False, OUTPUT, free=True)
    "Write runs/RUN/report.html, which shows the run on one page."
    runs_dir: str = flag("./runs/", OUTPUT, free=True)
    "Folder of the runs."
    image_path: str = flag(None, OUTPUT, kind=str, free=True)
    "Folder of pictures in place of runs/RUN/images (release: ./images/)."
    model_save_path: str = flag(None, OUTPUT, kind=str, free=True)
    "Folder of checkpoints in place of runs/RUN/checkpoints (release: ./models)."
    log_dir: str = flag(None, OUTPUT, kind=str, free=True)
    "Folder of TensorBoard logs in place of runs/RUN/tensorboard (release: ./tensorboard_runs/)."
    code_path: str = flag(None, OUTPUT, kind=str, free=True)
    "Folder of exported codes in place of runs/RUN/codes (release: ./codes/)."
    quiet: bool = flag(False, OUTPUT, free=True)
    "Print no progress. Warnings and errors remain."

    device: str = flag("auto", MACHINE, choices=("auto", "cpu", "cuda"), free=True)
    "Where to compute. auto takes a CUDA GPU if there is one."
    threads: int = flag(0, MACHINE, low=0, free=True)
    "CPU threads. 0 leaves the choice to torch."

    STAGES: ClassVar[tuple[StageInfo, ...]] = ()
    # module:function that turns a checkpoint of the authors' code into ours, or returns None
    ADOPT: ClassVar[str | None] = None
    # Flags of earlier versions, as config.json files and checkpoints hold them. An old flag that
    # no row matches is reported as an unknown setting.
    RENAMED: ClassVar[tuple[Renamed, ...]] = (
        Renamed(None, {"nan_lr_factor": 0.5}, {}),
        # flags of data sets were once in the configuration of every run
        *(
            Renamed(None, {name: ...}, {})
            for name in ("pendulum_lengths", "pendulum_dampings", "video_step", "split_by")
        ),
    )

    @property
    def trains_on_test(self) -> bool:
        """Whether training takes the test clips, as the authors' code does in one case."""
        return False

    @property
    def batch_size(self) -> int:
        """Sequences per batch of training."""
        return self.bs

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Flags that do nothing beside the other settings, so that a resumed run may change them."""
        return ()

    @classmethod
    def info(cls, stage_name: str) -> StageInfo:
        """The StageInfo of the stage of that name."""
        return next(info for info in cls.STAGES if info.name == stage_name)

    @classmethod
    def number(cls, stage_name: str) -> int:
        """The position of a stage in training, from 1."""
        return cls.STAGES.index(cls.info(stage_name)) + 1

    @classmethod
    def adopt(cls, state: dict) -> dict | None:
        """A loaded checkpoint of the authors' code as one of ours; None if it is another file."""
        if cls.ADOPT is None:
            return None
        module, name = cls.ADOPT.split(":")
        return getattr(importlib.import_module(module), name)(state)

    def clips_per_sample_of(self, stage_name: str, dataset) -> int:
        """How many clips of one identity a training sample joins. dataset: a data.base.Dataset."""
        return dataset.clips_per_sample if self.info(stage_name).joins else 1

    @property
    def measured(self) -> tuple[str, ...]:
        """What to measure: () for nothing, ('default',), or some of PROTOCOLS."""
        default = self.test_harness and self.evaluate == "none"
        asked = "default" if default else self.evaluate
        return () if asked == "none" else tuple(asked.split(","))

    def check(self) -> None:
        """Raise UserError where two flags contradict each other."""
        if self.measured and self.split not in ("test", "val"):
            raise UserError(
                f"--split {self.split} is for --export_codes alone: --evaluate measures on test or "
                "val; give one of them, or --evaluate none"
            )
        if self.fid_weights and not Path(self.fid_weights).is_file():
            raise UserError(
                f"--fid_weights {self.fid_weights}: found no such file: give a file of weights, or "
                "leave the flag out"
            )
        if (self.convert is None) != (self.to is None):
            raise UserError("--convert PATH and --to ours (or release) go together: give both")


@functools.cache
def settings_class(model: str, dataset_name: str | None = None) -> type[RunSettings]:
    """The settings dataclass of `model`, with the flags that the data set declares."""
    module, name = MODELS[model]
    cls = getattr(importlib.import_module(module), name)
    declared = None
    if dataset_name in DATASETS:
        declared = getattr(importlib.import_module(DATASETS[dataset_name]), "Flags", None)
    if declared is None:
        return cls
    return dataclass(type(name, (cls, declared), {"__module__": module}))


@dataclass
class Plan:
    """What one command asks for."""

    stages: dict[str, RunSettings]  # by the stages' names, in order
    preset: str | None = None
    idle: tuple[str, ...] = ()  # given flags that do nothing

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


def parser_of(cls: type[RunSettings]) -> Parser:
    """The parser of the flags of the settings class `cls`, with --preset and --config."""
    names = ", ".join(preset_names())
    first = {
        "preset": ("NAME", f"A named run. Flags after it override its flags. One of: {names}"),
        "config": ("FILE", "Repeat the run of a saved config.json. Flags override it."),
    }
    return parser(cls, BASICS, first)


def parse(argv: list[str]) -> Plan:
    """The Plan that the flags `argv` (without the program's name) ask for.

    --preset NAME or --config FILE gives each stage its own list of flags. The flags of the command
    line override both. Raises UserError. `--help` exits with code 0.
    """
    first = Parser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--model", "--dataset_name"):
        first.add_argument(name)
    chosen, _ = first.parse_known_args(argv)
    if chosen.preset and chosen.config:
        raise UserError("found both --preset and --config: give one of them")
    if chosen.preset:
        lists = _preset(chosen.preset)
    else:
        lists = _saved(chosen.config) if chosen.config else []
    given = [*(lists[0] if lists else []), *argv]
    model = value_of(given, "--model") or RunSettings.model
    if model not in MODELS:
        raise UserError(f"unknown model '{model}': --model is one of {', '.join(MODELS)}")
    dataset_name = value_of(given, "--dataset_name") or settings_class(model).dataset_name
    if dataset_name not in DATASETS:
        known = ", ".join(DATASETS)
        raise UserError(f"unknown data set '{dataset_name}': --dataset_name is one of {known}")
    cls, stages = settings_class(model, dataset_name), {}
    lists = lists or [[] for _ in cls.STAGES]
    if len(lists) != len(cls.STAGES):
        raise UserError(
            f"--model {model} has {len(cls.STAGES)} stages, and --preset or --config names "
            f"{len(lists)}: leave one of the flags out"
        )
    for info, flags in zip(cls.STAGES, lists):
        values = parser_of(cls).parse_args([*flags, *argv])
        settings = cls(**{f.name: getattr(values, f.name) for f in dataclasses.fields(cls)})
        settings.check()
        stages[info.name] = settings
    names = {part.split("=")[0] for part in argv}
    plan = Plan(stages, chosen.preset, tuple(name for name in IDLE if f"--{name}" in names))
    if chosen.preset and "--RUN" not in names:
        _own_folder(plan, lists)
    return plan


def _own_folder(plan, lists):
    """Give a preset with another seed than its own a folder of its own."""
    seed = next(iter(plan.stages.values())).seed
    if seed != int(value_of(lists[0], "--seed") or 0):
        for settings in plan.stages.values():
            settings.RUN = f"{settings.RUN}-s{seed}"


def preset_names() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.txt"))


def _preset(name):
    """The lists of flags of a preset, one per stage.

    The file has a line '[stage 1]', flags, a line '[stage 2]', flags; '#' begins a comment.
    """
    if name not in preset_names():
        names = ", ".join(preset_names())
        raise UserError(f"unknown preset '{name}': --preset is one of {names}")
    text = (PRESETS / f"{name}.txt").read_text()
    parts = re.split(r"^\[stage [0-9]\]\s*$", text, flags=re.MULTILINE)
    if len(parts) == 1:
        raise UserError(
            f"presets/{name}.txt: expected a line [stage 1], and [stage 2] if there is a second "
            "stage, each followed by flags"
        )
    return [shlex.split(part, comments=True) for part in parts[1:]]


def opening_lines(plan: Plan) -> list[str]:
    """What a reader is told before anything runs: idle flags, and the commands of a preset."""
    lines = [f"--{name} is accepted and does nothing: {IDLE[name]}" for name in plan.idle]
    if any(plan.stages[name].trains_on_test for name in plan.training):
        lines.append(
            "--fidelity release: MUG-FED trains on its test clips, --num_test_ids per batch; its "
            "figures are not held out"
        )
    if plan.preset is not None:
        for i, settings in enumerate(plan.stages.values(), 1):
            flags = as_flags(settings, left_out=[("model", RunSettings.model)])
            lines.append(f"preset {plan.preset}, stage {i}: python main.py {shlex.join(flags)}")
    return lines


# --- saved settings ---


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
        expected = {n: v(values) if callable(v) else v for n, v in row.old.items()}
        if all(value in (..., values[name]) for name, value in expected.items()):
            first, *_ = [values.pop(name) for name in row.old]
            values |= {name: first if value is ... else value for name, value in row.new.items()}
    return values


def _saved(path):
    """The lists of flags of a saved configuration, one per stage.

    A stage that the file lacks takes the settings of another stage, as if one command gave both.
    """
    try:
        saved = json.loads(Path(path).read_text())
        one = next(iter(saved.values()))
        cls, lists = settings_class(one["model"], one.get("dataset_name")), []
        known, names = {f.name for f in dataclasses.fields(cls)}, [i.name for i in cls.STAGES]
        for name in names:
            source = name if name in saved else next(n for n in names if n in saved)
            values = of_today(saved[source], source)
            unknown = sorted(set(values) - known)
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
        raise UserError(
            f"--config {path}: {error.strerror}: give the config.json of a run"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration):
        raise UserError(
            f"--config {path}: not a saved configuration: give the config.json of a run"
        ) from None


def differences(saved: dict, settings: RunSettings, stage_name: str) -> list[str]:
    """Names of the settings that keep a run saved with `saved` from being resumed with `settings`."""
    fields = {
        f.name: f
        for f in dataclasses.fields(settings)
        if not f.metadata["free"] and f.metadata["stage"] in (None, stage_name)
    }
    idle, known = settings.without_effect, {f.name for f in dataclasses.fields(settings)}
    changed = [
        name
        for name in fields
        if name in saved
        and name not in idle
        and shown(saved[name]) != shown(getattr(settings, name))
    ]
    return changed + sorted(set(saved) - known)
