"""The one loop: epochs, schedules, checkpoints and test pictures, for every model and each of its stages."""

import sys
import time
from contextlib import closing

import torch

import data
from data.batches import FrameStore, Sampler
from export import export
from metrics.evaluate import evaluate, need_labels
from models.vdsm.collapse import collapsed, may_sleep
from pictures.drawing import draw_stage
from utils.checkpoints import (
    Place,
    RunFolder,
    Saver,
    check_sizes,
    load_checkpoint,
    set_rng_state,
    state_of,
    undisturbed,
)
from utils.errors import UserError
from utils.guards import (
    NotFinite,
    raise_not_finite,
    recover,
    refuse_damaged,
    refuse_export,
    refuse_missing_encdec,
    refuse_other_data,
    refuse_other_run,
    saves,
)
from utils.lock import only_run
from utils.origin import origin
from utils.progress import Progress, tensorboard
from utils.signals import Signals
from utils.step import Stepper, choose_device, learning_rate

HELD_OUT_BATCHES = 4
SCALARS = {
    "s": "id anneal",
    "z": "zt anneal",
    "d": "dynamics anneal",
    "temperature": "id temp",
}  # names of the release


def run(plan, argv):
    """Do what the plan asks for: train its stages in order, or test. argv is the command's flags, for the messages."""
    settings = plan.first
    device = choose_device(settings.device, settings.threads)
    folder = RunFolder(settings)
    folder.inspect()
    if not settings.fresh:
        refuse_damaged(plan, folder)
    refuse_export(plan, folder)
    if not plan.training:
        return test(plan, folder, device)
    sets = {stage: _load(plan.stages[stage], stage) for stage in plan.training}
    encdec = refuse_missing_encdec(plan, folder)
    if not settings.fresh:
        refuse_other_run(
            plan, folder, {stage: dataset.fingerprint for stage, dataset in sets.items()}
        )
    with only_run(folder.root, settings.override_lock) as alone, Signals() as signals:
        if settings.fresh:
            for kept in folder.set_aside(encdec):
                print(f"kept the old run as {kept}")
        if encdec and not folder.newest("Seq") and not settings.quiet:
            print(f"stage 2 stands on {encdec}")
        folder.make(any(settings.export_codes for settings in plan.stages.values()))
        _put_away(folder)
        if alone:
            folder.sweep()
        folder.save_settings({stage: plan.stages[stage] for stage in plan.training})
        for stage in plan.training:
            train(plan.stages[stage], stage, sets[stage], folder, device, argv, signals)
    return None


def _put_away(folder):
    for line in folder.put_away():
        print(f"main.py: {line}", file=sys.stderr)


def _load(settings, stage):
    dataset = data.load(settings)
    if settings.joined(stage, dataset) == 1:
        dataset.need_frames(settings.seq_len)
    need_labels(settings, dataset)
    return dataset


def build(stage, settings, folder, dataset):
    """The stage with fresh weights, over the checkpoint, which the settings name, of the stage that it stands on."""
    torch.manual_seed(settings.seed)
    info, earlier = settings.info(stage), None
    if info.stands_on:
        under = settings.info(info.stands_on)
        path = folder.choose(under.name, getattr(settings, under.pretrained))
        state = load_checkpoint(path)
        check_sizes(state, path, settings, under.sizes)
        earlier = state["model"]
    return info.stage().build(settings, dataset.split("train"), earlier)


def train(settings, name, dataset, folder, device, argv, signals):
    """Train stage `name` from its newest checkpoint, or from the start, to the last epoch; test and save at the intervals.

    Where a loss or gradient is not finite, once more from there at a lower learning rate.
    """
    info, number, lowered = settings.info(name), settings.number(name), None
    progress = Progress(
        f"stage {number}", 0, settings.epochs * settings.bs_per_epoch, settings.quiet, folder.log
    )
    with closing(progress):
        while True:
            try:
                stage = attempt(settings, name, dataset, folder, device, progress, signals, lowered)
                break
            except NotFinite as bad:
                lowered = recover(bad, settings, name, folder, argv, progress.warn)
    if settings.measured:
        stage.network.eval()
        evaluate(stage.view(), info, dataset, folder, settings, device, settings.epochs - 1)
    if settings.export_codes and info is settings.STAGES[-1]:
        export(stage.view(), dataset, folder, settings, folder.choose(name))
    progress.say(
        f"stage {number}: done; checkpoints in {folder.checkpoints}, pictures in {folder.images}"
    )


