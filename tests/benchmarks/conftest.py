"""Fixtures of the benchmarks' tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_threads():
    """A benchmark sets the number of threads: restore it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
