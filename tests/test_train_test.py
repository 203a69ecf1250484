"""train_test.py: a run that was stopped resumes as if it had not been."""

import json
import os
import shlex
import shutil
import signal

import pytest
import torch

import train_test
from models import stage as stage_module
from models.vdsm import collapse
from models.vdsm.stages import EncDecStage
from tests.runs import NETWORKS, SUFFIX, assert_same_checkpoint, checkpoint, tree
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.lock import only_run

# --- resuming ---


@pytest.mark.parametrize("stage", ["EncDec", "Seq"])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    command, tmp_path, trained_once, losses, kill_at, stage
):
    unbroken = trained_once / "runs" / "demo"
    kill_at(stage, 6)
    assert command(*TINY).code == 130
    run = tmp_path / "runs" / "demo"
    assert not (run / "checkpoints" / f"3_{SUFFIX[stage]}.pth").exists()
    said = command(*TINY)
    assert said.code == 0 and f"2_{SUFFIX[stage]}.pth" in said.out
    for each in NETWORKS:
        assert_same_checkpoint(checkpoint(run, each, 3), checkpoint(unbroken, each, 3))
    assert len(losses) == 8  # no epoch was lost


@pytest.mark.slow
def test_in_the_middle_of_an_epoch_too(command, tmp_path, kill_at, events):
    """Weights, noise, losses, curves and pictures are those of an unbroken run."""
    flags = [
        *TINY,
        "--epochs",
        2,
        "--bs_per_epoch",
        3,
        "--save_every_steps",
        2,
        "--tboard_log",
        "True",
        "--model_test_interval",
        1,
    ]
    assert command(*flags, "--RUN", "unbroken").code == 0
    for stage, step in (("EncDec", 3), ("EncDec", 5), ("Seq", 5)):
        kill_at(stage, step)
        assert command(*flags, "--RUN", "broken").code == 130
    (middle,) = (tmp_path / "runs" / "broken" / "checkpoints").glob("step_*")
    assert middle.name == "step_1_1_VDSM_seq.pth"
    said = command(*flags, "--RUN", "broken")
    assert said.code == 0 and "epoch 0 of 1 is done and 1 steps of the next" in said.out
    broken, unbroken = (tmp_path / "runs" / name for name in ("broken", "unbroken"))
    assert tree(broken / "images").keys() == tree(unbroken / "images").keys()
    for name, digest in tree(broken / "images").items():
        assert name == "config.txt" or digest == tree(unbroken / "images")[name], name
    assert {path.name for path in (broken / "checkpoints").glob("*.pth")} == {
        "1_VDSM_EncDec.pth",
        "1_VDSM_seq.pth",
    }
    for stage in NETWORKS:
        assert_same_checkpoint(checkpoint(broken, stage, 1), checkpoint(unbroken, stage, 1))
        assert events(broken / "tensorboard" / stage) == events(unbroken / "tensorboard" / stage)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_and_saves(
    command, no_pictures, tmp_path, trained_once, monkeypatch, number, code
):
    inputs = EncDecStage.inputs

    def interrupt(self, batches, step):
        if self.network.training and step == 4:
            os.kill(os.getpid(), number)
        return inputs(self, batches, step)

    with monkeypatch.context() as patch:
        patch.setattr(EncDecStage, "inputs", interrupt)
        said = command(*TINY, *STAGE_1, "--fresh", "True")
    assert said.code == code
    way = shlex.split(said.err.split("resume from the newest checkpoint with: python main.py ")[1])
    assert way == [*TINY, *STAGE_1]
    run = tmp_path / "runs" / "demo"
    assert [path.name for path in (run / "checkpoints").glob("step*")] == [
        "step_2_1_VDSM_EncDec.pth"
    ]
    assert command(*way).code == 0
    assert not list((run / "checkpoints").glob("step*"))
    assert_same_checkpoint(
        checkpoint(run, "EncDec", 3), checkpoint(trained_once / "runs" / "demo", "EncDec", 3)
    )


def test_only_the_newest_checkpoints_are_kept_and_the_best(
    command, no_pictures, tmp_path, monkeypatch
):
    value = iter([3.0, 1.0, 2.0, 4.0])  # the best after epoch 1
    monkeypatch.setattr(train_test, "validation_loss", lambda *_: dict.fromkeys("szx", next(value)))
    flags = ["--keep_checkpoints", 1, "--model_test_interval", 1, "--save_every_steps", 1]
    assert command(*TINY, *STAGE_1, *flags).code == 0
    names = {path.name for path in (tmp_path / "runs" / "demo" / "checkpoints").glob("*.pth")}
    assert names == {"1_VDSM_EncDec.pth", "3_VDSM_EncDec.pth"}


