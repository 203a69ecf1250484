"""benchmarks/step.py runs and compares, and benchmarks/flops.py counts its arithmetic right."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cases, flops, rows, step, turns
from models.vdsm.stages import EncDecStage
from utils.errors import UserError


def test_arithmetic_of_the_papers_sizes():
    """The figures that the authors' program was measured against."""
    assert flops.gflop(cases.paper("EncDec")) == pytest.approx(277, rel=0.02)
    assert flops.gflop(cases.paper("Seq", fidelity="release")) == pytest.approx(142, rel=0.02)
    assert flops.gflop(cases.paper("Seq"), encoder=False) == pytest.approx(92, rel=0.02)


def blurs(case):
    """GFLOP of the encoder's blurs, forward and the gradient of their inputs; torch counts them."""
    frames, side, total = case.clips * case.frames, 64, 0
    for width in case.settings.enc_widths[:4]:
        side //= 2
        total += 2 * frames * width * 4 * 4 * side**2
    return total * (2 if case.stage_name == "EncDec" else 1) / 1e9


@pytest.mark.filterwarnings("ignore:TF32")
@pytest.mark.parametrize("fidelity", ["paper", "release"])
@pytest.mark.parametrize(
    "stage_name, form", [("EncDec", rows.FAST), ("Seq", rows.FAST), ("Seq", rows.ENCODER_IN)]
)
def test_arithmetic_is_what_torch_counts(stage_name, form, fidelity):
    case = cases.paper(stage_name, quick=True, fidelity=fidelity, n_e_w=12, z_dim=6, rnn_dim=32)
    take = rows.build(case, form).take
    take()  # the frozen codes are computed once
    # torch does not count MKLDNN's LSTM.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        take()
    encoder = stage_name == "EncDec" or form == rows.ENCODER_IN
    expected = rows.gflop(case, form) + (blurs(case) if encoder else 0)
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=0.001)


def test_generation_is_what_torch_counts():
    case = cases.paper("Seq", quick=True, n_e_w=12, z_dim=6)
    stage = case.info.stage().build(case.settings)
    view = stage.view()
    codes = view.draw(case.clips, case.frames)
    with FlopCounterMode(display=False) as counter:
        view.decode(*codes, case.frames)
    # The layer to the colours computes with 2 x 2 x 9 taps in place of 16, for all 32^2 pixels.
    frames, c_in = case.clips * case.frames, case.settings.dec_widths[-1]
    zeros = 2 * frames * c_in * 3 * (36 - 16) * 32**2 / 1e9
    expected = flops.generation_gflop(case) + zeros
    assert counter.get_total_flops() / 1e9 == pytest.approx(expected, rel=0.001)


def test_quick_run(tmp_path, capsys):
    step.main(["--quick", "--threads", "1,2", "--json", str(tmp_path / "step.json")])
    shown = capsys.readouterr().out
    result = json.loads((tmp_path / "step.json").read_text())
    timed = [(row["row"], row["threads"]) for row in result["rows"]]
    assert timed == [
        (name, threads)
        for name, row in rows.ROWS.items()
        for threads in ([1] if row.literal else [1, 2])
    ]
    assert all(best["gflop_per_s"] > 0 for best in result["convolution"].values())
    assert list(result["convolution"]) == ["1", "2"] and result["threads"] == [1, 2]
    counted = "stage1", "stage2", "stage2-encoder", "dsa", "unordered"
    for row in result["rows"]:
        assert row["timings"]["step"]["median"] > 0 and row["name"] in shown
        assert (row.get("over floor", 0) > 0) == (row["row"] in counted)
    by_name = {(row["row"], row["threads"]): row for row in result["rows"]}
    one, two = by_name["stage1", 1], by_name["stage1", 2]
    walls = [entry["timings"]["wall"]["median"] for entry in (one, two)]
    assert two["times 1 thread"] == pytest.approx(walls[0] / walls[1])
    literal = by_name["stage1-literal", 1]["timings"]["step"]["median"]
    gain = literal / one["timings"]["step"]["median"]
    assert one["times literal"] == pytest.approx(gain)
    assert f"{gain:.2f} times as fast as the literal form (at least 2.8)" in shown
    assert f"{two['times 1 thread']:.2f} times as fast as one thread (at least 1.7)" in shown


