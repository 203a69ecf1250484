"""benchmarks/diff.py: what got slower is listed, and gives exit code 1."""

import json

import pytest

from benchmarks import cases, diff


@pytest.fixture
def written(tmp_path):
    """written(name, part=seconds...) -> the path of a result with these times of 'row'."""

    def write(name, benchmark="step", threads=(1,), **seconds):
        timings = {part: cases.spread(times) for part, times in seconds.items()}
        result = cases.result(benchmark, threads, [{"name": "row", "timings": timings}])
        (tmp_path / name).write_text(json.dumps(result))
        return str(tmp_path / name)

    return write


def test_slower_and_faster(written, capsys):
    old = written("a", step=[1.0, 1.2, 1.1], wall=[2.0], loading=[0.5], gone=[1.0])
    new = written("b", step=[1.2, 1.3, 1.4], wall=[1.0], loading=[0.54], added=[1.0])
    assert diff.main([old, new]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "slower by over 10 %: 1",
        "  row: step: 1.1 s, now 1.3 s (+18 %, the ranges overlap)",
        "faster by over 10 %: 1",
        "  row: wall: 2 s, now 1 s (-50 %)",
        "within 10 %: 1",
        "only in the first: row: gone",
        "only in the second: row: added",
    ]
    assert diff.main([old, new, "--percent", "20"]) == 0
    assert diff.main([old, old]) == 0


def test_other_machines_and_threads_are_named(written, capsys):
    old, new = written("a", step=[1.0]), written("b", threads=(2,), step=[1.0])
    result = json.loads(open(new).read()) | {"machine": "another"}
    with open(new, "w") as file:
        json.dump(result, file)
    assert diff.main([old, new]) == 0
    shown = capsys.readouterr().out
    assert "threads differ: [1] and [2]" in shown and "machine differs: " in shown


def test_what_cannot_be_compared(written, tmp_path, capsys):
    old, other = written("a", step=[1.0]), written("b", benchmark="run", step=[1.0])
    (tmp_path / "list").write_text("[]")
    for pair, why in (
        ((old, other), "found results of step and run"),
        ((old, str(tmp_path / "absent")), "No such file"),
        ((str(tmp_path / "list"), old), "no result of a benchmark"),
    ):
        assert diff.main([*pair]) == 2
        assert why in capsys.readouterr().err
