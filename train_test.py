"""The one loop: epochs, schedules, checkpoints and test pictures, for both VDSM stages."""

import math
import shlex
import time
from contextlib import contextmanager

import numpy as np
import torch

import data
from data.batches import FrameStore, Sampler
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
from utils.config import STAGES, differences
from utils.drawing import draw_stage
from utils.errors import UserError
from utils.progress import Progress
from utils.step import Stepper, choose_device, learning_rate

HELD_OUT_BATCHES = 4
SCALARS = {"s": "id anneal", "z": "zt anneal", "d": "dynamics anneal", "temperature": "id temp"}  # names of the release


def run(plan, argv):
    """Do what the plan asks for: train its stages in order, or test. argv is the command's flags, for the messages."""
    first = plan.stages[STAGES[0]]
    device = choose_device(first.device, first.threads)
    if not plan.training:
        return test(plan, device)
    settings = plan.stages[plan.training[0]]
    folder = RunFolder(settings)
    if settings.fresh:
        for kept in folder.set_aside():
            print(f"kept the old run as {kept}")
    sets = {stage: _load(plan.stages[stage], stage) for stage in plan.training}
    _refuse_other_run(plan, folder, sets)
    _refuse_missing_encdec(plan, folder)
    folder.make()
    folder.save_settings({stage: plan.stages[stage] for stage in plan.training})
    for stage in plan.training:
        train(plan.stages[stage], stage, sets[stage], folder, device, argv)
    return None


def _load(settings, stage):
    dataset = data.load(settings)
    if stage == "Seq" or dataset.clips_per_sample == 1:
        dataset.need_frames(settings.seq_len)
    return dataset


def _refuse_other_run(plan, folder, sets):
    """A folder that holds another run is not resumed silently."""
    saved = folder.saved_settings()
    for stage in plan.training:
        if not folder.epochs(stage):
            continue
        wrong = differences(saved.get(stage, {}), plan.stages[stage])
        if wrong:
            said = ", ".join(
                f"--{n} was {saved[stage][n]} and is {getattr(plan.stages[stage], n)}" for n in wrong[:6]
            ) + (f" and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            raise UserError(
                f"{folder.root} holds another run ({said}): give its flags to go on with it, another --RUN, "
                "or --fresh True to start over and keep the old"
            )
        known = load_checkpoint(folder.choose(stage)).get("data")
        if known and known != sets[stage].fingerprint:
            raise UserError(
                f"{folder.root} was trained on other data of the name {sets[stage].name}: give another --RUN, "
                "or --fresh True to start over and keep the old"
            )


def _refuse_missing_encdec(plan, folder):
    """Stage 2 needs a stage-1 checkpoint of its own sizes: said before anything is made or trained."""
    if plan.training[0] != "Seq":
        settings = plan.stages["Seq"]
        if "Seq" in plan.training:
            wrong = [n for n in SIZES if getattr(settings, n) != getattr(plan.stages["EncDec"], n)]
            if wrong:
                raise UserError(f"the stages differ in --{', --'.join(wrong)}: give both the same")
            number, last = settings.pretrained_model_VDSMEncDec, plan.stages["EncDec"].epochs - 1
            if number not in (None, last):
                raise UserError(f"--pretrained_model_VDSMEncDec {number}: stage 1 of this command leaves {last}")
        return
    settings = plan.stages["Seq"]
    path = folder.choose("EncDec", settings.pretrained_model_VDSMEncDec)
    if path is None:
        raise UserError(
            f"stage 2 needs a stage-1 checkpoint in {folder.checkpoints}: train one first (--train_VDSMEncDec True)"
        )
    check_sizes(load_checkpoint(path), path, settings, SIZES)


