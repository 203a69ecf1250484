"""benchmarks/guards.py runs, and leaves nothing behind."""

import json

import pytest

from benchmarks import guards


def test_quick_run(tmp_path, capsys):
    guards.main(["--quick", "--json", str(tmp_path / "guards.json"), "--folder", str(tmp_path)])
    rows = json.loads((tmp_path / "guards.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["stage 1", "stage 2"]
    for row in rows:
        step, guard, saving, *_ = (times["median"] for times in row["timings"].values())
        assert min(step, guard, saving, row["checkpoint bytes"]) > 0
        assert row["guard percent"] == pytest.approx(100 * guard / step)
        assert row["saving percent"] == pytest.approx(100 * saving / step / 2500)
    assert capsys.readouterr().out.count("% of a step (under 2)") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["guards.json"]
