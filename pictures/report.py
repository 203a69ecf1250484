"""--report True: everything that a run left on disk, on one page that opens without a network.

The verdict comes first, then two animations and the curves; the rest is folded. The page is made
from config.json, metrics.json, TensorBoard's events and the folder of pictures. It leaves out what
is missing, and says which flag would have written it. It also leaves out what cannot be read, and
says so: a report never spoils a training.
"""

import csv
import dataclasses
import io
import math
import re
import shlex
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import jinja2
import numpy as np
from natsort import natsorted
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from metrics import results
from metrics.plots import of_run
from metrics.verdict import Verdict, verdict
from metrics.words import in_words, short_spread, why_missing
from pictures.drawing import CAPTIONS
from pictures.plots import curves, data_uri, heat_map, last_losses
from utils import files, flags, origin, plan
from utils.errors import UserError
from utils.progress import turn_of
from utils.run_folder import RunFolder
from utils.settings import RunSettings, settings_class

TEMPLATE = Path(__file__).with_name("report.html")
GLOSSARY = TEMPLATE.parent.parent / "docs" / "GLOSSARY.md"
RESUMED = 1  # SessionLog.START of TensorBoard: the run went on from this step
SMALL = 320  # pixels; a picture of less than half this width is enlarged
# Beginnings of the names of two pictures that show what a model does, the best first.
CONVINCING = ("vid_swap_", "swap_ep_"), ("continue_", "transfer_", "vid_", "samples_", "train_")
COUNTED = re.compile(r", frames per sequence (\d+)")  # in the origin of TensorBoard's files
MIME_TYPES = {".png": "image/png", ".gif": "image/gif"}
ENDINGS = {".png": b"IEND\xaeB`\x82", ".gif": b";"}  # of whole files
LARGEST = 512 * files.MEBIBYTE  # bytes of a picture
LONGEST = 300  # letters of a reason why a part is left out


class Parts(list):
    """The parts that a report leaves out, as lines that say which and why."""

    def part(self, name: str, function: Callable, *given: Any) -> Any:
        """function(*given), or None if it raises anything: the part `name` is left out."""
        try:
            return function(*given)
        except Exception as error:  # another program's files raise anything
            why = str(error) if isinstance(error, UserError) else repr(error)
            self.append(f"left out {name}: {' '.join(why.split())[:LONGEST]}")


def write_report(settings: RunSettings) -> tuple[Path, list[str]]:
    """Write the report of the run that `settings` name.

    Returns its path, and a line about each part that had to be left out.
    """
    folder, left_out = RunFolder(settings), Parts()
    part = left_out.part
    saved = part("the settings", folder.saved_settings) or {}
    part("the plots", draw_plots, folder.metrics, folder.images)
    shots, tables = pictures(folder.images, left_out)
    stages = [part(f"stage {n}", _stage, n, v, folder.tensorboard, part) for n, v in saved.items()]
    uses = [(caption, part(caption, experts, text)) for caption, text in tables]
    log = part("log.txt", _log, folder.log) or ""
    newest: dict = list(saved.values())[-1] if saved else dataclasses.asdict(settings)
    whole = part("the verdict", judged, folder.metrics, newest) or Verdict()
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
        settings=newest,
        verdict=whole,
        stages=[stage for stage in stages if stage],
        convincing=convincing(shots),
        shots=[shot for shot in shots if "traverse_" not in shot.name],
        traversals=[shot for shot in shots if "traverse_" in shot.name],
        experts=[(caption, *use) for caption, use in uses if use],
        figures=part("the figures", figures, folder.metrics) or [],
        words=part("the glossary", glossary) or {},
        warnings=[*log.splitlines(), *left_out],
        commit=origin.commit(),
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    files.write_text(folder.report, page)
    return folder.report, list(left_out)


def judged(path: Path, settings: dict) -> Verdict:
    """The verdict of the file metrics.json at `path`, with the heading of its stage.

    settings: those of the last stage, as saved.
    """
    found = verdict(*results.read(path), settings.get("draw_from", "prior"))
    heading = label(found.stage_name, settings.get("model", RunSettings.model))
    return found._replace(stage_name=heading)


def glossary() -> dict[str, str]:
    """The terms of docs/GLOSSARY.md and what they mean, as text without links and marks."""
    text = re.sub(r"\n +", " ", GLOSSARY.read_text())
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text).replace("`", "")
    return dict(re.findall(r"^- \*\*(.+?)\*\*: (.+)$", text, re.MULTILINE))


def draw_plots(metrics: Path, images: Path) -> None:
    """Write the plots of metrics.json (metrics/plots.py) as PNG files into the folder `images`."""
    for name, (plot, epoch) in of_run(metrics).items():
        plot.save(images / f"plot_{name}_{epoch}.png")


def _log(path):
    """The text of the log, '' without one."""
    if not path.exists():
        return ""
    files.regular(path, files.LONGEST_TEXT)
    return path.read_text("utf-8", "replace")


def label(stage_name: str, model: str) -> str:
    """The heading of a stage: its number if the model has several stages, else its name."""
    names = [info.name for info in settings_class(model).STAGES]
    numbered = len(names) > 1 and stage_name in names
    return f"Stage {names.index(stage_name) + 1}" if numbered else stage_name


