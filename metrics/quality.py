"""How close generated pictures are to the true ones: squared error (PSNR), SSIM and LPIPS.

Frames are float [n, T, 3, H, W] in [0, 1]. Results are means over each clip, float64 [n].
"""

from pathlib import Path

import numpy as np
import torch

from utils.weights import Missing, cached

# Width and standard deviation of the Gaussian window of SSIM, in px.
WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# Frames that SSIM compares at a time: the memory of more would leave the cache.
FRAMES = 8
# torchvision's AlexNet_Weights.IMAGENET1K_V1.url; importing torchvision takes seconds.
ALEXNET = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"


def squared_error(made: torch.Tensor, true: torch.Tensor) -> np.ndarray:
    """Mean squared error."""
    return ((made - true) ** 2).mean((1, 2, 3, 4), dtype=torch.double).numpy()


def psnr(error: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, 100 at most, of clips with these mean squared errors."""
    return float(-10 * np.log10(max(np.mean(error), 1e-10)))


def ssim(made: torch.Tensor, true: torch.Tensor) -> np.ndarray:
    """Structural similarity (Wang et al. 2004), where the window fits; 1 for equal pictures.

    The window is a banded matrix on both sides: ten times as fast as torchmetrics' convolution.
    """
    at = torch.arange(WINDOW) - WINDOW // 2
    window = torch.exp(-(at**2) / (2 * SIGMA**2))
    size = true.shape[-1]
    band = torch.zeros(size - WINDOW + 1, size)
    for row in range(len(band)):
        band[row, row : row + WINDOW] = window / window.sum()

    def blur(pictures):
        return band @ pictures @ band.T

    values = []
    for x, y in zip(made.flatten(0, 1).split(FRAMES), true.flatten(0, 1).split(FRAMES)):
        mean_x, mean_y = blur(x), blur(y)
        var_x, var_y = blur(x**2) - mean_x**2, blur(y**2) - mean_y**2
        covariance = blur(x * y) - mean_x * mean_y
        similar = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
        largest = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
        values.append((similar / largest).double().mean((1, 2, 3)))
    return torch.cat(values).unflatten(0, made.shape[:2]).mean(1).numpy()


class LPIPS:
    """Learned perceptual distance (Zhang et al. 2018) over AlexNet, 0 for equal pictures.

    Raises Missing unless torch's cache has the weights: the default evaluation downloads nothing.
    """

    def __init__(self):
        if not cached(ALEXNET):
            raise Missing(f"put {ALEXNET} into {Path(torch.hub.get_dir()) / 'checkpoints'}")
        # Takes seconds.
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        self.net = LearnedPerceptualImagePatchSimilarity("alex").net

    @torch.no_grad()
    def __call__(self, made: torch.Tensor, true: torch.Tensor) -> np.ndarray:
        distance = self.net(made.flatten(0, 1), true.flatten(0, 1), normalize=True)
        return distance.view(len(made), -1).double().mean(1).numpy()