def test_what_collapses_is_said(command, no_pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_module, "LEAST", 0)
    monkeypatch.setattr(collapse, "DEAD_SPREAD", 10)
    said = command(*TINY, *STAGE_1, "--epochs", 1, "--quiet", "True")
    assert said.code == 0 and "stage 1: s spreads by" in said.err and "--start data" in said.err
    assert said.err.strip() in (tmp_path / "runs" / "demo" / "log.txt").read_text()


def test_another_run_in_the_folder(command, refused, trained):
    before = tree(trained)
    with only_run([trained]):
        line = refused(*TINY, "--fresh", "True")
        assert "runs/demo is in use by process" in line and "--override_lock True" in line
        assert tree(trained) == before
        assert command(*TINY, *TEST).code == 0  # reads what is whole
        said = command(*TINY, "--override_lock", "True")
        assert said.code == 0 and "is in use" in said.err
    assert command(*TINY).code == 0 and not list(trained.parent.glob(".*"))


def test_losses_after_a_resume_are_those_of_an_unbroken_run(command, no_pictures, losses, kill_at):
    assert command(*TINY, "--RUN", "unbroken").code == 0
    expected = dict(losses)
    losses.clear()
    for stage in NETWORKS:
        kill_at(stage, 4)
        assert command(*TINY, "--RUN", "broken").code == 130
    assert command(*TINY, "--RUN", "broken").code == 0
    assert losses == expected


def test_pictures_and_held_out_losses_disturb_nothing(command, tmp_path, trained_once):
    assert (
        command(
            *TINY, "--model_test_interval", 1, "--num_test_ids", 3, "--model_save_interval", 2
        ).code
        == 0
    )
    for stage in NETWORKS:
        mine = checkpoint(tmp_path / "runs" / "demo", stage, 3)
        assert_same_checkpoint(mine, checkpoint(trained_once / "runs" / "demo", stage, 3))


def test_two_commands_are_one(command, tmp_path, trained_once):
    assert command(*TINY, *STAGE_1).code == 0
    said = command(*TINY, *STAGE_2)
    assert (
        said.code == 0 and "stage 2 stands on runs/demo/checkpoints/3_VDSM_EncDec.pth" in said.out
    )
    run = tmp_path / "runs" / "demo"
    assert_same_checkpoint(
        checkpoint(run, "Seq", 3), checkpoint(trained_once / "runs" / "demo", "Seq", 3)
    )
    assert set(json.loads((run / "config.json").read_text())) == {"EncDec", "Seq"}


def test_both_stages_with_the_number_that_stage_1_leaves(command):
    assert command(*TINY, "--epochs", 2, "--pretrained_model_VDSMEncDec", 1).code == 0


