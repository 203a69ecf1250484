"""What stops a command: before training, a folder that it must not write to or a stage that lacks what it stands on; during
training, a loss or gradient that is not finite, where going back at a lower learning rate has not helped."""

import shlex
from dataclasses import replace

import numpy as np
import torch

from utils.checkpoints import check_sizes, load_checkpoint
from utils.config import differences, shown, without
from utils.errors import UserError

SPLIT_BY_SEED = (
    "MUG-FED",
)  # release: --seed splits the clips too, so that another one would train on stage 1's test clips
NUMBER = "pretrained_model_VDSMEncDec"  # the stage-1 checkpoint that stage 2 stands on


def saves(settings, epoch):
    """Whether a checkpoint is written after `epoch` (release: at the interval, but not after the first; and at the end)."""
    return (epoch > 0 and epoch % settings.model_save_interval == 0) or epoch == settings.epochs - 1


def refuse_damaged(plan, folder):
    """Raise UserError where a stage that is asked for has checkpoints and none of them is whole: it is not begun anew silently."""
    for stage, info in folder.stages.items():
        asked = stage in plan.training or plan.training in ([], ["Seq"])
        lost = [path for path in folder.damaged if path.name.endswith(f"_{info.suffix}.pth")]
        if asked and lost and not folder.newest(stage):
            raise UserError(
                f"{lost[0]} {folder.damaged[lost[0]]}, and no other of its stage is whole: move it away, "
                "or give --fresh True to start over and keep it"
            )


def refuse_other_run(plan, folder, fingerprints):
    """Raise UserError if `folder` holds a run of other settings or other data: it is not resumed silently.

    fingerprints: {stage: the data set's} of the stages that train.
    """
    for stage, fingerprint in fingerprints.items():
        newest = folder.newest(stage)
        if newest is None:
            continue
        settings, state = plan.stages[stage], load_checkpoint(newest, mapped=True)
        saved = state["settings"]
        if state["data"] is None:  # of the release: its sizes are all that it tells
            check_sizes(state, newest, settings, settings.info(stage).sizes)
            continue
        wrong = differences(saved, settings, stage)
        given = getattr(settings, NUMBER) if stage == "Seq" else None
        if given is not None and saved[NUMBER] not in (None, given):
            wrong.append(NUMBER)  # a checkpoint of stage 2 holds the stage 1 that it stands on
        ways = "another --RUN, or --fresh True to start over and keep the old"
        if wrong:
            said = ", ".join(
                f"--{n} was {shown(saved[n])} and is {shown(getattr(settings, n))}"
                for n in wrong[:6]
            )
            more = f" and {len(wrong) - 6} more" if len(wrong) > 6 else ""
            raise UserError(
                f"{folder.root} holds another run ({said}{more}): give its flags to go on with it, {ways}"
            )
        if state["data"] != fingerprint:
            raise UserError(
                f"{folder.root} was trained on other data of the name {saved['dataset_name']}: give {ways}"
            )


def refuse_other_data(state, path, dataset):
    """Raise UserError if the checkpoint `state` of `path` was trained on other data: its training clips may be held out here."""
    if state.get("data") not in (None, dataset.fingerprint):
        raise UserError(
            f"{path} was trained on other data of the name {dataset.name}: give its --data_dir, --data_seed and --seq_len "
            "to measure it, or --evaluate none"
        )


def refuse_missing_encdec(plan, folder):
    """Raise UserError unless stage 2, where it trains, finds a stage-1 checkpoint of its own sizes, there or left by the same
    command. Returns the path of the one that stage 2 alone starts from, else None."""
    if "Seq" not in plan.training:
        return None
    settings, number = plan.stages["Seq"], getattr(plan.stages["Seq"], NUMBER)
    if "EncDec" in plan.training:
        first = plan.stages["EncDec"]
        wrong = [
            n
            for n in first.info("EncDec").sizes
            if shown(getattr(settings, n)) != shown(getattr(first, n))
        ]
        if wrong:
            raise UserError(f"the stages differ in --{', --'.join(wrong)}: give both the same")
        if number is not None and not (number < first.epochs and saves(first, number)):
            raise UserError(
                f"--{NUMBER} {number}: stage 1 of this command leaves {first.epochs - 1}: give that, or none"
            )
        return None
    path = folder.choose("EncDec", number)
    if path is None:
        raise UserError(
            f"stage 2 needs a stage-1 checkpoint in {folder.checkpoints}: train one first (--train_VDSMEncDec True)"
        )
    sizes = settings.info("EncDec").sizes
    names = (*sizes, "dataset_name", *(["seed"] if settings.dataset_name in SPLIT_BY_SEED else []))
    check_sizes(load_checkpoint(path, mapped=True), path, settings, names)
    return path


