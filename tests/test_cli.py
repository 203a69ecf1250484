"""The command line: flags, presets, saved configurations, and the mistakes a user can make."""

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from data import pendulum
from data.base import Dataset
from models.vdsm.settings import VDSMSettings
from tests.made import sprites
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.errors import UserError
from utils.plan import parse, preset_names

ROOT = Path(__file__).resolve().parent.parent
RELEASE = {  # every flag of the release with its default, as its users know them
    "RUN": "001", "test_harness": False, "bs": 30, "seq_len": 20, "seed": 0, "epochs": 200,
    "bs_per_epoch": 2, "num_test_ids": 1, "data_dir": "./data/", "dataset_name": "MUG-FED",
    "pretrained_model_VDSMEncDec": None, "pretrained_model_VDSMSeq": None,
    "train_VDSMEncDec": False, "train_VDSMSeq": False, "tboard_log": True,
    "model_test_interval": 1, "model_save_interval": 2, "z_dim": 20, "n_e_w": 15,
    "temp_id_end": 1, "temp_id_start": 2, "temp_id_frac": 1, "anneal_end_id": 0.8,
    "anneal_start_id": 0.1, "anneal_frac_id": 2, "anneal_start_t": 10, "anneal_mid_t1": 0.1,
    "anneal_mid_t2": 0.1, "anneal_end_t": 1, "anneal_t_midfrac1": 0.3, "anneal_t_midfrac2": 0.6,
    "T_0_frac": 6, "T_mult": 1, "lr_VDSMEncDec": 0.001, "dynamics_dim": 10, "test_temp_id": 10,
    "trans_dim": 64,
    "rnn_dim": 512, "rnn_dropout": 0, "rnn_layers": 3, "lr_VDSMSeq": 0.001, "lr_resume": None,
    "anneal_end_dynamics": 1, "anneal_start_dynamics": 0.01, "anneal_frac_dynamics": 1,
    # unset here, which means the folder of the run
    "image_path": None, "model_save_path": None, "log_dir": None, "code_path": None,
}  # fmt: skip


