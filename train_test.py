"""The one training loop, for every stage of every model."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from data.base import Dataset
from data.batches import Batches
from export import export
from metrics.evaluate import evaluate, measured_already, need_labels
from models.annealing import Annealed
from models.stage import Stage, too_early
from models.view import VideoModel
from pictures.drawing import draw_stage
from testing import test, validation_loss, view_of
from utils import distributed, guards
from utils.checkpoints import (
    Place,
    Saver,
    check_sizes,
    save_checkpoint,
    set_rng_state,
    state_of,
    undisturbed,
)
from utils.errors import warn
from utils.graphs import DeviceSteps, Recorder
from utils.lock import only_run
from utils.origin import origin
from utils.plan import Plan
from utils.progress import Progress, log_epoch
from utils.run_folder import RunFolder
from utils.settings import RunSettings, StageInfo
from utils.signals import Signals
from utils.step import Stepper, choose_device, learning_rate
from utils.tracking import sinks


def run(plan: Plan, argv: list[str], datasets: dict[str, Dataset]) -> None:
    """Train the stages of the plan in order, or test.

    argv: the command's flags, for messages. datasets: by the name of the stage.
    """
    settings = plan.first
    device = choose_device(settings.device, settings.threads, settings.precision)
    folder, signals = RunFolder(settings), Signals()
    with ExitStack() as held:
        # the first of several processes alone writes to the folder; the others wait, then read
        begun = distributed.from_first(lambda: prepare(plan, folder, datasets, held, signals))
        if not plan.training:
            test(plan, folder, device, datasets)
            return
        if distributed.rank():
            held.enter_context(signals)
            folder = RunFolder(settings)
        for name, is_measured in begun.items():
            given = plan.stages[name], name, datasets[name], folder
            train(*given, device, argv, signals, is_measured)


def prepare(plan, folder, datasets, held, signals) -> dict[str, bool]:
    """Look at the folder of the run, lock it and make it ready; refuse what cannot be trained.

    held: takes the lock and the handlers of signals. Returns of each stage that trains whether it
    is finished and its figures are there.
    """
    settings = plan.first
    folder.inspect()
    if not settings.fresh:
        guards.refuse_damaged(plan, folder)
    guards.refuse_export(plan, folder)
    for name, dataset in datasets.items():
        need_labels(plan.stages[name], dataset)
    if not plan.training:
        return {}
    stands_on = guards.refuse_missing_earlier_stage(plan, folder, datasets)
    if not settings.fresh:
        guards.refuse_other_run(plan, folder, datasets)
    for name in plan.training:
        if settings.fresh or not folder.newest(name):
            settings.info(name).stage().refuse_files(plan.stages[name])
    alone = held.enter_context(only_run(folder.outermost, settings.override_lock))
    held.enter_context(signals)
    if settings.fresh:
        for kept in folder.set_aside(stands_on):
            print(f"kept the old run as {kept}")
    if stands_on and not folder.newest(plan.training[0]) and not settings.quiet:
        print(f"stage {settings.number(plan.training[0])} stands on {stands_on}")
    folder.make(any(settings.export_codes for settings in plan.stages.values()))
    folder.put_away(warn)
    if alone:
        folder.sweep()
    for name in plan.training:
        for line in guards.keep_later(plan, name, folder):
            print(line)
    folder.save_settings({name: plan.stages[name] for name in plan.training})
    # asked of every stage before the first one writes its figures
    stages = {name: (plan.stages[name], name, data, folder) for name, data in datasets.items()}
    return {name: measured_already(*given) for name, given in stages.items()}


def train(settings, name, dataset, folder, device, argv, signals, is_measured) -> None:
    """Train stage `name` to its last epoch, from its newest checkpoint or from the start.

    After a loss or gradient that is not finite, training resumes from the newest checkpoint at a
    lower learning rate. At the end, measure and export as the settings ask. is_measured: whether
    the stage is finished and its figures are there.
    """
    info, number, lowered = settings.info(name), settings.number(name), None
    steps = settings.epochs * settings.bs_per_epoch
    quiet, terms = settings.quiet or distributed.rank() > 0, info.stage().TERMS
    progress = Progress(f"stage {number}", 0, steps, quiet, folder.log, terms)
    with closing(progress):
        while True:
            try:
                given = settings, info, dataset, folder, device, progress, signals, lowered
                stage, view = attempt(*given)
                break
            except guards.NotFinite as bad:
                given = bad, settings, name, folder, argv, progress.warn
                lowered = distributed.from_first(partial(guards.recover, *given))
    if distributed.rank():
        return
    stage.network.eval()
    if is_measured:
        kept = f"{folder.metrics} holds its figures: not measured again"
        progress.say(f"stage {number}: {kept} (--remeasure True measures)")
    elif settings.measured:
        evaluate(view, info, dataset, folder, settings, device, settings.epochs - 1)
    if settings.export_codes and info is settings.STAGES[-1]:
        export(view, dataset, folder, settings, folder.choose(name))
    where = f"checkpoints in {folder.checkpoints}, pictures in {folder.images}"
    progress.say(f"stage {number}: done; {where}")


class Training(NamedTuple):
    """What one attempt at a stage works with."""

    settings: RunSettings
    info: StageInfo
    dataset: Dataset
    folder: RunFolder
    device: torch.device
    progress: Progress
    stage: Stage
    view: VideoModel  # of the trained stage: it keeps the codes of clips
    stepper: Stepper
    place: Place  # where training stands
    batches: Batches  # of the training split
    validation: Batches
    steps: int  # optimiser steps of the whole stage
    terms: Callable  # of the loss, from inputs and an `Annealed`


def begin(settings, info, dataset, folder, device, progress, lowered) -> Training:
    """Build a stage at its newest checkpoint, or at the start.

    lowered: the `Place` whose learning rate counts after a loss that was not finite, or None.
    """
    number = settings.number(info.name)
    newest = distributed.from_first(partial(folder.newest, info.name))
    stage = build(settings, info, folder).to(device)
    batches = make_batches(settings, info, dataset, device, validation=False)
    validation = make_batches(settings, info, dataset, device, validation=True)
    if newest is None:
        stage.start_from(batches)
    distributed.refuse_uneven(batches.size)
    stepper = Stepper(stage.trainable(), settings.clip_grad, settings.shard_optimizer)
    # the noise does not depend on how many numbers the initialisation drew
    torch.manual_seed(settings.seed + number)
    place = resume(newest, info, folder, stage, stepper, device)
    rate = getattr(settings, info.rate)
    if settings.lr_resume is not None:
        if newest or settings.fidelity == "release":
            rate = settings.lr_resume  # in the release also at a start
        elif lowered is None:
            waits = f"--lr_resume {settings.lr_resume:g} waits until the stage is resumed"
            progress.say(f"stage {number}: {waits}; it starts at --{info.rate} {rate:g}")
    place.train_at(rate, lowered)
    if lowered is not None:
        # so that a killed run does not forget the lower rate, and each retry counts once
        path = folder.checkpoint_at(info.name, *divmod(place.step, settings.bs_per_epoch))
        state = state_of(stage, stepper, place, dataset.fingerprint, device)
        distributed.from_first(partial(save_checkpoint, path, state))
    progress.begin(place.step)
    if place.step:
        epoch, more = divmod(place.step, settings.bs_per_epoch)
        done = f"epoch {epoch - 1} of {settings.epochs - 1} is done"
        done += f" and {more} steps of the next" if more else ""
        progress.say(f"stage {number}: {done} ({newest})")
    if place.step < progress.total and settings.span < settings.epochs:
        ends = f"epoch {settings.span - 1} to epoch {settings.epochs - 1} (--schedule_epochs)"
        progress.say(f"stage {number}: its schedules keep their last values from {ends}")
    view = view_of(stage, dataset, folder, folder.checkpoint(info.name, settings.epochs - 1))
    given = settings, info, dataset, folder, device, progress, stage, view, stepper, place
    terms = distributed.share(stage.network, partial(stage.terms, batches))
    return Training(*given, batches, validation, progress.total, terms)


def attempt(
    settings, info, dataset, folder, device, progress, signals, lowered
) -> tuple[Stage, VideoModel]:
    """Train a stage from its newest checkpoint to its last epoch; returns it and its view.

    Raises `guards.NotFinite` at a loss or gradient that is not finite.
    """
    t = begin(settings, info, dataset, folder, device, progress, lowered)
    stage, stepper, place, c = t.stage, t.stepper, t.place, settings
    values = partial(values_at, t, stage.schedules())
    on_device = device_steps(t, values)
    stage.network.train()
    about = origin(device) | {"frames per sequence": str(stage.frames_counted(t.batches))}
    logs = place.step < t.steps and distributed.rank() == 0
    given = folder, info.name, c, progress, place.step // c.bs_per_epoch, about, logs
    saving = Saver(folder, info.name, c.keep_checkpoints)
    with signals.patiently(), saving as saver, sinks(*given) as log:
        while place.step < t.steps:
            # the weights of the loss terms, and the learning rate
            epoch = place.step // c.bs_per_epoch
            if place.step % c.bs_per_epoch == 0:
                t.dataset.refuse_cut()
            annealed, rate = values(place.step)
            stepper.begin_step(rate)

            # one step of Adam on a batch that the number of the step determines
            after = (epoch + 1) * c.bs_per_epoch
            if on_device is None:
                names, losses = take_step(t, stage.inputs(t.batches, place.step), annealed)
            else:
                names, losses = on_device(place.step, after)
            for name, pair in zip(names, losses):
                place.losses.setdefault(name, []).append(pair)
            place.step += 1
            progress.step()

            # the next epoch's inputs, sent while a GPU is still at work on this one
            ends = place.step == after
            if ends and on_device is not None and place.step < t.steps:
                on_device.send(place.step, after + c.bs_per_epoch)

            # stop at a loss that is not finite; a GPU is asked once per epoch
            if ends or device.type == "cpu":
                guards.raise_not_finite(stepper, place, stage, t.batches, annealed)

            # once per epoch: show the losses; at intervals: validate and draw
            if ends:
                distributed.from_first(partial(end_of_epoch, t, epoch, annealed, log))
                log.flush()
                place.losses = {}

            # save after an epoch, after --save_every_steps, or before a signal stops the run
            signals.asked = distributed.any_asked(signals.asked)
            save_if_due(t, saver, epoch, ends, annealed, leaving=signals.asked)
            if signals.asked:
                distributed.from_first(saver.wait)
                break  # leaving the block obeys the signal
    return stage, t.view


def values_at(t: Training, schedules, step: int) -> tuple[Annealed, float]:
    """The values of the schedules and the learning rate at optimiser step `step`."""
    c, rate = t.settings, t.place.rate * t.place.scale
    rate = learning_rate(rate, step, c.span * c.bs_per_epoch, c.lr_warmup, c.lr_final)
    return schedules.at(step // c.bs_per_epoch), rate


def take_step(t: Training, inputs: dict, annealed: Annealed) -> tuple[tuple[str, ...], Tensor]:
    """Take one optimiser step. inputs: of `Stage.inputs`. The host does not wait for a GPU.

    Returns the names of the loss's terms and their values [terms, 2], raw and weighted, in nats per
    sequence.
    """
    terms, sequences = t.terms(inputs, annealed), t.batches.size
    loss = t.stage.objective(terms, sequences)
    values = [part.detach() for term in terms.values() for part in term]
    whole = distributed.total(torch.stack([loss.detach(), *values]))
    t.stepper.update(loss, whole[0])
    return tuple(terms), whole[1:].unflatten(0, (-1, 2)) / sequences


def device_steps(t: Training, values: Callable) -> DeviceSteps | None:
    """How a GPU that holds all frames takes the steps, or None. values: `values_at` of a step."""
    if t.batches.resident is None:
        return None
    alone = distributed.processes() == 1
    recorder = Recorder() if t.settings.cuda_graph and alone else None
    given = t.stage, t.batches, t.stepper, recorder, t.progress.warn
    return DeviceSteps(partial(take_step, t), values, *given)


def end_of_epoch(t: Training, epoch: int, annealed: Annealed, log) -> None:
    """Show and log the losses of `epoch`. At the test interval also validate, warn and draw."""
    c, last = t.settings, epoch == t.settings.epochs - 1
    means = {name: torch.stack(v).mean(0).tolist() for name, v in t.place.losses.items()}
    t.progress.epoch(epoch + 1, c.epochs, means)
    values = annealed.weights | {"temperature": annealed.temperature}
    schedules = {t.stage.TAGS.get(name, f"{name} anneal"): v for name, v in values.items()}
    log_epoch(log, epoch, means, schedules, t.stepper.last_step())
    if epoch % c.model_test_interval and not last:
        return
    t.stage.network.eval()
    losses = validation_loss(t.stage, t.validation, annealed)
    elbo = -sum(losses.values())
    for term, value in (losses | {"ELBO": elbo}).items():
        log("held out/" + term, value, epoch)
    t.progress.say(f"  validation: ELBO {elbo:.1f} nats per sequence, with all KL weights at 1")
    if guards.saves(c, epoch) and elbo > (t.place.best or (0, -float("inf")))[1]:
        t.place.best = epoch, elbo
    if not too_early(t.place.step, t.steps):
        t.progress.trouble(t.stage.warnings(t.validation, losses, annealed))
    # A view keeps codes, so that each set of weights needs its own.
    view = t.view if last else t.stage.view()
    with undisturbed(t.device):
        draw_stage(t.stage, view, t.dataset, t.batches, t.folder.images, epoch, log, last)
    t.stage.network.train()


def save_if_due(t: Training, saver: Saver, epoch: int, ends: bool, annealed, leaving) -> None:
    """Write a checkpoint if an epoch, a number of steps or a signal asks for one."""
    c, step = t.settings, t.place.step
    after_epoch = ends and guards.saves(c, epoch)
    within_epoch = c.save_every_steps and step % c.save_every_steps == 0
    if after_epoch or within_epoch or leaving:
        guards.raise_not_finite(t.stepper, t.place, t.stage, t.batches, annealed, saving=True)
        path = t.folder.checkpoint_at(t.info.name, *divmod(step, c.bs_per_epoch))
        if after_epoch:
            path = t.folder.checkpoint(t.info.name, epoch)
        state = state_of(t.stage, t.stepper, t.place, t.dataset.fingerprint, t.device)
        best = t.place.best[0] if t.place.best else None
        spared = best, getattr(c, t.info.pretrained)
        if distributed.rank() == 0:
            saver.save(path, state, [epoch for epoch in spared if epoch is not None])
    saver.check()


def build(settings: RunSettings, info: StageInfo, folder: RunFolder) -> Stage:
    """The stage with fresh weights, over the checkpoint of the stage that it stands on."""
    torch.manual_seed(settings.seed)
    earlier = None
    if info.stands_on:
        below = settings.info(info.stands_on)
        path = folder.choose(below.name, getattr(settings, below.pretrained))
        assert path is not None, "refuse_missing_earlier_stage has checked"
        state = folder.load(path, below.name)
        check_sizes(state, path, settings, below.sizes)
        earlier = state["model"]
    return info.stage().build(settings, earlier)


def make_batches(settings, info, dataset, device, validation: bool) -> Batches:
    """The batches of the training split, or of the validation split, for one stage.

    With --fidelity release, VDSM draws its training batches as the release does, and MUG-FED trains
    on its test clips, whose windows are drawn once for the whole run.
    """
    c, on_test = settings, settings.trains_on_test and not validation
    clips = dataset.split("val" if validation else "test" if on_test else "train")
    joined = c.clips_per_sample_of(info.name, dataset)
    seed = c.seed, c.number(info.name) - 1, validation
    flips = dataset.flips and info.frames_only and not validation
    distinct, group = c.distinct_batches and not validation, dataset.group
    given = c.seq_len, c.batch_size, group, joined, seed, flips, on_test, distinct
    return Batches(clips, device, *given)


def resume(newest: Path | None, info, folder, stage, stepper, device) -> Place:
    """Restore stage, optimiser and random state from checkpoint `newest`; returns the `Place`."""
    if newest is None:
        return Place()
    state = folder.load(newest, info.name)
    stage.network.load_state_dict(state["model"])
    moments = stepper.adam_state(state["optimizer"], stage.network)
    stepper.adam.load_state_dict(moments)
    place = Place.of(state, stage.settings.bs_per_epoch, device)
    if place.step and not moments["state"]:
        print(f"{newest} holds no state of Adam that fits its tensors: Adam starts afresh")
    set_rng_state(state["rng"], device)
    return place
