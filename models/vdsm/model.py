"""VDSM as metrics and pictures see it: the locations of its codes, decoded in any pairing."""

import torch

from models.view import in_batches


class VDSM:
    """A trained `EncDec`, or a `Seq` over one, behind `models.view.VideoModel`.

    static: the mixing weights w [N, K]. dynamic: d [N, dynamics_dim] with stage 2, the poses z [N, T, pose_dim] without; what
    `draw` gives are poses in both.
    temperature: that of the mixing weights (stage-1 pictures: test_temp_id; stage-2 pictures and exports: temp_id_end).
    """

    def __init__(self, stage, temperature):
        self.stage, self.temperature = stage.eval(), temperature
        self.continues = hasattr(stage, "poses")
        self.device = next(stage.parameters()).device

    def encode(self, frames):
        """Frames [N, T, 3, 64, 64] -> static, dynamic (see the class), on CPU."""
        return in_batches(lambda x: self.stage.encode(x.to(self.device), self.temperature), frames)

    def decode(self, static, dynamic, frames):
        """Codes -> [N, frames, 3, 64, 64] in [0, 1], on CPU. Poses give no more frames than they are."""

        def block(w, code):
            w, code = w.to(self.device), code.to(self.device)
            z = self.stage.poses(code, frames) if code.dim() == 2 else code[:, :frames]
            return self.stage.decode(z, w)

        return in_batches(block, static, dynamic)

    def mixing_weights(self, frames):
        """Frames [N, T, 3, 64, 64] -> w [N, K], how much of each expert draws a clip, on CPU."""
        return self.encode(frames)[0]

    def codes(self, frames):
        """Frames [N, T, 3, 64, 64] -> the locations of s [N, K] (times the temperature, but for a shift that the softmax undoes),
        with stage 2 of d [N, dynamics_dim], and of z [N, T, pose_dim], on CPU."""
        w, dynamic = self.encode(frames)
        s = w.clamp_min(1e-6).log()
        if dynamic.dim() == 3:
            return {"s": s, "z": dynamic}
        poses = in_batches(lambda d: self.stage.poses(d.to(self.device), frames.shape[1]), dynamic)
        return {"s": s, "d": dynamic, "z": poses}

    def vary(self, codes, name, values, frames):
        """One clip's `codes` decoded again, [N, frames, 3, 64, 64], with each of `values` [N, ...] in place of its code `name`."""
        every = {key: code.expand(len(values), *code.shape[1:]) for key, code in codes.items()} | {
            name: values
        }
        return self.decode(every["s"].softmax(-1), every["d" if name == "d" else "z"], frames)

    @torch.no_grad()
    def draw(self, clips, frames):
        """Mixing weights w [clips, K] and poses z [clips, frames, pose_dim] from the priors, on CPU."""
        w, z = self.stage.sample(clips, frames, self.temperature)
        return w.cpu(), z.cpu()

    def sample(self, clips, frames):
        """Clips from the priors, [clips, frames, 3, 64, 64] in [0, 1], on CPU."""
        return self.decode(*self.draw(clips, frames), frames)
