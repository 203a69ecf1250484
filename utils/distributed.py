"""Training by several processes, as torchrun starts them, each of which takes a share of a batch.

N processes compute what one does. Each draws the indices and the noise of the whole batch and takes
its own rows; losses, gradients and the statistics of batch norms are summed over the processes.
Only the first process (rank 0) writes files and prints. Torch is imported where it is needed.
"""

import os
import pickle
import shlex
import socket
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from utils.errors import UserError, warn

ENDED = "another process of the run has ended, or did not answer within --process_timeout"
VARIABLES = "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK"  # that torchrun sets
POLL = 0.02  # seconds after which a process that waits for the first one looks again
FAREWELL = 1.0  # seconds for which the first process still answers after an error


class Lost(Exception):
    """Another process has ended and has said why."""


class _Run:
    """What this process knows of the others."""

    store: Any = None  # torch's store of keys and values, which all processes read and write
    waits = 0  # values taken from the first process so far
    sharing = False  # whether a training step is being computed


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))


def quieten() -> None:
    """Before torch is imported: of its own log only errors, and no output but the first's.

    Ends the program with status 2 if the variables that torchrun sets do not fit each other.
    """
    try:
        fit = 0 <= rank() < processes()
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            _number(name, 0)
    except ValueError:
        fit = False
    if not fit:
        found = ", ".join(f"{n}='{os.environ[n]}'" for n in VARIABLES if n in os.environ)
        expected = "expected whole numbers, and RANK below WORLD_SIZE"
        warn(f"found {found} in the environment, {expected}: start with torchrun, or unset them")
        sys.exit(2)
    if processes() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if rank():
        sys.stdout = open(os.devnull, "w")


def processes() -> int:
    """How many processes train together."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0) if processes() > 1 else 0


def command(flags: list[str]) -> str:
    """The shell command that starts main.py with `flags` on as many processes as this one."""
    each = str(_number("LOCAL_WORLD_SIZE", processes()))
    # without the two dashes, torchrun takes our --start for one of its own flags
    start = ["torchrun", "--nproc_per_node", each, "--"] if processes() > 1 else ["python"]
    return shlex.join([*start, "main.py", *flags])


def go_on_alone() -> None:
    """Let this process be the only one: the others have nothing to do."""
    os.environ["WORLD_SIZE"] = "1"


def refuse_uneven(size: int) -> None:
    """Raise UserError unless a batch of `size` sequences can be shared out evenly."""
    if size % processes():
        fit = ", ".join(str(n) for n in range(1, min(size, 64) + 1) if size % n == 0)
        found = f"{processes()} processes cannot share a batch of {size} sequences evenly"
        raise UserError(f"{found}: give --nproc_per_node one of {fit}, or another --bs")


# --- begin and end ---


def join(device: str, limit: float) -> None:
    """Meet the other processes within `limit` seconds, which later bounds every exchange too.

    device: of --device. Each process on a machine takes a GPU of its own. Raises UserError if there
    are too few GPUs, or if the others do not come.
    """
    if processes() == 1:
        return
    address = os.environ.get("MASTER_ADDR", "localhost")
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError):  # torch would repeat the question and print its own stack
        found = f"found no machine of the name MASTER_ADDR='{address}'"
        raise UserError(f"{found}: give the name or the address of the first machine") from None
    import torch
    import torch.distributed as dist

    local, wait = _number("LOCAL_RANK", rank()), timedelta(seconds=limit)
    on_gpus = device != "cpu" and torch.cuda.is_available()
    try:
        _Run.store, *_ = next(dist.rendezvous("env://", timeout=wait))
        if on_gpus and local >= torch.cuda.device_count():
            found = f"process {rank()} has no GPU: this machine has {torch.cuda.device_count()}"
            raise UserError(f"{found}: start as many processes, or give --device cpu")
        if on_gpus:
            torch.cuda.set_device(local)
        backends = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
        own: Any = {"store": dist.PrefixStore("torch", _Run.store), "timeout": wait}
        dist.init_process_group(backends, rank=rank(), world_size=processes(), **own)
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        todo = "start all with torchrun, or raise --process_timeout"
        raise UserError(
            f"process {rank()} of {processes()} did not meet the others within {limit:g} s ({why})"
            f": {todo}"
        ) from None


def lost(error: BaseException) -> bool:
    """Whether an exchange failed because another process has ended or does not answer."""
    if _Run.store is None:
        return False
    import torch.distributed as dist

    known = isinstance(error, dist.DistError) or any(n in str(error) for n in ("gloo", "NCCL"))
    return isinstance(error, RuntimeError) and known


def tells() -> bool:
    """Whether this process prints why the command ends: the first process that knows."""
    if _Run.store is None:
        # the others of this machine find the same in the flags
        return _number("LOCAL_RANK", rank()) == 0
    try:
        return _Run.store.compare_set("told", "", str(rank())) == str(rank()).encode()
    except RuntimeError:  # the process that held the store has ended
        return True


def leave(status: int) -> None:
    """End the process with `status`. After an error it waits for no other process."""
    if _Run.store is not None:
        import torch.distributed as dist

        if status == 0:
            dist.destroy_process_group()
        elif rank() == 0:
            time.sleep(FAREWELL)  # without torchrun, the store ends with this process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


# --- what the first process does for all ---


def from_first(function: Callable[[], Any]) -> Any:
    """What function() returns in the first process, in every process.

    The others wait for it without a limit, because it may draw, measure or load data. Raises `Lost`
    if a process ends meanwhile.
    """
    if processes() == 1:
        return function()
    key, _Run.waits = f"from first {_Run.waits}", _Run.waits + 1
    if rank() == 0:
        value = function()
        _Run.store.set(key, pickle.dumps(value))
        return value
    # not the store's own wait, which answers no signal and logs each second that it waits in vain
    while not _Run.store.check([key]):
        if _Run.store.check(["told"]) and not _Run.store.check([key]):
            raise Lost
        time.sleep(POLL)
    return pickle.loads(_Run.store.get(key))


def first_before_others(function: Callable[[], Any]) -> Any:
    """function(), called in the first process before the others: it may write files they read."""
    if rank():
        from_first(lambda: None)
    value = function()
    if rank() == 0:
        from_first(lambda: None)
    return value


# --- a training step ---


def sharing() -> bool:
    """Whether a training step is being computed of which this process has a share."""
    return _Run.sharing


def rows(draw: Callable[[int], Any], count: int, dim: int = 0) -> Any:
    """This process's `count` rows, along `dim`, of the noise draw(rows of the whole batch)."""
    if not _Run.sharing:
        return draw(count)
    return draw(count * processes()).narrow(dim, rank() * count, count)


