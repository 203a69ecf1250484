"""A run that is killed, time and again, at every kind of moment, ends as the one that was not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.killed import MOMENTS
from tests.test_train_test import assert_same_checkpoint, checkpoint
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent


def test_killed_time_and_again(command, tmp_path, trained_once):
    run = tmp_path / "runs" / "demo"
    for moment in MOMENTS:
        done = subprocess.run(
            [sys.executable, "-m", "tests.killed", moment, *TINY],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        expected = signal.SIGTERM if moment == "second signal" else signal.SIGKILL
        assert done.returncode == -expected, (moment, done)
        if "save" in moment or "signal" in moment:
            assert list((run / "checkpoints").glob("*.part")), moment
            assert list((run / "checkpoints").glob("*.pth")), moment
    assert command(*TINY).code == 0
    for stage in ("EncDec", "Seq"):
        assert_same_checkpoint(
            checkpoint(run, stage, 3), checkpoint(trained_once / "runs" / "demo", stage, 3)
        )
    assert not list(run.rglob("*.part")) and not list(run.rglob("*.damaged*"))
