"""benchmarks/generate.py runs, and its totals are those of its parts."""

import json

import pytest

from benchmarks import generate


def test_quick_run(tmp_path, capsys):
    generate.main(["--quick", "--json", str(tmp_path / "generate.json")])
    result = json.loads((tmp_path / "generate.json").read_text())
    (row,) = result["rows"]
    assert row["name"] == "2 sequences of 2 frames" and row["floor"] > 0
    medians = {part: times["median"] for part, times in row["timings"].items()}
    assert min(medians.values()) > 0
    # Two repeats: the median of a sum is the sum of the medians.
    made = medians["drawing"] + medians["decoding"]
    assert medians["generated and saved as npz"] == pytest.approx(made + medians["npz"])
    gifs = made + medians["a GIF per sequence"]
    assert medians["generated and saved as GIFs"] == pytest.approx(gifs)
    assert "the paper, on an RTX 2080 Ti: 0.2 s" in capsys.readouterr().out
