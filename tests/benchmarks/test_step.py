"""benchmarks/step.py runs, and benchmarks/flops.py counts its arithmetic right."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import step
from benchmarks.cases import new_case
from benchmarks.flops import gflop


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_arithmetic_of_the_papers_sizes():
    """The figures that the authors' program was measured against."""
    assert gflop(new_case(), "EncDec") == pytest.approx(277, rel=0.02)
    assert gflop(new_case(fidelity="release"), "Seq") == pytest.approx(142, rel=0.02)
    assert gflop(new_case(), "Seq", encoder=False) == pytest.approx(92, rel=0.02)


def blurs(case, stage_name):
    """GFLOP of the encoder's blurs, forward and the gradient of their inputs; torch counts them."""
    frames, side, total = case.clips * case.frames[stage_name], 64, 0
    for width in case.settings.enc_widths[:4]:
        side //= 2
        total += 2 * frames * width * 4 * 4 * side**2
    return total * (2 if stage_name == "EncDec" else 1) / 1e9


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("fidelity", ["paper", "release"])
@pytest.mark.parametrize(
    "stage_name, form", [("EncDec", "fast"), ("Seq", "fast"), ("Seq", "encoder in")]
)
def test_arithmetic_is_what_torch_counts(stage_name, form, fidelity):
    case = new_case(quick=True, fidelity=fidelity, n_e_w=12, z_dim=6, rnn_dim=32)
    optimiser_step, _, _ = step.optimiser_step(case, stage_name, form)
    # torch does not count MKLDNN's LSTM.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        optimiser_step()
    encoder = stage_name == "EncDec" or form == "encoder in"
    expected = gflop(case, stage_name, encoder) + (blurs(case, stage_name) if encoder else 0)
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=0.001)


def test_quick_run(tmp_path, capsys):
    step.main(["--quick", "--json", str(tmp_path / "step.json")])
    shown = capsys.readouterr().out
    result = json.loads((tmp_path / "step.json").read_text())
    forms = [(row["stage"], row["form"]) for row in result["rows"] if "stage" in row]
    assert forms == list(step.FORMS)
    assert [row["form"] for row in result["rows"] if "stage" not in row] == list(step.OTHERS)
    assert result["throughput"]["gflop_per_s"] > 0
    for row in result["rows"]:
        assert row["seconds"] > 0 and row["text"] in shown
        counted = "fast", "encoder in", *step.OTHERS
        assert (row.get("over floor", 0) > 0) == (row["form"] in counted)
        if row["form"] == "fast":
            stage, gain = row["text"].split(" (")[0], row["reference over fast"]
            assert f"{stage}: {gain:.1f} times as fast as the literal form" in shown
