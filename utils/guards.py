"""What stops a command: a folder of another run, a missing earlier stage, a bad loss.

Torch is imported by the functions that need it, so that mistakes in the flags are told at once.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils import distributed
from utils.checkpoints import Place, check_sizes
from utils.errors import UserError
from utils.files import unused
from utils.flags import shown, without
from utils.lock import only_run, refuse_in_use
from utils.plan import Plan, differences
from utils.precision import refuse_without_gpu
from utils.run_folder import RunFolder
from utils.settings import RunSettings

NAMED = 6  # differing settings that a message names
NAN_LR_FACTOR = 0.5  # what the learning rate is multiplied by after a loss that is not finite


def saves(settings: RunSettings, epoch: int) -> bool:
    """Whether a checkpoint is written after `epoch`: at the interval, and after the last epoch.

    As in the release, none is written at the interval of epoch 0.
    """
    at_interval = epoch > 0 and epoch % settings.model_save_interval == 0
    return at_interval or epoch == settings.epochs - 1


# --- before torch is imported ---


def refuse_at_once(plan: Plan) -> None:
    """Raise UserError for what the machine and the names of files show, without torch.

    Looks for an absent GPU, precision or checkpoint, and a run that trains in the folder now.
    """
    settings, folder = plan.first, RunFolder(plan.first)
    if folder.unfinished():
        with only_run(folder.outermost, settings.override_lock) as alone:
            if alone:
                folder.finish_set_aside()
        folder = RunFolder(plan.first)  # it may find other checkpoints now
    refuse_without_gpu(settings.device, settings.precision)
    refuse_export(plan, folder)
    if not plan.training:
        to_test(plan, folder, without_torch=True)
        return
    refuse_best(plan)
    refuse_missing_earlier_stage(plan, folder)
    for name in plan.training:
        named_start(plan, name, folder)
        refuse_missing_file(plan.stages[name], name, folder)
    if not settings.override_lock:
        refuse_in_use(folder.outermost)


def refuse_best(plan: Plan) -> None:
    """Raise UserError if --select best is given to a command that trains."""
    if plan.training and any(settings.select == "best" for settings in plan.stages.values()):
        first = "train first, then give the same command with all train flags False"
        raise UserError(f"--select best is for a finished stage: {first}")


def refuse_missing_file(settings: RunSettings, stage_name: str, folder: RunFolder) -> None:
    """Raise UserError if a stage that starts lacks a file of `RunSettings.FILES_AT_START`."""
    if folder.newest(stage_name) and not settings.fresh:
        return
    for name, words in settings.FILES_AT_START.items():
        value, read_by = getattr(settings, name), settings.__dataclass_fields__[name].metadata
        if read_by["stage"] in (None, stage_name) and value not in words:
            if not Path(value).is_file():
                expected = f"expected {', '.join(words)} or a file"
                raise UserError(f"--{name} {value}: found no such file, {expected}: mend the path")


# --- before training or testing ---


def refuse_damaged(plan: Plan, folder: RunFolder) -> None:
    """Raise UserError if a stage that is needed has checkpoints but no whole one.

    Without this refusal the stage would silently start over.
    """
    needed = set(plan.asked) | {folder.stages[name].stands_on for name in plan.training}
    for path, why in folder.damaged.items():
        stage_name = folder.stage_of(path)
        if stage_name and stage_name in needed and not folder.newest(stage_name):
            lost = f"{path} {why}, and no other of its stage is whole"
            raise UserError(f"{lost}: move it away, or start over with --fresh True")


def refuse_other_run(plan: Plan, folder: RunFolder, datasets: dict) -> None:
    """Raise UserError if `folder` holds a run of other settings or data, which cannot be resumed.

    datasets: {stage name: data.base.Dataset} of the stages that train.
    """
    ways = "another --RUN, or --fresh True to start over and keep the old"
    extending = []
    for name, dataset in datasets.items():
        newest, _ = resumed(plan, name, folder)
        if newest is None:
            continue
        settings, state = plan.stages[name], folder.load(newest, name, mapped=True)
        saved, info = state["settings"], settings.info(name)
        if state["data"] is None:  # the release's files hold no settings but the sizes
            check_sizes(state, newest, settings, info.sizes)
            continue
        wrong = differences(saved, settings, name)
        if info.stands_on:  # the checkpoint holds the weights of the stage that it stands on
            flag = settings.info(info.stands_on).pretrained
            given = getattr(settings, flag)
            if given is not None and saved.get(flag) not in (None, given):
                wrong.append(flag)
        if wrong == ["epochs"] and saved["epochs"] < settings.epochs:
            prefix = f"stage{settings.number(name)}." if len(settings.STAGES) > 1 else ""
            span = saved.get("schedule_epochs") or saved["epochs"]
            extending.append((saved["epochs"], span, f"--{prefix}schedule_epochs {span}"))
        elif wrong:
            changes = ", ".join(_change(flag, saved, settings) for flag in wrong[:NAMED])
            more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
            found = f"{folder.root} holds another run ({changes}{more})"
            raise UserError(f"{found}: give its flags to resume it, {ways}")
        if not dataset.knows(state["data"]):
            data = f"other data of the name {dataset.name}"
            raise UserError(f"{folder.root} was trained on {data}: give {ways}")
    if extending:
        epochs, spans, flags = (" and ".join(map(str, part)) for part in zip(*extending))
        found = f"{folder.root} holds a run of {epochs} epochs, whose schedules span {spans}"
        extend = f"to extend it at their last values, add {flags}"
        raise UserError(f"{found}: {extend}; for schedules over all epochs, give {ways}")


def _change(flag, saved, settings):
    if not hasattr(settings, flag):
        return f"--{flag} {shown(saved[flag])} of an earlier version has no equal in this one"
    default = type(settings).__dataclass_fields__[flag].default  # of a flag that is new since
    was = shown(saved.get(flag, default))
    return f"--{flag} was {was} and is {shown(getattr(settings, flag))}"


def named_start(plan: Plan, stage_name: str, folder: RunFolder) -> Path | None:
    """The checkpoint that the command names for a stage that it trains: training goes on from it.

    None without a name, for the last one that the stage has yet to write, and where the next stage
    of the same command will stand on it. Raises UserError if there is no such checkpoint.
    """
    settings = plan.stages[stage_name]
    info = settings.info(stage_name)
    wanted = getattr(settings, info.pretrained)
    stood_on = {settings.info(name).stands_on for name in plan.training}
    if wanted is None or stage_name in stood_on:
        return None
    if not settings.fresh and wanted in folder.epochs(stage_name):
        return folder.checkpoint(stage_name, wanted)
    if wanted == settings.epochs - 1:
        return None
    if settings.fresh:
        given = f"--{info.pretrained} {wanted} names a checkpoint to go on from"
        raise UserError(f"{given}, and --fresh True starts over: leave one of them out")
    return folder.choose(stage_name, wanted)


def resumed(plan: Plan, stage_name: str, folder: RunFolder) -> tuple[Path | None, list[Path]]:
    """The checkpoint that a stage resumes, and the later ones, which are put aside first.

    This is the newest, unless the command names one (`named_start`) from which the newest was not
    made. A checkpoint's settings tell what the command that made it had named.
    """
    start, newest = named_start(plan, stage_name, folder), folder.newest(stage_name)
    if start is None or newest is None or newest == start:
        return newest, []
    settings, made = plan.stages[stage_name], folder.load(newest, stage_name, mapped=True)
    flag = settings.info(stage_name).pretrained
    if made["settings"].get(flag) == getattr(settings, flag):
        return newest, []
    folder.load(start, stage_name)  # Damaged, before anything is put aside
    paths = [path for _, path in folder.places(stage_name)]
    return start, paths[paths.index(start) + 1 :]


def keep_later(plan: Plan, stage_name: str, folder: RunFolder) -> Iterator[str]:
    """Put aside the checkpoints after the one that a stage resumes (`resumed`), and say so."""
    start, later = resumed(plan, stage_name, folder)
    kept = [path.rename(unused(path)) for path in later]
    if kept:
        more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        yield f"stage {plan.first.number(stage_name)} goes on from {start}: kept {kept[0]}{more}"


def refuse_other_data(state: dict, path: Path, dataset) -> None:
    """Raise UserError if a checkpoint to measure was trained on other data than `dataset`."""
    if state.get("data") is not None and not dataset.knows(state["data"]):
        raise UserError(
            f"{path} was trained on other data of the name {dataset.name}: give its --data_dir, "
            "--data_seed and --seq_len to measure it, or --evaluate none"
        )


def refuse_missing_earlier_stage(
    plan: Plan, folder: RunFolder, datasets: dict | None = None
) -> Path | None:
    """Raise UserError if a stage that trains lacks the stage that it stands on.

    Returns the checkpoint of the earlier stage, or None if the same command trains that stage.
    datasets: {stage name: data.base.Dataset} of the stages that train. None: do not look into the
    checkpoint.
    """
    for name in plan.training:
        settings = plan.stages[name]
        info = settings.info(name)
        if info.stands_on is None:
            continue
        earlier = settings.info(info.stands_on)
        wanted = getattr(settings, earlier.pretrained)
        if earlier.name in plan.training:
            _refuse_unlike(plan.stages[earlier.name], settings, earlier, wanted)
            continue
        path = folder.choose(earlier.name, wanted)
        if path is None:
            needed = f"a stage-{settings.number(earlier.name)} checkpoint in {folder.checkpoints}"
            number, flag = settings.number(name), f"--{earlier.train} True"
            raise UserError(f"stage {number} needs {needed}: train one first ({flag})")
        if datasets is None:
            return path
        names = [*earlier.sizes, "dataset_name"]
        # with another split, stage 2 would train on test clips of stage 1
        if datasets[name].split_flag:
            names.append(datasets[name].split_flag)
        check_sizes(folder.load(path, earlier.name, mapped=True), path, settings, names)
        return path
    return None


def _refuse_unlike(first, second, info, wanted):
    """Raise UserError if two stages of one command do not fit. info: of the first stage."""
    wrong = [n for n in info.sizes if shown(getattr(first, n)) != shown(getattr(second, n))]
    if wrong:
        raise UserError(f"the stages differ in --{', --'.join(wrong)}: give both the same")
    if wanted is not None and not (wanted < first.epochs and saves(first, wanted)):
        leaves = f"stage {first.number(info.name)} of this command leaves {first.epochs - 1}"
        raise UserError(f"--{info.pretrained} {wanted}: {leaves}: give that, or none")


def to_test(plan: Plan, folder: RunFolder, without_torch: bool = False) -> dict[str, Path]:
    """The checkpoints to test, {stage name: path}: those that the flags name, or the newest.

    A stage without a checkpoint is left out. Raises UserError if that is the first, unless codes
    are to be exported. without_torch: in place of --select best, take the newest.
    """
    paths = {}
    for name, settings in plan.stages.items():
        info = settings.info(name)
        wanted = getattr(settings, info.pretrained)
        path = folder.choose(name, wanted)
        if path and wanted is None and settings.select == "best" and not without_torch:
            path = folder.best(name)
        if path is not None:
            paths[name] = path
        elif settings.number(name) == 1 and not settings.export_codes:
            train_first = f"train first (--{info.train} True), or give the run's --RUN"
            raise UserError(f"nothing to test in {folder.checkpoints}: {train_first}")
    return paths


def refuse_export(plan: Plan, folder: RunFolder) -> None:
    """Raise UserError if --export_codes has no last stage to export: neither trained nor saved."""
    (name, settings), number = list(plan.stages.items())[-1], len(plan.stages)
    info = settings.info(name)
    if not settings.export_codes or name in plan.training:
        return
    if plan.training:
        raise UserError(
            f"--export_codes writes the codes of stage {number}: train it in the same command "
            f"(--{info.train} True), or export once it is trained, with all train flags False"
        )
    if folder.choose(name, getattr(settings, info.pretrained)) is None:
        raise UserError(
            f"--export_codes needs a stage-{number} checkpoint and there is none in "
            f"{folder.checkpoints}: train one (--{info.train} True), or give the run's --RUN"
        )


# --- during training: a loss or gradient that is not finite ---


class NotFinite(Exception):
    """A loss or gradient is not finite. No update was made from that step on.

    step: the optimiser step, counted over the stage. begun: the step at which this attempt at the
    stage began, None if its checkpoint is not to blame.
    """

    def __init__(self, what, step, begun, place):
        super().__init__(what)
        self.step, self.begun, self.place = step, begun, place


def raise_not_finite(stepper, place: Place, stage, batches, annealed, saving=False) -> None:
    """Raise `NotFinite` if the stepper has refused an update. Waits for the device.

    The message names the term or gradient, the losses and the clips of the bad step, and the
    schedules' values `annealed`. saving: also check the weights that the updates made.
    """
    import torch

    bad, begun = stepper.bad_step(), place.step - stepper.calls
    if bad is None:
        weights = (p.detach() for p in stepper.parameters)
        if saving and not torch.isfinite(torch.nn.utils.get_total_norm(weights)):
            what = "what an update made of the weights is not finite"
            raise NotFinite(what, place.step - 1, None, place)
        return
    bad += begun
    values = {term: steps[bad - place.step] for term, steps in place.losses.items()}
    losses = ", ".join(f"{term} {pair[0].item():.4g}" for term, pair in values.items())
    schedules = annealed.weights | {"temperature": annealed.temperature}
    at = ", ".join(f"{name} {v:.4g}" for name, v in schedules.items() if v is not None)
    clips = ", ".join(str(row) for row in np.unique(batches.draw(bad)[0]))
    where = f"losses per sequence: {losses}; weights: {at}; training clips {clips}"
    raise NotFinite(f"{_culprit(values, stage.network)} is not finite ({where})", bad, begun, place)


def _culprit(values, network):
    """What is not finite: the first such term, or the gradient of the first such parameter."""
    import torch

    for term, pair in values.items():
        if not torch.isfinite(pair).all():
            return f"the term '{term}' of the loss"
    for name, p in network.named_parameters():
        if p.grad is not None and not torch.isfinite(torch.linalg.vector_norm(p.grad)):
            return f"the loss's gradient at {name}"
    return "the loss's gradient"


def recover(bad: NotFinite, settings, stage_name: str, folder: RunFolder, argv, warn) -> Place:
    """The `Place` whose learning rate, scale and retries the next attempt at a stage takes.

    A checkpoint whose very first step failed is put away, so that the one before it is next. Raises
    UserError once --nan_retries are used up, and at once where the stage's very first step failed.
    warn: function that shows a line.
    """
    place, rate = bad.place, bad.place.rate * bad.place.scale
    (epoch, step), newest = divmod(bad.step, settings.bs_per_epoch), folder.newest(stage_name)
    if bad.step == bad.begun == 0:
        raise UserError(_at_the_start(bad, settings, stage_name))
    if place.retries >= settings.nan_retries:
        # at a start, --lr_resume counts with --fidelity release alone
        resumes = newest or settings.fidelity == "release"
        flag = "--lr_resume" if resumes else f"--{settings.info(stage_name).rate}"
        flags = [*without(without(argv, flag), "--fresh"), flag, f"{rate / 2:g}"]
        command = distributed.command(flags)
        start = f"{newest} is whole" if newest else "no checkpoint of this stage yet"
        what = _in_stage(bad, f"{settings.number(stage_name)}, epoch {epoch}")
        raise UserError(f"{what}; {start}; go on with: {command}")
    # so that the run ends as one that no signal has stopped
    for path in folder.left_by_signals(stage_name):
        folder.damaged[path] = "was left by a signal and not by the schedule"
    if bad.step == bad.begun:
        # also the checkpoint with a lowered rate that an earlier retry wrote at the same place
        for place_of_file, path in folder.places(stage_name):
            if place_of_file == (epoch, step):
                folder.damaged[path] = "leads to a loss that is not finite at once"
    folder.put_away(warn)
    newest = folder.newest(stage_name)
    back = f"back to {newest or 'the start'} at learning rate {rate * NAN_LR_FACTOR:g}"
    times = f"time {place.retries + 1} of {settings.nan_retries} (--nan_retries)"
    warn(f"epoch {epoch}, step {step}: {bad}; {back}, {times}")
    lower = place.scale * NAN_LR_FACTOR
    return replace(place, losses={}, scale=lower, retries=place.retries + 1)


def _in_stage(bad, where):
    """The message of `bad` with the stage and the epoch in it."""
    return str(bad).replace(" is not finite", f" is not finite in stage {where}", 1)


def _at_the_start(bad, settings, stage_name):
    """What to do about a loss that is not finite before the first update of a stage."""
    number, below = settings.number(stage_name), settings.info(stage_name).stands_on
    ways = "start from other weights: another --seed, or other flags named *start*"
    if below:
        ways = f"train stage {settings.number(below)} anew, whose weights it stands on, or {ways}"
    if settings.precision != "fp32":
        ways += "; or give --precision fp32"
    why = "no update was made yet, so that a retry or a lower learning rate changes nothing"
    return f"{_in_stage(bad, f'{number}, epoch 0, step 0')}; {why}: {ways}"
