"""Video FID: the Frechet distance of real and generated clips, in the features of a network that was trained on Kinetics.

    |mu_1 - mu_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^1/2)

The VDSM figure takes the 2048 pooled features of a 3D ResNeXt-101, whose weights the user supplies (`--fid_weights`);
torchvision's R3D-18 (512 features) stands in where there are none. Figures of different networks are not comparable.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.video import R3D_18_Weights, r3d_18

from metrics.weights import fitted, from_file, from_torchvision

FLAG = "fid_weights"
FRAMES, SIZE = 16, 112  # what the networks were trained on; short clips loop
KINETICS_MEAN = (114.7748, 107.7354, 99.4750)  # 0..255, of the ResNeXt's training
R3D_MEAN, R3D_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # torchvision's


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3, 1x1x1 with a shortcut: [N, inside, T, H, W] -> [N, 2 planes, T / stride, ...]."""

    def __init__(self, inside, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(inside, planes, 1, bias=False), nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, groups=32, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3, self.bn3 = (
            nn.Conv3d(planes, 2 * planes, 1, bias=False),
            nn.BatchNorm3d(2 * planes),
        )
        self.downsample = None
        if stride != 1 or inside != 2 * planes:
            self.downsample = nn.Sequential(
                nn.Conv3d(inside, 2 * planes, 1, stride, bias=False), nn.BatchNorm3d(2 * planes)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(
            self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x))
        )


class ResNeXt3D(nn.Module):
    """3D ResNeXt-101, cardinality 32 (Hara et al. 2018), to its pooled features: [N, 3, 16, 112, 112] -> [N, 2048].

    Tensor names are those of the published Kinetics file.
    """

    def __init__(self, blocks=(3, 4, 23, 3)):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False), nn.BatchNorm3d(64)
        inside = 64
        for i, count in enumerate(blocks):
            planes, layer = 128 << i, []
            for block in range(count):
                layer.append(Bottleneck(inside, planes, 2 if i and not block else 1))
                inside = 2 * planes
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3, 4))


class Features:
    """Pooled Kinetics features of clips. path: a file of the ResNeXt's or of R3D-18's weights, told apart by their tensors; None:
    torchvision's R3D-18. `name` says which, `size` how many features. Raises UserError for a file that is neither, Missing if
    torchvision's weights are not at hand."""

    def __init__(self, path=None, device="cpu"):
        tensors = from_file(path, FLAG) if path else {}
        if not path or "stem.0.weight" in tensors:
            if path:
                network = fitted(r3d_18(), tensors, path, FLAG, heads=("fc.",))
            else:
                hint = f"give --{FLAG} FILE, the 3D ResNeXt-101 (Kinetics) that the paper used or torchvision's R3D-18"
                network = from_torchvision(r3d_18, R3D_18_Weights.KINETICS400_V1, hint)
            network.fc = nn.Identity()
            self.name, self.size, mean, std = (
                "torchvision R3D-18, Kinetics-400",
                512,
                R3D_MEAN,
                R3D_STD,
            )
        else:
            network = fitted(ResNeXt3D(), tensors, path, FLAG)
            self.name, self.size = "3D ResNeXt-101, Kinetics", 2048
            mean, std = np.array(KINETICS_MEAN) / 255, np.full(3, 1 / 255)
        self.network, self.device = network.to(device), device
        self.mean, self.std = (
            torch.tensor(v, dtype=torch.float32, device=device).view(3, 1, 1, 1)
            for v in (mean, std)
        )

    @torch.no_grad()
    def __call__(self, clips, batch=8):
        """uint8 [n, T, H, W, 3] -> float64 [n, size]."""
        found = []
        for start in range(0, len(clips), batch):
            x = torch.from_numpy(looped(clips[start : start + batch])).to(self.device)
            x = x.permute(0, 4, 1, 2, 3).float() / 255  # [n, 3, T, H, W]
            x = F.interpolate(x, (FRAMES, SIZE, SIZE), mode="trilinear", align_corners=False)
            found.append(self.network((x - self.mean) / self.std).double().cpu().numpy())
        return np.concatenate(found)


def looped(clips):
    """The first FRAMES frames of clips [n, T, ...]; short ones begin again."""
    return clips[:, np.arange(FRAMES) % clips.shape[1]]


def frechet(a, b):
    """The Frechet distance of features a [n, D] and b [m, D], taken as Gaussians.

    With A, B the centred features over sqrt(n - 1), sqrt(m - 1), the eigenvalues of (C_1 C_2)^1/2 are the singular values of
    A B^T: no root of a singular covariance is taken.
    """
    roots = [np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r") for x in (a, b)]
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(apart + sum((root**2).sum() for root in roots) - 2 * common)


def fid(features, real, made):
    """(figure, notes) of real and generated clips, uint8 [n, T, 64, 64, 3] each. notes name network, clips and frames, and under
    'warnings' say where clips are too few for the features."""
    few = min(len(real), len(made))
    notes = {
        "network": features.name,
        "features": features.size,
        "clips": [len(real), len(made)],
        "frames": real.shape[1],
    }
    notes["warnings"] = []
    if few < features.size + 1:
        notes["warnings"].append(
            f"fid: {few} clips are fewer than {features.size + 1}: the covariances are singular"
        )
    return frechet(features(real), features(made)), notes
