"""A loss or gradient that is not finite: going back, stopping, and what is never saved."""

import shlex
import shutil

import pytest
import torch

import train_test
from models.elbo import Term
from models.vdsm.stages import EncDecStage
from tests.runs import NETWORKS, SUFFIX, TERMS, assert_same_checkpoint, checkpoint, tree
from tests.tiny import STAGE_1, STAGE_2, TINY
from utils.adam import Adam

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


@pytest.mark.parametrize("begun", [True, False], ids=["resumed", "from the start"])
def test_a_run_killed_after_it_went_back_ends_as_an_unbroken_one(
    command, no_pictures, rates, poison, monkeypatch, tmp_path, trained, begun
):
    ends = []
    for killed in (False, True):
        run = trained.with_name(f"run{killed}")
        if begun:
            shutil.copytree(trained, run)
            forget(run, "EncDec")
        flags = [*TINY, *STAGE_1, "--model_save_interval", 4, "--RUN", run.name]
        poison("EncDec", "x", call=1)
        with monkeypatch.context() as patch:
            calls, inputs = iter(range(10**6)), EncDecStage.inputs

            def die(self, batches, step, calls=calls, inputs=inputs):
                # the second training step after the return, before any checkpoint is due
                if self.network.training and next(calls) == 3:
                    raise KeyboardInterrupt
                return inputs(self, batches, step)

            if killed:
                patch.setattr(EncDecStage, "inputs", die)
                assert command(*flags).code == 130
        rates.clear()
        said = command(*flags)
        # the checkpoint before the first step has no state of Adam to lose
        assert said.code == 0 and "Adam" not in said.out
        assert not killed or set(rates) == {0.001}
        assert not list((run / "checkpoints").glob("step_*"))
        ends.append(checkpoint(run, "EncDec", 3))
    assert_same_checkpoint(*ends)
    assert [(end["place"]["scale"], end["place"]["retries"]) for end in ends] == [(0.5, 1)] * 2


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


@pytest.mark.parametrize("stage, term", [("EncDec", "s"), ("Seq", "z_1")])
def test_nan_in_the_very_first_step_stops_at_once(
    command, no_pictures, refused, poison, rates, trained, stage, term
):
    for path in (trained / "checkpoints").glob(f"*_{SUFFIX[stage]}.pth"):
        path.unlink()
    poison(stage, term, call=0)
    line = refused(*TINY, *(STAGE_1 if stage == "EncDec" else STAGE_2))
    number = 1 if stage == "EncDec" else 2
    assert f"the term '{term}' of the loss is not finite in stage {number}, epoch 0, step 0" in line
    assert "no update was made yet" in line and "another --seed" in line and "go on" not in line
    assert ("train stage 1 anew" in line) == (stage == "Seq") and len(rates) == 1


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
    step = Adam.step

    def spoil(self, *args, **kwargs):
        step(self, *args, **kwargs)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))

    monkeypatch.setattr(Adam, "step", spoil)
    line = refused(*TINY, "--bs_per_epoch", 1, "--save_every_steps", 1, "--nan_retries", 0)
    assert "what an update made of the weights is not finite in stage 1, epoch 0" in line
    assert not list(tmp_path.rglob("*.pth"))
