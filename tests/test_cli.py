"""The command line: flags, presets, saved configurations, and the mistakes a user can make."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import main
from models.vdsm.settings import VDSMSettings
from tests.made import WRONG_KINDS
from tests.release import RELEASE
from tests.runs import tree
from tests.tiny import TINY
from utils.errors import UserError
from utils.flags import without
from utils.plan import parse
from utils.presets import preset_names

ROOT = Path(__file__).resolve().parent.parent


def test_every_flag_of_the_release_has_its_default():
    settings = parse([]).stages["EncDec"]
    assert {name: getattr(settings, name) for name in RELEASE} == RELEASE


def test_a_flag_in_each_form_and_the_last_one_counts():
    for flags in (["--bs", "7"], ["--bs=7"], ["--bs", "3", "--bs=7"]):
        assert parse(flags).stages["Seq"].bs == 7


def test_help_shows_every_flag_and_default_without_torch():
    code = (
        "import sys, main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert not {'torch', 'pyro', 'sklearn', 'matplotlib'} & set(sys.modules), 'slow imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    entries = re.split(r"^  --", done.stdout, flags=re.MULTILINE)[1:]
    shown = {entry.split()[0]: " ".join(entry.split("\n\n")[0].split()) for entry in entries}
    for field in dataclasses.fields(VDSMSettings):
        default = (
            ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        )
        assert shown[field.name].endswith(f"[{default}]"), field.name
    for group in (
        "run:",
        "data:",
        "optimisation:",
        "output:",
        "a trained model on your files:",
        "machine:",
        "VDSM: stages:",
        "VDSM: sizes:",
        "VDSM: annealing:",
    ):
        assert f"\n{group}\n" in done.stdout
    groups = re.findall(r"^[^ -].*:$", done.stdout, re.MULTILINE)
    assert len(groups) == 10
    for name in preset_names():
        assert name in shown["preset"].replace("- ", "-")


@pytest.mark.parametrize(
    "text, value",
    [
        *((text, True) for text in ("True", "true", "1", "yes")),
        *((text, False) for text in ("False", "false", "0", "no")),
    ],
)
def test_booleans(text, value):
    assert parse(["--train_VDSMSeq", text]).stages["Seq"].train_VDSMSeq is value


def test_a_boolean_alone_means_true():
    for flags in (["--quiet", "--bs", "7"], ["--bs", "7", "--quiet"], ["--quiet=yes", "--bs=7"]):
        settings = parse(flags).stages["Seq"]
        assert settings.quiet is True and settings.bs == 7
    assert parse(["--quiet", "--quiet", "False"]).stages["Seq"].quiet is False
    flags = ["--fresh", "--bs", "7", "--fresh", "True", "--fresh=1"]
    assert without(flags, "--fresh") == ["--bs", "7"]


@pytest.mark.parametrize(
    "flags, meant",
    [
        (["--epoch", "3"], "--epochs"),
        (["--dry-run"], "--dry_run"),
        (["--run", "x"], "--RUN"),
        (["--lr", "1"], "--lr_resume or --lr_warmup or --lr_final"),
        (["--preset", "sprite-cpu"], "sprites-cpu or sprites-full"),
        (["--dataset_name", "mug"], "MUG-FED"),
        (["--dataset_name=pendula"], "pendulum"),
        (["--model", "vsdm"], "vdsm"),
    ],
)
def test_what_a_mistyped_name_may_mean(flags, meant):
    with pytest.raises(UserError, match=re.escape(f"(did you mean {meant}?)")):
        parse(flags)
    with pytest.raises(UserError) as refused:
        parse(["--nonsense", "1"])
    assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--train_VDSMSeq", "ture"], ["--train_VDSMSeq", "'ture'", "True or False"]),
        (["--tboard_log", ""], ["--tboard_log", "True or False"]),
        (["--nonsense", "1"], ["--nonsense", "--help"]),
        (["--epoch", "3"], ["--epoch"]),  # no abbreviations
        (["stray"], ["stray"]),
        (["--bs"], ["--bs", "expected one argument"]),
        (["--bs", "0"], ["--bs", "at least 1"]),
        (["--bs", "2.5"], ["--bs", "'2.5'", "an integer"]),
        (["--seed", "-1"], ["--seed", "at least 0"]),
        (["--seq_len", "1"], ["--seq_len", "at least 2"]),
        (["--lr_VDSMSeq", "fast"], ["--lr_VDSMSeq", "'fast'", "a number"]),
        (["--lr_VDSMSeq", "nan"], ["--lr_VDSMSeq", "finite"]),
        (["--anneal_end_id", "-0.1"], ["--anneal_end_id", "at least 0"]),
        (["--rnn_dropout", "1"], ["--rnn_dropout", "at most 0.99"]),
        (["--RUN", "../elsewhere"], ["--RUN", "plain name"]),
        (["--RUN", ".."], ["--RUN", "plain name"]),
        (["--device", "tpu"], ["--device", "'tpu'", "cuda"]),
        (["--model", "vae"], ["'vae'", "vdsm"]),
        (["--enc_widths", "1,2"], ["--enc_widths", "5 integers"]),
        (["--enc_widths", "4,4,4,4,x"], ["--enc_widths", "positive integers"]),
        (["--anneal_t_midfrac1", "0.7"], ["--anneal_t_midfrac2", "exceed"]),
        (["--schedule", "geometric", "--anneal_start_t", "0"], ["--anneal_start_t", "above 0"]),
        (["--preset", "demos"], ["'demos'", "demo", "sprites-cpu"]),
        (["--preset"], ["--preset", "expected one argument"]),
        (["--preset", "demo", "--config", "x.json"], ["--preset", "--config"]),
        (["--config", "missing.json"], ["missing.json", "No such file"]),
        (["--evaluate", "swap,fod"], ["--evaluate", "'swap,fod'", "consistency,swap,dci,fid"]),
        (["--evaluate", ""], ["--evaluate", "none, default"]),
    ],
)  # fmt: skip
def test_wrong_flags_and_values(refused, tmp_path, flags, words):
    line = (
        refused(*flags, "--train_VDSMEncDec", "True")
        if flags != ["--bs"] and flags != ["--preset"]
        else refused(*flags)
    )
    for word in words:
        assert word in line
    assert tree(tmp_path) == {}


def test_flags_that_do_nothing_say_so(command):
    said = command("--T_0_frac", 3, "--T_mult=2")
    for name in ("T_0_frac", "T_mult"):
        assert f"--{name} is accepted and does nothing" in said.out
    assert "does nothing" not in command("--seed", 1).out


@pytest.mark.parametrize(
    "flags, asked",
    [
        ([], ()),
        (["--evaluate", "none"], ()),
        (["--evaluate", "fid,swap,swap"], ("swap", "fid")),
        (["--evaluate", "True"], ("default",)),
        (["--test_harness", "True"], ("default",)),
        (["--test_harness", "True", "--evaluate", "dci"], ("dci",)),
    ],
)
def test_what_is_measured(flags, asked):
    assert parse(flags).stages["Seq"].measured == asked


# --- presets ---


# What each flag of ours is where it changes nothing. Two are not neutral by default: the release
# stops at the first NaN (--nan_retries 0) and takes KL terms by Monte Carlo (--kl mc).
@pytest.mark.parametrize("content", WRONG_KINDS)
def test_configurations_of_another_kind(refused, tmp_path, content):
    (tmp_path / "wrong.json").write_text(content)
    assert "wrong.json: not a saved configuration" in refused("--config", "wrong.json")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "config.json").write_text(content)
    assert "config.json cannot be read" in refused(*TINY)


def dry(command, *flags):
    said = command(*flags, "--dry_run", "True")
    assert said.code == 0, said
    return said.out


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("paper-sprites", "readme-mug")]


@pytest.mark.parametrize("name", ["demo", *LARGE])
def test_dry_run_needs_no_data_and_writes_nothing(command, tmp_path, name):
    out = dry(command, "--preset", name)
    for word in ("parameters", "memory", "disk", "steps", "stage 1", "stage 2"):
        assert word in out
    assert tree(tmp_path) == {}


def test_dry_run_counts_what_a_run_leaves(command, trained):
    from needs import measure

    out = dry(command, *TINY, "--RUN", "none")
    few = dry(
        command,
        *TINY,
        "--RUN",
        "none",
        "--epochs",
        9,
        "--keep_checkpoints",
        1,
        "--save_every_steps",
        1,
    )
    assert (
        few.count(" 4 checkpoints of") == 2
    )  # newest, best, the one being written, the middle of an epoch's
    assert out.count("3 checkpoints of") == 2 and out.count("8 (4 epochs of 2 batches)") == 2
    for stage, suffix in (("EncDec", "EncDec"), ("Seq", "seq")):
        found = measure(stage, parse(TINY).stages[stage])
        path = trained / "checkpoints" / f"3_VDSM_{suffix}.pth"
        state = torch.load(path, weights_only=True)
        numbers = sum(t.numel() for t in state["model"].values())
        moments = sum(s["exp_avg"].numel() for s in state["optimizer"]["state"].values())
        assert found["trained"] == moments
        assert found["checkpoint"] == 4 * (numbers + 2 * moments)
        assert 0 < path.stat().st_size - found["checkpoint"] < 200_000  # names, settings and noise
        assert sum(found["networks"].values()) == found["parameters"] <= numbers


@pytest.mark.slow
def test_from_another_folder(tmp_path):
    flags = [*TINY, "--dry_run", "True"]
    done = subprocess.run(
        [sys.executable, ROOT / "main.py", *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "in all about" in done.stdout and tree(tmp_path) == {}


def test_interrupted(command, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train_test.train", interrupt)
    said = command(*TINY)
    assert (
        said.code == 130
        and "resume from the newest checkpoint with: python main.py --preset demo" in said.err
    )


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    def fail(argv):
        raise ValueError("ours")

    monkeypatch.setattr(main, "parse", fail)
    with pytest.raises(ValueError):
        main.main([])


def test_errors_are_one_line_whatever_a_library_says(refused, monkeypatch):
    def fail(argv):
        raise UserError("first\n  second")

    monkeypatch.setattr(main, "parse", fail)
    assert refused() == "main.py: first second\n"


def test_commands_on_files_take_one_process_whatever_the_preset_trains():
    for flags in (["--generate", "2", "--out", "a.gif"], ["--show"], ["--dry_run"]):
        assert not main.trains(parse(["--preset", "demo", *flags]))
    assert main.trains(parse(["--preset", "demo"]))


def test_figures_that_need_labels_are_refused_before_training(refused, tmp_path):
    for clip in range(10):
        (folder := tmp_path / "films" / str(clip)).mkdir(parents=True)
        for t in range(16):
            Image.new("RGB", (64, 64), (20 * clip, 10 * t, 0)).save(folder / f"{t}.png")
    films = [
        "--dataset_name",
        "video-folder",
        "--source",
        tmp_path / "films",
        "--data_dir",
        tmp_path / "data",
    ]
    assert "give labels, or --evaluate none" in refused(*TINY, *films, "--evaluate", "swap")
    assert not list((tmp_path / "runs").rglob("*.pth"))
