"""What the training loop needs of any stage of any model."""

import numpy as np

from models.annealing import geometric
from models.settings import NODES
from models.start import mean_colour
from models.view import View


class Stage:
    """One stage of training as the loop takes it: a network whose `loss(x, weights)` gives {term: Term} of a batch
    [N, T, 3, 64, 64] in [0, 1].

    A subclass names its network's class, built from the settings alone, and changes what differs.
    """

    name = network_of = None

    def __init__(self, settings):
        self.settings, self.network = settings, self.network_of(settings)

    @classmethod
    def build(cls, settings, clips=None, earlier=None):
        """The stage with fresh weights. clips: the training split (a data.base.Clips), where the start depends on it; earlier: the
        trained network, as its state, of the stage that this one stands on. Without them: the same network, to be loaded."""
        stage = cls(settings)
        if clips is not None and settings.output_bias == "data":
            stage.network.start_at(mean_colour(clips))
        return stage

    def to(self, device):
        """Move the network; returns the stage."""
        self.network.to(device)
        return self

    def trainable(self):
        """The parameters that this stage trains, by the share of the learning rate that they train at."""
        return {1.0: [p for p in self.network.parameters() if p.requires_grad]}

    def start_from(self, sampler, store):
        """Data-dependent initialisation: none."""

    def schedules(self):
        """{weight: array [epochs]} that `loss` is handed, one value an epoch: of `OneStageSettings`, those of the KLs of f and z."""
        c, found = self.settings, {}
        for code in ("f", "z"):
            start, end = getattr(c, f"kl_{code}_start"), getattr(c, f"kl_{code}")
            found[code] = (
                np.full(c.epochs, end)
                if start is None
                else geometric([start, end], NODES, c.epochs)
            )
        return found

    def batch(self, sampler, step):
        """Index arrays of batch `step`."""
        return sampler.draw(step, self.settings.bs)

    def some(self, sampler, step, count):
        """Index arrays of batch `step`, `count` frames of each sample drawn at random."""
        clip, *_ = batch = sampler.draw(step, self.settings.bs)
        picked = sampler.pick(step, *clip.shape, count)
        return [np.take_along_axis(part, picked, 1) for part in batch]

    def loss(self, sampler, store, step, weights):
        """{term: Term} of batch `step`, and the number of sequences in it."""
        return self.network.loss(store.pick(*self.batch(sampler, step)), weights), self.settings.bs

    def objective(self, terms, clips):
        """What is descended: the weighted terms, summed over the batch."""
        return sum(term.weighted for term in terms.values())

    def identities(self, sampler, store, batches):
        """What is looked at for signs of collapse: VDSM's identities; None here."""

    def view(self):
        """The network as `VideoModel`."""
        return View(self.network)
