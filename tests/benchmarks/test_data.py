"""benchmarks/data.py: it runs, and a model trains on a set without copying it into memory."""

import json
import sys

import pytest

from benchmarks import data as benchmark
from benchmarks import sparse_set
from tests.tiny import TINY
from utils.settings import DATASETS

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")


def test_quick_run(capsys, tmp_path):
    benchmark.main(["--quick", "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    mapped = [row["name"] for row in rows if "memory-mapped" in row["name"]]
    assert mapped == ["stage 1, set memory-mapped", "stage 2, set memory-mapped"]
    for row in rows:
        loading, step = (row["timings"][part]["median"] for part in ("loading", "step"))
        assert loading > 0 and row["share"] == loading / step
    assert capsys.readouterr().out.count("set memory-mapped: loading takes") == 2


def test_a_sparse_set_takes_no_room_on_the_disk(tmp_path):
    frames = sparse_set.write(tmp_path, 1000)
    assert frames.shape == (1000 * 100, 64, 64, 3) and not frames[-1].any()
    assert (tmp_path / sparse_set.FILE).stat().st_blocks * 512 < 10**6


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch):
    """Work in tmp_path, and restore the registry of data sets afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DATASETS, "larger-than-memory", "benchmarks.sparse_set")
    return tmp_path


@linux
def test_a_sparse_set_is_trained_on(in_empty_folder):
    figures = benchmark.larger_than_memory(
        in_empty_folder, 3e7, (*TINY, "--dataset_name", "larger-than-memory", "--epochs", "1")
    )
    # 24 clips of 100 frames.
    assert figures["exit"] == 0 and figures["bytes"] == 24 * 100 * 64 * 64 * 3
    assert figures["peak RssAnon"] > 10**7
    assert list((in_empty_folder / "runs" / "demo" / "checkpoints").glob("0_VDSM_seq.pth"))


@pytest.mark.slow
@linux
def test_a_set_of_50_gb_trains_in_little_memory(in_empty_folder):
    figures = benchmark.larger_than_memory(
        in_empty_folder, more=("--epochs", "1", "--bs_per_epoch", "4", "--threads", "1")
    )
    assert figures["exit"] == 0 and figures["bytes"] > 49e9
    assert 0 < figures["peak RssAnon"] < benchmark.MOST_ANONYMOUS
