"""tests/torture: the program stands a short torture, and planted faults are noticed."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.planted import COUNTS, PLANTED
from tests.torture import lines, work
from tests.torture.__main__ import main
from tests.torture.damage import changed

if sys.platform != "linux":
    pytest.skip("the torture reads /proc and forks: Linux alone", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def said():
    """What tests/planted.py prints. Takes most of a minute of one core."""
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.planted"],
        cwd=ROOT,
        env={**os.environ, **one_thread},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", COUNTS)
def test_the_program_stands_a_short_torture(said, name):
    assert said["sound"][name] == []


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_noticed(said, fault):
    assert PLANTED[fault][-1] in " ".join(said["planted"][fault])


def test_equal_seeds_give_equal_lines():
    first = lines.batch(0, 3)
    lines.batch.cache_clear()
    assert lines.batch(0, 3) == first != lines.batch(0, 4)


def test_one_value_is_changed_and_the_original_is_not():
    value = {"a": [1, {"b": 2}], "c": {}}
    for number in range(50):
        assert repr(changed(random.Random(number), value)) != repr(value)
    assert value == {"a": [1, {"b": 2}], "c": {}}


def test_the_table_counts_and_names_the_command(monkeypatch, capsys):
    found = [
        work.Result("kills", "python -m x --case 0", None, [], 1.0),
        work.Result("kills", "python -m x --case 1", "lost", [], 1.0),
    ]
    monkeypatch.setattr(work, "torture", lambda *_: iter(found))
    assert main(["--only", "kills"]) == 1
    out = capsys.readouterr().out
    assert "| kills | 2 | 1 | 1 |" in out and "python -m x --case 1\n    lost" in out
    found.pop()
    assert main(["--only", "kills", "lines"]) == 0
    assert "| lines | 0 | 0 | 0 |" in capsys.readouterr().out


def test_a_case_that_the_torture_itself_spoils_counts_as_failed(monkeypatch, tmp_path):
    monkeypatch.setitem(work.CLASSES, "kills", (lambda case: 1 / 0, 1))
    (tmp_path / "shared").mkdir()
    result = work.one("kills", 0, 7, tmp_path)
    assert "the torture itself failed" in result.failure and "--case 7" in result.command


def test_classes_share_the_time_and_workers_the_cases(monkeypatch, tmp_path):
    monkeypatch.setattr(work, "ready", lambda scratch: None)
    monkeypatch.setitem(work.CLASSES, "kills", (lambda case: None, 1))
    given = SimpleNamespace(count=5, minutes=1, seed=0, jobs=2)
    commands = [result.command for result in work.torture(["kills"], given, tmp_path)]
    assert sorted(commands) == [
        f"python -m tests.torture --only kills --seed 0 --case {number}" for number in range(5)
    ]
