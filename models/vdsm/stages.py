"""VDSM's two stages as the training loop takes them: networks, batches, losses, schedules."""

from weakref import WeakKeyDictionary

import numpy as np
import torch

from models.annealing import Schedules, cosine_ramp, geometric, half_cosines, quadratic_spline
from models.elbo import Term
from models.stage import Stage
from models.start import mean_colour
from models.vdsm.collapse import identity_warnings
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq, Sequences

CACHE_BYTES = 2**30  # the codes of a larger split are not cached
BLOCK = 320  # frames that are encoded at a time
# samples that the data-dependent start looks at, and frames of each, evenly spaced
START_CLIPS, START_FRAMES = 64, 16
LOOK_AT = 4  # validation batches whose identities are checked for collapse
START_SCALES = {"d": 0.03, "z": 0.05}  # posterior scales of stage 2 with --start data


def schedules(settings, stage_name: str) -> Schedules:
    """tau, lambda_s, lambda_d and lambda_z per epoch of a stage (settings: VDSMSettings).

    With --schedule geometric, lambda_s and lambda_d move over the first 1 / frac of the epochs, and
    lambda_z moves from its first value at midfrac1 to its last at midfrac2. With --schedule paper,
    lambda_z of stage 1 is sinusoidal, as the supplementary says.
    """
    c, epochs = settings, settings.span
    temperature = cosine_ramp(c.temp_id_start, c.temp_id_end, c.temp_id_frac, epochs)
    s, d = (c.anneal_start_id, c.anneal_end_id), (c.anneal_start_dynamics, c.anneal_end_dynamics)
    z = c.anneal_start_t, c.anneal_mid_t1, c.anneal_mid_t2, c.anneal_end_t
    nodes = c.anneal_t_midfrac1, c.anneal_t_midfrac2
    if c.schedule == "geometric":
        weights = {
            "s": geometric(s, [0, 1 / c.anneal_frac_id], epochs),
            "d": geometric(d, [0, 1 / c.anneal_frac_dynamics], epochs),
            "z": geometric([z[0], z[-1]], nodes, epochs),
        }
    else:
        sinusoidal = c.schedule == "paper" and stage_name == EncDecStage.name
        weights = {
            "s": cosine_ramp(*s, c.anneal_frac_id, epochs),
            "d": cosine_ramp(*d, c.anneal_frac_dynamics, epochs, c.fidelity == "release"),
            "z": (half_cosines if sinusoidal else quadratic_spline)(z, nodes, epochs),
        }
    return Schedules(weights, temperature)


class VDSMStage(Stage):
    """What both stages share. The tags are the authors'."""

    TAGS = {"s": "id anneal", "z": "zt anneal", "d": "dynamics anneal", "temperature": "id temp"}
    TERMS = {
        "x": "pixels", "s": "KL of identity s", "z": "KL of poses z", "z_1": "KL of first pose z_1",
        "d": "KL of dynamics d",
    }  # fmt: skip

    def schedules(self):
        return schedules(self.settings, self.name)

    def identity(self, batches, step):
        """Posterior means of s [N, K] of the clips of batch `step`."""
        raise NotImplementedError

    @torch.no_grad()
    def warnings(self, batches, kl, annealed):
        """See `Stage.warnings`; also about the identities of some validation clips."""
        s = torch.cat([self.identity(batches, step) for step in range(LOOK_AT)])
        return identity_warnings(s, annealed.temperature) | super().warnings(batches, kl, annealed)


class EncDecStage(VDSMStage):
    """Stage 1: one s per sample and an independent z per frame, from any frames of a clip."""

    name, network_of = "EncDec", EncDec
    KL_FLAGS = {"s": "anneal_end_id", "z": "anneal_end_t"}

    def trainable(self):
        """The parameters that train; those of s at the share --lr_identity of the rate."""
        c, groups = self.settings, {1.0: []}
        last = c.lr_identity if c.lr_identity_last is None else c.lr_identity_last
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                continue  # of a frozen encoder
            share = c.lr_identity if "identity" in name else 1.0
            share = last if name.startswith("identity.") else share
            groups.setdefault(share, []).append(parameter)
        return groups

    @classmethod
    def refuse_files(cls, settings):
        if settings.encoder_weights != "none":
            cls(settings).network.encoder.read(settings.encoder_weights)

    def start_from(self, batches):
        if self.settings.encoder_weights != "none":
            self.network.encoder.read(self.settings.encoder_weights)
        start, scale = self.settings.start, 1 / self.settings.n_e_w
        if start in ("data", "scales", "all"):
            self.network.identity.start_scale_at(scale)
        if start == "all":
            self.network.decoder.start_together()
        if start in ("data", "weights", "all"):
            self.network.decoder.start_at(mean_colour(batches.clips))
            drawn = batches.draw(0, START_CLIPS)
            frames = drawn[0].shape[1]
            some = np.linspace(0, frames - 1, min(frames, START_FRAMES)).astype(int)
            # np.take keeps the order in memory, on which the last digits of a convolution depend.
            drawn = (np.take(part, some, 1) for part in drawn)
            self.network.start_from(batches.frames(*drawn), scale)

    def terms(self, batches, inputs, annealed):
        return self.network.loss(batches.frames(**inputs), annealed, self.settings.kl)

    def identity(self, batches, step):
        codes = self.network.frame_codes(batches.frames(*batches.draw(step)))
        return self.network.identity(*codes[2:])[0]

    def view(self):
        return VDSM(self.network, self.settings.test_temp_id)


