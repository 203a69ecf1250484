"""Judges that others trained, from a file of the user (--judge).

`FamilyJudge` is the sprite judge of the S3VAE family's public code, for `sprites-li`; the other two
are the classifiers of VDSM's notebooks. HEADS: {our factor: (the file's head, its number of
values)}. Attributes bear the names of the files' tensors.
"""

from pathlib import Path

import torch
from torch import nn

from data.base import Dataset
from metrics.judge import logits_of
from metrics.summary import Arrays
from utils.errors import UserError
from utils.weights import fitted, from_file

FLAG = "judge"


class FamilyJudge(nn.Module):
    """p(factor | clip) of the S3VAE family: frames [N, T, 3, 64, 64] in [0, 1] -> logits."""

    HEADS = {
        "body": ("cls_skin", 6),
        "bottomwear": ("cls_pant", 6),
        "topwear": ("cls_top", 6),
        "hair": ("cls_hair", 6),
        "action": ("cls_action", 9),
    }

    def __init__(self):
        super().__init__()
        widths, layers = (3, 64, 128, 256, 512), {}
        for i in range(4):
            convolution = nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1)
            block = convolution, nn.BatchNorm2d(widths[i + 1]), nn.LeakyReLU(0.2)
            layers[f"c{i + 1}"] = nn.ModuleDict({"main": nn.Sequential(*block)})
        layers["c5"] = nn.Sequential(nn.Conv2d(512, 128, 4), nn.BatchNorm2d(128), nn.Tanh())
        self.encoder = nn.ModuleDict(layers)
        self.bilstm = nn.LSTM(128, 256, batch_first=True, bidirectional=True)
        for head, values in self.HEADS.values():
            layers = nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, values)
            setattr(self, head, nn.Sequential(*layers))

    def forward(self, frames):
        x = frames.flatten(0, 1)
        for layer in self.encoder.values():
            x = layer["main"](x) if isinstance(layer, nn.ModuleDict) else layer(x)
        features = x.flatten(1).unflatten(0, frames.shape[:2])  # [N, T, 128]
        states = self.bilstm(features)[0]  # [N, T, 512]
        summary = torch.cat([states[:, -1, :256], states[:, 0, 256:]], 1)
        return {factor: getattr(self, head)(summary) for factor, (head, _) in self.HEADS.items()}


class NotebookJudge(nn.Module):
    """p(factor | clip) of VDSM's notebooks: frames [N, T, 3, 64, 64] in [0, 1] -> logits."""

    HEADS: dict[str, tuple[str, int]]

    def __init__(self):
        super().__init__()
        leaky = nn.LeakyReLU(0.2)
        self.encoding_conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 64, 5, 4, 1, bias=False), leaky),
            nn.Sequential(nn.Conv2d(64, 128, 5, 4, 1, bias=False), nn.BatchNorm2d(128), leaky),
        )
        self.encoding_fc = nn.Sequential(nn.Linear(2048, 1024), nn.BatchNorm1d(1024), leaky)
        self.classifier_lstm = nn.LSTM(1024, 512, batch_first=True)
        for head, values in self.HEADS.values():
            layers = nn.Linear(512, 256), nn.BatchNorm1d(256), leaky, nn.Linear(256, values)
            setattr(self, head, nn.Sequential(*layers))

    def forward(self, frames):
        features = self.encoding_fc(self.encoding_conv(frames.flatten(0, 1)).flatten(1))
        last = self.classifier_lstm(features.unflatten(0, frames.shape[:2]))[0][:, -1]
        return {factor: getattr(self, head)(last) for factor, (head, _) in self.HEADS.items()}


class SpritesNotebook(NotebookJudge):
    """The classifier of classifier_sprites.ipynb."""

    HEADS = {
        "body": ("body", 7),
        "shirt": ("shirt", 4),
        "legs": ("pants", 5),
        "hair": ("hairstyles", 6),
        "action": ("action", 9),
    }


class MUGNotebook(NotebookJudge):
    """The classifier of classifier_MUG.ipynb, with room for more values than the files have."""

    HEADS = {"identity": ("id", 52), "action": ("action", 9)}


NETWORKS = {"sprites-li": FamilyJudge, "sprites": SpritesNotebook, "MUG-FED": MUGNotebook}


class PublishedJudge:
    """The judge of --judge `path` for a data set. Raises UserError if the file does not fit it."""

    def __init__(self, path: str | Path, dataset: Dataset, device: torch.device | str = "cpu"):
        if dataset.name not in NETWORKS:
            problem = f"--{FLAG} {path}: no published judge of {dataset.name} is known"
            raise UserError(f"{problem}, only of {', '.join(NETWORKS)}: leave the flag out")
        network = NETWORKS[dataset.name]()
        self.network = fitted(network, from_file(path, FLAG), path, FLAG).to(device)
        self.classes = {factor: len(names) for factor, names in dataset.classes.items()}
        # The place of each of our values in a head.
        self.places = {factor: list(range(count)) for factor, count in self.classes.items()}
        if "identity" in self.places:
            people, room = dataset.classes["identity"], network.HEADS["identity"][1]
            odd = [name for name in people if not name.isdecimal() or int(name) >= room]
            if odd:
                problem = f"--{FLAG} {path} knows the people 0 to {room - 1}, found '{odd[0]}'"
                raise UserError(f"{problem}: number them so, or leave the flag out")
            # The files' own numbers.
            self.places["identity"] = list(map(int, people))

    def probabilities(self, frames, batch: int = 128) -> Arrays:
        """As `Judge.probabilities`, over the values that the data set has."""
        logits = logits_of(self.network, frames, batch)
        return {f: logits[f][:, at].softmax(-1).numpy() for f, at in self.places.items()}
