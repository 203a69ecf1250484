"""A trained model for scripts and notebooks: `model = load("runs/demo")`. docs/PYTHON.md.

Frames are uint8 [T, 64, 64, 3], or [N, T, 64, 64, 3] for N clips. Clips may also be given as floats
in [0, 1], in other sizes, as paths, and as lists of these.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from data import one_clip
from data.base import IMAGE_SIZE
from models.density import Density, beside
from models.view import VideoModel
from pictures.codes import traversals
from utils import hub, weights_file
from utils.checkpoints import Damaged, load_checkpoint, undisturbed
from utils.errors import UserError
from utils.frames import as_float, as_uint8
from utils.limits import out_of_memory
from utils.plan import of_today
from utils.run_folder import RunFolder
from utils.schema import check
from utils.settings import MODELS, RunSettings, StageInfo, settings_class

DRAWS = 64  # clips that the model draws for the range of a traversal


class Trained(NamedTuple):
    """A trained stage of a model, wherever it was read from."""

    path: Path
    settings: Any  # the RunSettings that it was trained with
    info: StageInfo
    weights: dict[str, torch.Tensor]  # the state dict of its network
    epochs: int  # that it was trained for
    # of a weights file alone: its card, codes of some held-out clips, and fitted densities
    card: dict[str, Any] | None = None
    clips: "Codes | None" = None
    densities: dict[str, Density] | None = None


class Codes(NamedTuple):
    """The codes of a clip, or of N clips: arrays with a first dimension N."""

    static: np.ndarray  # of what stays: the identity
    dynamic: np.ndarray  # of what moves: one code per clip, or [T, ...] one per frame


def load(
    place: Path | str, *, select: str = "last", stage: int | None = None, device: str = "auto"
) -> "Model":
    """The trained model in `place`: a run, a checkpoint, a weights file or hf://USER/NAME.

    select, of a run: 'last' checkpoint, or the 'best' by validation ELBO. stage, of a run: number
    of the stage; default: the last one that has a checkpoint. device: 'auto' takes a CUDA GPU if
    there is one. Raises UserError if there is no such model, or if its file is damaged.
    """
    if not isinstance(place, (str, os.PathLike)):
        expected = "the folder of a run, a checkpoint, weights or hf://USER/NAME"
        raise UserError(f"place is {place!r:.80}, expected the name of {expected}")
    path = hub.pull(str(place)) if str(place).startswith(hub.PREFIX) else Path(place)
    if path.is_dir():
        path = RunFolder.at(path).select(select, stage)
    elif not path.exists():
        raise UserError(f"found no {path}: give the folder of a run, a checkpoint or weights")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("found no CUDA GPU: use device='cpu' or device='auto'")
    try:
        where = torch.device(str(device))
    except RuntimeError:
        raise UserError(f"device is {device!r}, expected 'auto', 'cpu' or 'cuda'") from None
    return Model(read(path), where)


def read(path: Path) -> Trained:
    """The trained stage in a file, whose suffix decides how it is read: see READERS."""
    return READERS.get(path.suffix.lower(), _from_checkpoint)(path)


def _whole(name, number, least=1):
    """Raise UserError unless `number` is None or a whole number of at least `least`."""
    whole = isinstance(number, (int, np.integer)) and least <= number < 2**63
    if number is not None and not whole:
        kind = "of at least 1" if least == 1 else "of 64 bits"
        raise UserError(f"{name} is {number!r:.80}, expected a whole number {kind}")


def _array(values, dtype=None):
    """An array of numbers, or a tensor on any device; UserError for what is neither."""
    if isinstance(values, torch.Tensor):  # NumPy takes no gradient, no GPU and no bfloat16
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values
    try:
        return np.asarray(values, dtype)
    except (TypeError, ValueError):
        raise UserError(f"found {values!r:.80}, expected an array of numbers") from None


def _adopt(state):
    """A checkpoint of the authors' code as ours; None if it is another file."""
    adopted = (settings_class(model).adopt(state) for model in MODELS)
    return next((ours for ours in adopted if ours is not None), None)


def _from_checkpoint(path):
    """A checkpoint holds all settings that it was trained with; one of the release, the sizes."""
    state, why = load_checkpoint(path, _adopt), ""
    saved = state["settings"]
    model = str(saved.get("model", RunSettings.model)) if isinstance(saved, dict) else "none"
    if model not in MODELS:
        raise Damaged(path, f"is of an unknown model '{model}'")
    stages = settings_class(model).STAGES
    # last the stage that its name tells, so that the message is about this one
    for info in sorted(stages, key=lambda info: path.name.endswith(f"_{info.suffix}.pth")):
        try:
            settings = settings_of(saved, info)
            check({**state, "settings": vars(settings)}, info, settings)
            return Trained(path, settings, info, state["model"], state["epoch"])
        except Exception as error:  # wrong types raise anything
            if out_of_memory(error):
                raise  # the file may be whole
            why = str(error) if isinstance(error, ValueError) else repr(error)
    raise Damaged(path, f"is no checkpoint of this program ({why})")