def _stage(stage_name, saved, tensorboard, part):
    """What the page says of a stage: its command, its settings, where and how long it trained.

    part: `Parts.part`.
    """
    values, events = plan.of_today(saved, stage_name), tensorboard / stage_name
    nothing: dict[str, Any] = {"scalars": {}, "seconds": 0, "origins": []}
    log = part(f"the curves of {stage_name}", read_events, events) or nothing
    cls = settings_class(values["model"], values["dataset_name"])
    fields = [field.name for field in dataclasses.fields(cls) if field.name in values]
    # JSON has lists where the settings have tuples.
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    settings = cls(**{name: tuples.get(name, values[name]) for name in fields})
    batches = f"{settings.bs_per_epoch} batches of {settings.batch_size} sequences"
    hours, rest = divmod(round(log["seconds"]), 3600)
    counted = COUNTED.search(" ".join(log["origins"][-1:]))
    names = plain_names(settings, stage_name, log["scalars"])
    given = log["scalars"], names, int(counted.group(1)) if counted else None
    drawn = part(f"the curves of {stage_name}", curves, *given) if log["scalars"] else None
    return {
        "label": label(stage_name, settings.model),
        "command": "python main.py " + shlex.join(settings.as_flags()),
        "size": f"{settings.epochs} epochs of {batches}",
        "time": (f"{hours} h " if hours else "") + f"{rest // 60} min {rest % 60} s",
        "origins": list(dict.fromkeys(COUNTED.sub("", text) for text in log["origins"])),
        "curves": drawn,
        "frames": given[2],
        "losses": last_losses(*given),
        "settings": {name: flags.shown(value) for name, value in values.items()},
    }


def plain_names(settings: RunSettings, stage_name: str, scalars: dict) -> dict[str, str]:
    """{tag of TensorBoard: plain name} of the terms of a stage's loss and of its schedules.

    The KL weight of a latent variable without a term in this stage is ''. scalars: what was logged.
    """
    stage = settings.info(stage_name).stage()
    names = {f"loss/{term}": name for term, name in stage.TERMS.items()}
    for latent in stage.TERMS:
        used = f"loss/{latent}" in scalars
        names[stage.TAGS.get(latent, f"{latent} anneal")] = f"KL weight of {latent}" if used else ""
    return names | {stage.TAGS.get("temperature", "temperature anneal"): "temperature tau"}


def read_events(folder: Path) -> dict:
    """What TensorBoard's files of one stage hold.

    'scalars' {tag: {epoch: value}}, without values that a resumed run replaced; 'seconds' of
    training, summed over the files; 'origins', the commits and machines that wrote them.
    """
    scalars, seconds, origins = {}, 0.0, []
    for path in sorted(natsorted(folder.glob("events.*")), key=_turn):
        times = []
        files.regular(path)
        for event in EventFileLoader(str(path)).Load():
            times.append(event.wall_time)
            # The file starts at the checkpoint that was resumed and replaces later values.
            if event.session_log.status == RESUMED:
                for tag, line in scalars.items():
                    scalars[tag] = {e: value for e, value in line.items() if e < event.step}
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin == "scalars":
                    scalars.setdefault(value.tag, {})[event.step] = value.tensor.float_val[0]
                elif plugin == "text":
                    origins.append(value.tensor.string_val[0].decode())
        seconds += sum(max(0.0, after - before) for before, after in pairwise(times))
    return {"scalars": scalars, "seconds": seconds, "origins": list(dict.fromkeys(origins))}


def _turn(path):
    """A key that sorts TensorBoard's files in the order in which a stage wrote them.

    The time in their names is of no use where somebody has set the clock back. Files of earlier
    versions, which are not numbered, come first, by the step at which they begin.
    """
    events = () if turn_of(path) else EventFileLoader(str(path)).Load()
    starts = (event.step for event in events if event.session_log.status == RESUMED)
    return turn_of(path), next(starts, 0)


class Shot(NamedTuple):
    """A picture on the page."""

    caption: str
    name: str  # of its file
    uri: str
    width: int  # at which it is shown, in pixels


def pictures(folder: Path, left_out: Parts) -> tuple[list[Shot], list[tuple[str, str]]]:
    """The newest picture of each kind, and the newest tables as (caption, text).

    They come in the order of CAPTIONS; pictures that CAPTIONS does not list come last. left_out
    takes the names of those that cannot be read.
    """
    newest = {}
    for path in natsorted(folder.glob("*")):
        if path.suffix in (*MIME_TYPES, ".csv"):
            kind, caption = _kind(path)
            newest[kind] = path, caption
    shots, tables = [], []
    for kind in sorted(newest):
        path, caption = newest[kind]
        if path.suffix == ".csv":
            text = left_out.part(path.name, files.read_text, path)
            tables += [(caption, text)] if text is not None else []
        elif shot := left_out.part(path.name, _shot, path, caption):
            shots.append(shot)
    return shots, tables


