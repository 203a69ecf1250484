"""Flags of the models that train in one stage. Nothing here imports torch."""

from dataclasses import dataclass
from typing import ClassVar

from utils.errors import UserError
from utils.flags import flag, number, redefault
from utils.settings import Renamed, RunSettings, StageInfo

STAGE, DSA, UNORDERED = "stage", "DSA: sizes", "Unordered: sizes"
NODES = 0.25, 0.7  # shares of the epochs between which the KL weights move
OLD_STARTS = "encoder_init", "decoder_init", "output_bias"  # flags that --start replaces


def _decoder_of_earlier_versions(values):
    return "text" if values.get("fidelity") == "release" else None


@dataclass
class OneStageSettings(RunSettings):
    """The flags of every model with one stage, a static code f and dynamic codes z."""

    num_test_ids: int = redefault(RunSettings, "num_test_ids", 12)
    train: bool = flag(False, STAGE, free=True)
    "Train. False: test."
    pretrained_model: int = flag(None, STAGE, kind=int, low=0, free=True)
    "Epoch of the checkpoint to test, or to go on from. Default: the newest."
    lr: float = flag(0.001, STAGE, kind=number, low=0, high=100)
    "Learning rate of Adam."
    kl_f: float = flag(1.0, STAGE, kind=number, low=0)
    "KL weight of f."
    kl_f_start: float = flag(None, STAGE, kind=number, low=0)
    """KL weight of f at the start. Held for 25 % of the epochs, then moved geometrically to --kl_f
    at 70 %. Default: constant at --kl_f."""
    kl_z: float = flag(1.0, STAGE, kind=number, low=0)
    "KL weight of z."
    kl_z_start: float = flag(None, STAGE, kind=number, low=0)
    "The same for z; ends at --kl_z."
    start: str = flag("torch", STAGE, choices=("torch", "data"))
    """Initial weights: torch's, or adapted to data (DSA: pictures start at the mean colour;
    Unordered: also unit variance in every layer)."""
    f_scale_start: float = flag(0.0, STAGE, kind=number, low=0, high=100)
    "Posterior scale of f before training. 0 leaves torch's initial weights."
    z_scale_start: float = flag(0.0, STAGE, kind=number, low=0, high=100)
    "Posterior scale of z before training. 0 leaves torch's initial weights."

    @property
    def code_size(self) -> int:
        sizes = vars(self)  # a model declares f_dim and z_dim as flags
        return sizes["f_dim"] + self.seq_len * sizes["z_dim"]

    def check(self) -> None:
        super().check()
        for code in ("f", "z"):
            start, end = getattr(self, f"kl_{code}_start"), getattr(self, f"kl_{code}")
            if start is not None and not (start > 0 and end > 0):
                given = f"--kl_{code}_start {start} --kl_{code} {end}"
                raise UserError(f"{given}: both must be above 0, or leave the first out")


@dataclass
class DSASettings(OneStageSettings):
    """DSA; the defaults are as published: Sprites, 200 epochs of 9000 clips, batch 25."""

    model: str = redefault(RunSettings, "model", "dsa")
    dataset_name: str = redefault(RunSettings, "dataset_name", "sprites-li")
    bs: int = redefault(RunSettings, "bs", 25)
    seq_len: int = redefault(RunSettings, "seq_len", 8)
    epochs: int = redefault(RunSettings, "epochs", 200)
    bs_per_epoch: int = redefault(RunSettings, "bs_per_epoch", 360)
    keep_checkpoints: int = redefault(RunSettings, "keep_checkpoints", 3)  # of 2 GB each
    lr: float = redefault(OneStageSettings, "lr", 0.0002)

    posterior: str = flag("factorised", DSA, choices=("factorised", "full"))
    "q(z): each z_t from its own frame, or from f and all frames."
    decoder: str = flag(None, DSA, kind=str, choices=("text", "code"))
    """Decoder of the public reproduction: of its README (batch norm in the dense layers) or of its
    code (batch norm before the tanh). Default: code with --fidelity release, else text."""
    f_dim: int = flag(256, DSA, low=1)
    "Size of the static code f."
    z_dim: int = flag(32, DSA, low=1)
    "Size of the dynamic code z_t of a frame."
    rnn_dim: int = flag(512, DSA, low=1)
    "Hidden size of the LSTMs and of the RNN."
    width: int = flag(256, DSA, low=1)
    "Channels of every convolution."
    hidden: int = flag(4096, DSA, low=1)
    "Units of the middle dense layer of encoder and decoder."
    conv_dim: int = flag(2048, DSA, low=1)
    "Size of the encoder's features of a frame."

    SIZES: ClassVar = (
        "posterior", "f_dim", "z_dim", "rnn_dim", "width", "hidden", "conv_dim", "fidelity",
        "decoder",
    )  # fmt: skip
    STAGES: ClassVar = (StageInfo("DSA", "models.dsa:DSAStage", "dsa", SIZES),)
    RENAMED: ClassVar = (
        *RunSettings.RENAMED,
        Renamed(None, {"output_bias": "zero"}, {"start": "torch"}),
        Renamed(None, {"output_bias": "data"}, {"start": "data"}),
        Renamed(None, {}, {"decoder": _decoder_of_earlier_versions}),
    )


