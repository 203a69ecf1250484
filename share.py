"""Models that travel in one file: export, read, measure, upload. docs/WEIGHTS.md.

What a user can mend is told before torch is imported.
"""

import shlex
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import data
from data.base import Dataset
from metrics.card import as_markdown, compared, saved_figures
from use import MEASURES, TASKS, new_file, refuse_tasks, trained
from utils import guards, hub, weights_file
from utils.errors import UserError, warn
from utils.files import write_text
from utils.flags import shown, value_of
from utils.modules import module
from utils.plan import of_today, parser_of
from utils.run_folder import RunFolder
from utils.settings import (
    BASICS,
    DATASETS,
    FILES,
    MACHINE,
    OUTPUT,
    RunSettings,
    StageInfo,
    settings_class,
)

CLIPS = 8  # held-out clips whose codes travel along
LONGEST = 10_000  # frames of a clip
# settings of a card whose groups are otherwise left out of it, see `travelling`
NAMED = "model", "seed", "fidelity", "draw_from", "precision"
EXTRA = ("clips/static", "clips/dynamic"), "density/"  # names of tensors beside the network's
ALL_MODELS = Path(__file__).resolve().parent / "weights"


def share(settings: RunSettings, argv: list[str]) -> None:
    """Do what --export_weights, --push_to, --show and --weights with --evaluate ask for.

    argv: the command's flags. Raises UserError; what exists is never overwritten.
    """
    c = settings
    refuse_tasks(c, argv, (*TASKS, *MEASURES) if c.show else TASKS)
    refuse_at_once(c)
    if c.show:
        from show import show

        return show(c)
    place = trained(c)
    import api
    from utils.step import choose_device

    device = choose_device(c.device, c.threads, c.precision)
    if c.export_weights:
        path = Path(c.export_weights)
        card = export(Path(place), path, c, argv, device)
    else:
        model = api.load(place, device=device.type)
        path, card = model.path, model.card
        if card is None:
            raise UserError(f"--weights {path} is no {weights_file.SUFFIX} file: export it first")
        if c.measured:
            dataset = _dataset(model.settings, c, argv)
            guards.refuse_other_data({"data": card["data"]["fingerprint"]}, path, dataset)
            figures, about = measure(model, dataset, c)
            print("\n".join(compared(card, figures, about["split"])))
    if c.push_to:
        print(f"uploaded {path}: {hub.push(path, as_markdown(card), c.push_to)}")


def refuse_at_once(settings: RunSettings) -> None:
    """Raise UserError for flags and files that the command cannot do with."""
    c = settings
    if c.weights and c.export_weights:
        raise UserError("found --weights and --export_weights: give one of them")
    if c.show and (c.export_weights or c.push_to):
        raise UserError("found --show beside --export_weights or --push_to: give one of them")
    if c.show and c.out:
        raise UserError("--out is not for --show, which writes into runs/show: leave it out")
    if c.weights:
        trained(c)
    if c.export_weights:
        for suffix in (weights_file.SUFFIX, ".md"):
            name = Path(c.export_weights)
            name = name if suffix == weights_file.SUFFIX else name.with_suffix(suffix)
            new_file("--export_weights", str(name), (suffix,))
    elif not (c.show or c.weights):
        raise UserError("--push_to needs a file: add --export_weights FILE or --weights FILE")
    elif not (c.show or c.push_to or c.measured):
        raise UserError(f"--weights {c.weights} needs a task: add --transfer, --evaluate or others")
    if c.push_to:
        hub.name_of(c.push_to)
        hub.package()


# --- reading ---


def travelling(cls: type[RunSettings]) -> list[str]:
    """Names of the settings in a card: how a model was trained, and not where."""
    left_out = (BASICS, OUTPUT, FILES, MACHINE)
    names = [f.name for f in fields(cls) if f.metadata["group"] not in left_out or f.name in NAMED]
    return [name for name in names if name not in ("data_dir", "source")]


