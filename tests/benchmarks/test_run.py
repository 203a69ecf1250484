"""benchmarks/run.py: the parts of a run add up to the command, and its clock disturbs nothing."""

import json
import time

import pytest

from benchmarks import instrument, run

PARTS = {"training steps", "validation losses", "pictures", "evaluation", "checkpoints"}


@pytest.mark.slow
def test_quick_run(tmp_path, capfd):
    run.main(["--quick", "--bs_per_epoch", "3", "--json", str(tmp_path / "run.json")])
    result = json.loads((tmp_path / "run.json").read_text())
    # A module or function that is renamed must be renamed in the instrument too.
    assert result["not_imported"] == []
    whole, outside, *stages = result["rows"]
    assert [row["name"] for row in stages] == ["demo, stage 1", "demo, stage 2"]
    assert [row["steps"] for row in stages] == [6, 6]
    for row in stages:
        timings = {part: times["median"] for part, times in row["timings"].items()}
        assert PARTS | {"weights and start", "checkpoints, in the background"} <= timings.keys()
        assert timings["one training step"] == pytest.approx(timings["training steps"] / 6)
    assert {"imports", "data", "report", "ending python"} <= outside["timings"].keys()
    parts = sum(
        times["median"]
        for row in (outside, *stages)
        for part, times in row["timings"].items()
        if part not in (*row["behind"], "one training step")
    )
    seconds = {name: times["median"] for name, times in whole["timings"].items()}
    assert parts == pytest.approx(seconds[run.WHOLE], rel=0.02)
    assert 0 < seconds[run.FIRST_STEP] < seconds[run.WHOLE]
    shown = capfd.readouterr()
    assert "demo, stage 1 (6 steps)" in shown.out and "validation: ELBO" not in shown.out
    assert "validation: ELBO" in shown.err


def test_a_part_counts_without_the_parts_within_it():
    clock = instrument.Clock(time.time())
    inner = clock.part("inner", lambda: time.sleep(0.05))

    def both():
        time.sleep(0.02)
        inner()
        time.sleep(0.02)

    clock.part("outer", both)()
    seconds = clock.seconds[instrument.OUTSIDE]
    assert 0.05 <= seconds["inner"] < 0.09 and 0.04 <= seconds["outer"] < 0.08
    with pytest.raises(ZeroDivisionError):
        clock.part("outer", lambda: 1 / 0)()
    assert clock.open == [instrument.STARTING]


def test_a_run_that_fails_gives_its_code(capfd):
    with pytest.raises(SystemExit) as stop:
        run.main(["--preset", "demo", "--epochs", "0"])
    assert stop.value.code == 2 and "--epochs" in capfd.readouterr().err