def test_variants_take_turns_in_processes_of_their_own(monkeypatch):
    """Each turn is a second of steps, after the warm-up, and each variant gets all its turns."""
    monkeypatch.setattr(turns, "Remote", lambda *given: Fake(*given))
    asked.clear()
    figures = turns.measure("stage1", [("fp32", 1), ("fp32", 2)])
    count = rows.ROWS["stage1"].turns
    assert asked == [("turn", threads) for _ in range(count) for threads in (1, 2)] + [
        ("end", 1),
        ("end", 2),
    ]
    assert [entry["timings"]["step"]["median"] for entry in figures] == [0.5, 0.25]
    assert [entry["timings"]["wall"]["count"] for entry in figures] == 2 * [2 * count]
    assert [entry["peak"] for entry in figures] == [100, 200]


asked = []


class Fake:
    """In place of turns.Remote: two steps a turn, of half a second divided by the threads."""

    def __init__(self, row, precision, threads, quick):
        self.threads, self.process, self.pipe = threads, self, self
        self.close = self.terminate = self.join = lambda: None

    def turn(self):
        asked.append(("turn", self.threads))
        return 2 * [(0.5 / self.threads, 0.6 / self.threads)]

    def end(self):
        asked.append(("end", self.threads))
        return 100 * self.threads


@pytest.mark.slow
def test_a_remote_variant_answers():
    """The process of a variant starts, takes a turn, tells its peak, and ends."""
    with turns._started("demo-stage2", "fp32", 1, False) as variant:
        assert len(variant.turn()) >= 1
        assert variant.end() > 10**8
    assert not variant.process.is_alive()


def test_a_step_that_is_not_finite_is_no_measurement(monkeypatch):
    variant = turns.Variant("stage1", "fp32", 1, quick=True)
    with torch.no_grad():
        variant.step.network.encoder.pose.weight.fill_(torch.nan)
    variant.turn()
    with pytest.raises(UserError, match="not finite"):
        variant.end()


def test_the_step_of_a_row_is_that_of_training(monkeypatch):
    """It calls the stage as train_test.attempt does, with a new batch each time."""
    seen, loss = [], EncDecStage.loss

    def record(self, batches, number, annealed):
        seen.append((number, self.network.training, annealed.weights.keys()))
        return loss(self, batches, number, annealed)

    monkeypatch.setattr(EncDecStage, "loss", record)
    variant = turns.Variant("demo-stage1", "fp32", 1, quick=True)
    variant.turn()
    assert seen == [(number, True, {"s", "d", "z"}) for number in range(2)]
    assert variant.case.size == "2 x 3 of 16 frames"


@pytest.mark.parametrize(
    "flags, why",
    [
        ("--rows stage3", "found stage3, expected some of stage1"),
        ("--threads 1,0", "expected an integer from 1"),
        ("--precision fp8", "found fp8, expected some of fp32"),
        ("--precision fp32,tf32", "--precision tf32 is for a CUDA GPU"),
    ],
)
def test_wrong_flags(flags, why, capsys):
    with pytest.raises(SystemExit) as stop:
        step.main(["--quick", *flags.split()])
    assert stop.value.code == 2 and why in capsys.readouterr().err


def test_bars():
    entry = {"row": "stage1", "precision": "fp32", "threads": 1, "peak": 4.4e9, "over floor": 2.01}
    assert list(step.bars(entry).values()) == [False, True]
    two = {"row": "stage2", "precision": "fp32", "threads": 2, "peak": 1, "times 1 thread": 1.71}
    assert step.bars(two) == {"1.71 times as fast as one thread (at least 1.7)": True}
    bf16 = {"row": "stage2", "precision": "bf16", "threads": 1, "peak": 1, "times fp32": 1.29}
    assert step.bars(bf16) == {"1.29 times as fast as fp32 (at least 1.3)": False}
