"""Lives of main.py: a process that imported torch once forks, and each fork runs one command.

So a life costs a fraction of a second instead of the seconds that the imports take.
"""

import contextlib
import functools
import io
import mmap
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

import main
import train_test
from data import moving_mnist, pendulum, sprites_li
from tests.made import FACTORS
from tests.tiny import FEW, TEST, TINY

LIMIT = 60  # seconds after which a life counts as hung
STILL = 15  # seconds without any work after which it does
ROOM = 4 << 30  # bytes that a life may take beside the program, so that a bomb harms no one
# smaller than TINY, because many lives must fit into a minute
SMALL = [*TINY, *"--epochs 3 --seq_len 5 --frames_per_clip 2 --num_test_ids 1".split()]
make = pendulum.make


@functools.cache
def few(frames=pendulum.FRAMES, seed=0, **factors):
    """A few pendula in place of the whole set."""
    return make(frames, seed, FEW, **factors)


class Life(NamedTuple):
    """What one command left. code: exit status, or minus the signal that ended it."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool

    @property
    def killed(self) -> bool:
        """Whether the torture ended it."""
        return self.code in (-signal.SIGKILL, -signal.SIGXFSZ) and not self.hung

    def __str__(self):
        last = (self.err.strip() or self.out.strip()).splitlines()[-3:]
        return f"exit {self.code} after {self.seconds:.1f} s: {' / '.join(last)}"


class Pending(NamedTuple):
    """A life that has begun. said: what it writes goes to said.out and said.err."""

    pid: int
    said: Path
    began: float

    def end(self, limit: float = LIMIT, kill_after: float = float("inf")) -> Life:
        """Wait for the end. kill_after: seconds since the start after which it is killed."""
        try:
            return self._wait(limit, kill_after)
        except BaseException:  # the torture itself is stopped
            os.kill(self.pid, signal.SIGKILL)
            raise

    def _wait(self, limit, kill_after):
        hung, work, since = False, None, self.began
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            now = time.monotonic()
            if pid:
                break
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            if work != (work := stat.rsplit(")")[-1].split()[11:13]):  # time on a processor
                since = now
            hung = now - self.began > limit or now - since > STILL
            if hung or now - self.began > kill_after:
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                break
            time.sleep(0.003)
        paths = [Path(f"{self.said}.{kind}") for kind in ("out", "err")]
        texts = [path.read_bytes().decode(errors="replace") for path in paths]
        for path in paths:
            path.unlink()
        return Life(os.waitstatus_to_exitcode(status), *texts, now - self.began, hung)


def begin(flags: Sequence, folder: Path, *arrange: Callable) -> Pending:
    """Start main.py with `flags` in `folder`. arrange: called in the new process before main."""
    said = folder.parent / f"{folder.name}.said-{time.monotonic_ns()}"
    for kind in ("out", "err"):
        Path(f"{said}.{kind}").touch()
    pid = os.fork()
    if pid == 0:
        _live([str(flag) for flag in flags], folder, arrange, said)
    return Pending(pid, said, time.monotonic())


def live(flags: Sequence, folder: Path, *arrange: Callable, **limits) -> Life:
    """Run main.py with `flags` in `folder` to its end. limits: see `Pending.end`."""
    return begin(flags, folder, *arrange).end(**limits)


def _live(flags, folder, arrange, said):
    """Be the new process. Never returns."""
    code = 1
    try:
        for number, path in enumerate((os.devnull, f"{said}.out", f"{said}.err")):
            os.dup2(os.open(path, os.O_RDWR), number)
        # as Python opens them under a UTF-8 locale
        kind = {"mode": "w", "encoding": "utf-8", "closefd": False}
        sys.stdout = open(1, **kind)
        sys.stderr = open(2, errors="backslashreplace", buffering=1, **kind)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        limit_memory(ROOM)
        train_test.draw_stage = lambda *_: None  # pictures take most of the time of a small run
        for function in arrange:
            function()
        code = main.main(flags)
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
    try:
        threading._shutdown()  # as Python does at its end: waits for threads that still write
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code if isinstance(code, int) else 1)


def limit_memory(more: int) -> None:
    """Let this process take `more` bytes of address space beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + more,) * 2)


def limit_files(size: int) -> None:
    """From now on, no file that this process writes can grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Events:
    """Counts the moments of a life at which files or training move on, and acts at one of them.

    Moments: a file opened for writing, renamed, removed, cut or made a folder, and a training step.
    `arrange` goes into the new process; `count` tells the parent how many moments there were. full:
    what a write beyond `limit_files` does, SIG_IGN: it is refused, SIG_DFL: it ends the process.
    """

    NAMES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "torture.step"}

    def __init__(self, at=None, act: Callable | None = None, full=signal.SIG_IGN):
        self.at, self.act, self.full, self.shared = at, act, full, mmap.mmap(-1, 8)

    @property
    def count(self) -> int:
        return int.from_bytes(self.shared[:8], "little")

    def arrange(self) -> None:
        """Install the counter in this process."""
        take_step = train_test.take_step

        def step(*args):
            sys.audit("torture.step")
            return take_step(*args)

        def hook(name, args):
            writes = os.O_WRONLY | os.O_RDWR
            if name in self.NAMES or (name == "open" and args[2] and args[2] & writes):
                here = self.count
                self.shared[:8] = (here + 1).to_bytes(8, "little")
                if here == self.at and self.act:
                    self.act()

        train_test.take_step = step
        signal.signal(signal.SIGXFSZ, self.full)
        sys.addaudithook(hook)


def prepare(folder: Path) -> None:
    """Do once, before any fork, what every life would do: slow imports above all."""
    here = os.getcwd()
    torch.set_num_threads(1)
    os.chdir(folder)
    pendulum.make = few
    moving_mnist.CLIPS = {"train": 8, "val": 3, "test": 3}
    # 36 characters in place of 1296, of any art
    sprites_li.FACTORS, sprites_li.NUM_CHARACTERS = FACTORS, 36
    sprites_li.SHAPE = (36 * 9, *sprites_li.SHAPE[1:])
    sprites_li.NUM_TRAIN, sprites_li.NUM_VAL = 24, 6
    sprites_li.fingerprint = lambda *_: sprites_li.COMPOSED
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for flags in ([], ["--dry_run", "True"], [*TEST, "--report", "True"]):
            if main.main([*SMALL, *flags]) != 0:
                raise RuntimeError("main.py fails without any torture: run its tests first")
        main.main(["--dataset_name", "video-folder", "--source", "none", *SMALL[2:]])
    torch.set_flush_denormal(False)  # hypothesis needs numbers that main.py does without
    os.chdir(here)
