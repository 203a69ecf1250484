"""Commands of two processes: their files, stops, restarts, losses that are not finite, refusals."""

import os
import signal
import time
from functools import partial

import pytest
import torch

import main
import train_test
from data import pendulum
from tests.conftest import few
from tests.runs import checkpoint, tree
from tests.test_distributed import assert_near
from tests.tiny import STAGE_1, TINY
from tests.together import LIMIT, ended, start, together
from utils import distributed

FLAGS = [*TINY, *STAGE_1]
take_step = train_test.take_step


@pytest.fixture(autouse=True)
def quick(monkeypatch, no_pictures):
    monkeypatch.setattr(pendulum, "make", few)


def command(flags, _):
    return main.main([str(flag) for flag in flags])


def command_with(step_function, flags, rank):
    """main.py, whose training steps are step_function(rank, training, inputs, annealed)."""
    train_test.take_step = partial(step_function, rank)
    return command(flags, rank)


def signalled(number, at, rank, training, inputs, annealed):
    """Process 1 gets a signal in step `at`."""
    if rank == 1 and training.place.step == at:
        os.kill(os.getpid(), number)
    return take_step(training, inputs, annealed)


def spoiled(who, rank, training, inputs, annealed):
    """The loss of step 3 is not finite, in process `who`, at the full learning rate."""
    if rank == who and training.place.step == 3 and training.place.scale == 1:
        stage, objective = training.stage, training.stage.objective
        stage.objective = lambda terms, sequences: objective(terms, sequences) * float("nan")
        try:
            return take_step(training, inputs, annealed)
        finally:
            stage.objective = objective
    return take_step(training, inputs, annealed)


def assert_near_checkpoints(mine, other):
    assert mine["epoch"] == other["epoch"]
    assert_near(mine["model"], other["model"], 1e-5)
    states = mine["optimizer"]["state"], other["optimizer"]["state"]
    for own, expected in zip(*(state.values() for state in states), strict=True):
        assert_near(own, expected, 1e-3)
    assert torch.equal(mine["rng"]["cpu"], other["rng"]["cpu"])


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_another_number_of_processes(
    tmp_path, trained_once, monkeypatch
):
    """Two processes (twice), one, then two again leave what one left that was never stopped."""
    monkeypatch.setattr("utils.adam.LARGE", 100)  # so that tensors of the tiny network are cut
    sharded = ["--shard_optimizer", True]
    run, whole = tmp_path / "runs" / "demo", trained_once / "runs" / "demo"
    for at, left in ((2, "step_1_1"), (4, "step_2_1")):
        stop = partial(signalled, signal.SIGTERM, at)
        codes, errors = together(partial(command_with, stop, [*FLAGS, *sharded]), tmp_path)
        assert codes == [143, 143] and errors[1] == ""
        assert "checkpoint with: torchrun --nproc_per_node 2 -- main.py" in errors[0]
        assert (run / "checkpoints" / f"{left}_VDSM_EncDec.pth").exists()
    for flags, count in ((FLAGS, 1), ([*TINY, *sharded], 2)):
        codes, errors = together(partial(command, flags), tmp_path, count)
        assert codes == [0] * count and errors == [""] * count
        spoke = [bool((tmp_path / f"out{rank}").read_text()) for rank in range(count)]
        assert spoke == [True, False][:count]
    for stage in ("EncDec", "Seq"):
        assert_near_checkpoints(checkpoint(run, stage, 3), checkpoint(whole, stage, 3))
    left = [
        {name for name in tree(folder) if "images" not in name and "fitted" not in name}
        for folder in (run, whole)
    ]
    assert left[0] == left[1]
    assert not list(run.parent.glob(".*lock"))


@pytest.mark.slow
def test_all_processes_recover_from_a_loss_that_is_not_finite(tmp_path):
    runs = {}
    for count, who in ((1, 0), (2, 1)):
        folder = tmp_path / str(count)
        codes, errors = together(partial(command_with, partial(spoiled, who), FLAGS), folder, count)
        assert codes == [0] * count and errors[1:] == [""] * (count - 1)
        assert errors[0].count("is not finite") == 1
        runs[count] = checkpoint(folder / "runs" / "demo", "EncDec", 3)
    assert runs[2]["place"]["retries"] == 1 and runs[2]["place"]["scale"] == 0.5
    assert_near_checkpoints(runs[2], runs[1])


# --- what goes wrong ends in one line of the first process that knows ---


def refused(codes, errors):
    assert codes == [2, 2], errors
    (line,) = [line for error in errors for line in error.splitlines()]
    assert line.startswith("main.py: ")
    return line


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    line = refused(*together(partial(command, [*FLAGS, "--bs", 3]), tmp_path))
    assert line == (
        "main.py: 2 processes cannot share a batch of 3 sequences evenly: give --nproc_per_node "
        "one of 1, 3, or another --bs"
    )
    assert not (tmp_path / "runs").exists()


def test_a_mistake_that_the_first_process_finds_is_told_once(tmp_path):
    assert together(partial(command, FLAGS), tmp_path, 1)[0] == [0]
    line = refused(*together(partial(command, [*FLAGS, "--z_dim", 5]), tmp_path))
    assert "holds another run" in line


def test_a_process_without_a_gpu_is_refused(tmp_path, monkeypatch):
    """On a machine that says it has one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)

    def waits(*_, **__):
        time.sleep(1)
        raise torch.distributed.DistStoreError("wait timeout")

    monkeypatch.setattr(torch.distributed, "init_process_group", waits)
    flags = [flag for flag in FLAGS if flag not in ("--device", "cpu")]
    line = refused(*together(partial(command, flags), tmp_path))
    assert "process 1 has no GPU: this machine has 1: start as many processes" in line


def test_a_process_whose_others_do_not_come_says_so(tmp_path):
    def alone(rank):
        return command([*FLAGS, "--process_timeout", 1], rank) if rank == 0 else 0

    codes, errors = together(alone, tmp_path)
    assert codes == [2, 0] and errors[0].count("\n") == 0
    assert "main.py: process 0 of 2 did not meet the others within 1 s" in errors[0]


@pytest.mark.parametrize(
    "number, limit",
    [(signal.SIGKILL, 60), pytest.param(signal.SIGSTOP, 15, marks=pytest.mark.slow)],
)
def test_a_killed_or_hung_process_ends_the_others(tmp_path, number, limit):
    """The checkpoint before is whole, and the same command goes on from it."""
    flags = [*FLAGS, "--process_timeout", limit]
    ends = partial(command_with, partial(signalled, number, 5), flags)
    members = start(ends, tmp_path)
    members[0].join(LIMIT)
    members[1].kill()
    codes, errors = ended(members, tmp_path)
    assert codes == [2, -signal.SIGKILL] and errors[0].count("\n") == 0, errors
    assert errors[0].startswith(f"main.py: {distributed.ENDED}; resume from the newest checkpoint")
    run = tmp_path / "runs" / "demo"
    assert sorted(path.name for path in (run / "checkpoints").glob("*.pth")) == [
        "1_VDSM_EncDec.pth"
    ]
    assert together(partial(command, flags), tmp_path)[0] == [0, 0]
