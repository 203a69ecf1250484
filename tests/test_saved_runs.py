"""Runs that are on disk: repeated from their configuration, and tested."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from tests.runs import tree
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.plan import parse

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


@pytest.mark.slow
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
    assert ". is a folder, expected a regular file" in refused("--config", ".")


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


@pytest.mark.slow
def test_each_stage_is_tested_with_its_own_identity_layers(command, tmp_path):
    """With --fidelity release, stage 2 trains the identity layers on, and keeps its own."""
    flags = [*TINY, "--fidelity", "release", "--epochs", 1]
    assert command(*flags).code == 0
    stage_1, stage_2 = (weights("runs/demo", f"0_VDSM_{name}.pth") for name in ("EncDec", "seq"))
    assert not torch.equal(stage_1["identity.loc.weight"], stage_2["identity.loc.weight"])
    picture = tmp_path / "runs" / "demo" / "images" / "swap_ep_0_rec.png"
    drawn = picture.read_bytes()
    picture.unlink()
    assert command(*flags, *TEST).code == 0 and picture.read_bytes() == drawn


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
