"""utils/adam.py: torch's Adam, to the bit."""

import copy

import pytest
import torch

from utils.adam import Adam


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_steps_and_states_are_those_of_torch(scale):
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(2))
    a, b = Adam([ours], lr=0.01, fused=True), torch.optim.Adam([theirs], lr=0.01, fused=True)
    for step in range(5):
        for optimiser, p in ((a, ours), (b, theirs)):
            optimiser.zero_grad()
            (scale * (p - step) ** 4).sum().backward()
            optimiser.step()
        if step == 2:  # a state moves between the two
            saved = copy.deepcopy(b.state_dict())
            a.load_state_dict(saved)
    assert torch.equal(ours, theirs) and ours.requires_grad
    for key, value in b.state_dict()["state"][0].items():
        assert torch.equal(a.state_dict()["state"][0][key], value)
