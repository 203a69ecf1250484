"""Video FID: the Frechet distance of real and generated clips, in features learnt on Kinetics.

    |mu_1 - mu_2|^2 + Tr(C_1 + C_2 - 2 (C_1 C_2)^1/2)

The paper uses features of a 3D ResNeXt-101, whose weights the user supplies (--fid_weights). The
default is torchvision's R3D-18. Figures of different networks cannot be compared.

`as_release` prepares clips as the authors did: the test harness that they published at first wrote
MP4 files, and evan (github.com/raahii/evan), which they used for FID, read them.
"""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from metrics.published import FID_NETWORK
from utils.weights import Missing, cached, fitted, from_file

FLAG = "fid_weights"
# Frames per second of the authors' MP4 files.
RATE = 10
# Frames and px of the clips that the networks were trained on.
FRAMES, SIZE = 16, 112
# Mean and deviation of pictures in 0..1 that normalise the networks' inputs.
RESNEXT_MEAN, RESNEXT_STD = np.array((114.7748, 107.7354, 99.4750)) / 255, np.full(3, 1 / 255)
R3D_MEAN, R3D_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)


class Bottleneck(nn.Module):
    """Residual block: [N, inside, T, H, W] -> [N, 2 planes, T / stride, H / stride, W / stride]."""

    def __init__(self, inside, planes, stride):
        super().__init__()
        outside = 2 * planes
        self.conv1, self.bn1 = nn.Conv3d(inside, planes, 1, bias=False), nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, groups=32, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3, self.bn3 = nn.Conv3d(planes, outside, 1, bias=False), nn.BatchNorm3d(outside)
        self.downsample = nn.Sequential()
        if stride != 1 or inside != outside:
            shortcut = nn.Conv3d(inside, outside, 1, stride, bias=False)
            self.downsample.extend([shortcut, nn.BatchNorm3d(outside)])

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNeXt3D(nn.Module):
    """3D ResNeXt-101 (Hara et al. 2018), pooled features: [N, 3, 16, 112, 112] -> [N, 2048]."""

    def __init__(self, blocks=(3, 4, 23, 3)):
        super().__init__()
        # The names are those of the tensors in the published Kinetics file.
        self.conv1, self.bn1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False), nn.BatchNorm3d(64)
        inside, layers = 64, []
        for i, count in enumerate(blocks):
            planes, layer = 128 << i, []
            for block in range(count):
                layer.append(Bottleneck(inside, planes, 2 if i and not block else 1))
                inside = 2 * planes
            layers.append(nn.Sequential(*layer))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3, 4))


class Features:
    """Pooled features of clips: `size` of them, from the network `name`.

    path: weights of the ResNeXt or of R3D-18, told apart by their tensors; None: R3D-18 from
    torchvision. Raises UserError if the file holds neither, and Missing if a download fails.
    """

    def __init__(self, path: str | Path | None = None, device: torch.device | str = "cpu"):
        tensors = from_file(path, FLAG) if path else {}
        if path and "stem.0.weight" not in tensors:
            network = fitted(ResNeXt3D(), tensors, path, FLAG)
            self.name, self.size = FID_NETWORK, 2048
            mean, std = RESNEXT_MEAN, RESNEXT_STD
        else:
            from torchvision.models.video import r3d_18  # takes seconds

            network = fitted(r3d_18(), tensors, path, FLAG, ("fc.",)) if path else _downloaded()
            network.fc = nn.Identity()
            self.name, self.size = "torchvision R3D-18, Kinetics-400", 512
            mean, std = R3D_MEAN, R3D_STD
        self.network, self.device = network.to(device), device
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(3, 1, 1, 1)
            for values in (mean, std)
        )

    @torch.no_grad()
    def __call__(self, clips: np.ndarray, batch: int = 8) -> np.ndarray:
        """uint8 [n, T, H, W, 3] -> float64 [n, size]."""
        parts = []
        for start in range(0, len(clips), batch):
            x = torch.from_numpy(looped(clips[start : start + batch])).to(self.device)
            x = x.permute(0, 4, 1, 2, 3).float() / 255  # [n, 3, T, H, W]
            x = F.interpolate(x, (FRAMES, SIZE, SIZE), mode="trilinear", align_corners=False)
            parts.append(self.network((x - self.mean) / self.std).double().cpu().numpy())
        return np.concatenate(parts)


