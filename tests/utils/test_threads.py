"""Several computations at once, each on a thread of its own."""

import pytest
import torch

from models.vdsm.networks import MixtureOfExpertsDecoder
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


def test_the_decoder_gives_the_same_numbers_with_every_number_of_threads(threads):
    torch.manual_seed(0)
    decoder = MixtureOfExpertsDecoder(3, 4, (8, 6, 4, 4))
    z, s = torch.randn(5, 2, 3, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    results = []
    for count in (1, 2):
        threads(count)
        pictures = decoder(z, s.softmax(-1))
        gradients = torch.autograd.grad(pictures.square().sum(), [z, s, *decoder.parameters()])
        with torch.no_grad():
            results.append([pictures, decoder(z, s.softmax(-1)), *gradients])
    for one, two in zip(*results):
        torch.testing.assert_close(two, one)
    assert torch.equal(results[0][0], results[1][0])
