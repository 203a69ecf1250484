"""Flags of the benchmarks: a wrong one is refused in one line."""

import pytest

from benchmarks import cases


@pytest.mark.parametrize("threads", ["-1", "0", "x", "99999", "1.5", ""])
def test_numbers_of_threads(capsys, threads):
    parser = cases.flags("run", "A benchmark.")
    assert parser.parse_args(["--threads", "2"]).threads == 2
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([f"--threads={threads}"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.count("\n") == 1 and "from 1 to 1024" in said
