"""Fixtures: the pendula, made once, and `command`, which runs main.py in an empty folder."""

import functools
import os
import shutil
from typing import NamedTuple

import pytest

from data import pendulum
from tests.tiny import FEW, TINY

# The networks of the tests are tiny: a second thread costs more than it gives. Torch reads this
# when it is imported, here and in the processes that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

make = pendulum.make


class Said(NamedTuple):
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


@functools.lru_cache
def few(frames=pendulum.FRAMES, seed=0):
    """A few pendula in place of the whole set."""
    return make(frames, seed, FEW)


@pytest.fixture(scope="session")
def pendula():
    """The embedded set, whole."""
    return make()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Call main.py with flags, in tmp_path, over a few pendula: command(*flags) -> Said."""
    import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pendulum, "make", few)

    def call(*flags):
        capsys.readouterr()
        code = main.main([str(flag) for flag in flags])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A folder in which TINY trained both stages, unbroken. Not to be written to: see `trained`."""
    import main

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(pendulum, "make", few)
        assert main.main(TINY) == 0
    return folder


@pytest.fixture(scope="session")
def exported(trained_once, tmp_path_factory):
    """A folder with the tiny run's whole.safetensors, half.safetensors and their cards."""
    import main

    run = "--RUN demo --device cpu --threads 1".split()
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained_once)
        patch.setattr(pendulum, "make", few)
        for name, more in (("whole", ()), ("half", ["--half"])):
            path = str(folder / f"{name}.safetensors")
            assert main.main([*run, "--export_weights", path, *more]) == 0
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, command):
    """`command` in a folder that already holds TINY's run, runs/demo; returns that folder."""
    shutil.copytree(trained_once / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "demo"


@pytest.fixture
def refused(command):
    """Call main.py, expect exit code 2 and one line on stderr, and return that line."""

    def call(*flags):
        said = command(*flags)
        assert said.code == 2, said
        assert said.err.count("\n") == 1 and said.err.startswith("main.py: "), said.err
        assert "Traceback" not in said.out
        return said.err

    return call


# --- what happens inside a run ---


@pytest.fixture
def losses(monkeypatch):
    """What Progress was shown, {(stage's name, epoch): losses}."""
    from utils.progress import Progress

    seen, show = {}, Progress.epoch

    def record(self, number, last, shown):
        seen[self.name, number] = shown
        show(self, number, last, shown)

    monkeypatch.setattr(Progress, "epoch", record)
    return seen


@pytest.fixture
def kill_at(monkeypatch):
    """kill_at(stage, step): the next run dies in that training step of the stage."""

    from tests.runs import STAGES

    def kill(stage, step):
        kind = STAGES[stage]
        inputs = kind.inputs

        def die(self, batches, number):
            if self.network.training and number == step:
                monkeypatch.setattr(kind, "inputs", inputs)
                raise KeyboardInterrupt
            return inputs(self, batches, number)

        monkeypatch.setattr(kind, "inputs", die)

    return kill


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave the pictures out, to save time."""
    monkeypatch.setattr("train_test.draw_stage", lambda *_: None)


@pytest.fixture
def rates(monkeypatch):
    """The base rates that the loop asked for, in order."""
    import train_test

    seen, schedule = [], train_test.learning_rate

    def record(base, *rest):
        seen.append(base)
        return schedule(base, *rest)

    monkeypatch.setattr(train_test, "learning_rate", record)
    return seen


@pytest.fixture
def events():
    """events(folder) reads TensorBoard: scalars {tag: [(epoch, value)]} and tags of pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        tags = found.Tags()
        return {
            tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"]
        }, tags["images"]

    return read