@dataclass
class UnorderedSettings(OneStageSettings):
    """Unordered; the defaults are as published: moving MNIST, 60,000 steps of batch 120."""

    model: str = redefault(RunSettings, "model", "unordered")
    dataset_name: str = redefault(RunSettings, "dataset_name", "moving-mnist")
    bs: int = redefault(RunSettings, "bs", 120)
    seq_len: int = redefault(RunSettings, "seq_len", 20)
    epochs: int = redefault(RunSettings, "epochs", 60)
    bs_per_epoch: int = redefault(RunSettings, "bs_per_epoch", 1000)
    lr: float = redefault(OneStageSettings, "lr", 0.0001)
    # 3, because the likelihood counts the grey of the paper's frames in each of three channels.
    kl_f: float = redefault(OneStageSettings, "kl_f", 3.0)
    kl_z: float = redefault(OneStageSettings, "kl_z", 3.0)

    clips_per_sample: int = flag(None, UNORDERED, kind=int, low=1)
    """Clips of one identity that the frames of a sample are drawn from. Default: as the data set
    says (sprites: 2)."""
    frames_per_clip: int = flag(3, UNORDERED, low=3)
    "Frames drawn at random from each sample, in no order."
    f_dim: int = flag(64, UNORDERED, low=1)
    "Size of the static code f."
    z_dim: int = flag(2, UNORDERED, low=1)
    "Size of the dynamic code z_t of a frame."
    width: int = flag(256, UNORDERED, low=1)
    "Channels of the frame features and of the decoder."
    hidden: int = flag(512, UNORDERED, low=1)
    "Channels of the comparisons and units of the dense layers."

    IDLE: ClassVar = RunSettings.IDLE | {
        "transfer_frames": "Unordered knows no time and continues no clip"
    }
    SIZES: ClassVar = ("f_dim", "z_dim", "width", "hidden")
    STAGES: ClassVar = (
        StageInfo("Unordered", "models.unordered:UnorderedStage", "unordered", SIZES, joins=True),
    )
    RENAMED: ClassVar = (
        *RunSettings.RENAMED,
        Renamed(None, dict(zip(OLD_STARTS, ("torch", "torch", "zero"))), {"start": "torch"}),
        Renamed(None, dict(zip(OLD_STARTS, ("data", "data", "data"))), {"start": "data"}),
        Renamed(None, {"num_frames": ...}, {"frames_per_clip": ...}),
    )

    def check(self) -> None:
        super().check()
        if self.train and self.frames_per_clip > self.seq_len:
            given = f"--frames_per_clip {self.frames_per_clip} exceeds --seq_len {self.seq_len}"
            raise UserError(f"{given}: use {self.seq_len} or less")

    def clips_per_sample_of(self, stage_name: str, dataset) -> int:
        given = self.clips_per_sample if dataset.group else None
        return given or super().clips_per_sample_of(stage_name, dataset)
