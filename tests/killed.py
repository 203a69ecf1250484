"""Trains TINY and is killed, really, at the moment that its first argument names: see tests/test_killed.py."""

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


def in_a_step(kind, at, number=signal.SIGKILL):
    """In training step `at` of a stage."""
    loss = kind.loss

    def dying(self, sampler, store, step, weights):
        if self.network.training and step == at:
            die(number)
        return loss(self, sampler, store, step, weights)

    kind.loss = dying


def in_a_save(count, number=signal.SIGKILL):
    """In the middle of writing checkpoint number `count`, from 0."""
    save, calls = torch.save, iter(range(10**6))

    def dying(state, file):
        if next(calls) != count:
            return save(state, file)
        buffer = io.BytesIO()
        save(state, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        die(number)
        return signal.pause()

    torch.save = dying


def between_the_stages():
    train = train_test.train

    def dying(settings, name, *rest):
        if name == "Seq":
            die()
        train(settings, name, *rest)

    train_test.train = dying


def in_a_save_by_a_second_signal():
    in_a_step(EncDecStage, 4, signal.SIGTERM)
    in_a_save(1, signal.SIGTERM)  # the one that the first signal asked for


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
