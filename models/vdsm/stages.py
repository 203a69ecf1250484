"""The two stages as the training loop takes them: which network, which parameters, the loss of a batch.

A stage draws its batch with a `data.batches` sampler and store handed to it; the loop hands it the schedules' values.
"""

import torch

from models.annealing import schedules
from models.elbo import Term
from models.stage import Stage
from models.start import mean_colour
from models.vdsm.encdec import EncDec
from models.vdsm.model import VDSM
from models.vdsm.seq import Seq

CACHE_BYTES = 2**30  # frame codes of a split larger than this are computed batch by batch
BLOCK = 320  # frames that are encoded at a time


class EncDecStage(Stage):
    """Stage 1: samples of any frames of a clip, one s a sample and a z a frame."""

    name = "EncDec"

    def __init__(self, settings, mean=None):
        """mean [3] in (0, 1): the data's mean colour, where --output_bias asks for it."""
        self.settings, self.network = settings, EncDec(settings)
        if settings.output_bias == "data" and mean is not None:
            self.network.decoder.start_at(mean)

    @classmethod
    def build(cls, settings, clips=None, earlier=None):
        """See `Stage.build`."""
        return cls(settings, None if clips is None else mean_colour(clips))

    def schedules(self):
        """{weight: array [epochs]} that `loss` is handed, one value an epoch."""
        return schedules(self.settings)

    def trainable(self):
        """The parameters that this stage trains, by the share of the learning rate that they train at."""
        named = list(self.network.named_parameters())
        slow = [p for name, p in named if "identity" in name]
        if self.settings.lr_identity == 1:
            return {1.0: [p for _, p in named]}
        return {
            1.0: [p for name, p in named if "identity" not in name],
            self.settings.lr_identity: slow,
        }

    def start_from(self, sampler, store):
        """Data-dependent initialisation, where the settings ask for it."""
        if self.settings.encoder_init == "data":
            self.network.start_from(store.pick(*sampler.draw(0, 64)), self.settings.s_spread_start)

    def loss(self, sampler, store, step, weights):
        """{term: Term} of batch `step`, and the number of sequences in it."""
        c = self.settings
        batch = sampler.draw(step, c.bs)
        frames = batch[0].shape[1]
        if 0 < c.frames_per_clip < frames:
            rows = torch.arange(c.bs)[:, None].numpy()
            some = sampler.pick(step, c.bs, frames, c.frames_per_clip)
            batch = [part[rows, some] for part in batch]
        return self.network.loss(store.pick(*batch), weights, c.kl), c.bs

    @torch.no_grad()
    def identities(self, sampler, store, batches):
        """s's posterior means [batches * bs, K] of the first batches."""

        def of(step):
            codes = self.network.frame_codes(store.pick(*sampler.draw(step, self.settings.bs)))
            return self.network.identity(*codes[2:])[0]

        return torch.cat([of(step) for step in range(batches)])

    def view(self):
        """The network as `models.view.VideoModel`."""
        return VDSM(self.network, self.settings.test_temp_id)


class SeqStage(Stage):
    """Stage 2: sequences, over the frozen codes of stage 1, computed once a split."""

    name = "Seq"

    def __init__(self, settings, encdec):
        self.settings, self.network = settings, Seq(settings, encdec)
        self._codes = {}

    @classmethod
    def build(cls, settings, clips=None, earlier=None):
        """See `Stage.build`; earlier: stage 1's."""
        encdec = EncDec(settings)
        if earlier is not None:
            encdec.load_state_dict(earlier)
        return cls(settings, encdec)

    def schedules(self):
        """{weight: array [epochs]} that `loss` is handed, one value an epoch."""
        return schedules(self.settings)

    def codes(self, store, clip, time):
        """The frozen encoder's codes at index arrays [N, T]: z loc [N, T, pose_dim], s loc, s scale [N, T, K]."""
        clips = store.clips
        c = self.settings
        drawn = (
            c.epochs * c.bs_per_epoch * c.bs * c.seq_len
        )  # in all of training: to encode more would not pay
        if clips.total > drawn or clips.total * (c.z_dim + 2 * c.n_e_w) * 4 > CACHE_BYTES:
            return self.network.frame_codes(store.pick(clip, time))
        if id(store) not in self._codes:
            blocks, (every, times) = [], clips.every_frame()
            for start in range(0, len(every), BLOCK):
                block = slice(start, start + BLOCK)
                blocks.append(
                    self.network.frame_codes(store.pick(every[None, block], times[None, block]))
                )
            self._codes[id(store)] = tuple(
                torch.cat(part, 1)[0] for part in zip(*blocks)
            )  # [F, ...] each
        codes = self._codes[id(store)]
        place = torch.from_numpy(clips.rank[clip] + time).to(codes[0].device)
        return tuple(code[place] for code in codes)

    def loss(self, sampler, store, step, weights):
        """{term: Term} of batch `step`, and the number of sequences in it."""
        c = self.settings
        clip, time, _ = sampler.draw(step, c.bs)  # no sequence is mirrored in this stage
        codes, picked = self.codes(store, clip, time), None
        if 0 < c.pixel_frames < clip.shape[1]:
            rows = torch.arange(c.bs)[:, None].numpy()
            some = sampler.pick(step, c.bs, clip.shape[1], c.pixel_frames)
            clip, time = clip[rows, some], time[rows, some]
            picked = torch.from_numpy(some).to(codes[0].device)
        frames, foresight = codes[0].shape[1], c.foresight and self.network.training
        if foresight and step % 2:  # every other batch, d is read from a first part of the clip
            some = sampler.pick(step, 1, frames, 1)[0, 0]
            weights = {**weights, "seen": max(int(some), frames // 2)}
        terms = self.network.loss(codes, store.pick(clip, time), weights, picked, c.kl)
        if foresight:
            gap = self.network.foresight(codes[0])
            terms["foresight"] = Term(gap, c.foresight * gap)
        return terms, c.bs

    @torch.no_grad()
    def identities(self, sampler, store, batches):
        """s's posterior means [batches * bs, K] of the first batches."""

        def of(step):
            _, s_loc, s_scale = self.codes(store, *sampler.draw(step, self.settings.bs)[:2])
            return self.network.identity(s_loc, s_scale)[0]

        return torch.cat([of(step) for step in range(batches)])

    def view(self):
        """The network as `models.view.VideoModel`."""
        return VDSM(self.network, self.settings.temp_id_end)
