"""Settings of a run: the flags that every model shares, and the registries of models and data sets.

A model declares its flags in a dataclass derived from `RunSettings`, a data set in a dataclass
`Flags` of its module. Nothing here imports torch.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from utils.errors import UserError
from utils.flags import as_flags, flag, integers, number, plain_name, wrong_value
from utils.modules import module

MODELS = {  # name: module and class of its settings
    "vdsm": ("models.vdsm.settings", "VDSMSettings"),
    "dsa": ("models.settings", "DSASettings"),
    "unordered": ("models.settings", "UnorderedSettings"),
}
DATASETS = {  # name: module
    "MUG-FED": "data.mug",
    "moving-mnist": "data.moving_mnist",
    "pendulum": "data.pendulum",
    "shapes": "data.shapes",
    "sprites": "data.sprites",
    "sprites-li": "data.sprites_li",
    "video-folder": "data.videos",
}
NEVER_BUILT = "the authors' code never built the warm restarts that it is for"
DRAWN = "this data set is drawn by the program and reads no files"
PROTOCOLS = ("consistency", "swap", "dci", "fid", "pairs", "msd", "long")
BASICS, DATA, SCHEDULE, OUTPUT, MACHINE = "run", "data", "optimisation", "output", "machine"
FILES = "a trained model on your files"


class StageInfo(NamedTuple):
    """What flags and files know of one stage. A settings class lists its stages in STAGES."""

    name: str  # in config.json and metrics.json
    made_by: str  # module:class of the stage (a models.stage.Stage), imported when it is needed
    suffix: str  # its checkpoints are {epoch}_{suffix}.pth
    sizes: tuple[str, ...]  # flags that decide the shapes of its network
    train: str = "train"  # flag that trains it
    pretrained: str = "pretrained_model"  # flag that names the epoch of its checkpoint
    rate: str = "lr"  # flag of its learning rate
    joins: bool = False  # a sample joins as many clips of one identity as the data set says
    frames_only: bool = False  # it models single frames: poses can be swapped, motion cannot
    stands_on: str | None = None  # name of the stage whose trained network it is built over

    def stage(self) -> Any:
        """The class of the stage."""
        place, name = self.made_by.split(":")
        return getattr(module(place), name)


class Renamed(NamedTuple):
    """Flags of earlier versions and the flags that replace them. See `RunSettings.RENAMED`.

    Without old flags, the row gives a new flag the value that earlier versions worked with.
    """

    stage: str | None  # stage whose settings this row converts; None: every stage
    old: dict  # {old flag: its value, ... for any value, or a function of all the settings}
    # {new flag: its value, ... for the value of the first old flag, or a function of all settings}
    new: dict


def protocols(text) -> str:
    """'none', 'default' (True and False mean these), or names of PROTOCOLS joined by commas."""
    text = {"true": "default", "false": "none"}.get(text.lower(), text)
    if text in ("none", "default"):
        return text
    names = text.split(",")
    if not set(names) <= set(PROTOCOLS):
        raise wrong_value(text, f"none, default or some of {','.join(PROTOCOLS)} joined by commas")
    return ",".join(name for name in PROTOCOLS if name in names)


@dataclass
class RunSettings:
    """The flags that every model shares."""

    RUN: str = flag("001", BASICS, kind=plain_name, free=True)
    "Name of the run. Everything that the run writes lies under runs/RUN."
    model: str = flag("vdsm", BASICS, choices=MODELS)
    "Which model. Its own flags are listed with --help --model NAME."
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

    dataset_name: str = flag("MUG-FED", DATA, choices=DATASETS)
    "Which data set. Its own flags are listed with --help --dataset_name NAME."
    data_dir: str = flag("./data/", DATA, free=True)
    "Folder that holds the data sets."
    source: str = flag(None, DATA, kind=str, free=True)
    "If data_dir lacks the data set: folder of its art, of its files, or of your videos."
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
    schedule_epochs: int = flag(0, SCHEDULE, low=0, free=True)
    """Epochs over which KL weights, temperature and learning rate move. After these, they keep
    their last values. 0: --epochs. With a higher --epochs, it extends a finished run."""
    lr_resume: float = flag(None, SCHEDULE, kind=number, low=0, high=100, free=True)
    "Learning rate that replaces that of the stage when a run is resumed."
    lr_warmup: int = flag(0, SCHEDULE, low=0, high=10**9)
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

    model_test_interval: int = flag(1, OUTPUT, low=1, high=10**9, free=True)
    "Epochs between test pictures and validation losses."
    model_save_interval: int = flag(2, OUTPUT, low=1, high=10**9, free=True)
    "Epochs between checkpoints."
    transfer_frames: tuple = flag(None, OUTPUT, kind=integers, free=True)
    """Frames to which the pictures continue transferred motions, joined by commas. Default: as the
    data set says (pendulum: 40,60; others: none). Unordered cannot continue a clip."""
    save_every_steps: int = flag(0, OUTPUT, low=0, high=10**9, free=True)
    "Steps between checkpoints within an epoch. Each replaces the one before. 0: none."
    keep_checkpoints: int = flag(0, OUTPUT, low=0, high=10**9, free=True)
    "How many of the newest checkpoints of a stage to keep, beside the best. 0 keeps all."
    tboard_log: bool = flag(True, OUTPUT, free=True)
    "Write scalars and pictures for TensorBoard."
    track: str = flag("none", OUTPUT, choices=("none", "trackio", "wandb"), free=True)
    """Also send scalars and settings to trackio or Weights & Biases. The package must be installed.
    """
    evaluate: str = flag("none", OUTPUT, kind=protocols, free=True)
    """What to measure after training or testing, into metrics.json: some of
    consistency,swap,dci,fid,pairs,msd,long, or default: consistency,swap,dci where the data set has
    labels, and fid with --fid_weights."""
    remeasure: bool = flag(False, OUTPUT, free=True)
    "Measure a finished run again, although it has the figures of its last checkpoint."
    fid_weights: str = flag(None, OUTPUT, kind=str, free=True)
    "File of weights for fid: 3D ResNeXt-101 (Kinetics) or R3D-18. Default: downloads R3D-18."
    judge: str = flag(None, OUTPUT, kind=str, free=True)
    """File of a published judge: the S3VAE family's of sprites-li, or a classifier of the release's
    notebooks (sprites, MUG-FED). Default: a judge is trained, or measures without training."""
    draw_from: str = flag("prior", OUTPUT, choices=("prior", "fitted"), free=True)
    """What samples, pictures and exports draw codes from: the model's prior, or a density that is
    fitted to the codes of training clips after training. Metrics measure both."""
    select: str = flag("last", OUTPUT, choices=("last", "best"), free=True)
    """Which checkpoint to test, to export or to use on files: the last one, or the one with the
    best validation ELBO."""
    split: str = flag("test", OUTPUT, choices=("test", "val", "train", "all"), free=True)
    "Clips to measure (val to choose settings, test to report) or to export."
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

    transfer: list = flag(None, FILES, kind=str, count=2, free=True)
    """Two clips: write the motion of the first on the identity of the second to --out. A clip is a
    video, a GIF, a folder of pictures or a .npy file; the checkpoint of --RUN gives the sizes."""
    encode: str = flag(None, FILES, kind=str, free=True)
    "A clip: write its codes and its reconstruction to --out."
    generate: int = flag(None, FILES, kind=int, low=1, high=10_000, free=True)
    "Number of new clips to write to --out, drawn as --draw_from says, with --seed."
    continue_to: int = flag(None, FILES, kind=int, low=1, high=10_000, free=True)
    "With one of these three: frames of the clips. Default: as many as the model was trained on."
    traverse: bool = flag(False, FILES, free=True)
    "Write the clip of --encode, or a new clip, with other values of each of its codes to --out."
    out: str = flag(None, FILES, kind=str, free=True)
    "New file for the result, by its suffix .gif, .mp4, .png or .npz (arrays)."

    weights: str = flag(None, FILES, kind=str, free=True)
    """A model for these commands in place of that of --RUN: a .safetensors file, a checkpoint, or
    hf://USER/NAME on the Hugging Face Hub. With --evaluate, measure it."""
    export_weights: str = flag(None, FILES, kind=str, free=True)
    """New .safetensors file for the weights of --RUN, with a card, which is also written as a page
    beside it: settings, data, figures (the run's; with --evaluate, measured anew) and licence."""
    half: bool = flag(False, FILES, free=True)
    "Store the exported weights in half precision. They are computed with in full precision."
    push_to: str = flag(None, FILES, kind=str, free=True)
    "USER/NAME on the Hugging Face Hub to upload --export_weights, or the file --weights, to."
    show: bool = flag(False, FILES, free=True)
    """Draw swaps, transfers and samples of the models in the folder weights, or of --weights, into
    runs/show."""

    device: str = flag("auto", MACHINE, choices=("auto", "cpu", "cuda", "mps"), free=True)
    "Where to compute. auto takes a CUDA GPU if there is one. mps is Apple's GPU, untested so far."
    threads: int = flag(0, MACHINE, low=0, high=1024, free=True)
    "CPU threads. 0 leaves the choice to torch."
    precision: str = flag("fp32", MACHINE, choices=("fp32", "bf16", "tf32"), free=True)
    """Precision of convolutions and large products: fp32, bf16 (AVX512-BF16 of AMD, AMX of Intel,
    or a CUDA GPU) or tf32 (a CUDA GPU). All else, weights and optimiser included, stays in fp32."""
    cuda_graph: bool = flag(True, MACHINE, free=True)
    "On a CUDA GPU, record the training step once and repeat it as a CUDA graph, which is faster."
    shard_optimizer: bool = flag(False, MACHINE, free=True)
    "With several processes (torchrun), let each hold its share of Adam's state, not all of it."
    process_timeout: int = flag(600, MACHINE, low=1, high=10**6, free=True)
    "Seconds that a process waits for the others, at the start and in each exchange."

    IDLE: ClassVar = {"T_0_frac": NEVER_BUILT, "T_mult": NEVER_BUILT}  # do nothing, and why
    STAGES: ClassVar[tuple[StageInfo, ...]] = ()
    # flags of files that a stage reads when it starts, and the values of each that name no file
    FILES_AT_START: ClassVar[dict[str, tuple[str, ...]]] = {}
    # module:function that turns a checkpoint of the authors' code into ours, or returns None
    ADOPT: ClassVar[str | None] = None
    # flags of earlier versions in config.json files and checkpoints; others are refused
    RENAMED: ClassVar[tuple[Renamed, ...]] = (
        Renamed(None, {"nan_lr_factor": 0.5}, {}),
        # flags of data sets were once in the configuration of every run
        Renamed(None, {"pendulum_lengths": ...}, {}),
        Renamed(None, {"pendulum_dampings": ...}, {}),
        Renamed(None, {"video_step": ...}, {}),
        Renamed(None, {"split_by": ...}, {}),
    )

    @property
    def code_size(self) -> int:
        """Numbers in the codes of one clip, for the size of an export. 0: too few to count."""
        return 0

    @property
    def trains_on_test(self) -> bool:
        """Whether training takes the test clips, as the authors' code does in one case."""
        return False

    @property
    def distinct_batches(self) -> bool:
        """Whether a training batch is drawn as in the authors' code (data.batches.Batches)."""
        return False

    @property
    def span(self) -> int:
        """Epochs over which the schedules move."""
        return self.schedule_epochs or self.epochs

    @property
    def batch_size(self) -> int:
        """Sequences per batch of training."""
        return self.bs

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Flags without effect beside the other settings; a resumed run may change them."""
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
        place, name = cls.ADOPT.split(":")
        return getattr(module(place), name)(state)

    def clips_per_sample_of(self, stage_name: str, dataset) -> int:
        """How many clips of one identity a training sample joins. dataset: a data.base.Dataset."""
        return dataset.clips_per_sample if self.info(stage_name).joins else 1

    def as_flags(self) -> list[str]:
        """The list of flags that gives these settings."""
        return as_flags(self, model=RunSettings.model)

    @property
    def on_files(self) -> bool:
        """Whether the command uses a trained model on files, and neither trains nor tests."""
        return any((self.transfer, self.encode, self.generate, self.continue_to, self.traverse))

    @property
    def shares(self) -> bool:
        """Whether the command exports, uploads, measures or shows weights that travel."""
        return any((self.weights, self.export_weights, self.push_to, self.show))

    @property
    def measured(self) -> tuple[str, ...]:
        """What to measure: () for nothing, ('default',), or some of PROTOCOLS."""
        if self.evaluate == "none":
            return ("default",) if self.test_harness else ()
        return tuple(self.evaluate.split(","))

    def check(self) -> None:
        """Raise UserError where two flags contradict each other."""
        if self.measured and self.split not in ("test", "val"):
            found = f"--split {self.split} is for --export_codes alone"
            raise UserError(f"{found}: give --split test or val, or --evaluate none")
        for name, path in (("fid_weights", self.fid_weights), ("judge", self.judge)):
            if path and not Path(path).is_file():
                found = "is no regular file" if Path(path).exists() else "found no such file"
                raise UserError(f"--{name} {path}: {found}: leave it out")
        for name in ("encode", "out", "weights", "export_weights", "push_to"):
            if getattr(self, name) == "":  # else the command would go on without the flag
                raise UserError(f"--{name} is empty: is a variable of the shell not set?")
        if self.track != "none":
            from importlib.util import find_spec

            # a mere folder of that name has no origin
            if getattr(find_spec(self.track), "origin", None) is None:
                install = f"install it with: pip install {self.track}"
                raise UserError(f"--track {self.track}: found no such package: {install}")
        if self.half and not self.export_weights:
            raise UserError("--half True is for --export_weights FILE: give both")
        if (self.convert is None) != (self.to is None):
            raise UserError("--convert PATH and --to ours (or release) go together: give both")


@functools.cache
def settings_class(model: str, dataset_name: str | None = None) -> type[RunSettings]:
    """The settings dataclass of `model`, with the flags that the data set declares."""
    place, name = MODELS[model]
    cls = getattr(module(place), name)
    if dataset_name not in DATASETS:
        return cls
    flags = getattr(module(DATASETS[dataset_name]), "Flags", None)
    if flags is None:
        return cls
    idle = cls.IDLE | getattr(flags, "IDLE", {})
    return dataclass(type(name, (cls, flags), {"__module__": cls.__module__, "IDLE": idle}))
