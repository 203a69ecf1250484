"""Several small computations at once, each on a CPU thread of its own."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import torch


def by_threads(function: Callable[[Any], Any], items: Iterable) -> list:
    """[function(item) for item in items], computed by as many threads as torch may use.

    Each call computes with one thread. For small tensors this is faster than to share out each
    operation, because the threads wait for each other once and not after every operation.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return [function(item) for item in items]
    return list(_pool(threads).map(function, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads of Python, in each of which torch computes with one thread."""
    pool, together = ThreadPoolExecutor(threads), Barrier(threads)

    def begin():
        together.wait()  # so that each thread of the pool runs this once
        torch.get_num_threads()  # a thread's first call of torch sets the number anew
        torch.set_num_threads(1)

    for begun in [pool.submit(begin) for _ in range(threads)]:
        begun.result()
    torch.set_num_threads(threads)  # torch's own later threads take the last number
    return pool
