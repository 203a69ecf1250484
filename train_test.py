"""The one loop: epochs, schedules, checkpoints and test pictures, for both VDSM stages."""

import time
from contextlib import contextmanager

import numpy as np
import torch

import data
from data.batches import FrameStore, Sampler
from export import export
from metrics.evaluate import evaluate
from models.vdsm.encdec import EncDec
from models.vdsm.stages import EncDecStage, SeqStage
from utils.annealing import schedules
from utils.checkpoints import (
    SIZES,
    SIZES_SEQ,
    RunFolder,
    check_sizes,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from utils.config import STAGES
from utils.drawing import draw_stage
from utils.errors import UserError
from utils.guards import not_finite, refuse_export, refuse_missing_encdec, refuse_other_run, saves, stop_not_finite
from utils.progress import Progress, tensorboard
from utils.step import Stepper, choose_device, learning_rate

HELD_OUT_BATCHES = 4
SCALARS = {"s": "id anneal", "z": "zt anneal", "d": "dynamics anneal", "temperature": "id temp"}  # names of the release


def run(plan, argv):
    """Do what the plan asks for: train its stages in order, or test. argv is the command's flags, for the messages."""
    settings = plan.stages[(plan.training or STAGES)[0]]
    device = choose_device(settings.device, settings.threads)
    folder = RunFolder(settings)
    refuse_export(plan, folder)
    if not plan.training:
        return test(plan, folder, device)
    sets = {stage: _load(plan.stages[stage], stage) for stage in plan.training}
    encdec = refuse_missing_encdec(plan, folder)
    if settings.fresh:
        for kept in folder.set_aside(encdec):
            print(f"kept the old run as {kept}")
    else:
        refuse_other_run(plan, folder, {stage: dataset.fingerprint for stage, dataset in sets.items()})
    if encdec and not folder.epochs("Seq") and not settings.quiet:
        print(f"stage 2 stands on {encdec}")
    folder.make(plan.stages["Seq"].export_codes)
    folder.save_settings({stage: plan.stages[stage] for stage in plan.training})
    for stage in plan.training:
        train(plan.stages[stage], stage, sets[stage], folder, device, argv)
    return None


def _load(settings, stage):
    dataset = data.load(settings)
    if stage == "Seq" or dataset.clips_per_sample == 1:
        dataset.need_frames(settings.seq_len)
    return dataset


def build(stage, settings, folder, dataset):
    """The stage with fresh weights; stage 2 over the stage-1 checkpoint that the settings name."""
    torch.manual_seed(settings.seed)
    if stage == "EncDec":
        return EncDecStage(settings, _mean_colour(dataset.split("train")))
    encdec = EncDec(settings)
    path = folder.choose("EncDec", settings.pretrained_model_VDSMEncDec)
    state = load_checkpoint(path)
    check_sizes(state, path, settings, SIZES)
    encdec.load_state_dict(state["model"])
    return SeqStage(settings, encdec)


def _mean_colour(clips):
    some = np.unique(np.linspace(0, len(clips) - 1, 256).astype(int))
    return torch.from_numpy(clips.take(some).mean((0, 1, 2, 3)) / 255).float().clamp(1e-3, 1 - 1e-3)


def train(settings, name, dataset, folder, device, argv):
    """Train stage `name` from its newest checkpoint, or from the start, to the last epoch; test and save at the intervals."""
    number, newest = STAGES.index(name), folder.choose(name)
    stage = build(name, settings, folder, dataset).to(device)
    source = {"train": "test" if settings.trains_on_test else "train", "val": "val"}
    splits = {s: FrameStore(dataset.split(of), device) for s, of in source.items()}
    group, joined = (dataset.group, dataset.clips_per_sample) if name == "EncDec" else (None, 1)
    ways = {"train": {"flips": dataset.flips and name == "EncDec", "frozen": settings.trains_on_test}, "val": {}}
    samplers = {
        s: Sampler(store.clips, settings.seq_len, group, joined, (settings.seed, number, s == "val"), **ways[s])
        for s, store in splits.items()
    }
    if newest is None:
        stage.start_from(samplers["train"], splits["train"])
    stepper = Stepper(stage.trainable(), settings.clip_grad)
    torch.manual_seed(settings.seed + 1 + number)  # the noise's own stream, whatever initialisation drew
    begin = resume(newest, stage, stepper, device)
    rate = stage.rate
    if settings.lr_resume is not None and (newest or settings.fidelity == "release"):
        rate = settings.lr_resume  # the release applies it to fresh runs too
    curves = schedules(settings)
    total = settings.epochs * settings.bs_per_epoch
    progress = Progress(f"stage {number + 1}", begin * settings.bs_per_epoch, total, settings.quiet)
    if newest is not None:
        progress.say(f"stage {number + 1}: epoch {begin - 1} of {settings.epochs - 1} is done ({newest})")
    with tensorboard(folder.tensorboard / name, settings.tboard_log and begin < settings.epochs, begin) as log:
        for epoch in range(begin, settings.epochs):
            weights = {key: float(curve[epoch]) for key, curve in curves.items()}
            stage.network.train()
            losses, bad = [], None
            for step in range(epoch * settings.bs_per_epoch, (epoch + 1) * settings.bs_per_epoch):
                terms, clips = stage.loss(samplers["train"], splits["train"], step, weights)
                loss = sum(term.weighted for term in terms.values())
                losses.append(torch.stack([part.detach() for term in terms.values() for part in term]) / clips)
                stepper(loss, learning_rate(rate, step, total, settings.lr_warmup, settings.lr_final))
                progress.step()
                if device.type == "cpu" and (bad := not_finite(losses[-1:], terms)):  # a GPU is asked once an epoch
                    break
            if bad := bad or not_finite(losses, terms, stepper.parameters):
                raise stop_not_finite(bad, argv, name, settings, epoch, rate, folder.choose(name))
            means = torch.stack(losses).mean(0).tolist()
            shown = {term: (means[2 * i], means[2 * i + 1]) for i, term in enumerate(terms)}
            progress.epoch(epoch + 1, settings.epochs, shown)
            _log_epoch(log, epoch, shown, weights)
            last = epoch == settings.epochs - 1
            if epoch % settings.model_test_interval == 0 or last:
                stage.network.eval()
                held_out = held_out_loss(stage, samplers["val"], splits["val"], weights)
                for term, value in held_out.items():
                    log("held out/" + term, value, epoch)
                log("held out/ELBO", -sum(held_out.values()), epoch)
                progress.say(f"  held out: ELBO {-sum(held_out.values()):.1f} nats a sequence at weights 1")
                with _undisturbed(device):
                    draw_stage(stage, dataset, samplers["train"], splits["train"], folder.images, epoch, log, last)
            if saves(settings, epoch):
                state = {
                    "epoch": epoch + 1,
                    "model": stage.network.state_dict(),
                    "optimizer": stepper.adam.state_dict(),
                    "settings": dict(vars(settings)),
                    "data": dataset.fingerprint,
                    "rng": rng_state(device),
                }
                save_checkpoint(folder.checkpoint(name, epoch), state)
    progress.close()
    if settings.evaluate != "none":
        stage.network.eval()
        evaluate(stage.view(), name, dataset, folder, settings, device)
    if settings.export_codes and name == "Seq":
        export(stage.view(), dataset, folder, settings, folder.choose(name))
    progress.say(f"stage {number + 1}: done; checkpoints in {folder.checkpoints}, pictures in {folder.images}")


def resume(newest, stage, stepper, device):
    """Put the stage, its optimiser and the noise where checkpoint `newest` left them; returns the epoch to begin with (0 if None)."""
    if newest is None:
        return 0
    state = load_checkpoint(newest)
    stage.network.load_state_dict(state["model"])
    stepper.adam.load_state_dict(stepper.adam_state(state["optimizer"], stage.network))
    if not stepper.adam.state:
        print(f"{newest} holds no state of Adam that fits its tensors: Adam starts afresh")
    if state["rng"] is not None:
        set_rng_state(state["rng"], device)
    return state["epoch"]


@torch.no_grad()
def held_out_loss(stage, sampler, store, weights):
    """{term: nats a sequence} of the ELBO's terms on fixed held-out batches, every weight 1; disturbs no generator."""
    plain = {key: value if key == "temperature" else 1.0 for key, value in weights.items()}
    with _undisturbed(store.device):
        torch.manual_seed(0)
        sums = {}
        for step in range(HELD_OUT_BATCHES):
            terms, clips = stage.loss(sampler, store, step, plain)
            for term, (raw, _) in terms.items():
                sums[term] = sums.get(term, 0.0) + raw.item() / clips / HELD_OUT_BATCHES
    return sums


@contextmanager
def _undisturbed(device):
    """What is drawn inside leaves the training noise as it was."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


def _log_epoch(log, epoch, shown, weights):
    log("total loss", sum(weighted for _, weighted in shown.values()), epoch)
    for term, (raw, weighted) in shown.items():
        log("loss/" + term, raw, epoch)
        log("weighted loss/" + term, weighted, epoch)
    for key, value in weights.items():
        log(SCALARS[key], value, epoch)


def test(plan, folder, device):
    """Draw the test pictures (and measure, with --evaluate, or export, with --export_codes) from the checkpoints that the
    flags name, else the newest."""
    settings = plan.stages["EncDec"]
    path = folder.choose("EncDec", settings.pretrained_model_VDSMEncDec)
    if path is None and not settings.export_codes:
        raise UserError(
            f"nothing to test in {folder.checkpoints}: train first (--train_VDSMEncDec True), or give the run's --RUN"
        )
    began = time.monotonic()
    for name, sizes in zip(STAGES, (SIZES, SIZES_SEQ)):
        settings = plan.stages[name]
        path = folder.choose(name, getattr(settings, f"pretrained_model_VDSM{name}"))
        if path is None:
            continue
        state = load_checkpoint(path)
        check_sizes(state, path, settings, sizes)
        dataset = _load(settings, name)
        folder.make(settings.export_codes)
        stage = EncDecStage(settings) if name == "EncDec" else SeqStage(settings, EncDec(settings))
        stage.network.load_state_dict(state["model"])
        stage.to(device).network.eval()
        epoch = state["epoch"] - 1
        torch.manual_seed(settings.seed)
        draw_stage(stage, dataset, None, None, folder.images, epoch, lambda *_: None, True)
        if settings.evaluate != "none":
            evaluate(stage.view(), name, dataset, folder, settings, device)
        if settings.export_codes and name == "Seq":
            export(stage.view(), dataset, folder, settings, path)
        print(f"tested {path}: pictures of epoch {epoch} in {folder.images}")
    print(f"done in {time.monotonic() - began:.0f} s")
