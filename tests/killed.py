"""A program that trains TINY and kills itself at the moment that its first argument names.

Run by tests/test_killed.py.
"""

import io
import os
import signal
import sys

import torch

import main
import train_test
from data import pendulum
from models.vdsm.stages import EncDecStage, SeqStage
from tests.conftest import few


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def in_a_step(stage_class, at, number=signal.SIGKILL):
    """Send the signal in training step `at` of a stage."""
    take_step = train_test.take_step

    def dying_step(training, inputs, annealed):
        if isinstance(training.stage, stage_class) and training.place.step == at:
            die(number)
        return take_step(training, inputs, annealed)

    train_test.take_step = dying_step


def in_a_save(count, number=signal.SIGKILL):
    """Send the signal in the middle of writing checkpoint number `count`, counted from 0."""
    save, calls = torch.save, iter(range(10**6))

    def dying_save(state, file):
        if next(calls) != count:
            return save(state, file)
        buffer = io.BytesIO()
        save(state, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        die(number)
        return signal.pause()

    torch.save = dying_save


def between_the_stages():
    train = train_test.train

    def dying_train(settings, name, *rest):
        if name == "Seq":
            die()
        train(settings, name, *rest)

    train_test.train = dying_train


def in_a_save_by_a_second_signal():
    """The first signal asks for a checkpoint; the second arrives while it is written."""
    in_a_step(EncDecStage, 4, signal.SIGTERM)
    in_a_save(1, signal.SIGTERM)


# In the order in which one run meets them.
MOMENTS = {
    "second signal": in_a_save_by_a_second_signal,
    "save of stage 1": lambda: in_a_save(1),
    "between": between_the_stages,
    "step of stage 2": lambda: in_a_step(SeqStage, 5),
}

if __name__ == "__main__":
    pendulum.make = few
    MOMENTS[sys.argv[1]]()
    sys.exit(main.main(sys.argv[2:]))