def settings_of(saved: dict, info: StageInfo) -> RunSettings:
    """Settings from {flag: value} of any version; what is not there has its default."""
    values = of_today(saved, info.name)
    cls = settings_class(values.get("model", RunSettings.model), values.get("dataset_name"))
    known = {field.name for field in fields(cls)} & values.keys()
    # in full precision, as a test computes
    return replace(cls(**{name: values[name] for name in known}), precision="fp32")


def _from_weights(path):
    from share import read_weights  # it stands above, because it also exports

    return read_weights(path)


# {suffix: function path -> Trained}; a checkpoint where the suffix is not here
READERS: dict[str, Callable[[Path], Trained]] = {
    ".pth": _from_checkpoint,
    weights_file.SUFFIX: _from_weights,
}


def _unpickled(values, trained, device):
    return Model(trained._replace(settings=settings_of(values, trained.info)), device)


class Model:
    """A trained model that encodes, decodes, swaps, samples and continues clips.

    seq_len: frames that it reads of a clip. continues: whether it can give more frames than it has
    read. frames_only: it models single frames, so that poses can be swapped and motion cannot.
    """

    def __init__(self, trained: Trained, device: torch.device):
        self.path, self.settings, self.info = trained.path, trained.settings, trained.info
        self.epochs = trained.epochs
        with undisturbed(device):  # fresh weights are drawn before the trained ones replace them
            stage = self.info.stage().build(self.settings)
        stage.network.load_state_dict(trained.weights)
        stage.to(device).network.eval()
        self.view: VideoModel = stage.view()
        self.network = stage.network
        self.card, self.clips, fitted = trained.card, trained.clips, trained.densities
        self.view.fit = lambda: fitted or beside(RunFolder.densities(self.path), stage.network)
        self._trained, self._device = trained._replace(weights=stage.network.state_dict()), device
        self.seq_len, self.continues = self.settings.seq_len, self.view.continues
        self.frames_only = self.info.frames_only
        if self.clips is not None:
            try:
                self.decode(*self.clips, 1)
            except UserError as error:
                why = f"holds codes that do not fit ({' '.join(str(error).split())})"
                raise weights_file.wrong(self.path, why) from None

    def __reduce__(self):
        # the class of settings is made anew in each process, so that pickle does not find it
        trained = self._trained._replace(settings=None)
        return _unpickled, (vars(self.settings), trained, self._device)

    def __repr__(self):
        name = f"{self.settings.model}, stage {self.info.name}, {self.epochs} epochs"
        return f"<{name}, {self.settings.dataset_name}, seq_len {self.seq_len}, {self.path}>"

    def read(self, clips: Any, frames: int | None = None) -> np.ndarray:
        """The first `frames` frames of clips as the model reads them. Default: `seq_len`.

        A stage of single frames also takes shorter clips. Raises UserError for other clips that
        are too short, and for what is no clip.
        """
        _whole("frames", frames)
        length = frames or self.seq_len
        if isinstance(clips, Codes):
            raise UserError("found codes, expected clips: give codes to `decode`")
        batch = isinstance(clips, (list, tuple)) or getattr(clips, "ndim", 4) == 5
        if batch and len(clips):
            parts = [self.read(clip, frames) for clip in clips]
            if len({(part.dtype, len(part)) for part in parts}) > 1:
                kinds = ", ".join(f"{part.dtype} {[*part.shape]}" for part in parts[:4])
                raise UserError(f"the clips are {kinds}: give clips of one type and length")
            return np.stack(parts)
        if not isinstance(clips, (str, os.PathLike)):
            clips = _array(clips)
        clip = one_clip.read(clips, length, getattr(self.settings, "video_step", 1))
        if len(clip) < length and not self.frames_only:
            name = clips if isinstance(clips, (str, os.PathLike)) else "the clip"
            raise UserError(f"{name} has {len(clip)} frames, expected {length} or more")
        return clip

    def encode(self, clips: Any, frames: int | None = None) -> Codes:
        """The codes of the first `frames` frames of a clip, or of several. Default: `seq_len`."""
        array = self.read(clips, frames)
        if array.ndim == 4:
            return Codes(*(code[0] for code in self.encode(array[None], frames)))
        x = torch.from_numpy(array)
        x = as_float(x) if x.dtype == torch.uint8 else x.movedim(-1, -3)
        return Codes(*(code.numpy() for code in self.view.encode(x)))

    def decode(self, static: Any, dynamic: Any, frames: int | None = None) -> np.ndarray:
        """Frames from codes; those of different clips give a swap. Default: `seq_len` frames.

        Raises UserError for codes of other shapes than this model's, and for more frames than there
        are codes, if the model cannot continue a clip.
        """
        _whole("frames", frames)
        static, dynamic = self._codes(static, dynamic)
        if static.dim() == 1:
            return self.decode(static[None], dynamic[None], frames)[0]
        there = dynamic.shape[1] if dynamic.dim() == 3 else frames or self.seq_len
        frames = frames or there
        if frames > there and not self.continues:
            model = f"{self.settings.model}, stage {self.info.name}"
            raise UserError(
                f"found codes of {there} frames, and {frames} frames are asked for: this model "
                f"({model}) cannot continue a clip, ask for at most {there}"
            )
        return self.view.decode_uint8(static, dynamic, frames)

    @cached_property
    def _sizes(self):
        """Numbers of a static code, and {dimensions: numbers} of the dynamic codes of N clips."""
        view, black = cast(Any, self.view), np.zeros((self.seq_len, *[IMAGE_SIZE] * 2, 3), np.uint8)
        codes = tuple(map(torch.from_numpy, self.encode(black[None])))
        named = view.codes(*codes, self.seq_len).values() if hasattr(view, "codes") else codes
        static, *dynamic = named
        return static.shape[-1], {code.dim(): code.shape[-1] for code in dynamic}

    def _codes(self, static, dynamic):
        """The codes as tensors; UserError unless they have shapes that `decode` can read."""
        codes = [torch.tensor(_array(code, np.float32)) for code in (static, dynamic)]
        (*clips, last), (*others, moves) = ([*code.shape] or [0] for code in codes)
        size, known = self._sizes
        whole = len(clips) < 2 and others[: len(clips)] == clips and 0 not in [*clips, *others]
        if not whole or last != size or known.get(len(others) + 2 - len(clips)) != moves:
            kinds = " or ".join(f"[{'T, ' * (dims - 2)}{n}]" for dims, n in known.items())
            found = " and ".join(str([*code.shape]) for code in codes)
            expected = f"[{size}] and {kinds}, or N of both, as `encode` gives them"
            raise UserError(f"found static and dynamic codes {found}, expected {expected}")
        return codes

    def swap(self, motion: Any, identity: Any, frames: int | None = None) -> np.ndarray:
        """The motion of one clip on the identity of another. Default: `seq_len` frames.

        One of the two may be several clips, or both as many.
        """
        moving, still = self.encode(motion), self.encode(identity)
        what, who = moving.dynamic, still.static
        counts = {len(codes.static) for codes in (moving, still) if codes.static.ndim == 2}
        if len(counts) > 1:
            raise UserError(f"found {len(what)} motions and {len(who)} identities: give as many")
        for count in counts:
            what = what if moving.static.ndim == 2 else np.repeat(what[None], count, 0)
            who = who if still.static.ndim == 2 else np.repeat(who[None], count, 0)
        return self.decode(who, what, frames)

    def sample(
        self,
        clips: int = 1,
        frames: int | None = None,
        seed: int | None = None,
        draw_from: str | None = None,
    ) -> np.ndarray:
        """New clips [clips, frames, 64, 64, 3]. Default: `seq_len` frames.

        seed: default: torch's random numbers go on. draw_from: 'prior', or 'fitted' for the density
        that a run or a test with --draw_from fitted has left beside the checkpoint; UserError if it
        is not there. Default: as in training, if it is there.
        """
        _whole("clips", clips)
        _whole("frames", frames)
        _whole("seed", seed, -(2**63))
        if draw_from not in (None, "prior", "fitted"):
            raise UserError(f"draw_from is {draw_from!r}, expected 'prior' or 'fitted'")
        there = self._trained.densities or RunFolder.densities(self.path).exists()
        self.view.draw_from = draw_from or (self.settings.draw_from if there else "prior")
        with undisturbed(self._device) if seed is not None else nullcontext():
            if seed is not None:
                torch.manual_seed(int(seed))
            return as_uint8(self.view.sample(clips, frames or self.seq_len))

    def continue_(self, clips: Any, frames: int) -> np.ndarray:
        """Clips as the model decodes them, continued to `frames` frames."""
        return self.decode(*self.encode(clips), frames)

    def traverse(self, clip: Any, seed: int = 0) -> dict[str, np.ndarray]:
        """A clip decoded with other values of each code: {letter: [rows, columns, T, 64, 64, 3]}.

        A row changes one dimension, over the range that it has in DRAWS clips that the model draws;
        the eight that vary most there. T is 1 where one frame shows all that the code changes.
        """
        codes = self.encode(clip)
        if codes.static.ndim > 1:
            raise UserError(f"found {len(codes.static)} clips: give one")
        drawn = self.sample(DRAWS, self.seq_len, seed)
        others = self.encode(drawn, len(codes.dynamic) if codes.dynamic.ndim == 2 else None)
        together = (np.concatenate([one[None], more]) for one, more in zip(codes, others))
        return dict(traversals(self.view, *map(torch.from_numpy, together), self.seq_len))
