"""--report True: what a run left on disk as one page, report.html, that needs nothing else: it opens from disk, without network.

It reads config.json, metrics.json, TensorBoard's events and the folder of pictures, of any model; what is not there is left out,
and the page says what would have put it there.
"""

import base64
import csv
import dataclasses
import io
import json
import math
import re
import shlex
from datetime import datetime
from pathlib import Path

import imageio.v3 as iio
import jinja2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from natsort import natsorted
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog

from pictures.drawing import CAPTIONS
from utils.errors import UserError
from utils.files import write_text
from utils.flags import as_flags, shown
from utils.origin import commit
from utils.run_folder import RunFolder
from utils.settings import RunSettings, settings_class

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH = 4.8  # inches of a plot: what a phone shows without shrinking its letters
COLUMN = 700  # px; wider pictures get the page's whole width
LIKELIHOOD = "x"  # the term of the loss that is no KL
TYPES = {".png": "image/png", ".gif": "image/gif"}


def write_report(settings):
    """Write the report of the run that `settings` name, whole or not at all, and return its path."""
    folder = RunFolder(settings)
    saved = folder.saved_settings()
    logs = {stage: read_events(folder.tensorboard / stage) for stage in saved}
    shots, tables = pictures(folder.images)
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        TEMPLATE.read_text()
    )
    text = page.render(
        settings=next(iter(saved.values()), dataclasses.asdict(settings)),
        stages=[_stage(name, values, logs[name]) for name, values in saved.items()],
        curves=[
            (label(name), curves(log["scalars"])) for name, log in logs.items() if log["scalars"]
        ],
        shots=[shot for shot in shots if "traverse_" not in shot[1]],
        traversals=[shot for shot in shots if "traverse_" in shot[1]],
        experts=[(title, *experts(text)) for title, text in tables],
        figures=figures(folder.metrics),
        warnings=folder.log.read_text().splitlines() if folder.log.exists() else [],
        commit=commit(),
        now=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    write_text(folder.report, text)
    return folder.report


def label(stage):
    """A stage as the page calls it."""
    names = [info.name for info in settings_class(RunSettings.model).STAGES]
    return f"Stage {names.index(stage) + 1}" if stage in names else stage


def _stage(name, values, log):
    """What the page says of a stage: its flags, its size, where and for how long it was trained."""
    cls = settings_class(values["model"])
    known = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
    known = {
        key: tuple(value) if isinstance(value, list) else value for key, value in known.items()
    }
    return {
        "label": label(name),
        "command": "python main.py " + shlex.join(as_flags(cls(**known))),
        "size": f"{values['epochs']} epochs of {values['bs_per_epoch']} batches of {values['bs']} sequences",
        "time": _duration(log["seconds"]),
        "origins": log["origins"],
        "settings": {key: shown(value) for key, value in values.items()},
    }


def _duration(seconds):
    hours, rest = divmod(round(seconds), 3600)
    return (f"{hours} h " if hours else "") + f"{rest // 60} min {rest % 60} s"


def read_events(folder):
    """What TensorBoard's files in `folder` hold: 'scalars' {tag: {epoch: value}}, less what a later file took back; 'seconds' from
    each file's first to its last event, together; 'origins', the texts among them: commits and machines."""
    scalars, seconds, origins = {}, 0.0, []
    for path in natsorted(folder.glob("events.*")):
        times = []
        for event in EventFileLoader(str(path)).Load():
            times.append(event.wall_time)
            if (
                event.session_log.status == SessionLog.START
            ):  # the run went on from here, not from where it was killed
                for line in scalars.values():
                    for epoch in [epoch for epoch in line if epoch >= event.step]:
                        del line[epoch]
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin == "scalars":
                    scalars.setdefault(value.tag, {})[event.step] = value.tensor.float_val[0]
                elif plugin == "text":
                    origins.append(value.tensor.string_val[0].decode())
        seconds += times[-1] - times[0] if times else 0
    return {"scalars": scalars, "seconds": seconds, "origins": list(dict.fromkeys(origins))}


def curves(scalars):
    """Loss, its other terms and the schedules, one above the other over the epochs, as a picture's data URI."""
    terms = {
        tag.removeprefix("loss/"): line for tag, line in scalars.items() if tag.startswith("loss/")
    }
    loss = {"training, weighted": scalars.get("total loss", {})}
    if LIKELIHOOD in terms:
        loss["likelihood alone"] = terms.pop(LIKELIHOOD)
    if "held out/ELBO" in scalars:
        loss["held out, weights 1"] = {
            epoch: -value for epoch, value in scalars["held out/ELBO"].items()
        }
    schedules = {
        tag: line for tag, line in scalars.items() if "/" not in tag and tag != "total loss"
    }
    panels = [("loss, nats a sequence", "linear", loss), ("KLs and more, nats a sequence", "log", terms),
              ("schedules", "log", schedules)]  # fmt: skip
    panels = [panel for panel in panels if panel[2]]
    with rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8}):
        figure = Figure((WIDTH, 2.3 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (title, scale, lines) in zip(axes, panels):
            for name, line in lines.items():
                epochs = sorted(line)
                axis.plot(
                    epochs,
                    [line[e] for e in epochs],
                    label=name,
                    marker="." if len(epochs) < 30 else None,
                )
            positive = [v for line in lines.values() for v in line.values() if v > 0]
            axis.set(title=title, yscale=scale if positive else "linear")
            axis.legend()
        axes[-1].set_xlabel("epoch")
        return _svg(figure)


def pictures(folder):
    """(pictures [(caption, name, URI, whether it is wider than a column)], tables [(caption, text)]) of `folder`: of each kind the newest, in the
    order of CAPTIONS, then those that it does not know."""
    files = natsorted(path for path in folder.glob("*") if path.suffix in (*TYPES, ".csv"))
    known, kinds = {}, [(re.compile(_pattern(name)), caption) for name, caption in CAPTIONS.items()]
    for path in files:
        for place, (pattern, caption) in enumerate(kinds):
            if found := pattern.fullmatch(path.name):
                rest = {key: value for key, value in found.groupdict().items() if key != "e"}
                known[place, *rest.values()] = path, caption.format(**rest), found["e"]
                break
        else:
            kind = re.sub(r"\d+", "", path.stem)
            known[len(kinds), kind + path.suffix] = path, kind.strip("_").replace("_", " "), None
    shots, tables = [], []
    for key in sorted(known):
        path, caption, epoch = known[key]
        caption += f" (after epoch {epoch})" if epoch else ""
        if path.suffix == ".csv":
            tables.append((caption, path.read_text()))
        else:
            width = iio.improps(path, index=0).shape[1]
            shots.append(
                (caption, path.name, _uri(TYPES[path.suffix], path.read_bytes()), width > COLUMN)
            )
    return shots, tables


def _pattern(name):
    """The regular expression of a name of CAPTIONS."""
    return re.sub(
        r"\\{(\w+)\\}",
        lambda m: rf"(?P<{m[1]}>{'[a-z]+' if m[1] == 'code' else '[0-9]+'})",
        re.escape(name),
    )


def experts(text):
    """Of a table by `pictures.drawing.expert_use`: lines about all clips, a heat map's data URI, rows (who, clips, expert, its share,
    entropy) by identity."""
    every, *rows = csv.DictReader(io.StringIO(text))
    names = [name for name in every if name.startswith("expert_")]
    shares = np.array([[float(row[name]) for name in names] for row in (every, *rows)])
    mean = shares[0]
    lines = [
        f"A clip's mixing weights have an entropy of {float(every['entropy']):.3g} nats on average ({every['clips']} test clips), their "
        f"mean over clips {-(mean * np.log(np.maximum(mean, 1e-12))).sum():.3g}; an even blend of {len(names)} experts has "
        f"{math.log(len(names)):.3g}, one expert alone 0.",
        f"On average expert {mean.argmax() + 1} has the most ({mean.max():.3g}), expert {mean.argmin() + 1} the least ({mean.min():.2g}).",
    ]
    who = ["all clips"] + [f"{row['factor']} {row['value']}" for row in rows]
    with rc_context({"font.size": 8}):
        figure = Figure((WIDTH, 1 + 0.17 * len(who)), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(shares, aspect="auto", cmap="viridis", vmin=0)
        axis.set(yticks=range(len(who)), yticklabels=who, xlabel="expert")
        axis.set_xticks(
            range(0, len(names), max(1, len(names) // 8)),
            range(1, len(names) + 1, max(1, len(names) // 8)),
        )
        figure.colorbar(image, label="mean mixing weight", location="top", shrink=0.7)
        heat = _svg(figure)
    best = shares.argmax(1)
    table = [
        (who[i], row["clips"], best[i] + 1, f"{shares[i, best[i]]:.3g}", row["entropy"])
        for i, row in enumerate(rows, 1)
    ]
    return lines, heat, table


def figures(path):
    """metrics.json as tables: [{'title', 'notes', 'warnings', 'rows': (name, value, error, over seeds, reported)}]; [] without it.
    Raises UserError if it is no such file."""
    if not path.exists():
        return []
    try:
        numbers = json.loads(path.read_text())
        return [
            _table(numbers, stage, details, protocol, found)
            for stage, details in numbers["details"].items()
            for protocol, found in details.get("protocols", {"swap": details}).items()
        ]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path} is not a file of figures: move it away") from None


def _table(numbers, stage, details, protocol, found):
    errors, seeds = details["spread"], found.get("seed spread", {})
    reported = found.get("reported", {})
    rows = []
    for name in found["figures"]:
        others = ", ".join(
            f"{system} {value:g}" for system, value in reported.get(name, {}).items()
        )
        rows.append((name, *(_short(part.get(name)) for part in (numbers, errors, seeds)), others))
    return {
        "title": f"{label(stage)}, {protocol}",
        "is": found.get("is", details.get("protocol")),
        "notes": "; ".join(
            f"{key}: {value}" for key, value in details.items() if isinstance(value, (str, int))
        ),
        "warnings": found.get("warnings", []),
        "rows": rows,
    }


def _short(value):
    return "" if value is None else f"{value:.4g}"


def _svg(figure):
    out = io.BytesIO()
    with rc_context({"svg.hashsalt": "report"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _uri("image/svg+xml", out.getvalue())


def _uri(kind, data):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
