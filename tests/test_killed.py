"""A run that is killed at moments of every kind ends as an undisturbed run does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.killed import MOMENTS
from tests.runs import assert_same_checkpoint, checkpoint
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_killed_again_and_again(command, tmp_path, trained_once):
    run = tmp_path / "runs" / "demo"
    for moment in MOMENTS:
        killed = subprocess.run(
            [sys.executable, "-m", "tests.killed", moment, *TINY],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        expected = signal.SIGTERM if moment == "second signal" else signal.SIGKILL
        assert killed.returncode == -expected, (moment, killed)
        if moment in ("second signal", "save of stage 1"):
            # Killed in the middle of a save: its part lies beside whole checkpoints.
            assert list((run / "checkpoints").glob("*.part")), moment
            assert list((run / "checkpoints").glob("*.pth")), moment
    assert command(*TINY).code == 0
    for stage_name in ("EncDec", "Seq"):
        unbroken = checkpoint(trained_once / "runs" / "demo", stage_name, 3)
        assert_same_checkpoint(checkpoint(run, stage_name, 3), unbroken)
    assert not list(run.rglob("*.part")) and not list(run.rglob("*.damaged*"))