def attempt(settings, name, dataset, folder, device, progress, signals, lowered):
    """The loop over a stage's steps, from the newest checkpoint on; returns the trained stage. `NotFinite` ends it.

    lowered: the `Place` with the learning rate to take after that, or None.
    """
    info, number, newest = settings.info(name), settings.number(name), folder.newest(name)
    stage = build(name, settings, folder, dataset).to(device)
    source = {"train": "test" if settings.trains_on_test else "train", "val": "val"}
    splits = {s: FrameStore(dataset.split(of), device) for s, of in source.items()}
    joined = settings.joined(name, dataset)
    ways = {
        "train": {"flips": dataset.flips and name == "EncDec", "frozen": settings.trains_on_test},
        "val": {},
    }
    samplers = {
        s: Sampler(
            store.clips,
            settings.seq_len,
            dataset.group,
            joined,
            (settings.seed, number - 1, s == "val"),
            **ways[s],
        )
        for s, store in splits.items()
    }
    if newest is None:
        stage.start_from(samplers["train"], splits["train"])
    stepper = Stepper(stage.trainable(), settings.clip_grad)
    torch.manual_seed(
        settings.seed + number
    )  # the noise's own stream, whatever initialisation drew
    place = resume(newest, stage, stepper, device)
    place.train_at(first_rate(settings, info, newest), lowered)
    curves, total = stage.schedules(), settings.epochs * settings.bs_per_epoch
    begin, more = divmod(place.step, settings.bs_per_epoch)
    progress.begin(place.step)
    if newest is not None:
        steps = f" and {more} steps of the next" if more else ""
        progress.say(
            f"stage {number}: epoch {begin - 1} of {settings.epochs - 1} is done{steps} ({newest})"
        )
    with (
        signals.patiently(),
        Saver(folder, name, settings.keep_checkpoints) as saver,
        tensorboard(
            folder.tensorboard / name,
            settings.tboard_log and place.step < total,
            begin,
            origin(device),
        ) as log,
    ):
        while place.step < total:
            epoch = place.step // settings.bs_per_epoch
            weights = {key: float(curve[epoch]) for key, curve in curves.items()}
            stage.network.train()
            terms, clips = stage.loss(samplers["train"], splits["train"], place.step, weights)
            loss = stage.objective(terms, clips)
            place.losses.append(
                torch.stack([part.detach() for term in terms.values() for part in term]) / clips
            )
            rate = place.rate * place.scale
            stepper(
                loss, learning_rate(rate, place.step, total, settings.lr_warmup, settings.lr_final)
            )
            place.step += 1
            progress.step()
            ends = place.step % settings.bs_per_epoch == 0
            if ends or device.type == "cpu":  # a GPU is asked once an epoch
                raise_not_finite(stepper, place, stage, terms, samplers["train"], weights)
            if ends:
                means = torch.stack(place.losses).mean(0).tolist()
                place.losses = []
                shown = {term: (means[2 * i], means[2 * i + 1]) for i, term in enumerate(terms)}
                progress.epoch(epoch + 1, settings.epochs, shown)
                _log_epoch(log, epoch, shown, weights)
                last = epoch == settings.epochs - 1
                if epoch % settings.model_test_interval == 0 or last:
                    stage.network.eval()
                    held_out = held_out_loss(stage, samplers["val"], splits["val"], weights)
                    elbo = -sum(held_out.values())
                    for term, value in held_out.items():
                        log("held out/" + term, value, epoch)
                    log("held out/ELBO", elbo, epoch)
                    progress.say(f"  held out: ELBO {elbo:.1f} nats a sequence at weights 1")
                    if saves(settings, epoch) and (place.best is None or elbo > place.best[1]):
                        place.best = epoch, elbo
                    if not may_sleep(place.step, total):
                        s = stage.identities(samplers["val"], splits["val"], HELD_OUT_BATCHES)
                        progress.trouble(collapsed(name, s, weights.get("temperature"), held_out))
                    with undisturbed(device):
                        draw_stage(
                            stage,
                            dataset,
                            samplers["train"],
                            splits["train"],
                            folder.images,
                            epoch,
                            log,
                            last,
                        )
            finished, leaving = ends and saves(settings, epoch), signals.asked
            due = settings.save_every_steps and place.step % settings.save_every_steps == 0
            if finished or due or leaving:
                raise_not_finite(
                    stepper, place, stage, terms, samplers["train"], weights, saving=True
                )
                at = divmod(place.step, settings.bs_per_epoch)
                path = (
                    folder.checkpoint(name, epoch) if finished else folder.checkpoint_at(name, *at)
                )
                spared = place.best and place.best[0], getattr(settings, info.pretrained)
                saver.save(
                    path, state_of(stage, stepper, place, dataset.fingerprint, device), spared
                )
            saver.check()
            if leaving:
                break  # the end of the block waits for the checkpoint, then obeys
    return stage


