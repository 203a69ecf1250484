"""Our convolutions against torch's: the same layers, outputs and gradients."""

import pytest
import torch
from torch import nn

from models import convolution

LAYERS = [
    ("Conv2d", (3, 6, 5, 1, 2)),
    ("Conv2d", (6, 4, 5, 2, 2)),
    ("ConvTranspose2d", (6, 4, 5, 2, 2, 1)),
    ("ConvTranspose2d", (6, 4, 4, 2, 1)),
    ("ToColours", (6, 3, 5, 1, 2)),
    ("ToColours", (6, 3, 4, 2, 1)),
]

TORCHS = {"ToColours": nn.ConvTranspose2d}


def layers(name, arguments, dtype):
    """Torch's layer and ours, from the same random state."""
    made = []
    for layer in (TORCHS.get(name) or getattr(nn, name), getattr(convolution, name)):
        torch.manual_seed(0)
        made.append(layer(*arguments).to(dtype))
    return made


@pytest.mark.parametrize("name, arguments", LAYERS)
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_outputs_and_gradients_are_torchs(name, arguments, memory, dtype, tolerance):
    theirs, ours = layers(name, arguments, dtype)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    data = torch.randn(3, arguments[0], 8, 8, dtype=dtype).contiguous(memory_format=memory)
    results = []
    for layer in (theirs, ours):
        x = data.clone().requires_grad_()
        y = layer(x)
        weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        (y * weights).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for expected, found in zip(*results):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name, arguments", LAYERS)
def test_only_needed_gradients_are_computed(name, arguments):
    _, layer = layers(name, arguments, torch.float32)
    layer.weight.requires_grad_(False)
    layer(torch.randn(2, arguments[0], 8, 8)).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None
    with torch.no_grad():
        assert not layer(torch.randn(2, arguments[0], 8, 8)).requires_grad
