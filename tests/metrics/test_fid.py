"""The Frechet distance has its known answers, and files of weights are recognised."""

import os
import zipfile

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from metrics import fid as video
from utils.errors import UserError
from utils.weights import Missing, from_file


def test_a_set_against_itself_is_0():
    features = np.random.default_rng(0).normal(size=(30, 8))
    assert video.frechet(features, features) == pytest.approx(0, abs=1e-9)
    # Fewer clips than features: the covariance is singular.
    few = features[:4]
    assert video.frechet(few, few) == pytest.approx(0, abs=1e-9)


def sample(mean, cov, n=50):
    """Features [n, D] with exactly this mean and covariance."""
    x = np.random.default_rng(3).normal(size=(n, len(mean)))
    x = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(n - 1)
    return mean + x @ np.linalg.cholesky(cov).T


def test_two_gaussians_in_closed_form():
    """|a - b|^2 + sum (sqrt p - sqrt q)^2 where covariances commute, else the product's root."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    p, q = np.array([1.0, 4, 9]), np.array([4.0, 1, 16])
    zero, far = np.zeros(3), np.array([1.0, 2, 2])
    first, second, third = turn @ np.diag(p) @ turn.T, turn @ np.diag(q) @ turn.T, np.diag(q)
    assert video.frechet(sample(zero, first), sample(far, second, 70)) == pytest.approx(9 + 3)
    expected = np.trace(first + third - 2 * sqrtm(first @ third).real)
    assert video.frechet(sample(zero, first), sample(zero, third)) == pytest.approx(expected)


def test_samples_of_gaussians_come_near_the_closed_form():
    draw = np.random.default_rng(2)
    a, b = draw.normal(size=(20_000, 2)), 1 + 2 * draw.normal(size=(20_000, 2))
    assert video.frechet(a, b) == pytest.approx(2 + 2, rel=0.03)


def test_short_clips_loop():
    clips = np.arange(5)[None, :, None, None, None]
    assert video.looped(clips)[0, :, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] * 3 + [0]
    assert video.looped(np.arange(40)[None])[0].tolist() == list(range(16))


def test_clips_as_the_authors_gave_them_to_the_network():
    """A square that moves right in clips of 5 and of 40 frames, red on grey."""
    clips = np.full((2, 40, 64, 64, 3), 90, np.uint8)
    for time in range(40):
        clips[:, time, 16:40, time : time + 24] = (220, 40, 60)
    seen = video.as_release(clips, reverse=False)
    assert seen.shape == (2, 16, 112, 112, 3) and np.array_equal(*seen)
    # The middle 16 of 40 frames, and H.264 keeps flat areas within a few grey levels.
    for place, time in ((0, 12), (15, 27)):
        x = round((time + 12) * 112 / 64)
        inside = seen[0, place, 40:56, x - 8 : x + 8].reshape(-1, 3)
        assert np.abs(inside.mean(0) - (220, 40, 60)).max() < 12
        assert np.abs(seen[0, place, :10].mean() - 90) < 6
    assert not np.array_equal(seen[0, 0], seen[0, 1])
    short = video.as_release(clips[:1, :5], reverse=True)
    assert np.array_equal(short[0, 0], short[0, 5]) and np.array_equal(short[0, 4], short[0, 9])
    blue_first = video.as_release(clips[:1, :5], reverse=False)[..., ::-1]
    assert np.array_equal(short, blue_first)


@pytest.fixture
def small(monkeypatch):
    """A small ResNeXt: one block per layer instead of 3, 4, 23, 3, on pictures of 32 px."""
    whole = video.ResNeXt3D
    monkeypatch.setattr(video, "ResNeXt3D", lambda: whole((1, 1, 1, 1)))
    monkeypatch.setattr(video, "SIZE", 32)
    return whole


def test_the_users_resnext_as_it_is_published(small, tmp_path):
    tensors = small((1, 1, 1, 1)).state_dict()
    wrapped = {f"module.{name}": value for name, value in tensors.items()}
    wrapped["module.fc.weight"] = torch.zeros(400, 2048)
    path = tmp_path / "resnext-101-kinetics.pth"
    torch.save({"arch": "resnext-101", "state_dict": wrapped}, path)
    features = video.Features(path)
    assert (features.name, features.size) == ("3D ResNeXt-101, Kinetics", 2048)
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, 32, 32, 3), dtype=np.uint8)
    values = features(clips)
    assert values.shape == (3, 2048) and np.allclose(features(clips, batch=1), values, atol=1e-5)
    assert values.std() > 0
    figures, notes = video.fid(features, clips, clips, clips)
    assert figures == {name: pytest.approx(0, abs=1e-6) for name in figures} and len(figures) == 3
    assert notes["clips"] == [3, 3] and notes["frames"] == 5
    assert "fewer than 2049" in notes["warnings"][0]
    torch.save(tensors | {"bn1.weight": torch.full((64,), torch.inf)}, path)
    with pytest.raises(UserError, match="'bn1.weight' holds numbers that are not finite"):
        video.Features(path)
    torch.save({name: v for name, v in tensors.items() if name != "layer4.0.conv2.weight"}, path)
    with pytest.raises(UserError, match="found nothing as 'layer4.0.conv2.weight'"):
        video.Features(path)


def test_the_published_resnext_has_its_names_and_sizes():
    with torch.device("meta"):
        own = video.ResNeXt3D().state_dict()
    assert own["layer3.22.conv2.weight"].shape == (512, 16, 3, 3, 3)
    assert own["layer4.2.conv3.weight"].shape[0] == 2048
    assert own["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1, 1)
    count = sum(v.numel() for name, v in own.items() if name.endswith(("weight", "bias")))
    # Millions of parameters with the head of Kinetics-600, as printed by Kopuklu et al. (2019).
    assert round((count + 2049 * 600) / 1e6, 2) == 48.75


def test_missing_weights_are_one_line_with_advice(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models.video.r3d_18", offline)
    with pytest.raises(Missing, match="--fid_weights FILE"):
        video.Features()


@pytest.mark.parametrize("harm", [b"", b"nothing of the kind"])
def test_files_without_weights_are_refused(tmp_path, harm):
    path = tmp_path / "weights.pth"
    path.write_bytes(harm)
    with pytest.raises(UserError, match="truncated or not a file of torch weights"):
        from_file(path, "fid_weights")
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="no tensors by name"):
        from_file(path, "fid_weights")
    sparse = torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6))
    torch.save({"conv1.weight": sparse}, path)
    with pytest.raises(UserError, match="no tensors by name|not a file of torch weights"):
        from_file(path, "fid_weights")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="truncated or not a file of torch weights"):
        from_file(path, "fid_weights")
    torch.save({"conv1.weight": torch.full((1000,), 0.5)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 0.5).numpy().tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="truncated or not a file of torch weights"):
        from_file(path, "fid_weights")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a pipe, expected a regular file"):
        from_file(path, "fid_weights")
    with pytest.raises(UserError, match="No such file"):
        from_file(tmp_path / "absent.pth", "fid_weights")