def total(values: Any) -> Any:
    """A tensor's sum over the processes, in place."""
    if processes() > 1:
        import torch.distributed as dist

        dist.all_reduce(values)
    return values


def any_asked(signal: int | None) -> int | None:
    """The number of the signal that any process received, or None: all stop at the same step."""
    if processes() == 1:
        return signal
    import torch
    import torch.distributed as dist

    number = torch.tensor(signal or 0)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return int(number) or None


@contextmanager
def _sharing():
    _Run.sharing = True
    try:
        yield
    finally:
        _Run.sharing = False


def share(network: Any, function: Callable) -> Callable:
    """function(inputs, ...), whose sums over a batch each process computes for its own rows.

    inputs: {name: an array with a row per sequence of the whole batch, or a number}. The gradients
    that a backward pass leaves in `network` are those of all rows, in every process.
    """
    if processes() == 1:
        return function
    import torch
    import torch.distributed as dist

    from utils.batch_norm import over_processes

    def own(value):
        if not hasattr(value, "shape"):
            return value
        count = len(value) // processes()
        return value[rank() * count : (rank() + 1) * count]

    class OwnRows(torch.nn.Module):
        """The network, and the function over it."""

        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, inputs, *rest):
            with _sharing():
                return function({name: own(value) for name, value in inputs.items()}, *rest)

    def summed(_, bucket):
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])

    over_processes(network)
    # weights of 1x1 in an image network: said by every process, and of speed alone
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    shared = torch.nn.parallel.DistributedDataParallel(
        OwnRows(),
        find_unused_parameters=True,  # weights without a gradient keep none, as in one process
        gradient_as_bucket_view=True,
        broadcast_buffers=False,  # batch norms have the statistics of the whole batch everywhere
    )
    shared.register_comm_hook(None, summed)  # torch's own would average
    return shared
