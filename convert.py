"""--convert PATH --to ours|release: a released checkpoint as one of ours, or one of ours as the release's. Needs no data."""

import dataclasses
from pathlib import Path

import torch

from models.vdsm import release
from models.vdsm.encdec import EncDec
from models.vdsm.networks import DECODER_WIDTHS, ENCODER_WIDTHS
from models.vdsm.stages import EncDecStage, SeqStage
from utils.checkpoints import check_sizes, load_checkpoint, read_checkpoint, save_checkpoint
from utils.config import RunSettings, shown
from utils.errors import UserError
from utils.step import Stepper


def convert(settings, argv):
    """Write the checkpoint settings.convert, under its own name, into the folder 'ours' or 'release' beside it.

    The file tells the sizes; those among the flags `argv` must agree. Raises UserError, before anything is written, if the file
    is not there, is damaged, is that kind already, was trained with --fidelity paper, or if its place is taken.
    """
    if settings.model != RunSettings.model:
        raise UserError(
            f"--convert is for VDSM's checkpoints: there is no release of --model {settings.model}: leave it out"
        )
    path = Path(settings.convert)
    out = path.parent / settings.to / path.name
    if out.exists():
        raise UserError(f"{out} is already there: move it away")
    to_ours = settings.to == "ours"
    if to_ours != bool(release.stage_of(read_checkpoint(path, mapped=True))):
        raise UserError(
            f"{path} is not {'a released checkpoint' if to_ours else 'one of ours'}: nothing to convert"
        )
    state = load_checkpoint(path)
    given = {part.split("=")[0].removeprefix("--") for part in argv}
    check_sizes(
        state, path, settings, [size for size in settings.info("Seq").sizes if size in given]
    )
    sizes, stage = state["settings"], release.ours_stage(state)
    if sizes.get("fidelity") != release.FIDELITY:
        raise UserError(
            f"{path} was trained with --fidelity paper and would be another model in the release's program: "
            "convert one that was trained with --fidelity release"
        )
    if not to_ours:
        try:
            state = release.to_release(state, _trained(settings, sizes, stage))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(
                f"{path} does not convert ({error}): is it a checkpoint of this version?"
            ) from None
    try:
        out.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write {out} ({error.strerror}): copy the checkpoint to another folder"
        ) from None
    save_checkpoint(out, state)
    print(f"wrote {out}: stage {settings.number(stage)}, {state['epoch']} epochs")
    if to_ours:
        print(
            "its flags: "
            + " ".join(
                f"--{name} {shown(size)}" for name, size in sizes.items() if size is not None
            )
        )
    elif any(
        tuple(sizes[n]) != own
        for n, own in (("enc_widths", ENCODER_WIDTHS), ("dec_widths", DECODER_WIDTHS))
    ):
        print(
            "the release's program has other --enc_widths or --dec_widths built in and does not load it as it is"
        )


def _trained(settings, saved, stage):
    """Names of what a run of `saved` settings trains in `stage`, in the order of Adam's state. No numbers are made."""
    own = {field.name for field in dataclasses.fields(settings)}
    settings = dataclasses.replace(
        settings, **{name: value for name, value in saved.items() if name in own}
    )
    with torch.device("meta"):
        made = EncDecStage(settings) if stage == "EncDec" else SeqStage(settings, EncDec(settings))
        return Stepper(made.trainable()).names(made.network)
