"""Sprites (VDSM, Table 'Sprites'): 840 characters x 9 sequences x 8 frames, 64x64, labels body, shirt, legs, hair, action.

`create_lpc_dataset.py --lpc CLONE` composes the set into data_dir/sprites/ (compose.py the pixels, store.py the files);
release.py reads the folders of the authors' script instead. Split by character: 90 % and 10 % as published, with 42 of the
756 training characters set apart for validation.
"""

from pathlib import Path

from data.base import Dataset, flat
from data.sprites import compose, store
from utils.errors import UserError

COMMAND = "python data/sprites/create_lpc_dataset.py --lpc CLONE"
RELEASE_NOTE = (
    "sprites: the script behind the release's files may have cut slash at rows 14-16 of the sheets: then slash 'left', "
    "'front' and 'right' show slash front, slash right and another action"
)


def make(clone, folder):
    """Compose the set from a clone into `folder`; raises UserError if the art is not there or the disk refuses."""
    if not Path(clone).is_dir():
        raise UserError(
            f"sprites: found no folder {clone}: --lpc takes a clone of {compose.UPSTREAM}"
        )

    def fill(frames):
        compose.compose(clone, frames)
        labels = compose.labels()
        return labels, store.draw_split(labels["character"])

    store.write(folder, compose.SHAPE, fill, "composed")


def load(config):
    """The set in config.data_dir/sprites as `data.base.Dataset`, frames memory-mapped.

    If it is not there (or not whole) it is made once, from the release's folders in the same place or from the clone that
    config.source names. Raises UserError, with the command to run, if there is nothing to make it from.
    """
    folder = Path(config.data_dir) / "sprites"
    fault = store.fault(folder)
    if fault:
        _make_anew(folder, config.source, fault)
    metadata, clips = store.read(folder)
    frames, lengths = flat(clips)
    labels = metadata["labels"]
    return Dataset(
        name="sprites",
        frames=frames,
        lengths=lengths,
        labels=labels,
        classes=compose.FACTORS | {"action": compose.ACTIONS},
        splits=store.positions(labels["character"], metadata["split"]),
        static=tuple(compose.FACTORS),
        dynamic=("action",),
        fingerprint=metadata["fingerprint"],
        group="character",
        clips_per_sample=2,  # the release's stage 1 joins two random sequences of one character
        fps=10,
    )


def _make_anew(folder, clone, fault):
    from data.sprites import release  # imports torch, which composing does without

    root = release.find(folder)
    if root:
        print(f"sprites: reading the release's files in {root} once", flush=True)
        release.convert(root, folder)
        print(RELEASE_NOTE, flush=True)
    elif clone:
        print(f"sprites: composing the set from {clone} once", flush=True)
        make(clone, folder)
    else:
        size = compose.SHAPE[0] * compose.NUM_FRAMES * compose.CELL**2 * 3
        raise UserError(
            f"sprites: {fault}: the set needs {size:,} bytes; make it with `{COMMAND} --data_dir {folder.parent}`, "
            f"where CLONE is a clone of {compose.UPSTREAM}"
        )
