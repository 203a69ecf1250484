"""Image networks of torchvision as VDSM's frame encoder (--encoder), untrained or pretrained.

Of a network, all is kept but its last layer, which names one of ImageNet's classes: the heads of z
and s take its place. Its batch norms count as its weights do. Where the weights train, a training
step normalises by the frames of its batch and moves the running statistics, which everything else
uses: validation, pictures, figures, stage 2. Where the weights are frozen, the running statistics
are frozen too. They lie in the checkpoints.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models import precision
from models.start import in_blocks
from models.vdsm.networks import Heads
from utils.errors import UserError
from utils.weights import fitted, from_file

FLAG = "encoder_weights"
# What the inputs of the published weights are normalised by.
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# px: the smallest pictures of which the last layers of Inception v3 see 2 x 2 places, as those of
# the ResNets do of 64 px. Below 75 px, none is left.
INCEPTION_SIDE = 107


class ImageEncoder(Heads):
    """Heads over the network `name` of torchvision, whose weights are frozen or train."""

    def __init__(self, pose_dim, experts, name, frozen=False):
        super().__init__()
        self.name = name
        self.trunk, width = build(name)
        self.trunk.requires_grad_(not frozen)
        self.train()  # so that a frozen trunk is in eval mode from its start
        self.add_heads(width, pose_dim, experts)
        inception = name == "inception_v3"
        self.side = INCEPTION_SIDE if inception else None
        for buffer, values in zip(("mean", "deviation"), HALVES if inception else IMAGENET):
            self.register_buffer(buffer, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def trains(self):
        return next(self.trunk.parameters()).requires_grad

    def train(self, mode=True):
        """As in `nn.Module`, but a trunk whose weights do not train stays in eval mode."""
        super().train(mode)
        self.trunk.train(mode and self.trains)
        return self

    def features(self, x):
        x = (x - self.mean) / self.deviation
        if self.side:
            x = F.interpolate(x, (self.side, self.side), mode="bilinear")
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trains):
            return self.trunk(x.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def start_from(self, x):
        """Rescale the heads of s on frames x [B, 3, 64, 64]. The trunk normalises by itself."""
        self.start_heads(in_blocks(self.features, x))

    def read(self, weights):
        """Take the weights of the file that --encoder_weights names, or download torchvision's.

        Raises UserError if these are of another network, or cannot be had.
        """
        trains = self.trains
        path = downloaded(self.name) if weights == "download" else weights
        tensors = from_file(path, FLAG)
        if any(value.dim() == 5 for value in tensors.values()):
            problem = "holds a 3D network, which reads 16 frames at once; a frame encoder reads one"
            todo = "give it to --fid_weights, and here weights of an image network of torchvision"
            raise UserError(f"--{FLAG} {path} {problem}: {todo}")
        fitted(self.trunk, tensors, path, FLAG).requires_grad_(trains)
        self.train(self.training)


def build(name: str) -> tuple[nn.Module, int]:
    """The network `name` with torchvision's fresh weights, without its last layer; its width."""
    from torchvision.models import get_model  # takes a second

    inception = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    network: Any = get_model(name, weights=None, **inception)
    width, network.fc = network.fc.in_features, nn.Identity()
    if inception:
        network.dropout = nn.Identity()  # it stands before the last layer
    for layer in network.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = precision.Conv2d
    return network, width


def downloaded(name: str) -> Path:
    """The file of torchvision's weights of the network `name`, fetched unless it is there."""
    from torchvision.models import get_model_weights

    published: Any = get_model_weights(name)
    url = published.DEFAULT.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            digits = path.stem.rpartition("-")[2]  # with which the file's SHA-256 begins
            torch.hub.download_url_to_file(url, str(path), digits, progress=False)
    except (OSError, RuntimeError):  # no network, a full disk or a damaged download
        hint = f"give --{FLAG} FILE, or put the file into {path.parent}"
        raise UserError(f"{url} is not there and cannot be downloaded: {hint}") from None
    return path
