"""benchmarks/cuda.py walks through its parts on a CPU, and says where there is no GPU."""

import json

import pytest
import torch

from benchmarks import cuda, cuda_parts, diff


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.main([]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "no CUDA GPU" in said.err and not said.out


@pytest.fixture
def in_this_process(monkeypatch):
    """Run the parts here, and neither pytest nor main.py."""

    def run(words, seconds):
        if words[1] != "benchmarks.cuda_parts":
            return "3 passed, 1 skipped in 2 s\n", None, 2.0
        return json.dumps(cuda_parts.main(words[2:])), None, 1.0

    monkeypatch.setattr(cuda, "run", run)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_every_part_on_a_cpu(in_this_process, tmp_path, capsys):
    path = tmp_path / "cuda.json"
    assert cuda.main(["--quick", "--cpu", "--json", str(path)]) == 0
    shown, result = capsys.readouterr().out, json.loads(path.read_text())
    for rows in result["parity"]["fp32"].values():  # of a CPU with itself
        assert rows["loss"] == rows["gradient"] == 0
    for model in cuda_parts.SMALL:
        assert result["steps"]["fp32"][model]["plain"] > 0 and f"| {model} | fp32 |" in shown
    assert len(result["blended"]["fp32"]) == 4 and "3 passed" in shown
    assert result["generate"]["fp32"]["seconds"] > 0
    plain = result["steps"]["fp32"]["stage 1"]["plain"]
    times = diff.medians(result)
    assert (
        times["stage 1, fp32: plain"][0] == plain / 1000 and "20 sequences, fp32: seconds" in times
    )


def test_a_part_that_fails_is_named_and_the_others_go_on(monkeypatch, capsys):
    def run(words, seconds):
        wrong = "exit code 1: out of memory" if "steps" in words else None
        figures = {"a": {"loss": 1.0, "gradient": 2.0, "grouped": 1.0, "products": 2.0}}
        return json.dumps({"seconds": 0.1} if "generate" in words else figures), wrong, 1.0

    monkeypatch.setattr(cuda, "run", run)
    monkeypatch.setattr(cuda, "machine", lambda cpu: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda.main([]) == 1
    shown = capsys.readouterr().out
    assert shown.count("exit code 1: out of memory") == 3
    assert "| a | bf16 | 1.0e+00 | 2.0e+00 |" in shown and "0.10 (goal 0.2: met)" in shown


def test_a_command_that_takes_too_long_is_named():
    printed, wrong, _ = cuda.run(["-c", "import time; time.sleep(60)"], 0.2)
    assert printed == "" and "took more than" in wrong
