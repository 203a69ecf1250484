"""What the training loop needs of a stage: batches, losses, schedules, warnings, and a view."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from models.annealing import Annealed, Schedules, geometric
from models.elbo import Term
from models.settings import NODES
from models.start import mean_colour
from models.view import VideoModel, View

UNUSED = 0.05  # nats per sequence: a code with a smaller KL carries no information
PATIENCE, LEAST = 0.25, 200  # share of the steps, and steps, before which a code may be unused


class Stage:
    """One stage of the training of a model: a network, and how it is trained.

    A subclass names the class of its network in `network_of`, which is built from the settings, and
    overrides what differs. The network's `loss(x, annealed)` gives the terms of a batch of frames x
    [N, P, 3, 64, 64] in [0, 1], summed over the batch. `batches` is a data.batches.Batches.
    """

    name: str
    network_of: type[nn.Module]
    network: Any  # an nn.Module with the methods that views, losses and starts call
    TAGS: dict[str, str] = {}  # names of schedules in TensorBoard, if not '{latent} anneal'
    TERMS: dict[str, str] = {"x": "pixels"}  # plain names of the terms of the loss, to be shown
    KL_FLAGS: dict[str, str] = {}  # {term: flags that lower its KL weight}, for `warnings`

    def __init__(self, settings, network: Any = None):
        self.settings = settings
        self.network = self.network_of(settings) if network is None else network

    @classmethod
    def build(cls, settings, earlier: dict | None = None) -> "Stage":
        """The stage with fresh weights. earlier: state dict of the network that it stands on."""
        return cls(settings)

    @classmethod
    def refuse_files(cls, settings) -> None:
        """Raise UserError if a file that the stage reads when it starts cannot be used."""

    def to(self, device) -> "Stage":
        """Move the network to `device`; returns the stage."""
        self.network.to(device)
        return self

    def trainable(self) -> dict[float, list[nn.Parameter]]:
        """The parameters that train, by their share of the learning rate."""
        return {1.0: [p for p in self.network.parameters() if p.requires_grad]}

    def start_from(self, batches) -> None:
        """Adapt fresh weights to data, if the settings ask for it."""

    def schedules(self) -> Schedules:
        """The KL weights, and the temperature if there is one, per epoch."""
        return Schedules({})

    def batch(self, batches, step: int, size: int | None = None) -> Sequence[np.ndarray]:
        """Index arrays clip, time, flip [N, P] of the frames of training batch `step`.

        If the settings have --frames_per_clip, so many random frames of each sample (0: all).
        size: samples. Default: those of a batch.
        """
        drawn, count = batches.draw(step, size), getattr(self.settings, "frames_per_clip", 0)
        size, frames = drawn[0].shape
        if not 0 < count < frames:
            return drawn
        picked = batches.pick(step, size, frames, count)
        return [np.take_along_axis(part, picked, 1) for part in drawn]

    def inputs(self, batches, step: int) -> dict[str, Any]:
        """What `terms` reads of batch `step`: index arrays, of the same shapes in every step.

        A stage may add numbers. A GPU then captures one graph per combination of their values.
        """
        clip, time, flip = self.batch(batches, step)
        return {"clip": clip, "time": time, **({"flip": flip} if batches.flips else {})}

    def terms(self, batches, inputs: dict[str, Any], annealed: Annealed) -> dict[str, Term]:
        """The terms of the loss, summed over a batch. inputs: of `inputs`, as arrays or tensors."""
        return self.network.loss(batches.frames(**inputs), annealed)

    def frames_counted(self, batches) -> int:
        """For how many frames the loss of one sequence counts."""
        return self.batch(batches, 0)[0].shape[1]

    def loss(self, batches, step: int, annealed: Annealed) -> tuple[dict[str, Term], int]:
        """The terms of the loss of batch `step`, and the number of sequences in the batch."""
        return self.terms(batches, self.inputs(batches, step), annealed), batches.size

    def objective(self, terms: dict[str, Term], sequences: int) -> Any:
        """The scalar to minimise: the weighted terms, summed over the batch."""
        return sum(term.weighted for term in terms.values())

    def warnings(self, batches, kl: dict[str, float], annealed: Annealed) -> dict[str, str]:
        """{keyword: a line} about codes that carry no information, with a flag that usually helps.

        kl: validation loss per term, in nats per sequence.
        """
        return {
            f"no KL of {term}": f"the KL of {term} is {kl[term]:.2g} nats per sequence: the code "
            f"carries no information; a lower --{flags} usually helps"
            for term, flags in self.KL_FLAGS.items()
            if kl.get(term, UNUSED) < UNUSED
        }

    def view(self) -> VideoModel:
        """The network as metrics and pictures see it."""
        return View(self.network)


class OneStage(Stage):
    """The only stage of a model with a static code f per clip and a dynamic code z_t per frame."""

    TAGS = {"z": "zt anneal"}
    TERMS = {"x": "pixels", "f": "KL of static f", "z": "KL of dynamic z"}
    KL_FLAGS = {"f": "kl_f, or --kl_f_start,"}

    def schedules(self) -> Schedules:
        """The KL weights of f and z: constant, or geometric from --kl_*_start."""
        c, weights = self.settings, {}
        for code in ("f", "z"):
            start, end = getattr(c, f"kl_{code}_start"), getattr(c, f"kl_{code}")
            constant = np.full(c.span, end)
            weights[code] = geometric((start, end), NODES, c.span) if start else constant
        return Schedules(weights)

    def start_from(self, batches) -> None:
        """With --start data, let pictures start at the mean colour of the clips."""
        if self.settings.start == "data":
            self.network.start_at(mean_colour(batches.clips))


def too_early(step: int, steps: int) -> bool:
    """Whether it is too early, in a stage of `steps` steps, to warn of codes that carry nothing."""
    return step < max(PATIENCE * steps, LEAST)