def _shot(path, caption):
    """The picture in the file `path`. Raises ValueError if the file is cut."""
    files.regular(path, LARGEST)
    content = path.read_bytes()
    if not content.endswith(ENDINGS[path.suffix]):
        raise ValueError("the file is empty or cut")
    width = iio.improps(content, index=0, extension=path.suffix).shape[1]
    shown = width * max(1, SMALL // max(width, 1))
    return Shot(caption, path.name, data_uri(MIME_TYPES[path.suffix], content), shown)


def convincing(shots: list[Shot]) -> list[Shot]:
    """Two pictures that show at once what the model does, the first of each row of CONVINCING."""
    chosen = []
    for beginnings in CONVINCING:
        fits = [shot for start in beginnings for shot in shots if shot.name.startswith(start)]
        fits.sort(key=lambda shot: not shot.name.endswith(".gif"))
        chosen += fits[:1]
    return chosen


def _kind(path):
    """A key that sorts pictures and is equal for one kind at different epochs; the caption."""
    for order, (name, caption) in enumerate(CAPTIONS.items()):
        # 'plane_{e}.png' becomes a pattern with a group 'e'.
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[a-z0-9]+)", re.escape(name))
        if match := re.fullmatch(pattern, path.name):
            fields = match.groupdict()
            epoch = fields.pop("e")
            caption = f"{caption.format(**fields)} (after epoch {epoch})"
            return (order, *fields.values()), caption
    kind = re.sub(r"\d+", "", path.stem)
    return (len(CAPTIONS), kind + path.suffix), kind.strip("_").replace("_", " ")


def experts(text: str) -> tuple[list[str], str, list[tuple]]:
    """What a table of `pictures.codes.expert_use` shows.

    Returns sentences about all clips, a heat map as a data URI, and a row per value of a factor:
    (value, clips, expert with the largest weight, that weight, entropy).
    """
    every, *groups = csv.DictReader(io.StringIO(text))
    columns = [name for name in every if name.startswith("expert_")]
    shares = np.array([[float(row[name]) for name in columns] for row in (every, *groups)])
    mean = shares[0]
    entropy = -(mean * np.log(np.maximum(mean, 1e-12))).sum()
    sentences = [
        f"The entropy of the mixing weights of a clip is {float(every['entropy']):.3g} nats on "
        f"average over {every['clips']} test clips. The entropy of their mean over clips is "
        f"{entropy:.3g} nats. {len(columns)} experts in equal parts would have "
        f"{math.log(len(columns)):.3g} nats, a single expert 0.",
        f"Expert {mean.argmax() + 1} has the largest mean weight ({mean.max():.3g}), "
        f"expert {mean.argmin() + 1} the smallest ({mean.min():.2g}).",
    ]
    names = [f"{row['factor']} {row['value']}" for row in groups]
    rows = [
        (name, row["clips"], weights.argmax() + 1, f"{weights.max():.3g}", row["entropy"])
        for name, row, weights in zip(names, groups, shares[1:])
    ]
    return sentences, heat_map(shares, ["all clips", *names]), rows


def figures(path: Path) -> list[dict]:
    """metrics.json as tables, one per stage and protocol; none if there is no such file.

    A row of a table holds name, value, standard error, spread over seeds, what papers report, the
    same figure of draws from the fitted density ('' if there is none), the figure in words, and
    where it is better. Raises UserError if the file is of another kind.
    """
    if not path.exists():
        return []
    try:
        numbers = files.read_json(path)
        return [
            _table(numbers, stage_name, details, protocol, measured)
            for stage_name, details in numbers["details"].items()
            for protocol, measured in details.get("protocols", {"swap": details}).items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is not a file of figures: move it away") from None


def _table(numbers, stage_name, details, protocol, measured):
    spreads = details["spread"], measured.get("seed spread", {})
    reported, reasons = measured.get("reported", {}), measured.get("without value", {})
    rows, names = [], measured["figures"]
    # A figure of draws from the prior stands beside that of draws from the fitted density.
    beside = {}
    for name in names:
        of_prior = name.replace("fitted_", "prior_")
        of_prior = of_prior if of_prior in names else name.replace("fitted_", "")
        if of_prior != name and of_prior in names:
            beside[of_prior] = name

    def number(name):
        missing = f"none: {reasons.get(name) or why_missing(name)}"
        return missing if numbers.get(name) is None else f"{numbers[name]:.4g}"

    for name in [name for name in names if name not in beside.values()]:
        errors = [short_spread(part.get(name), ".4g") for part in spreads]
        papers = ", ".join(f"{system} {v:g}" for system, v in reported.get(name, {}).items())
        fitted = number(beside[name]) if name in beside else ""
        rows.append((name, number(name), *errors, papers, fitted, *in_words(name)))
    notes = {key: value for key, value in details.items() if isinstance(value, (str, int))}
    return {
        "title": f"{label(stage_name, details.get('model', RunSettings.model))}, {protocol}",
        "is": measured.get("is", details.get("protocol")),
        "notes": "; ".join(f"{key}: {value}" for key, value in notes.items()),
        "warnings": measured.get("warnings", []),
        "rows": rows,
        "fitted": bool(beside),
    }
