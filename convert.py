"""--convert PATH --to ours|release: a checkpoint of the authors' code as ours, or the reverse."""

from dataclasses import replace
from pathlib import Path

import torch

from models.vdsm import release
from models.vdsm.networks import DECODER_WIDTHS, ENCODER_WIDTHS
from utils.checkpoints import check_sizes, load_checkpoint, read_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.flags import shown
from utils.plan import of_today
from utils.settings import RunSettings
from utils.step import Stepper


def convert(settings: RunSettings, argv: list[str]) -> None:
    """Write a copy of settings.convert into the folder 'ours' or 'release' beside it.

    The file decides the sizes; sizes among the flags `argv` must agree with it. Raises UserError,
    before anything is written, if the file is missing, damaged, of that kind already or trained
    with --fidelity paper, or if the copy is already there.
    """
    if settings.model != RunSettings.model:
        raise UserError(f"--convert is for VDSM's checkpoints: leave out --model {settings.model}")
    path = Path(settings.convert)
    copy = path.parent / settings.to / path.name
    if copy.exists():
        raise UserError(f"{copy} is already there: move it away")
    to_ours = settings.to == "ours"
    if to_ours != bool(release.stage_of(read_checkpoint(path, mapped=True))):
        kind = "a released checkpoint" if to_ours else "one of ours"
        raise UserError(f"{path} is not {kind}: nothing to convert")
    state = load_checkpoint(path, release.adopt)
    stage_name = release.ours_stage(state)
    saved = state["settings"] = of_today(state["settings"], stage_name)
    given = {part.split("=")[0].removeprefix("--") for part in argv}
    check_sizes(state, path, settings, [n for n in settings.STAGES[-1].sizes if n in given])
    if saved.get("fidelity") != release.FIDELITY:
        raise UserError(
            f"{path} was trained with --fidelity paper and would be another model in the release's "
            "program: convert one that was trained with --fidelity release"
        )
    if (encoder := saved.get("encoder", "conv")) != "conv":
        todo = "only --encoder conv converts"
        raise UserError(f"{path} has --encoder {encoder}, which the release has not: {todo}")
    if not to_ours:
        try:
            state = release.to_release(state, _trained(settings, saved, stage_name))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            why = f"({error}): is it a checkpoint of this version?"
            raise UserError(f"{path} does not convert {why}") from None
    copy.parent.mkdir(exist_ok=True)
    save_checkpoint(copy, state)
    print(f"wrote {copy}: stage {settings.number(stage_name)}, {state['epoch']} epochs")
    if to_ours:
        flags = (f"--{name} {shown(v)}" for name, v in saved.items() if v is not None)
        print("its flags: " + " ".join(flags))
        return
    sizes = release.sizes_of(state["model"], stage_name)
    if (tuple(sizes["enc_widths"]), tuple(sizes["dec_widths"])) != (ENCODER_WIDTHS, DECODER_WIDTHS):
        built_in = "--enc_widths or --dec_widths built in"
        print(f"the release's program has other {built_in} and does not load it as it is")


def _trained(settings, saved, stage_name):
    """Names of what a run with the `saved` settings trains, in the order of Adam's state."""
    known = {name: value for name, value in saved.items() if name in vars(settings)}
    with torch.device("meta"):
        stage = settings.info(stage_name).stage().build(replace(settings, **known))
        return Stepper(stage.trainable()).names(stage.network)
