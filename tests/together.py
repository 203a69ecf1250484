"""Several processes that train together, forked from the test so that nobody imports torch anew."""

import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch
import torch._dynamo.utils  # what torch's DDP imports: once, before the processes are forked
import torch._inductor.config  # noqa: F401

from utils import distributed

LIMIT = 240  # seconds after which a process counts as hung


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _member(function, rank, count, port, folder):
    """What process `rank` does, in `folder`; it prints to the files out{rank} and err{rank}."""
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        place = os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(place, number)
        setattr(sys, f"std{name}", open(number, "w", buffering=1, closefd=False))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": count}
    for name, value in {**address, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}.items():
        os.environ[name] = str(value)
    torch.set_num_threads(1)  # a forked process has none of the threads of its parent
    distributed.quieten()
    distributed.leave(function(rank) or 0)


def start(function, folder: Path, count: int = 2):
    """Start function(rank) in `count` processes."""
    folder.mkdir(exist_ok=True)
    fork, port = multiprocessing.get_context("fork"), free_port()
    given = [(function, rank, count, port, folder) for rank in range(count)]
    members = [fork.Process(target=_member, args=each) for each in given]
    for member in members:
        member.start()
    return members


def ended(members, folder: Path):
    """Wait for the processes: their exit codes, and what each left on stderr."""
    for member in members:
        member.join(LIMIT)
    hung = [member for member in members if member.is_alive()]
    for member in hung:
        member.kill()
    assert not hung, "a process hangs"
    errors = [(folder / f"err{rank}").read_text().splitlines() for rank in range(len(members))]
    # torch logs this line here, because it was imported before `quieten`
    said = [[line for line in lines if "find_unused_parameters" not in line] for lines in errors]
    return [member.exitcode for member in members], ["\n".join(lines) for lines in said]


def together(function, folder: Path, count: int = 2):
    """function(rank) in `count` processes, to its end: exit codes, and what is on stderr."""
    return ended(start(function, folder, count), folder)
