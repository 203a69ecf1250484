"""Measure a trained stage on held-out clips: tables on the terminal, metrics.json and metrics.csv in the run's folder.

metrics.json holds at its top name to number, and under 'details' how each was made: split, seeds, judge, spread, warnings, commit.
Every figure stands beside those that papers print ('reported'). The model is asked through models/view.py alone.
"""

import csv
import io
import json
import math
from functools import cached_property

import numpy as np
import torch

from data.pendulum import constants
from metrics import consistency, quality
from metrics.dci import dci
from metrics.fid import Features, fid
from metrics.judge import adapt, factors_of, load_or_train_judge, shares, too_weak, verdicts
from metrics.pendulum import SwingReader, continuation_measures, swap_measures, with_swing
from metrics.published import reported
from metrics.quality import psnr
from metrics.summary import Found, Measure, figures, over_seeds, spreads
from metrics.swap import SEEDS, judged_prior, judged_swap, pairing
from metrics.weights import Missing
from utils.errors import UserError
from utils.files import write_text
from utils.frames import as_float, as_uint8
from utils.origin import origin

CONTINUE_TO, CONTINUE_FROM = 40, 16  # frames 17 to 40, counted from 1
BLOCK = 64  # clips that are held as floats at a time
LEARNT_FROM = 2000  # training clips, at most, that code classifiers and forests learn from
ADAPTED_ON = 1000  # of these, reconstructions that the consistency protocol's judge learns from
MEANING = {
    "reconstruction": "clips from their own codes",
    "consistency": "VDSM's: a judge of real and reconstructed clips; entropies of prior samples; an MLP from each code",
    "swap": "S3VAE family's: the motion of each clip with the identity of another, or of the prior",
    "dci": "Eastwood & Williams: a random forest from both codes to each factor",
    "fid": "Frechet distance of held-out clips and prior samples",
}


def need_labels(settings, dataset):
    """Raise UserError, before hours of training, where --evaluate asks for a protocol that needs labels and there are none."""
    if {"consistency", "swap", "dci"} & set(settings.measured):
        factors_of(dataset)


class Held:
    """Clips of one split as a model and the protocols see them: uint8 frames [n, T, 64, 64, 3], labels by name, codes; of the first
    `rebuild` clips (to a whole block) reconstructions too, uint8 `rebuilt`, and how far off they are, `quality` {name: [n]}.

    distances: {name: function of made and true frames -> [n]}, as metrics/quality.py has them.
    """

    def __init__(self, view, clips, rows, length, rebuild, distances):
        self.frames = clips.take(rows, 0, length)
        self.labels = {name: clips.label(name, rows) for name in clips.labels}
        codes, rebuilt, seen = [], [self.frames[:0]], {name: [] for name in distances}
        for start in range(0, len(rows), BLOCK):
            x = as_float(torch.from_numpy(self.frames[start : start + BLOCK]))
            codes.append(view.encode(x))
            if start < rebuild:
                made = view.decode(*codes[-1], length)
                rebuilt.append(as_uint8(made))
                for name, distance in distances.items():
                    seen[name].append(distance(made, x))
        self.static, self.dynamic = (torch.cat(part) for part in zip(*codes))
        self.rebuilt = np.concatenate(rebuilt)
        self.quality = {name: np.concatenate(parts) for name, parts in seen.items()}


