"""Sweeps: what a file expands to, what is refused, and how runs end, stop and go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import sweep
from tests.runs import assert_same_checkpoint, wait_for
from tests.tiny import STAGE_1, TINY
from utils.errors import UserError
from utils.flags import Parser
from utils.plan import parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """file(text) writes x.toml into the folder that becomes the current one; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "x.toml").write_text(text)
        return "x.toml"

    return write


def named(content, *more):
    return {run.name: run.words for run in sweep.expanded(content, "x", more)}


# --- the file ---


def test_every_row_is_run_at_every_point_of_the_grid():
    rows = [{"name": "a"}, {"name": "b", "flags": "--bs '5'"}]
    grid = {"seed": [0, 1], "lr_warmup": [0, 50]}
    content = {"base": "--preset demo --bs 4", "grid": grid, "rows": rows}
    runs = named(content, "--threads", "1")
    first = [f"{row}-lr_warmup-{value}" for value in (0, 50) for row in "ab"]
    assert list(runs) == [*first, *(f"{name}-s1" for name in first)]
    plan = parse(runs["b-lr_warmup-50-s1"])
    assert plan.training == ["EncDec", "Seq"]
    for settings in plan.stages.values():
        assert (settings.bs, settings.lr_warmup, settings.seed, settings.threads) == (5, 50, 1, 1)


def test_many_seeds_read_their_preset_once(monkeypatch):
    """A sweep of 2,000 seeds took half a minute to expand."""
    words, read = [], Parser.parse_known_args

    def count(self, args=None, namespace=None):
        words.extend(args)
        return read(self, args, namespace)

    monkeypatch.setattr(Parser, "parse_known_args", count)
    runs = named({"base": "--preset demo", "grid": {"seed": [*range(50)]}})
    assert list(runs)[::49] == ["demo", "demo-s49"]
    assert parse(runs["demo-s49"]).first.seed == 49
    assert len(words) < 50 * 30  # of about 180 words per run


def test_what_each_run_would_refuse_is_told_at_once():
    with pytest.raises(UserError, match="--select best --RUN b: --select best is for a finished"):
        named({"rows": [{"name": "b", "flags": "--preset demo --select best"}]})
    assert named({"rows": [{"name": "b", "flags": "--select best"}]})


