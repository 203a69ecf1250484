"""benchmarks/parts.py splits a step into operations and counts the arithmetic of each."""

import json

import pytest

from benchmarks import parts, rows


@pytest.mark.slow
def test_quick_run(tmp_path, capsys):
    file = tmp_path / "parts.json"
    parts.main(["--quick", "--rows", "dsa", "--json", str(file)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "convolution_backward" for line in lines)
    (row,) = json.loads(file.read_text())["rows"]
    case = rows.ROWS["dsa"].case(1, True)
    # The parts hold all arithmetic of the step. A CPU adds some, because ToColours computes with
    # larger kernels that are filled with zeros.
    counted, least = sum(part["gflop"] for part in row["parts"].values()), rows.gflop(case, "fast")
    assert least <= counted == pytest.approx(least, rel=0.02)


@pytest.mark.slow
def test_a_stage_with_a_foresight_has_parts_too():
    found = parts.parts("demo-stage2", 1, quick=True)
    assert found["convolution_backward"]["gflop"] > 0


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit) as exit:
        parts.main(["--rows", "dsa,nothing"])
    assert exit.value.code == 2
    assert "found dsa,nothing" in capsys.readouterr().err
