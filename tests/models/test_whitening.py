"""Whitening of the identity's location: covariance, moving averages, and when they move."""

import pytest
import torch

from models.annealing import Annealed
from models.vdsm.encdec import EncDec
from models.vdsm.networks import WHITE, IdentityPosterior
from models.vdsm.seq import Seq, Sequences
from models.vdsm.whitening import MOMENTUM, SHRINKAGE, Whitening, inverse_root
from tests.models.test_networks import settings

K, CLIPS, SPREAD = 6, 512, 0.25


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def codes(scales, clips=CLIPS):
    """Codes [clips, K], not centred, whose deviation along K mixed directions is `scales`."""
    rotation, _ = torch.linalg.qr(torch.randn(K, K))
    return 3 + torch.randn(clips, K) * torch.tensor(scales) @ rotation


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-5])
def test_inverse_root(smallest):
    rotation, _ = torch.linalg.qr(torch.randn(K, K, dtype=torch.float64))
    values = torch.logspace(0, torch.tensor(smallest).log10().item(), K, dtype=torch.float64)
    matrix = 40 * rotation @ values.diag() @ rotation.T
    root = inverse_root(matrix)
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ matrix @ root, torch.eye(K, dtype=torch.float64))


def test_components_become_equal_and_independent():
    layer, x = Whitening(K, SPREAD), codes([1, 2, 3, 4, 5, 6])
    layer.start_from(x)
    y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(K), atol=1e-5, rtol=0)
    close = {"atol": 0.2 * SPREAD**2, "rtol": 0}  # SHRINKAGE takes a sixth from the least direction
    torch.testing.assert_close(torch.cov(y.T), SPREAD**2 * torch.eye(K), **close)


def test_a_direction_of_noise_is_not_amplified_to_the_size_of_the_others():
    layer, x = Whitening(K, SPREAD), codes([1, 1, 1, 1, 1, 1e-3])
    layer.start_from(x)
    variances = torch.linalg.eigvalsh(torch.cov(layer(x).T)) / SPREAD**2
    # of six directions five have variance 1
    assert variances[0] < 2e-6 / SHRINKAGE and variances[1] > 0.95


def test_averages_follow_training_alone():
    layer, x = Whitening(K, SPREAD), codes([1.0] * K).requires_grad_()
    layer.eval()(x)
    layer.train()(x.detach())  # the layers before it do not train: stage 2
    with torch.no_grad():
        layer(x * 1)
    assert torch.equal(layer.mean, torch.zeros(K)) and torch.equal(layer.covariance, torch.eye(K))
    layer(x)
    torch.testing.assert_close(layer.mean, MOMENTUM * x.detach().mean(0))
    for _ in range(1000):
        layer(x)
    torch.testing.assert_close(layer.mean, x.detach().mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(layer.covariance, torch.cov(x.detach().T), atol=0.01, rtol=0)


def test_averages_receive_no_gradient():
    layer, x = Whitening(K, SPREAD), codes([1.0] * K).requires_grad_()
    weights = torch.randn(CLIPS, K)
    (layer(x) * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights @ layer.matrix())


def test_the_whitened_identity_starts_with_its_spread_and_is_pooled_before_it():
    identity = IdentityPosterior(K, whitened=True)
    frame_loc, frame_scale = torch.randn(CLIPS, 3, K), torch.rand(CLIPS, 3, K)
    with torch.no_grad():
        identity.start_loc_from(frame_loc, 1 / K)
        loc, scale = identity(frame_loc, frame_scale)
        pooled = identity.loc(frame_loc.mean(1, keepdim=True))
        torch.testing.assert_close(loc, identity.whiten(pooled[:, 0]), atol=1e-6, rtol=0)
        identity.whiten = None
        torch.testing.assert_close(scale, identity(frame_loc, frame_scale)[1])
    spread = loc.std(0) * K
    assert (spread > 0.8 * WHITE).all() and (spread < 1.05 * WHITE).all()


def test_stage_2_leaves_the_averages_of_stage_1():
    chosen = settings(whiten_identity=True)
    seq = Seq(chosen, EncDec(chosen)).train()
    before = {name: value.clone() for name, value in seq.named_buffers()}
    assert "identity.whiten.covariance" in before
    x = torch.rand(2, 3, 3, 64, 64)
    annealed = Annealed(dict.fromkeys("sdz", 1.0), 2.0)
    terms = seq.loss(Sequences(seq.frame_codes(x), x), annealed)
    sum(term.weighted for term in terms.values()).backward()
    assert seq.combiner.z_0.grad is not None
    for name, value in seq.named_buffers():
        assert torch.equal(value, before[name]), name
