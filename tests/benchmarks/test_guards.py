"""benchmarks/guards.py runs, and leaves nothing behind."""

import json

import pytest
import torch

from benchmarks import guards


def test_quick_run(tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        guards.main(["--quick", "--json", str(tmp_path / "guards.json"), "--folder", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    rows = json.loads((tmp_path / "guards.json").read_text())["rows"]
    assert [row["stage"] for row in rows] == ["EncDec", "Seq"]
    for row in rows:
        assert min(row[key] for key in ("step", "guard", "saving", "checkpoint bytes")) > 0
        assert row["guard percent"] == pytest.approx(100 * row["guard"] / row["step"])
        assert row["saving percent"] == pytest.approx(100 * row["saving"] / row["step"] / 2500)
    assert capsys.readouterr().out.count("% of a step (under 2)") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["guards.json"]
