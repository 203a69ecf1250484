"""The benchmark runs, and counts its arithmetic right."""

import json

import pytest
import torch

from benchmarks import step


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_arithmetic_of_the_papers_sizes():
    """The figures that the release's program was measured against."""
    assert step.gflop(step.paper_case(), "EncDec") == pytest.approx(277, rel=0.02)
    assert step.gflop(step.paper_case(fidelity="release"), "Seq") == pytest.approx(142, rel=0.02)
    assert step.gflop(step.paper_case(), "Seq", encoder=False) == pytest.approx(92, rel=0.02)


def test_quick_run(tmp_path, capsys):
    step.main(["--quick", "--json", str(tmp_path / "step.json")])
    shown = capsys.readouterr().out
    result = json.loads((tmp_path / "step.json").read_text())
    assert {(row["stage"], row["form"]) for row in result["rows"]} == set(step.FORMS)
    assert result["throughput"]["gflop_per_s"] > 0
    for row in result["rows"]:
        assert row["seconds"] > 0 and row["text"] in shown
        assert ("floor" in row) == (row["form"] in ("fast", "encoder in"))
    assert [row["model"] for row in result["others"]] == list(step.OTHERS)
    for row in result["others"]:
        assert row["over floor"] > 0 and row["text"] in shown
    for stage in ("EncDec", "Seq"):
        assert f"{stage}: reference over fast" in shown
