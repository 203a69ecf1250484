"""train_test.py: resuming, losses that are not finite, and what a run leaves on disk."""

import errno
import json
import os
import shlex
import signal

import numpy as np
import pytest
import torch

import train_test
from data import pendulum
from data.batches import Batches
from models import stage as stage_module
from models.annealing import Annealed
from models.elbo import Term
from models.vdsm import collapse
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq
from models.vdsm.stages import EncDecStage, SeqStage
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.lock import only_run
from utils.plan import parse
from utils.progress import Progress

TERMS = {"EncDec": ("s", "z", "x"), "Seq": ("s", "d", "z_1", "z", "x")}
NETWORKS = {"EncDec": EncDec, "Seq": Seq}
STAGES = {"EncDec": EncDecStage, "Seq": SeqStage}
SUFFIX = {"EncDec": "VDSM_EncDec", "Seq": "VDSM_seq"}


def tree(folder):
    """{path: bytes} of every file below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def checkpoint(run, stage, epoch):
    return torch.load(run / "checkpoints" / f"{epoch}_{SUFFIX[stage]}.pth", weights_only=True)


def assert_same_checkpoint(a, b):
    assert a["epoch"] == b["epoch"] and a["model"].keys() == b["model"].keys()
    for name, values in a["model"].items():
        assert torch.equal(values, b["model"][name]), name
    for mine, other in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert torch.equal(a["rng"]["cpu"], b["rng"]["cpu"])


@pytest.fixture
def losses(monkeypatch):
    """What Progress was shown, {(stage's name, epoch): losses}."""
    seen, show = {}, Progress.epoch

    def record(self, number, last, shown):
        seen[self.name, number] = shown
        show(self, number, last, shown)

    monkeypatch.setattr(Progress, "epoch", record)
    return seen


@pytest.fixture
def kill_at(monkeypatch):
    """kill_at(stage, step): the next run dies in that training step of the stage."""

    def kill(stage, step):
        kind = STAGES[stage]
        loss = kind.loss

        def die(self, batches, number, annealed):
            if self.network.training and number == step:
                monkeypatch.setattr(kind, "loss", loss)
                raise KeyboardInterrupt
            return loss(self, batches, number, annealed)

        monkeypatch.setattr(kind, "loss", die)

    return kill


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
    loss = EncDecStage.loss

    def interrupt(self, batches, step, annealed):
        if self.network.training and step == 4:
            os.kill(os.getpid(), number)
        return loss(self, batches, step, annealed)

    with monkeypatch.context() as patch:
        patch.setattr(EncDecStage, "loss", interrupt)
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
    with only_run(trained):
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


def test_what_a_kill_leaves_half_written_is_ignored(command, trained):
    for stage in NETWORKS:
        (trained / "checkpoints" / f"9_{SUFFIX[stage]}.pth.part").write_bytes(b"half")
    (trained / "checkpoints" / "old_VDSM_EncDec.pth").write_bytes(b"not ours")
    assert "3_VDSM_EncDec.pth" in command(*TINY, *TEST).out
    assert command(*TINY).code == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other", "flipped"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_it_used(
    command, trained, damage
):
    path = trained / "checkpoints" / "3_VDSM_EncDec.pth"
    whole = checkpoint(trained, "EncDec", 3)
    if damage == "other":
        torch.save({"epoch": 4, "model": {}}, path)
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
    torch.save({**state, "epoch": 11}, trained / "checkpoints" / "10_VDSM_EncDec.pth")
    assert "10_VDSM_EncDec.pth" in command(*TINY, *TEST).out


# --- the learning rate ---


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave the pictures out, to save time."""
    monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)


@pytest.fixture
def rates(monkeypatch):
    """The base rates that the loop asked for, in order."""
    seen, schedule = [], train_test.learning_rate

    def record(base, *rest):
        seen.append(base)
        return schedule(base, *rest)

    monkeypatch.setattr(train_test, "learning_rate", record)
    return seen


@pytest.mark.parametrize("fidelity, fresh", [("paper", 0.002), ("release", 0.0008)])
def test_lr_resume_speaks_when_a_run_is_resumed(
    command, no_pictures, rates, kill_at, fidelity, fresh
):
    flags = [*TINY, *STAGE_1, "--fidelity", fidelity, "--lr_resume", 0.0008]
    kill_at("EncDec", 4)
    assert command(*flags).code == 130
    assert set(rates) == {fresh}
    rates.clear()
    assert command(*flags).code == 0
    assert set(rates) == {0.0008} and len(rates) == 4


# --- a loss that is not finite ---


@pytest.fixture
def poison(monkeypatch):
    """poison(stage, term, call, value) spoils a term in that call (from 0) of the stage's loss.

    It returns a function that undoes it.
    """

    def inject(stage, term, call, value=float("nan")):
        network = NETWORKS[stage]
        loss, calls = network.loss, iter(range(10**9))

        def spoiled(self, *args, **kwargs):
            terms = loss(self, *args, **kwargs)
            if next(calls) == call:
                terms[term] = Term(terms[term].raw * value, terms[term].weighted * value)
            return terms

        monkeypatch.setattr(network, "loss", spoiled)
        return lambda: monkeypatch.setattr(network, "loss", loss)

    return inject


def forget(run, stage):
    """Remove the newest checkpoints of the stage, so that epoch 2 or 3 comes next."""
    for path in (run / "checkpoints").glob(f"[23]_{SUFFIX[stage]}.pth"):
        path.unlink()


@pytest.mark.parametrize(
    "stage, term", [(stage, term) for stage, terms in TERMS.items() for term in terms]
)
def test_nan_goes_back_and_on_at_a_lower_rate(
    command, no_pictures, rates, poison, trained, stage, term
):
    before = tree(trained / "checkpoints")
    forget(trained, stage)
    poison(stage, term, call=3)  # the second step of epoch 3
    only = STAGE_1 if stage == "EncDec" else STAGE_2
    said = command(*TINY, *only, "--nan_retries", 3)
    assert said.code == 0, said
    number, rate = (1, 0.002) if stage == "EncDec" else (2, 0.003)
    assert said.err.count("\n") == 1
    assert (
        f"stage {number}: epoch 3, step 1: the term '{term}' of the loss is not finite" in said.err
    )
    assert f"{term} nan" in said.err and "training clips" in said.err
    assert (
        f"back to runs/demo/checkpoints/2_{SUFFIX[stage]}.pth at learning rate {rate / 2:g}, "
        "time 1 of 3" in said.err
    )
    assert (trained / "log.txt").read_text().endswith(said.err)
    assert rates == [rate] * 4 + [rate / 2] * 2
    assert tree(trained / "checkpoints").keys() == before.keys()
    last = checkpoint(trained, stage, 3)
    assert all(torch.isfinite(values).all() for values in last["model"].values())
    assert (last["place"]["scale"], last["place"]["retries"]) == (0.5, 1)


def test_a_rate_once_lowered_stays_lowered_until_another_is_given(
    command, no_pictures, rates, poison, kill_at, trained
):
    forget(trained, "EncDec")
    poison("EncDec", "x", call=1)
    kill_at("EncDec", 7)
    assert command(*TINY, *STAGE_1).code == 130
    rates.clear()
    assert command(*TINY, *STAGE_1).code == 0
    assert set(rates) == {0.001}
    (trained / "checkpoints" / "3_VDSM_EncDec.pth").unlink()
    rates.clear()
    assert command(*TINY, *STAGE_1, "--lr_resume", 0.004).code == 0
    assert set(rates) == {0.004}


def test_a_checkpoint_that_leads_to_nan_at_once_is_passed_over(
    command, no_pictures, poison, trained
):
    forget(trained, "EncDec")
    state = checkpoint(trained, "EncDec", 1)
    state["model"]["decoder.biases.0"].fill_(float("inf"))
    bad = trained / "checkpoints" / "2_VDSM_EncDec.pth"
    torch.save({**state, "epoch": 3, "place": {**state["place"], "step": 6}}, bad)
    said = command(*TINY, *STAGE_1)
    assert said.code == 0 and "leads to a loss that is not finite at once" in said.err
    assert "back to runs/demo/checkpoints/1_VDSM_EncDec.pth" in said.err
    assert bad.with_name(f"{bad.name}.damaged1").exists()


@pytest.mark.parametrize("stage, term", [("EncDec", "x"), ("Seq", "d")])
def test_nan_without_retries_stops_and_names_the_way_on(
    command, no_pictures, refused, poison, trained, stage, term
):
    run = trained
    names = sorted(path.name for path in (run / "checkpoints").glob("*.pth"))
    forget(run, stage)
    heal = poison(stage, term, call=3)
    line = refused(*TINY, "--lr_resume=0.1", "--nan_retries", 0)
    number = 1 if stage == "EncDec" else 2
    assert f"the term '{term}' of the loss is not finite in stage {number}, epoch 3" in line
    assert f"2_{SUFFIX[stage]}.pth is whole" in line
    assert not (run / "checkpoints" / f"3_{SUFFIX[stage]}.pth").exists()
    heal()
    flags = shlex.split(line.split("go on with: python main.py ")[1])
    assert (
        flags[-2:] == ["--lr_resume", "0.05"]
        and flags.count("--lr_resume") == 1
        and "--lr_resume=0.1" not in flags
    )
    assert command(*flags).code == 0
    assert sorted(path.name for path in (run / "checkpoints").glob("*.pth")) == names


@pytest.mark.parametrize("stage, flag", [("EncDec", "--lr_VDSMEncDec"), ("Seq", "--lr_VDSMSeq")])
def test_nan_before_the_first_checkpoint(
    command, no_pictures, refused, poison, rates, tmp_path, stage, flag
):
    heal = poison(stage, "x", call=1, value=float("inf"))
    line = refused(*TINY, "--epochs", 2, "--fresh", "True", "--nan_retries", 0, flag, 0.5)
    assert "no checkpoint of this stage yet" in line and "epoch 0" in line
    assert not list(tmp_path.rglob(f"*_{SUFFIX[stage]}.pth"))
    heal()
    rates.clear()
    flags = shlex.split(line.split("go on with: python main.py ")[1])
    assert "--fresh" not in flags
    assert command(*flags).code == 0
    assert set(rates) == (
        {0.25, 0.003} if stage == "EncDec" else {0.25}
    )  # stage 1, once done, is not done again
    assert not (tmp_path / "runs" / "demo.kept1").exists()


def test_a_gradient_that_is_not_finite_is_named_and_updates_nothing(refused, monkeypatch, tmp_path):
    made = train_test.build

    def spoil(*args):
        stage = made(*args)
        stage.network.decoder.biases[1].register_hook(lambda grad: grad * float("nan"))
        return stage

    monkeypatch.setattr(train_test, "build", spoil)
    line = refused(*TINY, "--nan_retries", 0)
    assert "the loss's gradient at decoder.biases.1 is not finite in stage 1, epoch 0" in line
    assert not list(tmp_path.rglob("*.pth"))


def test_weights_that_an_update_spoils_are_never_saved(refused, monkeypatch, tmp_path):
    step = torch.optim.Adam.step

    def spoil(self, *args, **kwargs):
        step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(torch.optim.Adam, "step", spoil)
    line = refused(*TINY, "--bs_per_epoch", 1, "--save_every_steps", 1, "--nan_retries", 0)
    assert "what an update made of the weights is not finite in stage 1, epoch 0" in line
    assert not list(tmp_path.rglob("*.pth"))


# --- what a run leaves ---


def test_names_at_the_intervals(command, tmp_path):
    flags = [*TINY, "--epochs", 6, "--model_save_interval", 2, "--model_test_interval", 4]
    assert command(*flags).code == 0
    run = tmp_path / "runs" / "demo"
    stages = ("VDSM_EncDec", "VDSM_seq")
    expected = {f"{epoch}_{name}.pth" for epoch in (2, 4, 5) for name in stages} | {"config.txt"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == expected
    pictures = {path.name for path in (run / "images").iterdir()}
    for epoch in (0, 4, 5):
        expected = (
            "swap_ep_{}_rec.png train_{}_rec.png train_{}_targ.png seq_{}_rec.png seq_{}_gt.png "
            "vid_{}_gen.gif seq_swap_id_{}_gen.png vid_swap_{}_gen.gif"
        )
        assert set(expected.replace("{}", str(epoch)).split()) <= pictures
    assert not any(f"_{epoch}_" in name for name in pictures for epoch in (1, 2, 3))
    assert "continue_5_40.gif" in pictures and "config.txt" in pictures
    assert not list(run.rglob("*.part"))


def test_the_releases_folders(command, tmp_path):
    flags = [
        "--image_path",
        "images",
        "--model_save_path",
        "models",
        "--log_dir",
        "logs",
        "--tboard_log",
        "True",
    ]
    assert command(*TINY, "--epochs", 1, "--model_save_interval", 2, *flags).code == 0
    assert (tmp_path / "models" / "demo" / "0_VDSM_EncDec.pth").exists()
    assert (tmp_path / "models" / "demo" / "config.txt").exists()
    assert (tmp_path / "images" / "demo" / "swap_ep_0_rec.png").exists()
    assert list((tmp_path / "logs" / "demo").rglob("events*"))
    assert sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir()) == ["config.json"]
    assert "0_VDSM_seq.pth" in command(*TINY, "--epochs", 1, *TEST, *flags).out


def test_what_is_in_a_checkpoint(trained):
    for stage in NETWORKS:
        state = checkpoint(trained, stage, 3)
        assert (
            state["epoch"] == 4
            and {"model", "optimizer", "settings", "data", "rng"} <= state.keys()
        )
        settings = parse(TINY).stages[stage]
        assert state["settings"] == dict(vars(settings))
        assert json.loads((trained / "config.json").read_text())[stage]["epochs"] == 4


def test_a_disk_that_fills_up_at_a_checkpoint(command, refused, monkeypatch, tmp_path, trained):
    (trained / "checkpoints" / "3_VDSM_EncDec.pth").unlink()
    with monkeypatch.context() as patch:

        def full(state, file):
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(torch, "save", full)
        line = refused(*TINY)
    assert "No space left" in line and "3_VDSM_EncDec.pth" in line
    assert sorted(path.name for path in (trained / "checkpoints").glob("*EncDec*")) == [
        "1_VDSM_EncDec.pth", "2_VDSM_EncDec.pth"]  # fmt: skip
    assert command(*TINY).code == 0


@pytest.fixture
def events():
    """events(folder) reads TensorBoard: scalars {tag: [(epoch, value)]} and tags of pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        found.Reload()
        tags = found.Tags()
        return {
            tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"]
        }, tags["images"]

    return read


def test_tensorboard(command, tmp_path, kill_at, events):
    flags = [*TINY, "--tboard_log", "True", "--model_save_interval", 2]
    kill_at("EncDec", 7)
    command(*flags)
    kill_at("EncDec", 6)
    command(*flags)
    assert command(*flags).code == 0
    for stage, terms in TERMS.items():
        scalars, pictures = events(tmp_path / "runs" / "demo" / "tensorboard" / stage)
        names = {
            "total loss",
            "id anneal",
            "zt anneal",
            "dynamics anneal",
            "id temp",
            "held out/ELBO",
        }
        names |= {
            f"{kind}/{term}" for kind in ("loss", "weighted loss", "held out") for term in terms
        }
        assert names <= scalars.keys()
        assert [step for step, _ in scalars["total loss"]] == [0, 1, 2, 3]
        assert all(np.isfinite(value) for values in scalars.values() for _, value in values)
        total = sum(scalars[f"weighted loss/{term}"][0][1] for term in terms)
        assert scalars["total loss"][0][1] == pytest.approx(total, rel=1e-5)
        held_out = sum(scalars[f"held out/{term}"][0][1] for term in terms)
        assert scalars["held out/ELBO"][0][1] == pytest.approx(-held_out, rel=1e-5)
        assert pictures


def test_lines_without_a_terminal_and_quiet(command, tmp_path):
    out = command(*TINY, "--epochs", 1).out
    lines = [line for line in out.splitlines() if "epoch 1/1" in line]
    assert len(lines) == 2
    for line, terms in zip(lines, TERMS.values()):
        assert "steps/s" in line and "left" in line
        for term in terms:
            assert f"  {term} " in line
    assert "(" in lines[0]  # raw and, where it differs, weighted
    assert "validation: ELBO" in out
    quiet = command(*TINY, "--epochs", 1, "--RUN", "silent", "--quiet", "True")
    assert quiet.code == 0 and quiet.err == ""
    assert all(line.startswith("preset demo") for line in quiet.out.splitlines())


def test_validation_losses_are_the_same_every_time():
    settings = parse(TINY).stages["EncDec"]
    dataset = pendulum.make(16, 0, {"train": 4, "val": 4, "test": 4})
    stage = train_test.build(settings, settings.info("EncDec"), None)
    batches = Batches(dataset.split("val"), torch.device("cpu"), 16, settings.bs)
    annealed = Annealed({"s": 0.3, "d": 1.0, "z": 5.0}, temperature=2.0)
    before = torch.get_rng_state()
    first = train_test.validation_loss(stage, batches, annealed)
    torch.rand(3)
    again = train_test.validation_loss(stage, batches, Annealed({"s": 1.0, "z": 1.0}, 2.0))
    assert first == again and set(first) == set(TERMS["EncDec"])
    torch.set_rng_state(before)
    train_test.validation_loss(stage, batches, annealed)
    assert torch.equal(torch.get_rng_state(), before)
