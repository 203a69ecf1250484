"""Commands of main.py as processes: several at a time on this machine, or on a cluster.

`here` works with the standard library's process pool, `on_cluster` with submitit. A `Job` that is
told to stop passes SIGINT on to its command, which then saves a checkpoint, so that the same
command resumes exactly.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from utils.errors import UserError

MAIN = Path(__file__).resolve().parent.parent / "main.py"
KILLED = 137  # exit status of a command whose worker was killed: 128 plus the number of SIGKILL
A_DAY = 1440  # minutes: what a job on a cluster may take, unless `timeout_min` says otherwise
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Ended(NamedTuple):
    """The exit status of a command, and the seconds that it took."""

    code: int
    seconds: float


@dataclass
class Job:
    """One command of main.py. Called, it runs the command in a process of its own, to the end.

    run: its name. words: the flags. log: the file to which all that the command prints is added.
    program: main.py.
    """

    run: str
    words: list[str]
    log: Path
    program: Path = MAIN

    # of the process that runs jobs: the command at work, that which was told to stop, whether one
    # is being started, whether all is to stop, and the parent
    child: ClassVar[subprocess.Popen | None] = None
    told: ClassVar[subprocess.Popen | None] = None
    starting: ClassVar[bool] = False
    stopping: ClassVar[bool] = False
    parent: ClassVar[int | None] = None

    def __call__(self, on_cluster: bool = False) -> Ended:
        if on_cluster:
            signal.signal(signal.SIGINT, Job.stop)
        elif Job.stopping:
            return Ended(128 + signal.SIGINT, 0.0)
        print(f"{self.run}: started", flush=True)
        began = time.monotonic()
        with open(self.log, "ab") as log:
            Job.starting = True
            # A session of its own, so that Ctrl-C reaches the command through `stop` alone.
            # SIGUSR2, which a cluster sends to all processes of a job, is for `checkpoint`.
            Job.child = subprocess.Popen(
                [sys.executable, str(self.program), *self.words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN),
            )  # fmt: skip
        Job.starting = False
        if Job.stopping:  # since the question above
            Job.stop()
        code = Job.child.wait()
        Job.child = None
        Job.leave_if_alone()
        return Ended(code if code >= 0 else 128 - code, time.monotonic() - began)

    @staticmethod
    def stop(*_) -> None:
        """Let the command that is at work save and end, and begin no other one."""
        Job.stopping = True
        if Job.child is not None:
            if Job.told is not Job.child:  # a second signal would end it before it has saved
                Job.told = Job.child
                Job.child.send_signal(signal.SIGINT)
        elif not Job.starting:  # else the command is stopped as soon as it has started
            Job.leave_if_alone()

    @staticmethod
    def leave_if_alone() -> None:
        """End this process of the pool if the process that has started it was killed."""
        if Job.stopping and Job.parent not in (None, os.getppid()):
            os._exit(KILLED)

    def checkpoint(self, on_cluster: bool) -> Any:
        """What submitit asks for before a time limit: the command saves, and a new job resumes.

        The arguments are those of the call.
        """
        from submitit.helpers import DelayedSubmission

        Job.stop()
        if Job.child is not None:
            # Popen.wait would wait for its own lock, because this is called within it
            os.waitid(os.P_PID, Job.child.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(self, on_cluster)


def _begin(parent):
    """Prepare a process of the pool. Only its parent stops it, by SIGTERM or by its own death."""
    Job.parent = parent
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, Job.stop)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)


def here(jobs: list[Job], at_a_time: int, ended: Callable[[Job, Ended], None]) -> None:
    """Run the jobs on this machine, and call `ended` when one has ended.

    A KeyboardInterrupt goes on to the caller after the commands at work have saved and ended.
    """
    workers, parent = min(at_a_time, len(jobs)), os.getpid()
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(parent,)) as pool:
        futures = {pool.submit(job): job for job in jobs}
        try:
            for future in as_completed(futures):
                broken = isinstance(future.exception(), BrokenProcessPool)
                ended(futures[future], Ended(KILLED, 0.0) if broken else future.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # SIGTERM, see `_begin`
            raise


def on_cluster(
    jobs: list[Job], folder: Path, options: dict[str, Any], ended: Callable[[Job, Ended], None]
) -> None:
    """Run the jobs through submitit, and call `ended` when one has ended.

    folder: for the files of submitit. options: of submitit's AutoExecutor.update_parameters, and
    `cluster` ('slurm', or 'local' for this machine). A KeyboardInterrupt cancels the jobs. Raises
    UserError if the cluster cannot be used.
    """
    try:
        import submitit
    except ImportError:
        problem = "found no submitit, which --slurm needs"
        raise UserError(f"{problem}: install it (pip install submitit)") from None
    cluster = options.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster)
        executor.update_parameters(**{"timeout_min": A_DAY} | options)
        with executor.batch():
            submitted = [executor.submit(job, True) for job in jobs]
    except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
        problem = f"--slurm: {error}"
        advice = "give settings of submitit's update_parameters, on a machine of the cluster"
        raise UserError(f"{problem}: {advice}") from None
    for job, task in zip(jobs, submitted):
        print(f"{job.run}: submitted as job {task.job_id}", flush=True)
    try:
        every = 0.5 if cluster == "local" else 10.0
        for task in submitit.helpers.as_completed(submitted, poll_frequency=every):
            job = jobs[submitted.index(task)]
            try:
                outcome = task.result()
            except (submitit.core.utils.UncompletedJobError, OSError) as error:
                with open(job.log, "a") as log:
                    print(f"submitit: {error}", file=log)
                outcome = Ended(KILLED, 0.0)
            ended(job, outcome)
    except KeyboardInterrupt:
        for task in submitted:
            task.cancel(check=False)
        raise