def build(stage, settings, folder, dataset=None):
    """The stage with fresh weights; stage 2 over the stage-1 checkpoint that the settings name."""
    torch.manual_seed(settings.seed)
    if stage == "EncDec":
        train_clips = dataset and dataset.split("train")
        mean = train_clips and _mean_colour(train_clips)
        return EncDecStage(settings, mean)
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
    stage = build(name, settings, folder, dataset).to(device)
    number = STAGES.index(name)
    splits = {s: FrameStore(dataset.split(s), device) for s in ("train", "val")}
    group, joined = (dataset.group, dataset.clips_per_sample) if name == "EncDec" else (None, 1)
    samplers = {
        s: Sampler(store.clips, settings.seq_len, group, joined, (settings.seed, number, s == "val"))
        for s, store in splits.items()
    }
    stage.start_from(samplers["train"], splits["train"])
    stepper = Stepper(stage.trainable(), settings.clip_grad)
    curves = schedules(settings)
    rate, begin = stage.rate, 0
    newest = folder.choose(name)
    torch.manual_seed(settings.seed + 1 + number)  # the noise's own stream, whatever initialisation drew
    if newest is not None:
        state = load_checkpoint(newest)
        begin = state["epoch"]
        stage.network.load_state_dict(state["model"])
        stepper.adam.load_state_dict(state["optimizer"])
        set_rng_state(state["rng"], device)
        rate = settings.lr_resume or rate
        print(f"stage {number + 1}: going on after epoch {begin - 1} from {newest}")
    elif settings.lr_resume and settings.fidelity == "release":
        rate = settings.lr_resume  # the release applies it to fresh runs too
    total = settings.epochs * settings.bs_per_epoch
    progress = Progress(f"stage {number + 1}", begin * settings.bs_per_epoch, total, settings.quiet)
    with _scalars(folder, name, settings.tboard_log) as log:
        for epoch in range(begin, settings.epochs):
            weights = {key: float(curve[epoch]) for key, curve in curves.items()}
            stage.network.train()
            losses = []
            for step in range(epoch * settings.bs_per_epoch, (epoch + 1) * settings.bs_per_epoch):
                terms, clips = stage.loss(samplers["train"], splits["train"], step, weights)
                loss = sum(term.weighted for term in terms.values())
                losses.append(torch.stack([part.detach() for term in terms.values() for part in term]) / clips)
                stepper(loss, learning_rate(rate, step, total, settings.lr_warmup, settings.lr_final))
                if device.type == "cpu":
                    _refuse_nan(losses[-1:], terms, folder, name, epoch, rate, argv)
                progress.step()
            _refuse_nan(losses, terms, folder, name, epoch, rate, argv)
            means = torch.stack(losses).mean(0).tolist()
            shown = {term: (means[2 * i], means[2 * i + 1]) for i, term in enumerate(terms)}
            progress.epoch(epoch + 1, settings.epochs, shown)
            last = epoch == settings.epochs - 1
            _log_epoch(log, epoch, shown, weights)
            if epoch % settings.model_test_interval == 0 or last:
                stage.network.eval()
                held_out = held_out_loss(stage, samplers["val"], splits["val"], weights)
                for term, value in held_out.items():
                    log("held out/" + term, value, epoch)
                progress.say(f"  held out: ELBO {-sum(held_out.values()):.1f} nats a sequence at weights 1")
                with _undisturbed(device):
                    draw_stage(stage, dataset, samplers["train"], splits["train"], folder.images, epoch, log, last)
            if (epoch > 0 and epoch % settings.model_save_interval == 0) or last:
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
    print(f"stage {number + 1}: done; checkpoints in {folder.checkpoints}, pictures in {folder.images}")


def _refuse_nan(losses, terms, folder, name, epoch, rate, argv):
    """Stop, before anything is saved, at the first loss that is not finite, and name its term and the way on."""
    values = torch.stack(losses)
    if math.isfinite(values.sum().item()):
        return
    bad = ~torch.isfinite(values[(~torch.isfinite(values)).any(1).nonzero()[0, 0]])
    term = list(terms)[int(bad.nonzero()[0, 0]) // 2]
    kept = folder.choose(name)
    flags = list(argv)
    if "--lr_resume" in flags:
        at = flags.index("--lr_resume")
        del flags[at : at + 2]
    command = shlex.join(["python", "main.py", *flags, "--lr_resume", f"{rate / 2:g}"])
    start = f"{kept} is whole" if kept else "no checkpoint yet, so it starts over"
    raise UserError(
        f"stage {STAGES.index(name) + 1}: the term '{term}' is not finite in epoch {epoch} ({start}); go on with: {command}"
    )


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


@contextmanager
def _scalars(folder, name, wanted):
    """A function log(tag, value or picture, epoch) that writes to TensorBoard, or nowhere."""
    if not wanted:
        yield lambda tag, value, epoch: None
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    with SummaryWriter(str(folder.tensorboard / name)) as writer:

        def log(tag, value, epoch):
            if isinstance(value, np.ndarray):
                writer.add_image(tag, value, epoch, dataformats="HWC")
            else:
                writer.add_scalar(tag, value, epoch)

        yield log


def _log_epoch(log, epoch, shown, weights):
    log("total loss", sum(weighted for _, weighted in shown.values()), epoch)
    for term, (raw, weighted) in shown.items():
        log("loss/" + term, raw, epoch)
        log("weighted loss/" + term, weighted, epoch)
    for key, value in weights.items():
        log(SCALARS[key], value, epoch)


def test(plan, device):
    """Draw the test pictures (and measure, with --evaluate) from the checkpoints that the flags name, else the newest."""
    settings = plan.stages["EncDec"]
    folder = RunFolder(settings)
    path = folder.choose("EncDec", settings.pretrained_model_VDSMEncDec)
    if path is None:
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
        folder.make()
        stage = EncDecStage(settings) if name == "EncDec" else SeqStage(settings, EncDec(settings))
        stage.network.load_state_dict(state["model"])
        stage.to(device).network.eval()
        epoch = state["epoch"] - 1
        torch.manual_seed(settings.seed)
        draw_stage(stage, dataset, None, None, folder.images, epoch, lambda *_: None, True)
        if settings.evaluate != "none":
            evaluate(stage.view(), name, dataset, folder, settings, device)
        print(f"tested {path}: pictures of epoch {epoch} in {folder.images}")
    print(f"done in {time.monotonic() - began:.0f} s")
