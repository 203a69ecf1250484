"""utils/lock.py: one process per run folder; the holder is named; a killed holder holds nothing."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.vdsm.settings import VDSMSettings
from utils import lock
from utils.errors import UserError
from utils.lock import only_run
from utils.run_folder import RunFolder


def test_one_process_holds_the_lock_and_is_named(tmp_path, capsys):
    root = tmp_path / "runs" / "demo"
    with only_run([root]) as held:
        assert held
        holder = f"in use by process {os.getpid()} on .* since 2.*--override_lock True"
        with pytest.raises(UserError, match=holder), only_run([root]):
            pass
        with only_run([root], override=True) as second:
            assert not second and "in use by process" in capsys.readouterr().err
        with only_run([tmp_path / "runs" / "other"]) as third:
            assert third
    with only_run([root]) as held:
        assert held
    assert os.listdir(tmp_path / "runs") == []


def test_all_folders_of_a_run_are_locked(tmp_path):
    one, two = RunFolder(settings("a")), RunFolder(settings("b"))
    with only_run([tmp_path / f for f in one.outermost]):
        with pytest.raises(UserError, match="m/r is in use by process"):
            with only_run([tmp_path / f for f in two.outermost]):
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "m"]
    assert not list(tmp_path.rglob(".*.lock"))


def settings(runs_dir):
    return VDSMSettings(RUN="r", runs_dir=runs_dir, model_save_path="m")


def test_two_names_of_a_folder_have_one_lock(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "real")
    with only_run([tmp_path / "real"]), pytest.raises(UserError, match="other is in use"):
        with only_run([tmp_path / "other"]):
            pass


def test_released_when_the_run_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run([tmp_path / "demo"]):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_holds_nothing(tmp_path):
    script = (
        "import os, pathlib, sys; from utils.lock import only_run\n"
        "with only_run([pathlib.Path(sys.argv[1])]): os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script, tmp_path / "demo"]
    done = subprocess.run(command, cwd=Path(lock.__file__).parent.parent)
    assert done.returncode == -9 and os.listdir(tmp_path) == [".demo.lock"]
    with only_run([tmp_path / "demo"]) as held:
        assert held


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with only_run([tmp_path / "demo"]) as held:
        assert not held
    assert "no lock on" in capsys.readouterr().err


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with (
        pytest.raises(UserError, match="cannot write to .*demo"),
        only_run([tmp_path / "taken" / "demo"]),
    ):
        pass
