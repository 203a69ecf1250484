"""VDSM's own flags. No torch here: `--help` comes at once."""

from dataclasses import dataclass
from typing import ClassVar

from utils.config import RunSettings, StageInfo, flag, integers, number
from utils.errors import UserError

STAGE, MODEL, ANNEALING = "VDSM: stages", "VDSM: sizes", "VDSM: annealing"


@dataclass
class VDSMSettings(RunSettings):
    """The release's flags with its defaults, and the knobs beside them, each neutral by default."""

    train_VDSMEncDec: bool = flag(False, "train stage 1, encoder and decoder", STAGE, free=True)
    train_VDSMSeq: bool = flag(
        False,
        "train stage 2, dynamics; with stage 1 too, after it; both False: test",
        STAGE,
        free=True,
    )
    pretrained_model_VDSMEncDec: int = flag(
        None,
        "epoch of the stage-1 checkpoint to use; default: the newest",
        STAGE,
        kind=int,
        low=0,
        free=True,
    )
    pretrained_model_VDSMSeq: int = flag(
        None,
        "epoch of the stage-2 checkpoint to test; default: the newest",
        STAGE,
        kind=int,
        low=0,
        free=True,
    )
    lr_VDSMEncDec: float = flag(
        0.001, "Adam's learning rate in stage 1", STAGE, kind=number, low=0, stage="EncDec"
    )
    lr_VDSMSeq: float = flag(
        0.001, "Adam's learning rate in stage 2", STAGE, kind=number, low=0, stage="Seq"
    )
    lr_identity: float = flag(
        1.0,
        "share of stage 1's learning rate for the layers of s",
        STAGE,
        kind=number,
        low=0,
        stage="EncDec",
    )
    kl: str = flag(
        "analytic", "KL terms in closed form or by Monte Carlo", STAGE, choices=("analytic", "mc")
    )
    frames_per_clip: int = flag(
        0,
        "frames drawn at random from each stage-1 sample; 0 takes all",
        STAGE,
        low=0,
        stage="EncDec",
    )
    pixel_frames: int = flag(
        0,
        "frames a sequence whose pixels count in a stage-2 step, drawn at random; 0 takes all",
        STAGE,
        low=0,
        stage="Seq",
    )
    foresight: float = flag(
        0.0,
        "weight of stage 2's agreement on the frames after the clip; 0 is off",
        STAGE,
        kind=number,
        low=0,
        stage="Seq",
    )
    output_bias: str = flag(
        "zero",
        "where the decoder's pictures start: grey, or the data's mean colour",
        STAGE,
        choices=("zero", "data"),
        stage="EncDec",
    )
    encoder_init: str = flag(
        "torch",
        "encoder's start: torch's init, or unit variance layer by layer on data",
        STAGE,
        choices=("torch", "data"),
        stage="EncDec",
    )
    s_spread_start: float = flag(
        0.0625,
        "spread of s over clips before training, with --encoder_init data",
        STAGE,
        kind=number,
        low=0,
        stage="EncDec",
    )
    s_scale_start: float = flag(
        0.0,
        "posterior scale of s before training; 0 leaves torch's init",
        STAGE,
        kind=number,
        low=0,
        stage="EncDec",
    )

    d_scale_start: float = flag(
        0.0,
        "posterior scale of d before training; 0 leaves torch's init",
        STAGE,
        kind=number,
        low=0,
        stage="Seq",
    )
    z_scale_start: float = flag(
        0.0,
        "posterior scale of stage 2's z before training; 0 leaves torch's init",
        STAGE,
        kind=number,
        low=0,
        stage="Seq",
    )

    z_dim: int = flag(20, "size of the pose z", MODEL, low=1)
    n_e_w: int = flag(15, "experts, the size of the identity s", MODEL, low=1)
    n_decoders: int = flag(
        None, "1: one decoder that reads the mixing weights as a plain code (ablation); default: one an expert", MODEL,
        kind=int, low=1,
    )  # fmt: skip
    dynamics_dim: int = flag(10, "size of the dynamics d", MODEL, low=1, stage="Seq")
    rnn_dim: int = flag(512, "hidden size of the LSTMs", MODEL, low=1, stage="Seq")
    rnn_layers: int = flag(3, "layers of the LSTMs", MODEL, low=1, stage="Seq")
    rnn_dropout: float = flag(
        0.0,
        "dropout between the bi-LSTM's layers",
        MODEL,
        kind=number,
        low=0,
        high=0.99,
        stage="Seq",
    )
    trans_dim: int = flag(
        64,
        "hidden size of the gated transition (release fidelity: rnn_dim instead)",
        MODEL,
        low=1,
        stage="Seq",
    )
    enc_widths: tuple = flag(
        (32, 32, 64, 64, 256), "channels of the encoder's five convolutions", MODEL, kind=integers
    )
    dec_widths: tuple = flag(
        (512, 256, 128, 64),
        "channels of the decoder's first four transposed convolutions",
        MODEL,
        kind=integers,
    )

    temp_id_start: float = flag(
        2.0, "temperature of the mixing weights: first", ANNEALING, kind=number, low=0
    )
    temp_id_end: float = flag(
        1.0, "... last; also that of stage-2 pictures and exports", ANNEALING, kind=number, low=0
    )
    temp_id_frac: int = flag(1, "... it ramps over epochs / frac", ANNEALING, low=1)
    test_temp_id: float = flag(
        10.0, "temperature of stage-1 pictures", ANNEALING, kind=number, low=0, stage="EncDec"
    )
    anneal_start_id: float = flag(
        0.1, "weight of the KL of s: first", ANNEALING, kind=number, low=0
    )
    anneal_end_id: float = flag(0.8, "... last", ANNEALING, kind=number, low=0)
    anneal_frac_id: int = flag(2, "... it ramps over epochs / frac", ANNEALING, low=1)
    anneal_start_dynamics: float = flag(
        0.01, "weight of the KL of d: first", ANNEALING, kind=number, low=0, stage="Seq"
    )
    anneal_end_dynamics: float = flag(1.0, "... last", ANNEALING, kind=number, low=0, stage="Seq")
    anneal_frac_dynamics: int = flag(
        1, "... it ramps over epochs / frac", ANNEALING, low=1, stage="Seq"
    )
    anneal_start_t: float = flag(
        10.0, "weight of the KL of z: first", ANNEALING, kind=number, low=0
    )
    anneal_mid_t1: float = flag(0.1, "... at epochs * midfrac1", ANNEALING, kind=number, low=0)
    anneal_mid_t2: float = flag(0.1, "... at epochs * midfrac2", ANNEALING, kind=number, low=0)
    anneal_end_t: float = flag(1.0, "... last", ANNEALING, kind=number, low=0)
    anneal_t_midfrac1: float = flag(
        0.3, "share of the epochs at the first middle node", ANNEALING, kind=number, low=0, high=1
    )
    anneal_t_midfrac2: float = flag(
        0.6, "... at the second, later one", ANNEALING, kind=number, low=0, high=1
    )
    schedule: str = flag(
        "release",
        "shape of the schedules: the release's, or geometric between the same values",
        ANNEALING,
        choices=("release", "geometric"),
    )

    SIZES: ClassVar = (
        "z_dim",
        "n_e_w",
        "n_decoders",
        "enc_widths",
        "dec_widths",
        "fidelity",
    )  # of a stage-1 network
    STAGES: ClassVar = (
        StageInfo(
            "EncDec", "models.vdsm.stages:EncDecStage", "VDSM_EncDec", SIZES,
            "train_VDSMEncDec", "pretrained_model_VDSMEncDec", "lr_VDSMEncDec", joins=True, frames_only=True,
        ),
        StageInfo(
            "Seq", "models.vdsm.stages:SeqStage", "VDSM_seq", (*SIZES, "dynamics_dim", "rnn_dim", "rnn_layers", "trans_dim"),
            "train_VDSMSeq", "pretrained_model_VDSMSeq", "lr_VDSMSeq", stands_on="EncDec",
        ),
    )  # fmt: skip

    @property
    def code_size(self):
        """Numbers in the codes of one clip."""
        return self.n_e_w + self.dynamics_dim

    def check(self):
        """Raise UserError where two flags contradict each other."""
        super().check()
        if self.anneal_t_midfrac2 <= self.anneal_t_midfrac1:
            raise UserError(
                f"--anneal_t_midfrac2 {self.anneal_t_midfrac2} must exceed --anneal_t_midfrac1 {self.anneal_t_midfrac1}"
            )
        if self.n_decoders not in (None, 1, self.n_e_w):
            raise UserError(
                f"--n_decoders {self.n_decoders}: give 1, or {self.n_e_w} (--n_e_w), or leave it out"
            )
        if self.n_decoders == self.n_e_w != 1:
            self.n_decoders = None  # one name for one model: checkpoints are compared by it
        for name, count in (("enc_widths", 5), ("dec_widths", 4)):
            if len(getattr(self, name)) != count:
                raise UserError(
                    f"--{name} {','.join(map(str, getattr(self, name)))}: expected {count} integers"
                )
        if self.schedule == "geometric":
            for name in ("id", "dynamics", "t"):
                for end in ("start", "end"):
                    if getattr(self, f"anneal_{end}_{name}") <= 0:
                        raise UserError(
                            f"--anneal_{end}_{name} must be above 0 with --schedule geometric"
                        )
        if self.pixel_frames > self.seq_len:
            raise UserError(
                f"--pixel_frames {self.pixel_frames} exceeds --seq_len {self.seq_len}: use {self.seq_len} or less"
            )