def _kept(values, cls):
    """The settings {name: value} that go into a card; names of files do not."""
    words = cls.FILES_AT_START
    there = {name: values[name] for name in travelling(cls) if name in values}
    return {n: v for n, v in there.items() if n not in words or v in words[n]}


def read_weights(path: Path) -> Any:
    """The api.Trained in a weights file. Raises UserError for one that is damaged or hostile."""
    from api import Codes, Trained
    from models import density
    from utils.schema import check_network

    tensors, card = weights_file.load(path)
    try:
        settings, info = _settings_of(card)
        extra = {name: tensors.pop(name) for name in list(tensors) if "/" in name}
        check_network(tensors, info, settings)
        codes, prefix = EXTRA
        clips = Codes(*(extra.pop(name).numpy() for name in codes))
        if not all(name.startswith(prefix) for name in extra):
            raise ValueError(f"it has a tensor '{min(extra)}'")
        flat = {name.removeprefix(prefix): tensor for name, tensor in extra.items()}
        densities = density.of_flat(flat, card["densities"])
        where = {"fingerprint": str(card["data"]["fingerprint"]), "fps": float(card["data"]["fps"])}
        called = [[str(one)[:60], str(other)[:60]] for one, other in card["clips"]]
        if len(called) != len(clips.static):
            raise ValueError(f"it names {len(called)} clips")
        figures, about = _known_figures(card), dict(card["measured"])
        if figures:
            about["n"] = max(1, int(about["n"]))
        given: dict[str, Any] = {"data": card["data"] | where, "figures": figures}
        card |= given | {"clips": called, "measured": about}
        as_markdown(card)  # raises if a part of the page is missing
        return Trained(path, settings, info, tensors, int(card["epochs"]), card, clips, densities)
    except UserError as error:
        why = str(error)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RuntimeError,
        StopIteration,
    ) as error:
        why = str(error) or type(error).__name__
    raise weights_file.wrong(
        path, f"holds no model of this program ({' '.join(why.split())[:150]})"
    )


def _settings_of(card) -> tuple[RunSettings, StageInfo]:
    """The settings of a card, read as flags are, and the stage. Bad ones raise anything."""
    saved = card["settings"]
    cls = settings_class(saved["model"], saved["dataset_name"])
    info = cls.info(card["stage"])
    values = of_today(saved, info.name)
    if unknown := sorted(values.keys() - set(travelling(cls))):
        raise ValueError(f"setting '{unknown[0]}' is of another version")
    flags = [f"--{name}={shown(value)}" for name, value in values.items() if value is not None]
    read = vars(parser_of(cls).parse_args(flags))
    settings = cls(**{field.name: read[field.name] for field in fields(cls)})
    settings.check()
    if settings.seq_len > LONGEST:
        raise ValueError(f"--seq_len is {settings.seq_len}, expected at most {LONGEST}")
    return replace(settings, precision="fp32"), info


def _known_figures(card):
    """The figures of a card, {protocol: {figure: {'value': number, ...}}}; raises for others."""
    return {
        str(protocol): {
            str(name): {
                str(key): None if v is None else float(v)
                for key, v in ({"value": None} | figure).items()
            }
            for name, figure in figures.items()
        }
        for protocol, figures in card["figures"].items()
    }


# --- export ---


