"""PSNR, SSIM and LPIPS per clip."""

import os
import pickle

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from metrics import quality
from metrics.fid import Features
from tests.torture.damage import MARKER, Evil
from utils.weights import Missing


def test_psnr_of_a_tenth_off_is_20_dB():
    error = quality.squared_error(
        torch.full((2, 3, 3, 4, 4), 0.6), torch.full((2, 3, 3, 4, 4), 0.5)
    )
    assert error.shape == (2,) and quality.psnr(error) == pytest.approx(20, abs=1e-4)
    assert quality.psnr(np.zeros(3)) == 100


def test_ssim_by_hand():
    clips = torch.rand(3, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert quality.ssim(clips, clips) == pytest.approx(1)
    # Only the means differ.
    flat = quality.ssim(torch.full((1, 1, 3, 16, 16), 0.5), torch.full((1, 1, 3, 16, 16), 0.7))
    assert flat == pytest.approx((2 * 0.35 + 1e-4) / (0.25 + 0.49 + 1e-4), abs=1e-4)
    noisy = quality.ssim(torch.cat([clips[:1], clips[:1]]), torch.cat([clips[:1], clips[1:2]]))
    assert noisy[0] == pytest.approx(1) and noisy[1] < 0.5


def test_ssim_is_the_mean_over_the_frames_of_a_clip():
    frames = quality.FRAMES // 2 + 1
    made, true = torch.rand(2, 3, frames, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    values = quality.ssim(made, true)
    for clip in range(3):
        alone = [
            quality.ssim(made[[clip], [t]][:, None], true[[clip], [t]][:, None])
            for t in range(frames)
        ]
        assert values[clip] == pytest.approx(np.mean(alone), abs=1e-6)


def test_ssim_agrees_with_torchmetrics():
    made, true = torch.rand(2, 3, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    made = (0.3 * made + 0.7 * true).clamp(0, 1)
    pictures = made.flatten(0, 1), true.flatten(0, 1)
    _, places = structural_similarity_index_measure(
        *pictures, data_range=1.0, return_full_image=True
    )
    # The places where the window fits: torchmetrics counts mirrored edges too.
    inner = places[..., 5:-5, 5:-5].reshape(3, -1).mean(1)
    assert quality.ssim(made, true) == pytest.approx(inner.numpy(), abs=1e-5)


def test_lpips_downloads_nothing_and_reads_cached_weights(tmp_path, monkeypatch):
    from torchvision.models import AlexNet_Weights, alexnet

    assert quality.ALEXNET == AlexNet_Weights.IMAGENET1K_V1.url
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(Missing, match="alexnet"):
        quality.LPIPS()
    torch.manual_seed(0)
    (tmp_path / "checkpoints").mkdir()
    torch.save(alexnet().state_dict(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr("utils.weights._sha256", lambda path: "7be5be79")
    measure = quality.LPIPS()
    clips = torch.rand(2, 3, 3, 64, 64)
    assert measure(clips, clips) == pytest.approx(0)
    assert measure(clips, clips.flip(-1)).shape == (2,) and measure(clips, clips.flip(-1)).min() > 0


@pytest.mark.parametrize("kind", ["pickle", "pipe", "folder"])
@pytest.mark.parametrize("network", [quality.LPIPS, Features], ids=["LPIPS", "FID"])
def test_other_files_in_the_cache_are_left_out_and_not_run(tmp_path, monkeypatch, kind, network):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for name in ("alexnet-owt-7be5be79.pth", "r3d_18-b3b3357e.pth"):
        path = tmp_path / "checkpoints" / name
        if kind == "pickle":
            path.write_bytes(pickle.dumps(Evil(tmp_path / MARKER)))
        else:
            {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    with pytest.raises(Missing, match="fetch https://download.pytorch.org/.* again"):
        network()
    assert not (tmp_path / MARKER).exists()
