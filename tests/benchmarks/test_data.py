"""benchmarks/data.py: it runs, its figures are what they say, and a set is trained on without being copied into
memory."""

import sys

import pytest

from benchmarks import data as benchmark


def test_the_quick_form_gives_a_row_a_stage(capsys, monkeypatch, tmp_path):
    benchmark.main(["--quick", "--json", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    assert said.count("set memory-mapped: loading") == 2 and (tmp_path / "out.json").exists()


def test_a_mapped_set_takes_no_room(tmp_path):
    frames, lengths = benchmark.mapped(tmp_path, 1000, 100)
    assert frames.nbytes == 1000 * 100 * 12288 and lengths.sum() == len(frames)
    assert (tmp_path / "frames.bin").stat().st_blocks * 512 < 10**6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_set_of_50_gb_trains_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = benchmark.larger_than_memory(
        tmp_path, flags=["--epochs", "1", "--bs_per_epoch", "4", "--threads", "1"]
    )
    assert found["exit"] == 0 and found["bytes"] > 49e9
    assert found["peak RssAnon"] < benchmark.MOST_ANONYMOUS