class Evaluation:
    """One stage of one model on one split, and what several protocols need of it, made once: judge, codes, swaps."""

    def __init__(self, view, info, dataset, folder, settings, device):
        self.view, self.folder, self.device = view, folder, device
        self.number, self.second = (
            settings.number(info.name),
            not info.frames_only,
        )  # a model of one stage is named as VDSM's second
        self.pendulum = dataset.name == "pendulum"
        self.measurable = self.pendulum and set(dataset.classes) == {
            "colour"
        }  # from pixels, with no judge to train
        self.dataset = with_swing(dataset) if self.measurable else dataset
        self.clips, self.settings = self.dataset.split(settings.split), settings
        self.length = min(
            settings.seq_len, *(dataset.split(split).num_frames for split in dataset.splits)
        )
        self.notes = []  # lines about what could not be measured

    @cached_property
    def held(self):
        distances, rows = (
            {"error": quality.squared_error, "ssim": quality.ssim},
            np.arange(len(self.clips)),
        )
        try:
            distances["lpips"] = quality.LPIPS()
        except Missing as missing:
            self.notes.append(f"LPIPS is left out: {missing}")
        return Held(self.view, self.clips, rows, self.length, len(rows), distances)

    @cached_property
    def learnt_from(self):
        """Training clips for the judges and classifiers: never one of those that are measured."""
        train = self.dataset.split("train")
        rows = np.random.default_rng(0).permutation(len(train))[:LEARNT_FROM]
        rebuild = 0 if self.measurable or "consistency" not in self.wanted else ADAPTED_ON
        return Held(self.view, train, rows, self.length, rebuild, {})

    @cached_property
    def wanted(self):
        """The protocols that --evaluate asks for; 'default': those that apply to the data set and need no download."""
        asked = self.settings.measured
        if asked != ("default",):
            return asked
        labelled = any(
            factor in self.dataset.classes
            for factor in (*self.dataset.static, *self.dataset.dynamic)
        )
        return (("consistency", "swap", "dci") if labelled else ()) + (
            ("fid",) if self.settings.fid_weights else ()
        )

    @cached_property
    def classes(self):
        return {factor: len(self.dataset.classes[factor]) for factor in factors_of(self.dataset)}

    @cached_property
    def judge(self):
        if self.measurable:
            return SwingReader()
        name = f"{self.dataset.name}-{self.dataset.fingerprint[:12]}-{self.length}.pth"
        path = self.folder.root.parent / "judges" / name
        return load_or_train_judge(self.dataset, path, self.length, device=self.device)[0]

    @cached_property
    def real(self):
        """What the judge says of the held-out clips themselves."""
        return self.judge.probabilities(self.held.frames)

    @cached_property
    def circles(self):
        """For each seed the identity sources and the clips that they make."""
        static, dynamic = self.held.static, self.held.dynamic
        partners = [pairing(len(static), seed) for seed in SEEDS]
        return [(p, as_uint8(self.view.decode(static[p], dynamic, self.length))) for p in partners]

    @cached_property
    def drawn(self):
        """For each seed codes from the priors, as many as held-out clips."""
        found = []
        with torch.random.fork_rng():
            for seed in SEEDS:
                torch.manual_seed(seed)
                found.append(self.view.draw(len(self.held.frames), self.length))
        return found

    def judged_by(self, real):
        """Notes about a judge that says `real` of the held-out clips: its accuracies, and a warning where it is too weak."""
        right = shares(
            {factor: said == self.held.labels[factor] for factor, said in verdicts(real).items()}
        )
        weak = too_weak(right)
        return {"judge accuracy": right, "warnings": [weak] if weak else []}

    # --- the protocols, each -> Found ---

    def reconstruction(self):
        """PSNR, SSIM, LPIPS; of pendula also colour and angle from pixels, and the continuation past the training length."""
        own, prefix = self.held.quality, "seq_" if self.second else ""
        measures = {
            f"{prefix}reconstruction_{name}": Measure(own[name])
            for name in ("ssim", "lpips")
            if name in own
        }
        found = {f"{prefix}reconstruction_psnr": psnr(own["error"])}
        if self.pendulum:
            colour, angles = (
                self.held.labels["colour"],
                self.held.labels["angles"][:, : self.length],
            )
            pixels = swap_measures(self.held.rebuilt, angles, colour, colour)
            measures[f"{prefix}reconstruction_identity_accuracy"] = pixels["identity_accuracy"]
            name = "reconstruction_pose_error_deg"
            measures[name if self.second else f"stage1_{name}"] = pixels["pose_error_deg"]
            if getattr(self.view, "continues", True) and self.second:
                longer = as_uint8(
                    self.view.decode(self.held.static, self.held.dynamic, CONTINUE_TO)
                )
                state = self.held.labels["angle"], self.held.labels["velocity"]
                physics = constants(self.held.labels, self.dataset.classes)
                tail = continuation_measures(longer, *state, CONTINUE_FROM, **physics)
                measures |= {f"continuation_{name}": measure for name, measure in tail.items()}
        return Found(found | figures(measures), spreads(measures), {}, {"warnings": []})

    def swap(self):
        """Columns (a) and (b) of metrics/swap.py; of pendula also colour and angle from pixels."""
        held, judge, labels = (
            self.held,
            self.judge,
            {name: self.held.labels[name] for name in self.classes},
        )
        real, rounds = self.real, []
        for (partner, made), (static, dynamic) in zip(self.circles, self.drawn, strict=True):
            found = {}
            if self.pendulum:
                found = swap_measures(
                    made,
                    held.labels["angles"][:, : self.length],
                    labels["colour"],
                    labels["colour"][partner],
                )
            found |= judged_swap(self.dataset, labels, judge.probabilities(made), partner)
            moving = judge.probabilities(
                as_uint8(self.view.decode(static, held.dynamic, self.length))
            )
            standing = judge.probabilities(
                as_uint8(self.view.decode(held.static, dynamic, self.length))
            )
            rounds.append(found | judged_prior(self.dataset, labels, real, moving, standing))
        kind = "transfer" if self.second else "swap"
        rounds = [{f"{kind}_{name}": value for name, value in each.items()} for each in rounds]
        ceilings = {f: math.log(self.classes[f]) for f in self.classes if f in self.dataset.dynamic}
        notes = {"seeds": SEEDS, "inter_entropy at most": ceilings, **self.judged_by(real)}
        found = over_seeds(rounds, notes)
        own = {f"judge_{name}_accuracy": share for name, share in notes["judge accuracy"].items()}
        return found._replace(figures=own | found.figures)

    def consistency(self):
        """All four steps of metrics/consistency.py."""
        held, known, judge = self.held, self.learnt_from, self.judge
        if not self.measurable:
            judge = adapt(judge, known.frames[: len(known.rebuilt)], known.rebuilt, known.labels)
        real, rebuilt = judge.probabilities(held.frames), judge.probabilities(held.rebuilt)
        fixed = consistency.agreement(real, rebuilt, held.labels)
        samples = [as_uint8(self.view.decode(*codes, self.length)) for codes in self.drawn]
        rounds = [consistency.prior_entropies(judge.probabilities(made)) for made in samples]
        found = over_seeds(
            rounds, {"seeds": SEEDS, "judge": type(judge).__name__, **self.judged_by(real)}
        )
        whole = consistency.prior_entropies(real)
        codes = [
            {"identity_code": part.static, "dynamics_code": part.dynamic} for part in (known, held)
        ]
        table = consistency.code_table(codes[0], known.labels, codes[1], held.labels, self.classes)
        found.figures.update(
            figures(fixed) | {"real_inter_entropy": whole["inter_entropy"]} | table
        )
        found.spread.update(spreads(fixed))
        said = "split without leak, gradients zeroed (the release's notebooks: with replacement, never zeroed)"
        return self._named("consistency", found._replace(notes=found.notes | {"departs": said}))

    def dci(self):
        kinds = {f: "static" if f in self.dataset.static else "dynamic" for f in self.classes}
        sides = []
        for part in (self.learnt_from, self.held):
            sides += [
                (part.static, part.dynamic),
                {f: (kind, part.labels[f]) for f, kind in kinds.items()},
            ]
        return self._named(
            "dci", Found(dci(*sides), {}, {}, {"learnt from": len(sides[0][0]), "warnings": []})
        )

    def fid(self):
        features = Features(self.settings.fid_weights, self.device)
        made = as_uint8(self.view.decode(*self.drawn[0], self.length))
        figure, notes = fid(features, self.held.frames, made)
        return self._named("", Found({"fid": figure}, {}, {}, {"seeds": SEEDS[:1], **notes}))

    def _named(self, protocol, found):
        """The figures under the names of metrics.json: the protocol before them, and 'stage1' before those of stage 1."""
        prefix = ("" if self.second else "stage1_") + (f"{protocol}_" if protocol else "")
        return Found(
            *({prefix + name: v for name, v in part.items()} for part in found[:3]), found.notes
        )