class SeqStage(VDSMStage):
    """Stage 2: sequences, over the frozen codes of stage 1, which are computed once per split."""

    name = "Seq"
    KL_FLAGS = {"d": "anneal_end_dynamics"}  # a z that the transition predicts may have no KL

    def __init__(self, settings, encdec):
        super().__init__(settings, Seq(settings, encdec))
        self._codes = WeakKeyDictionary()  # {Batches: codes of all frames of its split}

    @classmethod
    def build(cls, settings, earlier=None):
        encdec = EncDec(settings)
        if earlier is not None:
            encdec.load_state_dict(earlier)
        return cls(settings, encdec)

    def start_from(self, batches):
        if self.settings.start in ("data", "scales", "all"):
            self.network.start_scales_at(**START_SCALES)

    def codes(self, batches, clip, time):
        """`Seq.frame_codes` of the frames at indices [N, T], arrays or tensors."""
        c, clips = self.settings, batches.clips
        # A whole split is cached, unless training reads fewer frames or the cache is too large.
        drawn = c.epochs * c.bs_per_epoch * batches.size * c.seq_len
        if clips.total > drawn or clips.total * (c.z_dim + 2 * c.n_e_w) * 4 > CACHE_BYTES:
            return self.network.frame_codes(batches.frames(clip, time))
        if batches not in self._codes:
            every_frame, blocks = clips.every_frame(), []
            for at in range(0, clips.total, BLOCK):
                indices = (index[None, at : at + BLOCK] for index in every_frame)
                blocks.append(self.network.frame_codes(batches.frames(*indices)))
            self._codes[batches] = [torch.cat(part, 1)[0] for part in zip(*blocks)]  # [F, ...]
        place = batches.place(clip, time)
        return tuple(code[place] for code in self._codes[batches])

    def inputs(self, batches, step):
        """The frames of each sequence, the positions whose pixels count, and how much d reads."""
        c = self.settings
        clip, time, _ = batches.draw(step)  # no sequence is mirrored in this stage
        inputs, (size, frames) = {"clip": clip, "time": time}, clip.shape
        if 0 < c.frames_per_clip < frames:
            if c.with_first_frame and self.network.training:
                picked = 1 + batches.pick(step, size, frames - 1, c.frames_per_clip)
                inputs["picked"] = np.pad(picked, ((0, 0), (1, 0)))
            else:
                inputs["picked"] = batches.pick(step, size, frames, c.frames_per_clip)
        # In every other batch, d is read from a first part of the clip.
        if c.foresight and self.network.training and step % 2:
            inputs["seen"] = max(int(batches.pick(step, 1, frames, 1)[0, 0]), frames // 2)
        return inputs

    def frames_counted(self, batches):
        return batches.draw(0)[0].shape[1]  # some pixels are counted for all

    def terms(self, batches, inputs, annealed):
        c, clip, time = self.settings, inputs["clip"], inputs["time"]
        codes, picked = self.codes(batches, clip, time), inputs.get("picked")
        if isinstance(picked, np.ndarray):
            clip, time = (np.take_along_axis(part, picked, 1) for part in (clip, time))
            picked = batches.send(picked)
        elif picked is not None:
            clip, time = (part.gather(1, picked) for part in (clip, time))
        sequences = Sequences(codes, batches.frames(clip, time), picked, inputs.get("seen"))
        terms = self.network.loss(sequences, annealed, c.kl)
        if c.foresight and self.network.training:
            gap = self.network.foresight(codes[0])
            terms["foresight"] = Term(gap, c.foresight * gap)
        if c.near_poses and self.network.training:
            error = self.network.pose_error(codes[0])
            terms["pose error"] = Term(error, c.near_poses * error)
        return terms

    def identity(self, batches, step):
        _, s_loc, s_scale = self.codes(batches, *batches.draw(step)[:2])
        return self.network.identity(s_loc, s_scale)[0]

    def view(self):
        return VDSM(self.network, self.settings.temp_id_end)
