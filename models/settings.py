"""Flags of the models that train in one stage. No torch here: `--help` comes at once."""

from dataclasses import dataclass
from typing import ClassVar

from utils.config import RunSettings, StageInfo, default, flag, number
from utils.errors import UserError

STAGE, DSA, UNORDERED = "stage", "DSA: sizes", "Unordered: sizes"
NODES = (
    0.25,
    0.7,
)  # shares of the epochs between which a KL's weight moves from its start to its end
WHEN = (
    "until {:.0%} of the epochs, then geometric to the other at {:.0%}; default: the same".format(
        *NODES
    )
)


@dataclass
class OneStageSettings(RunSettings):
    """What every model with one stage, a static code f and dynamic codes z is told."""

    num_test_ids: int = default("num_test_ids", 12)
    train: bool = flag(False, "train; False: test", STAGE, free=True)
    pretrained_model: int = flag(
        None,
        "epoch of the checkpoint to test; default: the newest",
        STAGE,
        kind=int,
        low=0,
        free=True,
    )
    lr: float = flag(0.001, "Adam's learning rate", STAGE, kind=number, low=0)
    kl_f: float = flag(1.0, "weight of the KL of f", STAGE, kind=number, low=0)
    kl_f_start: float = flag(
        None, f"... before training has gone on: {WHEN}", STAGE, kind=number, low=0
    )
    kl_z: float = flag(1.0, "weight of the KL of z", STAGE, kind=number, low=0)
    kl_z_start: float = flag(None, "... likewise", STAGE, kind=number, low=0)

    f_scale_start: float = flag(
        0.0,
        "posterior scale of f before training; 0 leaves torch's init",
        STAGE,
        kind=number,
        low=0,
    )
    z_scale_start: float = flag(0.0, "posterior scale of z, likewise", STAGE, kind=number, low=0)
    output_bias: str = flag(
        "zero",
        "where the decoder's pictures start: grey, or the data's mean colour",
        STAGE,
        choices=("zero", "data"),
    )

    @property
    def code_size(self):
        """Numbers in the codes of one clip."""
        return self.f_dim + self.seq_len * self.z_dim

    def check(self):
        """Raise UserError where two flags contradict each other."""
        super().check()
        for code in ("f", "z"):
            start, end = getattr(self, f"kl_{code}_start"), getattr(self, f"kl_{code}")
            if start is not None and not (start > 0 and end > 0):
                raise UserError(
                    f"--kl_{code}_start {start} --kl_{code} {end}: both must be above 0, or leave the first out"
                )


@dataclass
class DSASettings(OneStageSettings):
    """The published setting: Sprites, 200 epochs of 9000 clips, batch 25 (models/dsa.py). A checkpoint is 2 GB: few are kept."""

    model: str = default("model", "dsa")
    dataset_name: str = default("dataset_name", "sprites-li")
    bs: int = default("bs", 25)
    seq_len: int = default("seq_len", 8)
    epochs: int = default("epochs", 200)
    bs_per_epoch: int = default("bs_per_epoch", 360)
    keep_checkpoints: int = default("keep_checkpoints", 3)
    lr: float = default("lr", 0.0002, OneStageSettings)

    posterior: str = flag(
        "factorised",
        "q(z): each z_t from its own frame, or from f and all frames",
        DSA,
        choices=("factorised", "full"),
    )
    f_dim: int = flag(256, "size of the static code f", DSA, low=1)
    z_dim: int = flag(32, "size of a frame's dynamic code z_t", DSA, low=1)
    rnn_dim: int = flag(512, "hidden size of the LSTMs and of the RNN", DSA, low=1)
    width: int = flag(256, "channels of every convolution", DSA, low=1)
    hidden: int = flag(4096, "units of the middle dense layer, of encoder and decoder", DSA, low=1)
    conv_dim: int = flag(2048, "size of the encoder's code of a frame", DSA, low=1)

    SIZES: ClassVar = (
        "posterior",
        "f_dim",
        "z_dim",
        "rnn_dim",
        "width",
        "hidden",
        "conv_dim",
        "fidelity",
    )
    STAGES: ClassVar = (StageInfo("DSA", "models.dsa:DSAStage", "dsa", SIZES),)


@dataclass
class UnorderedSettings(OneStageSettings):
    """The published setting on moving MNIST: 60,000 steps of batch 120 (models/unordered.py); for Sprites see the README.

    The paper's frames are grey. Ours repeat the grey in three channels, each of which counts in the likelihood: both KLs, too, weigh 3.
    """

    model: str = default("model", "unordered")
    dataset_name: str = default("dataset_name", "moving-mnist")
    bs: int = default("bs", 120)
    seq_len: int = default("seq_len", 20)
    epochs: int = default("epochs", 60)
    bs_per_epoch: int = default("bs_per_epoch", 1000)
    lr: float = default("lr", 0.0001, OneStageSettings)

    encoder_init: str = flag(
        "torch",
        "start of the way to f: torch's init, or unit variance layer by layer on data",
        STAGE,
        choices=("torch", "data"),
    )
    decoder_init: str = flag(
        "torch",
        "start of the decoder, likewise, on codes of data and noise",
        STAGE,
        choices=("torch", "data"),
    )
    kl_f: float = default("kl_f", 3.0, OneStageSettings)
    kl_z: float = default("kl_z", 3.0, OneStageSettings)
    clips_per_sample: int = flag(
        None,
        "clips of one identity that a sample's frames are drawn from; default: the data set's (sprites: 2)",
        UNORDERED,
        kind=int,
        low=1,
    )
    num_frames: int = flag(
        3, "frames drawn at random from each sequence, in no order", UNORDERED, low=3
    )
    f_dim: int = flag(64, "size of the static code f", UNORDERED, low=1)
    z_dim: int = flag(2, "size of a frame's dynamic code z_t", UNORDERED, low=1)
    width: int = flag(256, "channels of frame features and of the decoder", UNORDERED, low=1)
    hidden: int = flag(
        512, "channels and units of the comparisons and of the dense layers", UNORDERED, low=1
    )

    SIZES: ClassVar = ("f_dim", "z_dim", "width", "hidden")
    STAGES: ClassVar = (
        StageInfo("Unordered", "models.unordered:UnorderedStage", "unordered", SIZES, joins=True),
    )

    def check(self):
        """Raise UserError where two flags contradict each other."""
        super().check()
        if self.train and self.num_frames > self.seq_len:
            raise UserError(
                f"--num_frames {self.num_frames} exceeds --seq_len {self.seq_len}: use {self.seq_len} or less"
            )

    def joined(self, stage, dataset):
        """See `RunSettings.joined`."""
        return (dataset.group and self.clips_per_sample) or super().joined(stage, dataset)