def tree(folder):
    """{path: digest} of every file below `folder`."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


# --- flags ---


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
        "machine:",
        "VDSM: stages:",
        "VDSM: sizes:",
        "VDSM: annealing:",
    ):
        assert f"\n{group}\n" in done.stdout
    groups = re.findall(r"^[^ -].*:$", done.stdout, re.MULTILINE)
    assert len(groups) == 9
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
NEUTRAL = {
    "fresh": False, "override_lock": False, "dry_run": False, "convert": None, "to": None,
    "fidelity": "paper", "source": None, "data_seed": 0, "num_clips": 0, "lr_warmup": 0,
    "lr_final": 1.0, "clip_grad": 0.0, "save_every_steps": 0, "keep_checkpoints": 0,
    "evaluate": "none", "fid_weights": None, "split": "test", "export_codes": False,
    "report": False, "runs_dir": "./runs/", "quiet": False, "device": "auto", "threads": 0,
    "lr_identity": 1.0, "start": "torch", "frames_per_clip": 0, "foresight": 0.0,
    "single_decoder": False, "schedule": "release", "enc_widths": (32, 32, 64, 64, 256),
    "dec_widths": (512, 256, 128, 64), "split_by": "clip", "video_step": 1,
    "pendulum_lengths": None, "pendulum_dampings": None,
}  # fmt: skip
NOT_NEUTRAL = {"nan_retries": 3, "kl": "analytic"}


@pytest.mark.parametrize("name", preset_names())
def test_presets_parse_and_train_every_stage(name):
    plan = parse(["--preset", name])
    assert plan.training == list(plan.stages)
    assert {settings.RUN for settings in plan.stages.values()} == {name}


@pytest.mark.parametrize("name", [n for n in preset_names() if n.startswith(("paper-", "readme-"))])
def test_flags_of_ours_do_nothing_in_the_presets_of_the_paper_and_of_the_release(name):
    for settings in parse(["--preset", name]).stages.values():
        if settings.model == "vdsm":
            ours = set(vars(settings)) - {*RELEASE, "model"}
            assert ours <= {*NEUTRAL, *NOT_NEUTRAL}
            for flag in ours:
                assert getattr(settings, flag) == (NEUTRAL | NOT_NEUTRAL)[flag], flag
        else:  # the other models' papers have values of their own for the flags of their own
            for flag in vars(settings).keys() & NEUTRAL.keys() - {"frames_per_clip"}:
                assert getattr(settings, flag) == NEUTRAL[flag], flag


def test_flags_of_ours_are_neutral_by_default():
    for dataset_name in ("MUG-FED", "pendulum", "video-folder"):
        for settings in parse(["--dataset_name", dataset_name]).stages.values():
            for flag in set(vars(settings)) - {*RELEASE, "model"}:
                assert getattr(settings, flag) == (NEUTRAL | NOT_NEUTRAL)[flag], flag


def test_the_presets_asked_for_are_there():
    assert {
        "demo",
        "sprites-cpu",
        "paper-mug",
        "paper-sprites",
        "readme-mug",
        "readme-sprites",
    } <= set(preset_names())


def test_flags_override_a_preset_wherever_they_stand():
    for flags in (["--preset", "demo", "--bs", "3"], ["--bs", "3", "--preset=demo"]):
        plan = parse(flags)
        assert [plan.stages[stage].bs for stage in plan.stages] == [3, 3]
        assert plan.stages["EncDec"].epochs != plan.stages["Seq"].epochs  # each stage its own list


def test_a_preset_with_another_seed_has_its_own_folder():
    def run(*flags):
        return {settings.RUN for settings in parse(["--preset", "demo", *flags]).stages.values()}

    assert run() == run("--seed", "0") == {"demo"}
    assert run("--seed", "1") == run("--seed=1") == {"demo-s1"}
    assert run("--seed", "1", "--RUN", "mine") == run("--seed", "1", "--RUN=mine") == {"mine"}


def test_a_preset_prints_commands_that_give_the_same_run(command):
    said = command(*TINY, "--dry_run", "True")
    lines = [line for line in said.out.splitlines() if line.startswith("preset demo, stage")]
    assert len(lines) == 2
    for line, settings in zip(lines, parse([*TINY, "--dry_run", "True"]).stages.values()):
        assert parse(line.split("main.py ")[1].split()).stages["EncDec"] == settings


# --- what a command is not allowed to do ---


@pytest.mark.parametrize("name", ["mug", "Sprites"])
def test_data_set_that_is_not_there(refused, tmp_path, name):
    line = refused("--dataset_name", name, "--train_VDSMEncDec", "True")
    assert (
        f"'{name}'" in line
        and "--dataset_name is one of MUG-FED, moving-mnist, pendulum, sprites" in line
    )
    assert tree(tmp_path) == {}


def test_missing_files_of_mug(refused, tmp_path):
    line = refused("--train_VDSMEncDec", "True")  # the default data set
    assert "found no data/MUG-FED/MUG_0-255_OF_112x112_color.npz" in line and "--data_dir" in line
    assert tree(tmp_path) == {}


def test_missing_and_empty_folders_of_sprites(refused, tmp_path):
    flags = ["--dataset_name", "sprites", "--train_VDSMEncDec", "True", "--data_dir"]
    assert "nowhere" in refused(*flags, "nowhere")
    (tmp_path / "empty" / "sprites").mkdir(parents=True)
    assert "create_lpc_dataset.py" in refused(*flags, "empty")
    assert "no folder" in refused(*flags, "empty", "--source", "no-clone")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "wrong", [np.zeros((54, 8, 64, 64, 3), np.float32), np.zeros((54, 8, 32, 64, 6), np.uint8)]
)
def test_sprites_of_wrong_type_or_shape(refused, tmp_path, wrong):
    sprites(tmp_path)
    frames = tmp_path / "sprites" / "frames.npy"
    np.save(frames, wrong)
    metadata = tmp_path / "sprites" / "dataset.json"
    known = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**known, "bytes": frames.stat().st_size}))
    line = refused(
        "--dataset_name", "sprites", "--data_dir", tmp_path, "--train_VDSMEncDec", "True"
    )
    assert f"{wrong.dtype}" in line and "expected uint8 [54, 8, 64, 64, 3]" in line


def test_fewer_frames_than_needed(command, refused, tmp_path):
    sprites(tmp_path)
    flags = [
        *TINY,
        "--dataset_name",
        "sprites",
        "--data_dir",
        tmp_path,
        "--epochs",
        1,
        "--frames_per_clip",
        0,
    ]
    assert (
        command(*flags, *STAGE_1, "--seq_len", 16).code == 0
    )  # stage 1 joins two clips, whatever seq_len says
    before = tree(tmp_path)
    line = refused(*flags, *STAGE_2, "--seq_len", 9)
    assert "8 frames" in line and "--seq_len 8" in line
    assert "8 frames" in refused(*flags, "--seq_len", 9)  # both stages: said before stage 1 goes on
    assert tree(tmp_path) == before
    assert command(*flags, *STAGE_2, "--seq_len", 8).code == 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"frames": np.zeros((24, 64, 64, 3))}, "found float64 [24, 64, 64, 3], expected uint8"),
        ({"frames": np.zeros((24, 3, 64, 64), np.uint8)}, "[24, 3, 64, 64]"),
        ({"frames": np.zeros((0, 64, 64, 3), np.uint8), "labels": {}}, "no clip"),
        ({"lengths": np.full(6, 5)}, "24 frames for clips of 30"),
        ({"labels": {"colour": np.arange(5)}}, "'colour' has 5 values for 6 clips"),
        (
            {"splits": {"train": np.arange(6), "val": np.arange(0), "test": np.arange(1)}},
            "split 'val'",
        ),
        ({"splits": {"train": np.arange(5), "val": np.arange(5, 6)}}, "split 'test'"),
    ],
)
def test_arrays_of_wrong_shape_or_type(refused, monkeypatch, changes, words):
    good = {
        "name": "own", "frames": np.zeros((24, 64, 64, 3), np.uint8), "lengths": np.full(6, 4),
        "splits": {"train": np.arange(4), "val": np.arange(4, 5), "test": np.arange(5, 6)},
        "labels": {}, "classes": {}, "static": (), "dynamic": (), "fingerprint": "",
    }  # fmt: skip
    assert len(Dataset(**good).split("train")) == 4
    monkeypatch.setattr("data.pendulum.load", lambda config: Dataset(**{**good, **changes}))
    assert words in refused(*TINY)


def test_fewer_validation_clips_than_a_batch(command):
    assert command(*TINY, "--epochs", 1, "--bs", 12).code == 0  # 8 clips: drawn with replacement


def test_stage_2_without_stage_1(refused, tmp_path):
    line = refused(*TINY, *STAGE_2)
    assert "stage-1 checkpoint" in line and "--train_VDSMEncDec True" in line
    line = refused(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 7)
    assert "7_VDSM_EncDec.pth is not there" in line
    assert tree(tmp_path) == {}


def test_stage_2_on_other_sizes_says_which_flags_differ(refused, trained):
    before = tree(trained)
    line = refused(*TINY, *STAGE_2, "--z_dim", 5, "--dec_widths", "8,8,4,2", "--RUN", "demo")
    assert (
        "--z_dim is 5 here and 4 there" in line
        and "--dec_widths is 8,8,4,2 here and 8,8,4,4 there" in line
    )
    assert "n_e_w" not in line
    assert "--fidelity is release here and paper there" in refused(
        *TINY, *STAGE_2, "--fidelity", "release"
    )
    assert tree(trained) == before


def test_stage_2_on_other_data_or_on_another_stage_1(command, refused, tmp_path, trained):
    sprites(tmp_path)
    flags = [*TINY, *STAGE_2, "--dataset_name", "sprites", "--data_dir", tmp_path, "--seq_len", 8]
    assert "--dataset_name is sprites here and pendulum there" in refused(*flags)
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    said = command(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 1)
    assert "stands on runs/demo/checkpoints/1_VDSM_EncDec.pth" in said.out
    line = refused(*TINY, *STAGE_2, "--pretrained_model_VDSMEncDec", 2)
    assert "--pretrained_model_VDSMEncDec was 1 and is 2" in line
    said = command(*TINY, *STAGE_2)
    assert said.code == 0 and "stands on" not in said.out  # done before


def test_stages_of_one_command_that_do_not_fit(refused, tmp_path):
    assert "leaves 3" in refused(*TINY, "--pretrained_model_VDSMEncDec", 9)
    assert tree(tmp_path) == {}


def test_cuda_asked_for_and_absent(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = refused(*TINY, "--device", "cuda")
    assert "no CUDA GPU" in line and "--device cpu" in line
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("flag", ["--runs_dir", "--image_path", "--model_save_path", "--log_dir"])
def test_a_file_where_a_folder_is_expected(refused, tmp_path, flag):
    (tmp_path / "taken").write_text("mine")
    assert "taken" in refused(*TINY, flag, "taken")
    assert "taken" in refused(*TINY, flag, "taken", "--fresh", "True")
    assert (tmp_path / "taken").read_text() == "mine"
    assert not list(tmp_path.rglob("*.pth"))


def test_a_folder_that_cannot_be_written(refused, monkeypatch, tmp_path):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "cannot write to runs/demo (Permission denied)" in refused(*TINY)


def test_a_disk_that_fills_up_at_a_picture(refused, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("pictures.files.save_png", full)
    assert "No space left on device" in refused(*TINY)


def test_a_folder_that_holds_another_run(refused, command, trained):
    before = tree(trained)
    line = refused(*TINY, "--bs", 3, "--lr_VDSMEncDec", 0.5)
    assert "--bs was 2 and is 3" in line and "--lr_VDSMEncDec was 0.002 and is 0.5" in line
    assert "--fresh True" in line and "--RUN" in line
    assert tree(trained) == before
    said = command(*TINY, "--bs", 3, "--epochs", 1, "--fresh", "True")
    assert said.code == 0 and "demo.kept1" in said.out
    assert tree(trained.with_name("demo.kept1")) == before
    assert command(*TINY, "--bs", 3, "--epochs", 1, "--fresh=True").code == 0
    assert (
        trained.with_name("demo.kept2").is_dir() and tree(trained.with_name("demo.kept1")) == before
    )


def test_a_folder_that_was_trained_on_other_data(refused, trained, monkeypatch):
    before, changed = tree(trained), dataclasses.replace(pendulum.make(), fingerprint="other")
    monkeypatch.setattr(pendulum, "load", lambda config: changed)
    assert "other data" in refused(*TINY)
    assert tree(trained) == before


def test_fresh_sets_the_releases_folders_aside_too(command, tmp_path):
    flags = [
        *TINY,
        "--epochs",
        1,
        "--image_path",
        "images",
        "--model_save_path",
        "models",
        "--log_dir",
        "logs",
    ]
    assert command(*flags, "--tboard_log", "True").code == 0
    places = ("runs/demo", "images/demo", "models/demo", "logs/demo")
    before = {place: tree(tmp_path / place) for place in places}
    assert all(before.values()) and "0_VDSM_seq.pth" in before["models/demo"]
    assert command(*flags, "--bs", 3, "--fresh", "True").code == 0
    for place in places:
        assert tree(tmp_path / f"{place}.kept1") == before[place]


def test_fresh_with_stage_2_alone_keeps_its_stage_1(command, refused, trained):
    before = tree(trained)
    assert "needs a stage-1" in refused(*TINY, *STAGE_2, "--fresh", "True", "--RUN", "other")
    assert "--z_dim" in refused(*TINY, *STAGE_2, "--fresh", "True", "--z_dim", 5)
    assert tree(trained) == before
    said = command(*TINY, *STAGE_2, "--fresh", "True", "--lr_VDSMSeq", 0.1)
    assert said.code == 0, said
    kept, now = tree(trained.with_name("demo.kept1")), tree(trained)
    assert kept == before
    assert now["checkpoints/3_VDSM_EncDec.pth"] == before["checkpoints/3_VDSM_EncDec.pth"]
    assert now["checkpoints/3_VDSM_seq.pth"] != before["checkpoints/3_VDSM_seq.pth"]
    assert set(json.loads((trained / "config.json").read_text())) == {"EncDec", "Seq"}


def test_a_flag_of_stage_2_may_change_when_stage_1_is_done(command, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    assert command(*TINY, "--lr_VDSMSeq", 0.01, "--dynamics_dim", 3).code == 0


# --- saved configurations ---


def weights(folder, name):
    return torch.load(Path(folder) / "checkpoints" / name, weights_only=True)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_config_repeats_a_run(command, trained):
    said = command("--config", trained / "config.json", "--runs_dir", "again")
    assert said.code == 0, said
    for name in ("3_VDSM_EncDec.pth", "3_VDSM_seq.pth"):
        assert same(weights("again/demo", name), weights(trained, name))


def test_flags_override_a_config(trained):
    plan = parse(["--config", str(trained / "config.json"), "--bs", "3", "--enc_widths=4,4,4,4,4"])
    assert [(s.bs, s.enc_widths, s.z_dim) for s in plan.stages.values()] == [
        (3, (4, 4, 4, 4, 4), 4)
    ] * 2
    assert plan.stages["EncDec"].lr_VDSMEncDec == 0.002


def test_config_of_one_stage_and_then_of_both(command, tmp_path):
    assert command(*TINY, "--epochs", 1, *STAGE_1, "--fresh", "True").code == 0
    saved = tmp_path / "runs" / "demo" / "config.json"
    plan = parse(["--config", str(saved)])
    assert plan.training == ["EncDec"] and not plan.stages["EncDec"].fresh
    assert command("--config", saved, "--runs_dir", "again").code == 0
    assert command(*TINY, "--epochs", 1, *STAGE_2).code == 0
    assert parse(["--config", str(saved)]).training == ["EncDec", "Seq"]
    assert command("--config", saved, "--runs_dir", "both").code == 0
    assert (tmp_path / "both" / "demo" / "checkpoints" / "0_VDSM_seq.pth").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        *((text, "wrong.json: not a saved configuration") for text in ("", "[]", "{}", "3")),
        ('{"EncDec": 1}', "wrong.json: not a saved configuration"),
        ('{"EncDec": {"model": "vae"}}', "wrong.json: not a saved configuration"),
        ('{"EncDec": {"model": "vdsm", "bs": "x"}}', "--bs: found 'x', expected an integer"),
        ('{"EncDec": {"model": "vdsm", "gone": 1}}', "wrong.json: setting 'gone' (1)"),
    ],
)
def test_files_that_are_no_configuration(refused, tmp_path, text, words):
    (tmp_path / "wrong.json").write_text(text)
    assert words in refused("--config", "wrong.json")


def test_config_that_is_binary_or_a_folder(refused, tmp_path):
    (tmp_path / "wrong.json").write_bytes(pickle.dumps(object) + b"\xff")
    refused("--config", "wrong.json")
    assert "directory" in refused("--config", ".")


def test_a_broken_config_in_the_run(refused, trained):
    (trained / "config.json").write_text("{")
    assert "config.json" in refused(*TINY, "--bs_per_epoch", 2)


# --- testing ---


def test_both_false_tests_the_newest_or_the_named_checkpoints(command, refused, trained):
    for picture in (trained / "images").iterdir():
        picture.unlink()
    said = command(*TINY, *TEST)
    assert said.code == 0 and "3_VDSM_EncDec.pth" in said.out and "3_VDSM_seq.pth" in said.out
    assert {"swap_ep_3_rec.png", "vid_swap_3_gen.gif"} <= {
        path.name for path in (trained / "images").iterdir()
    }
    said = command(
        *TINY, *TEST, "--pretrained_model_VDSMEncDec", 1, "--pretrained_model_VDSMSeq", 2
    )
    assert "1_VDSM_EncDec.pth" in said.out and "2_VDSM_seq.pth" in said.out
    assert {"swap_ep_1_rec.png", "vid_swap_2_gen.gif"} <= {
        path.name for path in (trained / "images").iterdir()
    }
    line = refused(*TINY, *TEST, "--pretrained_model_VDSMSeq", 9)
    assert "9_VDSM_seq.pth is not there (there are 1, 2, 3)" in line
    assert "--rnn_dim is 9 here and 8 there" in refused(*TINY, *TEST, "--rnn_dim", 9)


def test_the_harness_measures_all_that_needs_no_download(command, refused, trained):
    assert (
        command(*TINY, *TEST, "--test_harness", "True").code == 0
    )  # the same as --evaluate default
    figures = json.loads((trained / "metrics.json").read_text())
    assert {
        "consistency_accuracy",
        "transfer_colour_accuracy",
        "dci_disentanglement",
        "swap_prior_variety",
    } <= set(figures)
    assert (
        "stage1_dci_disentanglement" in (trained / "metrics.csv").read_text()
        and "fid" not in figures
    )
    before = tree(trained)
    assert "was trained on other data" in refused(
        *TINY, *TEST, "--evaluate", "swap", "--data_seed", 1
    )
    assert "found no such file" in refused(
        *TINY, *TEST, "--evaluate", "fid", "--fid_weights", "absent.pth"
    )
    assert tree(trained) == before


def test_stage_2_is_optional_in_a_test(command, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    said = command(*TINY, *TEST, "--evaluate", "swap")
    assert said.code == 0 and "seq" not in said.out.split("tested")[-1]
    assert "swap_identity_accuracy" in json.loads((trained / "metrics.json").read_text())


def test_nothing_to_test(refused, tmp_path):
    assert "nothing to test in runs/demo/checkpoints" in refused(*TINY, *TEST)
    assert tree(tmp_path) == {}


# --- dry run, and other places ---


def dry(command, *flags):
    said = command(*flags, "--dry_run", "True")
    assert said.code == 0, said
    return said.out


@pytest.mark.parametrize("name", ["demo", "paper-sprites", "readme-mug"])
def test_dry_run_needs_no_data_and_writes_nothing(command, tmp_path, name):
    out = dry(command, "--preset", name)
    for word in ("parameters", "memory", "disk", "steps", "stage 1", "stage 2"):
        assert word in out
    assert tree(tmp_path) == {}


def test_dry_run_counts_what_a_run_leaves(command, trained):
    from dry_run import measure

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


def test_dry_run_memory_grows_with_the_batch():
    from dry_run import measure

    def memory(stage, *flags):
        return measure(stage, parse([*TINY, *flags]).stages[stage])["memory"]

    for stage in ("EncDec", "Seq"):
        once, twice, thrice = (memory(stage, "--bs", n) for n in "246")
        assert twice > once and abs((thrice - twice) - (twice - once)) < 0.01 * once


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