def _downloaded():
    """R3D-18 with torchvision's weights, which are downloaded unless they are cached."""
    from torchvision.models.video import R3D_18_Weights, r3d_18

    weights = R3D_18_Weights.KINETICS400_V1
    cached(weights.url)  # raises for a damaged file
    try:
        return r3d_18(weights=weights).eval().requires_grad_(False)
    # No network, a full disk or a damaged download.
    except (OSError, RuntimeError):
        hint = f"give --{FLAG} FILE with weights of R3D-18, or of the paper's 3D ResNeXt-101"
        raise Missing(f"{weights.url} is not cached and cannot be downloaded: {hint}") from None


def looped(clips: np.ndarray) -> np.ndarray:
    """The first FRAMES frames of clips [n, T, ...]; shorter clips are repeated."""
    return clips[:, np.arange(FRAMES) % clips.shape[1]]


def as_release(clips: np.ndarray, reverse: bool) -> np.ndarray:
    """Clips as the authors' FID saw them: uint8 [n, T, H, W, 3] -> [n, FRAMES, SIZE, SIZE, 3].

    PIL resizes the frames, bilinear; H.264 in an MP4 file (YUV 4:2:0, x264's own quality) loses
    what it loses; of longer clips the middle is taken, shorter clips are repeated. reverse: blue
    comes first, as evan gives frames to its network, the ResNeXt.
    """
    seen = np.empty((len(clips), FRAMES, SIZE, SIZE, 3), np.uint8)
    for clip, frames in enumerate(clips):
        resized = [
            Image.fromarray(f).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for f in frames
        ]
        film = through_mp4(np.stack([np.asarray(picture) for picture in resized]))
        start = max(0, len(film) // 2 - FRAMES // 2)
        seen[clip] = looped(film[None, start:])[0]
    return seen[..., ::-1] if reverse else seen


def through_mp4(film: np.ndarray) -> np.ndarray:
    """Frames uint8 [T, H, W, 3], H and W even, as they come back from an MP4 file in memory."""
    import av  # takes half a second

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = *film.shape[1:3], "yuv420p"
        for picture in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as written:
        frames = [frame.to_ndarray(format="rgb24") for frame in written.decode(video=0)]
    return np.stack(frames)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of features a [n, D] and b [m, D], each taken as a Gaussian.

    The eigenvalues of (C_1 C_2)^1/2 are the singular values of A B^T, with A, B the centred
    features over sqrt(n - 1), sqrt(m - 1). This avoids the root of a singular covariance.
    """
    roots = [np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1)).R for x in (a, b)]
    apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(apart + sum((root**2).sum() for root in roots) - 2 * common)


def fid(
    features: Features, real: np.ndarray, sampled: np.ndarray, rebuilt: np.ndarray
) -> tuple[dict[str, float], dict]:
    """The FIDs of real clips and others, uint8 [n, T, 64, 64, 3] each, and notes on them.

    fid: of sampled clips. fid_release_sampled, fid_release_reconstructed: the clips as the authors
    prepared them, real ones against sampled and against reconstructed ones.
    """
    few, needed = min(len(real), len(sampled)), features.size + 1
    singular = f"fid: {few} clips are fewer than {needed}: the covariances are singular"
    notes = {"network": features.name, "features": features.size, "frames": real.shape[1]}
    notes |= {"clips": [len(real), len(sampled)], "warnings": [singular] if few < needed else []}
    figures = {"fid": frechet(features(real), features(sampled))}
    reverse = features.name == FID_NETWORK
    of_real, *others = (features(as_release(x, reverse)) for x in (real, sampled, rebuilt))
    names = "fid_release_sampled", "fid_release_reconstructed"
    return figures | {n: frechet(of_real, other) for n, other in zip(names, others)}, notes
