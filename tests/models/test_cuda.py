"""models/vdsm/cuda.py: the forms for a GPU compute what the CPU's do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.vdsm import cuda
from models.vdsm.networks import LSTM_WEIGHTS, MixtureOfExpertsDecoder


def per_clip(x, kernel, bias):
    """The transposed convolutions, clip by clip."""
    clips = zip(x, kernel, bias)
    return torch.stack([F.conv_transpose2d(*clip, stride=2, padding=1) for clip in clips])


@pytest.mark.parametrize("form", cuda.FORMS)
@pytest.mark.parametrize("size", [(2, 3, 5, 4, 4, 4), (1, 1, 2, 3, 3, 5), (3, 2, 1, 1, 1, 1)])
def test_a_blended_convolution_is_that_of_each_clip(form, size):
    torch.manual_seed(0)
    clips, frames, c_in, c_out, height, width = size
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in (
            (clips, frames, c_in, height, width),
            (clips, c_in, c_out, 4, 4),
            (clips, c_out),
        )
    ]
    given = torch.randn(clips, frames, c_out, 2 * height, 2 * width, dtype=torch.float64)
    results = []
    for function in (cuda.FORMS[form], per_clip):
        out = function(*tensors)
        results.append([out, *torch.autograd.grad((out * given).sum(), tensors)])
    for mine, expected in zip(*results):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "forms", [("grouped",) * 4, ("products",) * 4, ("grouped", "products") * 2]
)
def test_the_decoder_of_a_gpu_is_that_of_a_cpu(forms, monkeypatch):
    monkeypatch.setattr(cuda, "LAYERS", forms)
    torch.manual_seed(0)
    decoder = MixtureOfExpertsDecoder(3, 2, (6, 5, 4, 3)).double()
    for bias in decoder.biases:
        nn.init.normal_(bias)
    z, w = torch.randn(2, 4, 3, dtype=torch.float64), torch.rand(2, 2, dtype=torch.float64)
    kernels = [torch.einsum("nk,k...->n...", w, bank) for bank in decoder.kernels]
    biases = [w @ bank for bank in decoder.biases]
    first = torch.cat([z, w[:, None].expand(-1, 4, -1)], -1) @ kernels[0].flatten(2)
    first = first.unflatten(2, (-1, 4, 4)) + biases[0][:, None, :, None, None]
    expected = decoder(z, w)
    pictures = cuda.upsample(first, list(zip(kernels[1:], biases[1:])))
    assert pictures.shape == expected.shape == (2, 4, 3, 64, 64)
    torch.testing.assert_close(pictures, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_an_lstm_layer_by_layer_is_torchs(layers, training):
    torch.manual_seed(0)
    assert cuda.LSTM_WEIGHTS == LSTM_WEIGHTS
    rnn = nn.LSTM(3, 4, layers, batch_first=True, bidirectional=True, dropout=0.5 * (layers > 1))
    rnn.train(training)
    x, start = torch.randn(2, 5, 3), tuple(torch.randn(2 * layers, 2, 4) for _ in range(2))
    torch.manual_seed(1)
    states = cuda.last_states(rnn, x, start)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    expected = rnn(x, start)[1][0]
    torch.testing.assert_close(states, expected)
    assert torch.equal(torch.get_rng_state(), after)