def refuse_export(plan, folder):
    """Raise UserError where --export_codes asks for codes that nothing will have made: they are the last stage's."""
    (name, settings), number = list(plan.stages.items())[-1], len(plan.stages)
    info = settings.info(name)
    if not settings.export_codes or name in plan.training:
        return
    if plan.training:
        raise UserError(
            f"--export_codes writes the codes of stage {number}: train it in the same command (--{info.train} True), "
            "or export once it is trained, with both train flags False"
        )
    if folder.choose(name, getattr(settings, info.pretrained)) is None:
        raise UserError(
            f"--export_codes needs a stage-{number} checkpoint and there is none in {folder.checkpoints}: "
            f"train one (--{info.train} True), or give the run's --RUN"
        )


class NotFinite(Exception):
    """A loss or gradient is not finite; no update was made of it, nor since. The message names it.

    step: the optimiser step, counted over the stage; begun: that at which this attempt at the stage began, None where the
    checkpoint it began from is not to blame.
    """

    def __init__(self, what, step, begun, place):
        super().__init__(what)
        self.step, self.begun, self.place = step, begun, place


def raise_not_finite(stepper, place, stage, terms, sampler, weights, saving=False):
    """Raise `NotFinite` if an update has been refused: which term, on what. Waits for the device.

    place: where the stage stands, with the epoch's losses; terms, weights: of the last step, for their names and values; saving:
    look at what the updates made of the weights, too.
    """
    bad, begun = stepper.bad_step(), place.step - stepper.calls
    if bad is None:
        if saving and not torch.isfinite(
            torch.nn.utils.get_total_norm(p.detach() for p in stepper.parameters)
        ):
            raise NotFinite(
                "what an update made of the weights is not finite", place.step - 1, None, place
            )
        return
    back = place.step - (begun + bad)  # steps since, the bad one included
    values = place.losses[-back]
    rows = sampler.draw(begun + bad, stage.settings.bs)[0]
    raw = ", ".join(f"{name} {value:.4g}" for name, value in zip(terms, values[::2].tolist()))
    at = ", ".join(f"{name} {value:.4g}" for name, value in weights.items())
    clips = ", ".join(str(row) for row in np.unique(rows))
    where = f"losses a sequence: {raw}; weights: {at}; training clips {clips}"
    raise NotFinite(
        f"{_culprit(values, terms, stage.network)} is not finite ({where})",
        begun + bad,
        begun,
        place,
    )


def _culprit(values, terms, network):
    """What is not finite: the first such term of the loss, or the gradient of the first such parameter."""
    for i, term in enumerate(terms):
        if not torch.isfinite(values[2 * i : 2 * i + 2]).all():
            return f"the term '{term}' of the loss"
    for name, p in network.named_parameters():
        if p.grad is not None and not torch.isfinite(torch.linalg.vector_norm(p.grad)):
            return f"the loss's gradient at {name}"
    return "the loss's gradient"


def recover(bad, settings, stage, folder, argv, warn):
    """What is left to do after `bad`: the `Place` whose learning rate, scale and retries the next attempt at `stage` takes.

    UserError once --nan_retries are used up. A checkpoint whose very first step fails is put away: the one before it is next.
    """
    place, rate = bad.place, bad.place.rate * bad.place.scale
    epoch, newest = bad.step // settings.bs_per_epoch, folder.newest(stage)
    if place.retries >= settings.nan_retries:
        raise stop_not_finite(bad, argv, stage, settings, epoch, rate, newest)
    if newest and bad.step == bad.begun:
        folder.damaged[newest] = "leads to a loss that is not finite at once"
        for line in folder.put_away():
            warn(line)
        newest = folder.newest(stage)
    warn(
        f"epoch {epoch}, step {bad.step % settings.bs_per_epoch}: {bad}; back to {newest or 'the start'} at learning rate "
        f"{rate * settings.nan_lr_factor:g}, time {place.retries + 1} of {settings.nan_retries} (--nan_retries)"
    )
    return replace(place, scale=place.scale * settings.nan_lr_factor, retries=place.retries + 1)


def stop_not_finite(bad, argv, stage, settings, epoch, rate, kept):
    """The UserError that stops a run in `epoch` of `stage`; it names the command that goes on, at half the learning rate, from the
    checkpoint `kept`, or from the stage's start if there is none."""
    # only the release's fidelity lets --lr_resume speak at a start
    name = (
        "--lr_resume"
        if kept or settings.fidelity == "release"
        else f"--{settings.info(stage).rate}"
    )
    flags = without(without(argv, name), "--fresh")
    command = shlex.join(["python", "main.py", *flags, name, f"{rate / 2:g}"])
    start = f"{kept} is whole" if kept else "no checkpoint of this stage yet"
    what = str(bad).replace(
        " is not finite", f" is not finite in stage {settings.number(stage)}, epoch {epoch}", 1
    )
    return UserError(f"{what}; {start}; go on with: {command}")