def test_presets_name_their_runs_themselves():
    content = {"grid": {"preset": ["demo", "demo-dsa"], "seed": [0, 3]}}
    assert list(named(content)) == ["demo", "demo-s3", "demo-dsa", "demo-dsa-s3"]
    assert list(named({"base": "--RUN mine", "grid": {"seed": [0, 3]}})) == ["mine", "mine-s3"]
    # A value that no folder could be named after.
    assert list(named({"base": "--RUN x", "grid": {"source": ["a/b c"]}})) == ["x-source-a-b-c"]
    assert list(named({"base": "--model dsa", "grid": {"bs": [2]}})) == ["dsa-bs-2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = ", "not a TOML file"),
        ("bases = ''", "found 'bases' (did you mean base?)"),
        ("base = " + 9999 * "[", "not a TOML file"),
        ("", "found no run, expected base, [grid] or [[rows]]"),
        ("rows = []", "found no run"),
        ("base = 3", "found 3 as 'base', expected text in quotes"),
        ("grid = 3", "found 3 as 'grid', expected a table"),
        ("rows = 3", "expected tables [[rows]]"),
        ("rows = [3]", "found 3 among the rows"),
        ("[[rows]]\nminutes = 'x'", "found 'x' as 'minutes', expected a number"),
        ("[[rows]]\nminutes = -3", "found -3 as 'minutes', expected a positive number"),
        ("[[rows]]\nminutes = nan", "found nan as 'minutes', expected a positive number"),
        ("[[rows]]\nflag = ''", "found 'flag' (did you mean flags?)"),
        ("[grid]\nseed = 3", "found 3 as 'seed' of [grid], expected a list"),
        ("[grid]\nseed = []", "found [] as 'seed' of [grid], expected a list"),
        ("[grid]\nseed = [[1]]", "expected a list of values"),
        ('base = "--RUN \'x"', "No closing quotation"),
        ("base = '--preset demos'", "unknown preset 'demos' (did you mean demo"),
        ("base = '--bs 0'", "expected a number of at least 1"),
        ("base = '--RUN'", "expected one argument"),
        ("base = '--help'", "--help is not for a sweep"),
        ("base = '--fresh=True'", "--fresh is not for a sweep"),
        ("base = '--generate 2 --out a.gif'", "found a command on files, and a sweep trains"),
        ("base = '--show'", "found a command on files, and a sweep trains"),
        ("base = ''\n[bars]\npsnr = 3", "found 3 as 'psnr' of [bars], expected text such as"),
        ("base = ''\n[bars]\npsnr = '> 3'", "found '> 3' as 'psnr' of [bars]"),
        ("[grid]\nbs_ = [3]", "unrecognized arguments: --bs_ 3"),
        ("[[rows]]\nflags = '--bs 2'\n[[rows]]\nflags = '--bs 3'", "would write to the folder"),
    ],
)
def test_a_bad_file_is_told_in_one_line(file, capsys, text, said):
    assert sweep.main([file(text)]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and said in told.err and not told.out
    assert not Path("runs").exists()


def test_other_mistakes_are_told_in_one_line(file, capsys):
    good = file("base = '--preset demo'")
    for flags, said in (
        (["nowhere.toml"], "No such file"),
        (["experiment"], "give a file, or a name that --list shows"),
        ([f"{good}:demos"], "found no run demos (did you mean demo?)"),
        ([good, "--jobs", "0"], "found --jobs 0, expected a positive integer"),
        ([good, "--slurm", "gpus"], "found 'gpus' after --slurm, expected NAME=VALUE"),
        ([good, "--bs", "0"], "expected a number of at least 1"),
    ):
        assert sweep.main(flags) == 2
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and said in told.err and not told.out


# --- how long ---


def test_the_time_and_memory_of_presets_are_reckoned(file, capsys):
    text = """question = "How long?"
    base = "--preset demo"
    [grid]
    seed = [0, 1]
    [[rows]]
    [[rows]]
    name = "half"
    flags = "--stage1.epochs 11 --stage2.epochs 13"
    [[rows]]
    name = "said"
    minutes = 90
    """
    assert sweep.main([file(text), "--dry_run", "--jobs", "2"]) == 0
    head, forecast, *lines = capsys.readouterr().out.splitlines()
    # 6 + 3 + 90 minutes for each of two seeds, two at a time; the preset says 1.24 GB.
    assert head == "How long?" and "6 runs, 2 at a time: about 1.65 hours" in forecast
    assert "2.48 GB" in forecast and len(lines) == 6
    assert lines[1].startswith("half (3 minutes, 1.24 GB): python main.py --preset demo")
    assert not Path("runs").exists()
    assert sweep.main([f"{file(text)}:said-s1", "--dry_run"]) == 0
    assert "1 run, 1 at a time: about 1.5 hours" in capsys.readouterr().out
    assert sweep.main([file("base = '--model dsa --train True'"), "--dry_run"]) == 0
    assert "the time of 1 is not known" in capsys.readouterr().out


def test_each_run_has_its_share_of_the_threads(file, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    text = file("base = '--preset demo'")
    for flags, said in (("--jobs 3", 2), ("--jobs 9", 1), ("--jobs 3 --threads 5", 5)):
        assert sweep.main([text, "--dry_run", *flags.split()]) == 0
        assert f"--threads {said}" in capsys.readouterr().out
    # macOS and Windows have no such function
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert sweep.main([text, "--dry_run", "--jobs", "3"]) == 0
    assert "--threads 2" in capsys.readouterr().out


# --- the runs ---

TWO = "[grid]\nseed = [0, 1]\n[[rows]]\nname = 'good'\n[[rows]]\nname = 'bad'\n"


def put_figures(value, run):
    """The figures of a measured run, runs/RUN/metrics.json."""
    protocols = {"swap": {"figures": ["psnr"], "seed spread": {}}}
    notes = {"model": "vdsm", "data": "pendulum", "split": "test", "spread": {}}
    folder = Path("runs") / run
    folder.mkdir(parents=True)
    content = {"psnr": value, "details": {"Seq": notes | {"protocols": protocols}}}
    (folder / "metrics.json").write_text(json.dumps(content))
    settings = {"model": "vdsm", "dataset_name": "pendulum", "seed": 0}
    (folder / "config.json").write_text(json.dumps({"Seq": settings}))


def test_failures_are_listed_and_the_others_compared(file, program, capfd):
    put_figures(30, "good")
    put_figures(32, "good-s1")
    assert sweep.main([file(f'question = "Q?"\n{TWO}'), "--jobs", "2"]) == 1
    told = capfd.readouterr()
    assert told.err.splitlines() == [
        line
        for run in ("bad", "bad-s1")
        for line in (
            f"{run} failed (exit status 1); all that it printed is in runs/sweeps/x/{run}.txt:",
            *(f"    {number}" for number in range(5, 9)),
            "    main.py: found nothing, expected something",
        )
    ]
    assert all(f"{run}: started" in told.out for run in ("good", "bad", "good-s1", "bad-s1"))
    table = Path("runs/x.md").read_text()
    assert table in told.out and table.startswith("Q?\n")
    assert "2 seeds" in table and "| `psnr` | 31 ± 1.4 |" in table
    commands = [line for line in table.splitlines() if line.startswith("- `python main.py ")]
    assert len(commands) == 4 and all(line.endswith(" s") for line in commands)
    assert sorted(path.name for path in Path("runs").glob("*.times")) == [
        "good-s1.times",
        "good.times",
    ]


def test_runs_are_counted_that_meet_the_bars(file, program, capfd):
    put_figures(30, "a")
    put_figures(32, "a-s1")
    bars = "[bars]\npsnr = '>= 31'\nssim = '<= .5'\n"
    runs = "[grid]\nseed = [0, 1, 2]\n[[rows]]\nname = 'a'\n"
    assert sweep.main([file(bars + runs)]) == 0
    assert Path("runs/x.md").read_text().splitlines()[:3] == [
        "All bars are met by 0 of 2 runs (3 were asked for):",
        "- `psnr` >= 31: met by 1 of 2 runs, from 30 to 32; not by a",
        "- `ssim` <= 0.5: met by 0 of 2 runs; not by a, a-s1",
    ]
    content = {"bars": {"psnr": "<= 32"}, "base": "--RUN a", "grid": {"seed": [0, 1]}}
    said = sweep.against_bars(content, sweep.expanded(content, "x"), "runs")
    assert said.startswith(
        "All bars are met by 2 of 2 runs (2 were asked for):\n- `psnr` <= 32: met"
    )


def test_as_many_runs_at_a_time_as_asked_for(file, program):
    text = file("[[rows]]\nname = 'other'\n[[rows]]\nname = 'next'\n")
    assert sweep.main([text, "--jobs", "1"]) == 0
    times = [Path(f"runs/{run}.times").read_text().split() for run in ("other", "next")]
    assert float(times[0][1]) < float(times[1][0])
    Path("runs/end").unlink()
    # The first of these runs ends when the second one has begun.
    text = file("[[rows]]\nname = 'long'\n[[rows]]\nname = 'other'\n")
    assert sweep.main([text, "--jobs", "2"]) == 0


@pytest.fixture
def started(file, program):
    """A sweep of run 'long', then of 'next', in a process group of its own that has begun."""
    text = file("[[rows]]\nname = 'long'\n[[rows]]\nname = 'next'\n")
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        "from benchmarks import sweep\n"
        f"sweep.Job = partial(sweep.Job, program=Path({str(program)!r}))\n"
        f"sys.exit(sweep.main([{text!r}]))"
    )
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=paths, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for("long.began")
    yield process
    Path("runs/end").touch()
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("send", "number"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGINT), (os.kill, signal.SIGTERM)],
    ids=["Ctrl-C", "SIGINT", "SIGTERM"],
)
def test_a_signal_lets_the_runs_save_and_starts_no_other(started, send, number):
    # Ctrl-C in a terminal, which signals a whole group, must not be the run's second signal.
    assert int(Path("runs/long.began").read_text().split()[0]) != started.pid
    send(started.pid, number)
    _, told = started.communicate(timeout=20)
    assert started.returncode == 128 + number
    assert Path("runs/long.saved").exists() and not Path("runs/next.began").exists()
    assert told.strip().startswith("stopped; the runs have saved. Go on with: python -m benchmarks")
    assert "Traceback" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's death is Linux's")
def test_a_killed_sweep_lets_the_runs_save(started):
    started.kill()
    started.communicate(timeout=20)
    wait_for("long.saved")
    assert not Path("runs/next.began").exists()


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_exactly_and_trains_nothing_twice(file):
    stage = " ".join([*TINY, *STAGE_1, "--num_clips 24 --epochs 40"])
    command = [sys.executable, "-m", "benchmarks.sweep", file(f"base = '{stage}'")]
    paths = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=paths, stderr=subprocess.DEVNULL)
    wait_for("demo/checkpoints/1_VDSM_EncDec.pth", seconds=120)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    last = Path("runs/demo/checkpoints/39_VDSM_EncDec.pth")
    assert not last.exists()
    assert subprocess.run(command, env=paths).returncode == 0
    written = last.stat().st_mtime_ns
    assert subprocess.run(command, env=paths).returncode == 0
    assert last.stat().st_mtime_ns == written
    assert sweep.main(["x.toml", "--runs_dir", "unbroken/"]) == 0
    whole = torch.load(Path("unbroken", *last.parts[1:]), weights_only=True)
    assert_same_checkpoint(torch.load(last, weights_only=True), whole)