def export(checkpoint: Path, out: Path, settings: RunSettings, argv: list[str], device) -> dict:
    """Write the model in `checkpoint` to the new file `out`, its card beside it; returns the card.

    settings: of the command, whose flags are argv. The data set must be there: codes of some
    held-out clips travel along, and with --evaluate the weights as they are stored are measured.
    """
    import api
    from models.density import fitted, flat
    from pictures.choose import distinct, names
    from utils.checkpoints import load_checkpoint
    from utils.tensors import digest

    whole, state = api.read(checkpoint), load_checkpoint(checkpoint, mapped=True)
    c, info, dataset = whole.settings, whole.info, _dataset(whole.settings, settings, argv)
    guards.refuse_other_data(state, checkpoint, dataset)
    model, place = api.Model(whole, device), RunFolder.densities(checkpoint)
    densities = fitted(model.view, model.network, dataset, c.seq_len, place)
    stored = _rounded(whole.weights, settings.half, checkpoint)
    weights = {n: t.float() if t.is_floating_point() else t for n, t in stored.items()}
    model = api.Model(whole._replace(weights=weights, densities=densities), device)
    rows = distinct(dataset, clips := dataset.split("test"), CLIPS)
    codes = model.view.encode_clips(clips, rows, min(c.seq_len, clips.num_frames))
    folder = RunFolder(settings)
    if settings.measured:
        figures, about = measure(model, dataset, settings)
    else:
        figures, about = saved_figures(folder.metrics, info, whole.epochs - 1, digest(checkpoint))
        if not figures:
            warn(f"{folder.metrics} has no figures of this checkpoint: --evaluate measures them")
        elif settings.half:
            about["weights"] = "in full precision, before they were rounded"
    codes_at, prefix = EXTRA
    extra = dict(zip(codes_at, codes)) | {f"{prefix}{n}": t for n, t in flat(densities).items()}
    card = {
        "model": c.model,
        "stage": info.name,
        "epochs": whole.epochs,
        "precision": "half" if settings.half else "float32",
        "densities": list(densities),  # the first is that of the static code
        "settings": _kept(vars(c), type(c)),
        "trained with": commands(folder.saved_settings()),
        "clips": list(zip(*names(dataset, clips, rows))),  # what identity and motion are called
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "clips": {name: len(rows) for name, rows in dataset.splits.items()},
            "fps": dataset.fps,
            "licence": getattr(module(DATASETS[dataset.name]), "LICENCE", "not stated"),
        },
        "figures": figures,
        "measured": about,
    }
    tensors = {n: t.cpu().contiguous().clone() for n, t in {**stored, **extra}.items()}
    weights_file.save(out, tensors, card)
    write_text(out.with_suffix(".md"), as_markdown(card))
    if not settings.quiet:
        print(f"exported {checkpoint} to {out} ({out.stat().st_size:,} bytes), its card to .md")
    return card


def _rounded(weights, half, checkpoint):
    """Weights as they are stored. UserError if one is out of range.

    The statistics of a whitening stay in float32: their scale is free, and the inverse root of the
    covariance magnifies rounding.
    """

    def rounds(name, tensor):
        return half and tensor.is_floating_point() and ".whiten." not in name

    stored = {n: t.half() if rounds(n, t) else t for n, t in weights.items()}
    for name, tensor in stored.items():
        if not tensor.isfinite().all():
            raise UserError(f"{checkpoint}: '{name}' is out of range: export without --half")
    return stored


def commands(saved: dict[str, dict]) -> list[str]:
    """The commands that train the stages of a saved configuration, without folders and machines."""
    lines = []
    for stage_name, values in saved.items():
        values = of_today(values, stage_name)
        cls = settings_class(values["model"], values["dataset_name"])
        known: dict[str, Any] = {"RUN": values["RUN"], **_kept(values, cls)}
        known = {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}
        lines.append(shlex.join(["python", "main.py", *cls(**known).as_flags()]))
    return lines


def _dataset(settings, command, argv) -> Dataset:
    """The data set that a model was trained on, from where the command's flags say."""
    given = {n: getattr(command, n) for n in ("data_dir", "source") if value_of(argv, f"--{n}")}
    return data.load(replace(settings, **given, quiet=command.quiet))


# --- figures ---


def measure(model: Any, dataset: Dataset, command: RunSettings) -> tuple[dict, dict]:
    """Measure an api.Model as --evaluate asks; what `saved_figures` gives."""
    import torch

    from metrics.evaluate import evaluate, need_labels

    names = "evaluate", "split", "judge", "fid_weights", "runs_dir"
    settings = replace(model.settings, **{name: getattr(command, name) for name in names})
    need_labels(settings, dataset)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(settings)
        folder.metrics = Path(place) / "metrics.json"
        torch.manual_seed(settings.seed)
        evaluate(model.view, model.info, dataset, folder, settings, model.view.device)
        return saved_figures(folder.metrics, model.info)
