"""VDSM's flags: those of the authors' code, and ours. Nothing here imports torch."""

from dataclasses import dataclass
from typing import ClassVar

from utils.errors import UserError
from utils.flags import flag, integers, number, shown
from utils.settings import Renamed, RunSettings, StageInfo

ENCODERS = "conv", "resnet18", "resnet50", "resnext50_32x4d", "inception_v3"
STAGE, MODEL, ANNEALING = "VDSM: stages", "VDSM: sizes", "VDSM: annealing"
# Flags of earlier versions, which --start replaces.
OLD_STARTS = (
    "encoder_init", "output_bias", "s_spread_start", "s_scale_start", "d_scale_start",
    "z_scale_start",
)  # fmt: skip


def _one_expert(values):
    return 1 / values["n_e_w"]


def _start(stage_name, start, *old):
    """The row that reads OLD_STARTS of these values (... for any) as --start."""
    return Renamed(stage_name, dict(zip(OLD_STARTS, old)), {"start": start})


@dataclass
class VDSMSettings(RunSettings):
    """Settings of one stage of VDSM."""

    train_VDSMEncDec: bool = flag(False, STAGE, free=True)
    "Train stage 1: encoder and decoder."
    train_VDSMSeq: bool = flag(False, STAGE, free=True)
    "Train stage 2: dynamics. With stage 1 in the same command, after it. Both False: test."
    pretrained_model_VDSMEncDec: int = flag(None, STAGE, kind=int, low=0, free=True)
    "Epoch of the stage-1 checkpoint to use, or to go on from. Default: the newest."
    pretrained_model_VDSMSeq: int = flag(None, STAGE, kind=int, low=0, free=True)
    "Epoch of the stage-2 checkpoint to test, or to go on from. Default: the newest."
    lr_VDSMEncDec: float = flag(0.001, STAGE, kind=number, low=0, high=100, stage="EncDec")
    "Learning rate of Adam in stage 1."
    lr_VDSMSeq: float = flag(0.001, STAGE, kind=number, low=0, high=100, stage="Seq")
    "Learning rate of Adam in stage 2."
    lr_identity: float = flag(1.0, STAGE, kind=number, low=0, stage="EncDec")
    "Share of the learning rate of stage 1 for the layers of s."
    lr_identity_last: float = flag(None, STAGE, kind=number, low=0, stage="EncDec")
    """The same for the two last layers of s alone, whose weights are as small as 1/K. Default:
    --lr_identity."""
    kl: str = flag("analytic", STAGE, choices=("analytic", "mc"))
    "KL terms in closed form, or by Monte Carlo as in the release."
    start: str = flag("torch", STAGE, choices=("torch", "data", "weights", "scales", "all"))
    """Initial weights: torch's, or adapted to data (stage 1: unit variance in every encoder layer,
    s spread by 1/K with posterior scale 1/K, pictures at the mean colour; stage 2: posterior scales
    of 0.03 for d and 0.05 for z). scales: the posterior scales alone; weights: the rest alone. all:
    as data, and experts that start near one common decoder with unit variance in every layer."""
    frames_per_clip: int = flag(0, STAGE, low=0)
    """Frames drawn at random from each sample. Stage 1 trains on these frames; stage 2 trains on
    the pixels of these frames. 0, or more than there are, takes all."""
    with_first_frame: bool = flag(False, STAGE, stage="Seq")
    """Stage 2: the pixels of the first frame of each sequence count as well as those of
    --frames_per_clip. Without this, the first frames of transferred clips are dim."""
    foresight: float = flag(0.0, STAGE, kind=number, low=0, stage="Seq")
    """Weight of a regulariser of stage 2 that is not in the paper: two readings of a clip must
    predict the same poses after the clip. 0: none."""
    near_poses: float = flag(0.0, STAGE, kind=number, low=0, stage="Seq")
    """Weight of a regulariser of stage 2 that is not in the paper: the poses that follow from d
    must be near those that stage 1 reads from the frames. 0: none."""

    z_dim: int = flag(20, MODEL, low=1)
    "Size of the pose z."
    n_e_w: int = flag(15, MODEL, low=1)
    "Number of experts K, which is also the size of the identity s."
    whiten_identity: bool = flag(False, MODEL)
    """Not in the paper: the location of s is whitened over clips (it varies nearly equally in all
    but its faintest directions), in place of its LeakyReLU, so that small differences between clips
    count too. For --start data or all, which take the first covariance from clips."""
    single_decoder: bool = flag(False, MODEL)
    """Ablation of the supplementary: one decoder that reads the mixing weights as a code, in place
    of one decoder per expert."""
    dynamics_dim: int = flag(10, MODEL, low=1, stage="Seq")
    "Size of the dynamics d."
    rnn_dim: int = flag(512, MODEL, low=1, stage="Seq")
    "Hidden size of the LSTMs."
    rnn_layers: int = flag(3, MODEL, low=1, high=100, stage="Seq")
    "Layers of the LSTMs."
    rnn_dropout: float = flag(0.0, MODEL, kind=number, low=0, high=0.99, stage="Seq")
    "Dropout between the layers of the bi-LSTM."
    trans_dim: int = flag(64, MODEL, low=1, stage="Seq")
    "Hidden size of the gated transition. With --fidelity release, rnn_dim takes its place."
    encoder: str = flag("conv", MODEL, choices=ENCODERS)
    """Trunk of the frame encoder: the paper's five convolutions, or an image network of torchvision
    (inception_v3 sees the frames at 107x107)."""
    encoder_weights: str = flag("none", MODEL, kind=str, stage="EncDec")
    """Weights with which an image network starts: none (untrained), download (torchvision's, of
    ImageNet) or a file of torch weights. A run that is resumed does not read them again."""
    encoder_frozen: bool = flag(False, MODEL, stage="EncDec")
    "Leave the weights and the running statistics of an image network as they are at the start."
    enc_widths: tuple = flag((32, 32, 64, 64, 256), MODEL, kind=integers)
    "Channels of the five convolutions of --encoder conv."
    dec_widths: tuple = flag((512, 256, 128, 64), MODEL, kind=integers)
    "Channels of the decoder's first four transposed convolutions."

    temp_id_start: float = flag(2.0, ANNEALING, kind=number, low=0)
    "First temperature of the mixing weights."
    temp_id_end: float = flag(1.0, ANNEALING, kind=number, low=0)
    "Last temperature of the mixing weights, and that of the pictures and exports of stage 2."
    temp_id_frac: int = flag(1, ANNEALING, low=1)
    "The temperature moves over the first epochs / frac epochs."
    test_temp_id: float = flag(10.0, ANNEALING, kind=number, low=0, stage="EncDec")
    "Temperature of the pictures of stage 1."
    anneal_start_id: float = flag(0.1, ANNEALING, kind=number, low=0)
    "First KL weight of s."
    anneal_end_id: float = flag(0.8, ANNEALING, kind=number, low=0)
    "Last KL weight of s."
    anneal_frac_id: int = flag(2, ANNEALING, low=1)
    "The KL weight of s moves over the first epochs / frac epochs."
    anneal_start_dynamics: float = flag(0.01, ANNEALING, kind=number, low=0, stage="Seq")
    "First KL weight of d."
    anneal_end_dynamics: float = flag(1.0, ANNEALING, kind=number, low=0, stage="Seq")
    "Last KL weight of d."
    anneal_frac_dynamics: int = flag(1, ANNEALING, low=1, stage="Seq")
    "The KL weight of d moves over the first epochs / frac epochs."
    anneal_start_t: float = flag(10.0, ANNEALING, kind=number, low=0)
    "First KL weight of z."
    anneal_mid_t1: float = flag(0.1, ANNEALING, kind=number, low=0)
    "KL weight of z at epoch epochs * midfrac1."
    anneal_mid_t2: float = flag(0.1, ANNEALING, kind=number, low=0)
    "KL weight of z at epoch epochs * midfrac2."
    anneal_end_t: float = flag(1.0, ANNEALING, kind=number, low=0)
    "Last KL weight of z."
    anneal_t_midfrac1: float = flag(0.3, ANNEALING, kind=number, low=0, high=1)
    "Share of the epochs at the first middle node of the KL weight of z."
    anneal_t_midfrac2: float = flag(0.6, ANNEALING, kind=number, low=0, high=1)
    "Share of the epochs at its second middle node, which must be later."
    schedule: str = flag("release", ANNEALING, choices=("release", "paper", "geometric"))
    """Shape of the schedules: as in the release; as in the paper (the KL weight of z in stage 1
    follows half cosines between its four values); or geometric between first and last values."""

    SIZES: ClassVar = (
        "z_dim", "n_e_w", "whiten_identity", "single_decoder", "encoder", "enc_widths",
        "dec_widths", "fidelity",
    )  # fmt: skip
    FILES_AT_START: ClassVar = {"encoder_weights": ("none", "download")}
    STAGES: ClassVar = (
        StageInfo(
            "EncDec", "models.vdsm.stages:EncDecStage", "VDSM_EncDec", SIZES,
            "train_VDSMEncDec", "pretrained_model_VDSMEncDec", "lr_VDSMEncDec",
            joins=True, frames_only=True,
        ),
        StageInfo(
            "Seq", "models.vdsm.stages:SeqStage", "VDSM_seq",
            (*SIZES, "dynamics_dim", "rnn_dim", "rnn_layers", "trans_dim"),
            "train_VDSMSeq", "pretrained_model_VDSMSeq", "lr_VDSMSeq", stands_on="EncDec",
        ),
    )  # fmt: skip
    ADOPT: ClassVar = "models.vdsm.release:adopt"
    RENAMED: ClassVar = (
        *RunSettings.RENAMED,
        Renamed(None, {"n_decoders": None}, {"single_decoder": False}),
        Renamed(None, {"n_decoders": 1}, {"single_decoder": True}),
        Renamed(None, {}, {"encoder": "conv"}),
        Renamed(None, {}, {"whiten_identity": False}),
        Renamed("EncDec", {"pixel_frames": ...}, {}),
        Renamed("Seq", {"pixel_frames": ...}, {"frames_per_clip": ...}),
        _start("EncDec", "torch", "torch", "zero", ..., 0, ..., ...),
        _start("EncDec", "data", "data", "data", _one_expert, _one_expert, ..., ...),
        _start("Seq", "torch", ..., ..., ..., ..., 0, 0),
        _start("Seq", "data", ..., ..., ..., ..., 0.03, 0.05),
    )

    @property
    def code_size(self) -> int:
        return self.n_e_w + self.dynamics_dim

    @property
    def trains_on_test(self) -> bool:
        return self.fidelity == "release" and self.dataset_name == "MUG-FED"

    @property
    def distinct_batches(self) -> bool:
        return self.fidelity == "release"

    @property
    def batch_size(self) -> int:
        # On the test clips, the authors' code uses the loader of the test pictures.
        return self.num_test_ids if self.trains_on_test else self.bs

    @property
    def without_effect(self) -> tuple[str, ...]:
        return ("bs",) if self.trains_on_test else ()

    def check(self) -> None:
        super().check()
        first, second = self.anneal_t_midfrac1, self.anneal_t_midfrac2
        if second <= first:
            raise UserError(f"--anneal_t_midfrac2 {second} must exceed --anneal_t_midfrac1 {first}")
        for name, count in (("enc_widths", 5), ("dec_widths", 4)):
            widths = getattr(self, name)
            if len(widths) != count:
                raise UserError(f"--{name} {shown(widths)}: expected {count} integers")
        for name in ("encoder_weights", "encoder_frozen") if self.encoder == "conv" else ():
            if getattr(self, name) not in ("none", False):
                given, others = f"--{name} {getattr(self, name)}", ", ".join(ENCODERS[1:])
                raise UserError(
                    f"{given} is not for --encoder conv: give --encoder one of {others}"
                )
        weights = [
            f"anneal_{e}_{name}" for name in ("id", "dynamics", "t") for e in ("start", "end")
        ]
        for name in weights if self.schedule == "geometric" else ():
            if getattr(self, name) <= 0:
                raise UserError(f"--{name} must be above 0 with --schedule geometric")
