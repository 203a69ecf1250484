"""Whitening: a code that varies nearly equally in all but its faintest directions over clips."""

import torch
from torch import nn

from utils.distributed import processes, sharing, total

# The share of the mean variance that is added to every direction, so that noise is not amplified
# to the size of a factor (chosen among .001, .01 and .05: docs/RECIPES.md).
SHRINKAGE = 0.01
MOMENTUM = 0.01  # share of the newest batch in the moving averages
ITERATIONS = 20  # enough for eigenvalues a factor of 1e5 apart


def inverse_root(matrix: torch.Tensor) -> torch.Tensor:
    """M^(-1/2) of a symmetric positive definite matrix M [K, K], by the Newton-Schulz iteration.

    Source: Higham 2008, 'Functions of matrices', section 6.3. A CUDA graph can record it, which is
    not true of torch.linalg.eigh.
    """
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    norm = matrix.norm()
    root, inverse = matrix / norm, identity
    for _ in range(ITERATIONS):
        step = (3 * identity - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return inverse / norm.sqrt()


class Whitening(nn.Module):
    """y = spread (C + SHRINKAGE tr(C) / K)^(-1/2) (x - m): x [N, K] -> y [N, K].

    m and C are moving averages of the mean and the covariance of x over training batches: a batch
    has fewer clips than C has dimensions. They receive no gradient. Source: Huang et al. 2018,
    'Decorrelated batch normalization', which takes m and C of the batch alone.
    """

    mean: torch.Tensor
    covariance: torch.Tensor

    def __init__(self, size: int, spread: float):
        super().__init__()
        self.spread = spread
        self.register_buffer("mean", torch.zeros(size))
        # On the meta device, torch.eye imports torch's compiler.
        self.register_buffer("covariance", torch.zeros(size, size).fill_diagonal_(1))

    def forward(self, x):
        if self.training and x.requires_grad:
            self._follow(x.detach())
        return (x - self.mean) @ self.matrix()

    def matrix(self) -> torch.Tensor:
        """The symmetric matrix [K, K] by which a centred x is multiplied."""
        # Apple's GPU has no float64.
        c = self.covariance if self.covariance.is_mps else self.covariance.double()
        shrunk = c + SHRINKAGE * c.diagonal().mean() * torch.eye(len(c)).to(c)
        return (self.spread * inverse_root(shrunk)).to(self.covariance)

    def start_from(self, x):
        """Take the mean and the covariance of x [N, K]."""
        self.mean.copy_(x.mean(0))
        self.covariance.copy_(torch.cov(x.T))

    def _follow(self, x):
        centred = x - self.mean
        moments = torch.cat([centred.mean(0, keepdim=True), centred.T @ centred / len(x)])
        if sharing():
            moments = total(moments) / processes()
        self.mean.add_(moments[0], alpha=MOMENTUM)
        self.covariance.lerp_(moments[1:], MOMENTUM)