def test_stage_2_stands_on_the_checkpoint_that_is_named(command, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.unlink()
    assert command(*TINY, *STAGE_2, "--epochs", 1, "--pretrained_model_VDSMEncDec", 1).code == 0
    second = checkpoint(trained, "Seq", 0)["model"]
    for name, values in checkpoint(trained, "EncDec", 1)["model"].items():
        assert torch.equal(second[f"encdec.{name}"], values)


def test_a_finished_run_says_so_and_measures(command, trained):
    times = {path: path.stat().st_mtime_ns for path in (trained / "checkpoints").glob("*.pth")}
    said = command(*TINY, "--evaluate", "swap")
    assert said.code == 0
    assert (
        "stage 1: epoch 3 of 3 is done" in said.out and "stage 2: epoch 3 of 3 is done" in said.out
    )
    assert {
        path: path.stat().st_mtime_ns for path in (trained / "checkpoints").glob("*.pth")
    } == times
    figures = json.loads((trained / "metrics.json").read_text())
    assert {"swap_identity_accuracy", "transfer_identity_accuracy"} <= figures.keys()


def test_a_finished_run_is_measured_again_only_where_figures_are_missing_or_old(
    command, trained, monkeypatch
):
    measured, metrics = [], trained / "metrics.json"

    def evaluate(view, info, dataset, folder, settings, device, epoch):
        figures = json.loads(metrics.read_text()) if metrics.exists() else {"details": {}}
        protocols = dict.fromkeys(("reconstruction", "dci"), {"figures": []})
        clips = {"epoch": epoch, "split": settings.split, "figures": [], "spread": {}}
        figures["details"][info.name] = clips | {"protocols": protocols}
        metrics.write_text(json.dumps(figures))
        measured.append(info.name)

    monkeypatch.setattr(train_test, "evaluate", evaluate)

    def stages_measured(*flags):
        measured.clear()
        said = command(*TINY, "--evaluate", "dci", *flags)
        assert said.code == 0 and said.out.count("not measured again") == 2 - len(measured)
        return list(measured)

    assert stages_measured() == ["EncDec", "Seq"]
    assert stages_measured() == []
    assert stages_measured("--remeasure") == ["EncDec", "Seq"]
    os.utime(metrics, (0, 0))
    assert stages_measured() == ["EncDec", "Seq"]
    figures = json.loads(metrics.read_text())
    del figures["details"]["Seq"]["protocols"]["dci"]
    metrics.write_text(json.dumps(figures))
    assert stages_measured() == ["Seq"]


def test_an_extended_run_ends_as_an_unbroken_one(command, trained, refused):
    line = refused(*TINY, "--epochs", 6)
    for number in (1, 2):
        assert f"--stage{number}.schedule_epochs 4" in line
    longer = [*TINY, *STAGE_1, "--epochs", 6, "--schedule_epochs", 4]
    said = command(*longer)
    assert said.code == 0 and "keep their last values from epoch 3 to epoch 5" in said.out
    assert command(*longer, "--RUN", "unbroken").code == 0
    # the schedules of the run still span its first 4 epochs
    line = refused(*TINY, *STAGE_1, "--epochs", 8)
    assert "a run of 6 epochs, whose schedules span 4:" in line and "schedule_epochs 4;" in line
    unbroken = trained.parent / "unbroken"
    assert_same_checkpoint(checkpoint(trained, "EncDec", 5), checkpoint(unbroken, "EncDec", 5))


def test_what_a_kill_leaves_half_written_is_ignored(command, trained):
    for stage in NETWORKS:
        (trained / "checkpoints" / f"9_{SUFFIX[stage]}.pth.part").write_bytes(b"half")
    (trained / "checkpoints" / "old_VDSM_EncDec.pth").write_bytes(b"not ours")
    assert "3_VDSM_EncDec.pth" in command(*TINY, *TEST).out
    assert command(*TINY).code == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other", "stage", "flipped"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_it_used(
    command, trained, damage
):
    path = trained / "checkpoints" / "3_VDSM_EncDec.pth"
    whole = checkpoint(trained, "EncDec", 3)
    if damage == "other":
        torch.save({"epoch": 4, "model": {}}, path)
    elif damage == "stage":
        shutil.copy(trained / "checkpoints" / "3_VDSM_seq.pth", path)
    else:
        bytes_ = path.read_bytes()
        flipped = bytes_[:5000] + bytes([bytes_[5000] ^ 1]) + bytes_[5001:]
        path.write_bytes(
            {"truncated": bytes_[:-1000], "empty": b"", "text": b"a text", "flipped": flipped}[
                damage
            ]
        )
    left = path.read_bytes()
    said = command(*TINY, *(STAGE_1 if damage != "text" else TEST))
    assert said.code == 0 and "2_VDSM_EncDec.pth" in said.out
    assert said.err.count("\n") == 1 and str(path.relative_to(trained.parents[1])) in said.err
    assert path.with_name("3_VDSM_EncDec.pth.damaged1").read_bytes() == left
    if damage != "text":
        assert_same_checkpoint(checkpoint(trained, "EncDec", 3), whole)


def test_a_stage_of_which_nothing_is_whole_is_not_begun_anew(command, refused, trained):
    for path in (trained / "checkpoints").glob("*_seq.pth"):
        path.write_bytes(b"a text")
    before = tree(trained)
    for flags in ([], STAGE_2, TEST):
        assert "3_VDSM_seq.pth is truncated or not a checkpoint, and no other" in refused(
            *TINY, *flags
        )
    assert tree(trained) == before
    assert (
        command(*TINY, *STAGE_2, "--fresh", "True", "--epochs", 1).code == 0
    )  # on the whole stage 1
    kept = tree(trained.with_name("demo.kept1"))
    assert kept == before


def test_a_damaged_checkpoint_that_is_asked_for_is_one_line(refused, trained):
    (trained / "checkpoints" / "1_VDSM_EncDec.pth").write_bytes(b"a text")
    assert "use another epoch's" in refused(*TINY, *TEST, "--pretrained_model_VDSMEncDec", 1)


def test_newest_is_by_number(command, trained):
    state = checkpoint(trained, "EncDec", 3)
    state |= {"epoch": 11, "place": state["place"] | {"step": 22}}
    state["settings"] |= {"epochs": 11}
    torch.save(state, trained / "checkpoints" / "10_VDSM_EncDec.pth")
    assert "10_VDSM_EncDec.pth" in command(*TINY, *TEST).out


# --- the learning rate ---


@pytest.mark.parametrize("fidelity, fresh", [("paper", 0.002), ("release", 0.0008)])
def test_lr_resume_speaks_when_a_run_is_resumed(
    command, no_pictures, rates, kill_at, fidelity, fresh
):
    flags = [*TINY, *STAGE_1, "--fidelity", fidelity, "--lr_resume", 0.0008]
    kill_at("EncDec", 4)
    waits = "--lr_resume 0.0008 waits until the stage is resumed; it starts at --lr_VDSMEncDec"
    said = command(*flags)
    assert said.code == 130 and (waits in said.out) == (fidelity == "paper")
    assert set(rates) == {fresh}
    rates.clear()
    said = command(*flags)
    assert said.code == 0 and waits not in said.out
    assert set(rates) == {0.0008} and len(rates) == 4
