"""Several computations at once, each on a thread of its own."""

import pytest
import torch

from models.vdsm.functions import ClipByClip
from utils.threads import by_threads


@pytest.fixture
def threads():
    """threads(n) sets torch's number of threads, which is restored at the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_in_order_and_each_call_has_one_thread(threads, count):
    threads(count)
    results = by_threads(lambda i: (i, torch.get_num_threads()), range(7))
    assert [i for i, _ in results] == list(range(7))
    assert {own for _, own in results} == {1}
    assert torch.get_num_threads() == count


def test_an_error_in_a_thread_reaches_the_caller(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        by_threads(lambda i: 1 / i, range(3))


def test_clips_are_decoded_to_the_same_numbers_with_every_number_of_threads(threads):
    torch.manual_seed(0)
    x, widths = torch.randn(5, 2, 8, 4, 4, requires_grad=True), (8, 6, 4, 4, 3)
    shapes = [s for c, d in zip(widths, widths[1:]) for s in ((5, c, d, 4, 4), (5, d))]
    inputs = [x, *(torch.randn(shape, requires_grad=True) for shape in shapes)]
    results = []
    for count in (1, 2):
        threads(count)
        pictures = ClipByClip.apply(*inputs)
        with torch.no_grad():
            plain = ClipByClip.apply(*inputs)
        results.append([pictures, plain, *torch.autograd.grad(pictures.square().sum(), inputs)])
    for one, two in zip(*results):
        assert torch.equal(one, two)
