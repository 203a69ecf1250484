"""--precision from the command line: refusals, resuming, and checkpoints that change precision."""

import json

import pytest
import torch

from tests import bf16
from tests.runs import assert_same_checkpoint, checkpoint
from tests.tiny import TINY
from utils import precision
from utils.errors import UserError
from utils.precision import fast_bf16, prepare

BF16 = *TINY, "--precision", "bf16"
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def no_data(monkeypatch):
    """Let loading a data set fail the test."""

    def load(*_):
        raise AssertionError("data was loaded")

    monkeypatch.setattr("data.load", load)


def test_what_the_processor_lacks_is_refused_before_data_is_loaded(refused, monkeypatch, no_data):
    monkeypatch.setattr("utils.precision.processor_lacks_bf16", lambda: True)
    assert "use --precision fp32" in refused(*BF16)
    assert "for a CUDA GPU" in refused(*TINY, "--precision", "tf32")
    assert "invalid choice" in refused(*TINY, "--precision", "fp16")


@pytest.mark.parametrize("avx512_bf16", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
def test_a_processor_with_fast_bf16(avx512_bf16, onednn, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(precision, "processor_lacks_bf16", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    assert fast_bf16(CPU) == (onednn and avx512_bf16)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert fast_bf16(CPU) == onednn


@pytest.fixture
def tf32():
    """The two settings of torch about TF32 on a CUDA GPU, set back afterwards."""
    parts = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [part.allow_tf32 for part in parts]
    yield lambda: [part.allow_tf32 for part in parts]
    for part, allowed in zip(parts, before):
        part.allow_tf32 = allowed


def test_a_gpu_multiplies_in_tf32_only_if_asked(monkeypatch, tf32):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for name in ("fp32", "tf32", "bf16"):
        prepare(name, CUDA)
        assert tf32() == [name == "tf32"] * 2
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(UserError, match="found no fast bf16 in this GPU"):
        prepare("bf16", CUDA)


# --- training ---


@pytest.mark.slow
def test_a_killed_run_in_bf16_ends_as_an_undisturbed_one(command, tmp_path, kill_at, monkeypatch):
    bf16.emulate(monkeypatch.setattr)
    assert command(*BF16, "--RUN", "undisturbed").code == 0
    for stage_name in ("EncDec", "Seq"):
        kill_at(stage_name, 5)
        assert command(*BF16).code == 130
    assert command(*BF16).code == 0
    runs = tmp_path / "runs"
    for stage_name in ("EncDec", "Seq"):
        kept, expected = (checkpoint(runs / run, stage_name, 3) for run in ("demo", "undisturbed"))
        assert_same_checkpoint(kept, expected)
        assert {value.dtype for value in kept["model"].values()} == {torch.float32}
    saved = json.loads((runs / "demo" / "config.json").read_text())
    assert {stage["precision"] for stage in saved.values()} == {"bf16"}


@pytest.mark.parametrize("first, second", [("fp32", "bf16"), ("bf16", "fp32")])
@pytest.mark.slow
def test_a_checkpoint_moves_between_precisions(
    first, second, command, trained_once, tmp_path, kill_at, monkeypatch
):
    bf16.emulate(monkeypatch.setattr)
    kill_at("EncDec", 5)
    assert command(*TINY, "--precision", first).code == 130
    before = checkpoint(tmp_path / "runs" / "demo", "EncDec", 1)
    in_float32 = checkpoint(trained_once / "runs" / "demo", "EncDec", 1)
    if first == "fp32":
        assert_same_checkpoint(before, in_float32)
    else:
        with pytest.raises(AssertionError):
            assert_same_checkpoint(before, in_float32)
    said = command(*TINY, "--precision", second)
    assert said.code == 0 and "epoch 1 of 3 is done" in said.out
    assert checkpoint(tmp_path / "runs" / "demo", "Seq", 3)["settings"]["precision"] == second


@pytest.mark.parametrize("maker, flags, lacks", [
    ("AuthenticAMD", "avx2", True),
    ("AuthenticAMD", "avx2 avx512_bf16", False),
    ("GenuineIntel", "avx2 avx512_bf16", True),
    ("GenuineIntel", "avx2 avx512_bf16 amx_bf16", False),
    ("", "", False),
])  # fmt: skip
def test_a_processor_that_surely_lacks_bf16(maker, flags, lacks, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    assert not precision.processor_lacks_bf16()
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {maker}\nflags : fpu {flags}\n")
    assert precision.processor_lacks_bf16() == lacks
    if lacks:
        assert not fast_bf16(CPU)
