"""What a command needs is said beforehand (--dry_run), and refused where there is less."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import needs
import train_test
from tests.runs import tree
from tests.tiny import STAGE_1, TINY
from utils.errors import UserError
from utils.plan import parse

GIGABYTE = 10**9


def test_the_bytes_of_living_tensors():
    with needs.Living() as living:
        kept = torch.zeros(1000)
        for _ in range(3):
            view = torch.ones(500)[:10]
        del view
        assert (living.bytes, living.peak) == (4000, 8000)
        square = (kept.requires_grad_() ** 2).sum()
        held = living.bytes
        square.backward()
    assert held >= 4000 and living.peak > held


def test_memory_grows_with_the_batch_as_a_larger_step_says(monkeypatch):
    """The bytes reckoned from few samples are those of a step of all samples."""
    settings = {size: parse([*TINY, "--bs", size]).stages["EncDec"] for size in ("12", "13")}
    monkeypatch.setattr("needs._start_bytes", lambda *_: 0)
    _, twelve = needs.work_bytes("EncDec", settings["12"])
    _, more = needs.work_bytes("EncDec", settings["13"])
    whole = needs._step_bytes("EncDec", settings["12"], 12)
    assert twelve == pytest.approx(whole, rel=0.1) and more > twelve


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--n_e_w", 1000000], ["weights", "--n_e_w 1000000", "TB"]),
        (["--rnn_dim", 900000], ["weights", "has 16.0 GB: lower --rnn_dim 900000\n"]),
        (["--dec_widths", "1000000,1000000,4,4"], ["weights", "--dec_widths 1000000,1000000,4,4"]),
        (["--bs", 300000], ["step", "--bs 300000"]),
        (["--epochs", 100000000], ["--epochs", "at most 1000000"]),
        (["--rnn_layers", 1000], ["--rnn_layers", "at most 100"]),
        (["--lr_VDSMSeq", "1e18"], ["--lr_VDSMSeq", "at most 100"]),
        (["--threads", 100000], ["--threads", "at most 1024"]),
        (["--enc_widths", "4,4,4,4,10000000"], ["--enc_widths", "at most 1000000"]),
    ],
)
def test_too_large_settings_are_refused_at_once(refused, monkeypatch, tmp_path, flags, words):
    monkeypatch.setattr("needs.memory", lambda: (16 * GIGABYTE, "the machine"))
    line = refused(*TINY, *flags)
    assert all(word in line for word in words), line
    assert tree(tmp_path) == {}


def test_clips_that_do_not_fit(refused, monkeypatch, tmp_path):
    line = refused(*TINY, "--seq_len", 900000)
    assert "--seq_len 900000" in line and "TB" in line and tree(tmp_path) == {}


def test_one_model_and_a_scale(refused):
    dsa = ["--model", "dsa", "--train", "True"]
    assert "at least 0 and at most 100" in refused(*dsa, "--z_scale_start", "1e18")


def test_a_little_too_large_is_a_warning(monkeypatch, capsys):
    plan = parse([*TINY, *STAGE_1])
    sizes = needs.measure("EncDec", plan.stages["EncDec"]) | {"start": 0, "step": 10**8}
    monkeypatch.setattr("needs.work_bytes", lambda *_: (0, 10**8))
    monkeypatch.setattr("needs.resident", lambda: 0)
    total = needs.peak(0, sizes)
    for share, refuses, warns in ((1.01, False, False), (0.9, False, True), (0.7, True, False)):
        monkeypatch.setattr("needs.memory", lambda share=share: (total * share, "the machine"))
        if refuses:
            with pytest.raises(UserError, match="the machine has"):
                needs.refuse_too_large(plan)
        else:
            needs.refuse_too_large(plan)
        assert bool(capsys.readouterr().err) is warns


def test_out_of_memory_on_the_way(command, refused, monkeypatch, tmp_path):
    flags, steps, take_step = [*TINY, *STAGE_1], [], train_test.take_step

    def too_much(*given):
        steps.append(1)
        if len(steps) == 6:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return take_step(*given)

    monkeypatch.setattr("train_test.take_step", too_much)
    line = refused(*flags)
    assert "out of memory" in line and "--bs" in line and "whole" in line
    left = tree(tmp_path / "runs" / "demo" / "checkpoints")
    assert any("1_VDSM_EncDec" in name for name in left)
    monkeypatch.setattr("train_test.take_step", take_step)
    assert command(*flags).code == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "stage_name, flags",
    [
        ("EncDec", ["--preset", "demo"]),
        ("Seq", ["--preset", "demo", "--num_clips", "64"]),
        ("DSA", ["--preset", "demo-dsa", "--seq_len", "64"]),
        ("Unordered", ["--preset", "demo-unordered", "--seq_len", "64"]),
    ],
)
def test_what_is_said_is_what_a_run_takes(stage_name, flags, tmp_path):
    """Within 20 % of the peak that a process of its own reaches."""
    root = Path(__file__).resolve().parent.parent
    flags = [*flags, "--device", "cpu", "--runs_dir", str(tmp_path)]
    measure = [sys.executable, root / "tests" / "peak.py", stage_name, *flags]
    measured = int(subprocess.check_output(measure, text=True).split()[-1])
    said = int(subprocess.check_output([*measure[:2], "said", *measure[2:]], text=True))
    assert said == pytest.approx(measured, rel=needs.ERROR)