def evaluate(view, info, dataset, folder, settings, device, epoch=None):
    """Figures of one stage ('EncDec': swaps of poses; any other: transfers of motion) after `epoch` on settings.split by the
    protocols of settings.measured, added to folder.metrics and printed. Returns {name: number}."""
    task = Evaluation(view, info, dataset, folder, settings, device)
    _known(folder.metrics)  # before minutes of measuring
    done = {}
    for name in sorted(
        ("reconstruction", *task.wanted), key="fid".__ne__
    ):  # first: its weights may not be at hand
        try:
            done[name] = getattr(task, name)()
        except Missing as missing:
            task.notes.append(f"{name} is left out: {missing}")
    common = {
        "data": dataset.name,
        "model": settings.model,
        "split": settings.split,
        "n": len(task.held.frames),
        "frames": task.length,
        "seed": settings.seed,
        "epoch": epoch,
    }
    details = common | {"spread is": "standard error over clips, bootstrap"} | origin(device)
    if settings.trains_on_test and settings.split == "test":
        details["warning"] = "not held out: --fidelity release trains on these clips"
    figures_, saved = _merge(_known(folder.metrics), info.name, common, details, done)
    write_text(folder.metrics, json.dumps({**figures_, "details": saved}, indent=1) + "\n")
    write_text(folder.metrics.with_suffix(".csv"), table(figures_, saved))
    _show(task, done, details.get("warning", "held out"))
    return {name: value for found in done.values() for name, value in found.figures.items()}