def first_rate(settings, info, newest):
    """The stage's learning rate; --lr_resume's where it resumes (the release: at a start too)."""
    if settings.lr_resume is not None and (newest or settings.fidelity == "release"):
        return settings.lr_resume
    return getattr(settings, info.rate)


def resume(newest, stage, stepper, device):
    """Put the stage, its optimiser and the noise where checkpoint `newest` left them; returns the `Place` (the start if None)."""
    if newest is None:
        return Place()
    state = load_checkpoint(newest)
    stage.network.load_state_dict(state["model"])
    stepper.adam.load_state_dict(stepper.adam_state(state["optimizer"], stage.network))
    if not stepper.adam.state:
        print(f"{newest} holds no state of Adam that fits its tensors: Adam starts afresh")
    if state["rng"] is not None:
        set_rng_state(state["rng"], device)
    return Place.of(state, stage.settings, device)


@torch.no_grad()
def held_out_loss(stage, sampler, store, weights):
    """{term: nats a sequence} of the ELBO's terms on fixed held-out batches, every weight 1; disturbs no generator."""
    plain = {key: value if key == "temperature" else 1.0 for key, value in weights.items()}
    with undisturbed(store.device):
        torch.manual_seed(0)
        sums = {}
        for step in range(HELD_OUT_BATCHES):
            terms, clips = stage.loss(sampler, store, step, plain)
            for term, (raw, _) in terms.items():
                sums[term] = sums.get(term, 0.0) + raw.item() / clips / HELD_OUT_BATCHES
    return sums


def _log_epoch(log, epoch, shown, weights):
    log("total loss", sum(weighted for _, weighted in shown.values()), epoch)
    for term, (raw, weighted) in shown.items():
        log("loss/" + term, raw, epoch)
        log("weighted loss/" + term, weighted, epoch)
    for key, value in weights.items():
        log(SCALARS.get(key, f"{key} anneal"), value, epoch)


def test(plan, folder, device):
    """Draw the test pictures (and measure, with --evaluate, or export, with --export_codes) from the checkpoints that the
    flags name, else the newest."""
    _put_away(folder)
    began = time.monotonic()
    for name, settings in plan.stages.items():
        info = settings.info(name)
        path = folder.choose(name, getattr(settings, info.pretrained))
        if path is None and settings.number(name) == 1 and not settings.export_codes:
            raise UserError(
                f"nothing to test in {folder.checkpoints}: train first (--{info.train} True), or give the run's --RUN"
            )
        if path is None:
            continue
        state = load_checkpoint(path)
        check_sizes(state, path, settings, info.sizes)
        dataset = _load(settings, name)
        if settings.measured:
            refuse_other_data(state, path, dataset)
        folder.make(settings.export_codes)
        stage = info.stage().build(settings)
        stage.network.load_state_dict(state["model"])
        stage.to(device).network.eval()
        epoch = state["epoch"] - 1
        torch.manual_seed(settings.seed)
        draw_stage(stage, dataset, None, None, folder.images, epoch, lambda *_: None, True)
        if settings.measured:
            evaluate(stage.view(), info, dataset, folder, settings, device, epoch)
        if settings.export_codes and info is settings.STAGES[-1]:
            export(stage.view(), dataset, folder, settings, path)
        print(f"tested {path}: pictures of epoch {epoch} in {folder.images}")
    print(f"done in {time.monotonic() - began:.0f} s")