def _show(task, done, held_out):
    n, split = len(task.held.frames), task.settings.split
    print(f"stage {task.number}, {n} {split} clips, {held_out}")
    for name, found in done.items():
        print(
            f"{name}: {MEANING[name]}\n  {'':<52} {'':<9} clips' error  over seeds  reported, not re-run"
        )
        for warning in found.notes["warnings"]:
            print(f"  warning: {warning}")
        for figure, value in found.figures.items():
            spread, over = (f"{part[figure]:.2g}" if figure in part else "" for part in found[1:3])
            others = ", ".join(
                f"{system} {known:g}"
                for system, known in reported(task.dataset.name, figure).items()
            )
            print(f"  {figure:<52} {value:<9.4g} {spread:<13} {over:<11} {others}".rstrip())
    for line in task.notes:
        print(line)


def table(figures_, details):
    """metrics.csv: one line a figure, with its protocol, spreads, clips, and the figures that papers print."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(
        (
            "protocol",
            "figure",
            "value",
            "standard error",
            "over seeds",
            "clips",
            "split",
            "reported",
        )
    )
    for notes in details.values():
        for protocol, found in notes["protocols"].items():
            for name in found["figures"]:
                others = "; ".join(
                    f"{system} {number:g}"
                    for system, number in reported(notes["data"], name).items()
                )
                spread, over = notes["spread"].get(name), found["seed spread"].get(name)
                rows.writerow(
                    (
                        protocol,
                        name,
                        figures_.get(name),
                        spread,
                        over,
                        notes["n"],
                        notes["split"],
                        others,
                    )
                )
    return out.getvalue()


def _json(value):
    return value if math.isfinite(value) else None  # NaN is no JSON


def _known(path):
    """What metrics.json holds: ({name: number}, details). Raises UserError if it is no such file."""
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
        details = known.pop("details", {})
        return known, {
            stage: notes | {"figures": list(notes["figures"])} for stage, notes in details.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError):
        raise UserError(f"{path} is not a file of figures: move it away") from None


def _merge(known, stage, common, details, done):
    """The figures and details of `known` with those of the stage replaced by `done`; protocols that were not run again stay
    where they were measured on the same clips after the same epoch."""
    numbers, notes = known
    old = notes.get(stage, {"figures": [], "protocols": {}, "spread": {}})
    kept = {}
    if all(old.get(name) == value for name, value in common.items()):
        kept = {name: found for name, found in old.get("protocols", {}).items() if name not in done}
    kept_names = {figure for found in kept.values() for figure in found["figures"]}
    for name in set(old["figures"]) - kept_names:
        numbers.pop(name, None)
    spread = {name: value for name, value in old["spread"].items() if name in kept_names}
    for protocol, found in done.items():
        numbers |= {name: _json(value) for name, value in found.figures.items()}
        spread |= {name: _json(value) for name, value in found.spread.items()}
        kept[protocol] = {
            "is": MEANING[protocol],
            **found.notes,
            "figures": list(found.figures),
            "seed spread": {name: _json(value) for name, value in found.seed_spread.items()},
            "reported": {
                n: others for n in found.figures if (others := reported(details["data"], n))
            },
        }
    names = sorted(figure for found in kept.values() for figure in found["figures"])
    notes[stage] = details | {"spread": spread, "figures": names, "protocols": kept}
    return {name: value for name, value in numbers.items() if value is not None}, notes
