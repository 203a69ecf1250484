"""Measure a trained stage on held-out clips, by the protocols that --evaluate names."""

import dataclasses
import math
from functools import cached_property, partial

import numpy as np
import torch

from data.base import Clips, Dataset
from metrics import consistency, long, msd, quality, results
from metrics.confusion import as_notes, confusion
from metrics.dci import dci
from metrics.fid import Features, fid
from metrics.judge import accuracies, adapt, factors_of, load_or_train_judge, too_weak, verdicts
from metrics.measurers import measurer_of
from metrics.pairs import GROUP, judged_pairs, sources, unmasked
from metrics.published_judges import PublishedJudge
from metrics.summary import Measure, Outcome, figures, over_seeds, spreads
from metrics.swap import SEEDS, judged_draws, judged_swap, pairing
from models.density import some_rows
from models.view import BLOCK, VideoModel
from utils.errors import UserError
from utils.frames import as_float, as_uint8
from utils.origin import origin
from utils.progress import Progress, log_figures
from utils.run_folder import RunFolder
from utils.settings import RunSettings, StageInfo
from utils.tensors import digest
from utils.tracking import sinks
from utils.weights import Missing

ADAPTED_ON = 1024  # at most so many reconstructions for `adapt`
DEPARTURE = (
    "no clip on both sides, gradients zeroed, smaller classifiers and judge (all unlike the "
    "notebooks of the release)"
)


def need_labels(settings: RunSettings, dataset: Dataset) -> None:
    """Raise UserError, before training, if --evaluate needs what the data set lacks.

    It may lack labels, or --judge may be no judge of it.
    """
    if "long" in settings.measured and dataset.name != "pendulum":
        problem = f"--evaluate long measures pendula and found {dataset.name}"
        raise UserError(f"{problem}: leave 'long' out")
    if {"consistency", "swap", "dci", "msd", "pairs"} & set(settings.measured):
        factors_of(dataset)
    if "pairs" in settings.measured and not len(dataset.split("pairs")):
        problem = f"{dataset.name} holds out no pairs for --evaluate pairs"
        raise UserError(f"{problem}: train and test with --hold_out pairs (sprites, sprites-li)")
    if settings.judge and settings.measured:
        PublishedJudge(settings.judge, dataset)


class Encoded:
    """Clips of one split: uint8 frames [n, T, 64, 64, 3], labels by name, static and dynamic codes.

    The first `rebuild` clips have reconstructions `rebuilt`, uint8, and `quality` {name: [n]} from
    `distances` {name: function of metrics/quality.py}. The first frames of `continued` are these
    reconstructions; it has `frames` frames per clip (default: T).
    """

    def __init__(
        self, view: VideoModel, clips: Clips, rows, length, rebuild, distances, frames=None
    ):
        self.frames = clips.take(rows, 0, length)
        self.labels = {name: clips.label(name, rows) for name in clips.labels}
        self.static, self.dynamic = view.encode_clips(clips, rows, length)
        longer = max(length, frames or length)
        self.continued = np.empty((rebuild, longer, *self.frames.shape[2:]), np.uint8)
        self.rebuilt = self.continued[:, :length]
        self.quality = {name: np.empty(rebuild) for name in distances}
        for start in range(0, rebuild, BLOCK):
            block = slice(start, min(start + BLOCK, rebuild))
            made = view.decode(self.static[block], self.dynamic[block], longer)
            self.continued[block] = as_uint8(made)
            x = as_float(torch.from_numpy(self.frames[block]))
            for name, distance in distances.items():
                self.quality[name][block] = distance(made[:, :length], x)


class Evaluation:
    """One stage of one model on one split. Each protocol is a method that returns an `Outcome`."""

    def __init__(self, view, info, dataset, folder, settings, device):
        self.view, self.info, self.folder, self.device = view, info, folder, device
        self.settings, self.measurer = settings, measurer_of(dataset)
        self.dataset = self.measurer.dataset
        shortest = min(self.dataset.split(split).num_frames for split in dataset.splits)
        self.length = min(settings.seq_len, shortest)
        # Lines about what could not be measured.
        self.omitted = []

    @cached_property
    def held_out(self):
        clips = self.dataset.split(self.settings.split)
        distances = {"error": quality.squared_error, "ssim": quality.ssim}
        try:
            distances["lpips"] = quality.LPIPS()
        except Missing as missing:
            self.omitted.append(f"LPIPS is left out: {missing}")
        count, given = len(clips), (self.view, clips, range(len(clips)), self.length)
        return Encoded(*given, count, distances, self.continued_to)

    @cached_property
    def unit(self):
        """The label of what is independent: characters, people; None: single clips."""
        person = "identity" if "identity" in self.dataset.labels else None
        return self.dataset.group or person

    @cached_property
    def units(self):
        """The value of `unit` of each held-out clip, [n], or None."""
        return self.held_out.labels[self.unit] if self.unit else None

    @cached_property
    def continued_to(self):
        """Frames to which the held-out clips are continued, or None."""
        goes_on = not self.info.frames_only and self.view.continues
        return self.measurer.continue_to if goes_on else None

    @cached_property
    def training(self):
        """Training clips for judges and classifiers: never those that are measured."""
        clips = self.dataset.split("train")
        rows = some_rows(len(clips))
        adapts = self.adapts and "consistency" in self.wanted
        rebuild = min(len(rows), ADAPTED_ON) if adapts else 0
        return Encoded(self.view, clips, rows, self.length, rebuild, {})

    @cached_property
    def wanted(self):
        """The protocols that --evaluate names; 'default': those that apply and need no download."""
        if self.settings.measured != ("default",):
            return self.settings.measured
        labelled = set(self.dataset.classes) & {*self.dataset.static, *self.dataset.dynamic}
        by_labels = ("consistency", "swap", "dci") if labelled else ()
        return by_labels + (("fid",) if self.settings.fid_weights else ())

    @cached_property
    def classes(self):
        return {factor: len(self.dataset.classes[factor]) for factor in factors_of(self.dataset)}

    @property
    def adapts(self):
        """Whether `adapt` may train the judge: not if it measures, or if others trained it."""
        return self.measurer.judge is None and not self.settings.judge

    @cached_property
    def judge(self):
        if self.measurer.judge:
            return self.measurer.judge
        if self.settings.judge:
            return PublishedJudge(self.settings.judge, self.dataset, self.device)
        name = f"{self.dataset.name}-{self.dataset.fingerprint[:12]}-{self.length}.pth"
        path = self.folder.root.parent / "judges" / name
        return load_or_train_judge(self.dataset, path, self.length, device=self.device)[0]

    @cached_property
    def drawn_codes(self):
        """{'prior' or 'fitted': for each seed, codes of as many clips as are held out}."""
        view, codes = self.view, {}
        draws = {"prior": view.draw} | ({"fitted": view.draw_fitted} if view.fit else {})
        with torch.random.fork_rng():
            for source, draw in draws.items():
                codes[source] = []
                for seed in SEEDS:
                    torch.manual_seed(seed)
                    codes[source].append(draw(len(self.held_out.frames), self.length))
        return codes

    def decoded(self, static, dynamic):
        """Clips uint8 [n, T, 64, 64, 3] from their codes."""
        return self.view.decode_uint8(static, dynamic, self.length)

    def judge_notes(self, real) -> dict:
        """Accuracies of a judge with probabilities `real` on the held-out clips, and a warning."""
        shares = accuracies(verdicts(real), self.held_out.labels)
        weak = too_weak(shares)
        kind = type(self.judge).__name__
        return {"judge": kind, "judge accuracy": shares, "warnings": [weak] if weak else []}

    def confusion(self, labels, probabilities):
        """{factor: int [C, C]} of a judge's probabilities on clips with these labels."""
        return confusion(labels, verdicts(probabilities), self.dataset.classes)

    def named(self, protocol, outcome):
        """The outcome with figures named as in metrics.json: [stage1_][protocol_]figure."""
        prefix = "stage1_" if self.info.frames_only else ""
        prefix += f"{protocol}_" if protocol else ""
        parts = [{prefix + name: v for name, v in part.items()} for part in outcome[:3]]
        return Outcome(*parts, outcome.notes)

    def reconstruction(self):
        """PSNR, SSIM and LPIPS; the measurer's figures of reconstructions and continuations."""
        held, frames_only = self.held_out, self.info.frames_only
        prefix = "reconstruction_" if frames_only else "seq_reconstruction_"
        measures = {prefix + n: Measure(v) for n, v in held.quality.items() if n != "error"}
        measures |= self.measurer.reconstructions(held.rebuilt, held.labels, frames_only)
        if self.continued_to:
            longer = held.continued[:, : self.continued_to]
            tail = self.measurer.continuations(longer, held.labels)
            measures |= {f"continuation_{name}": measure for name, measure in tail.items()}
        numbers = {prefix + "psnr": quality.psnr(held.quality["error"])} | figures(measures)
        return Outcome(numbers, spreads(measures, self.units), {}, {"warnings": []})

    def swap(self):
        """Columns (a) and (b) of metrics/swap.py, and the measurer's figures of swaps."""
        held, judge = self.held_out, self.judge
        real = judge.probabilities(held.frames)
        labels = {factor: held.labels[factor] for factor in self.classes}
        kind, rounds = "swap" if self.info.frames_only else "transfer", []
        counts: dict = {}
        for i, seed in enumerate(SEEDS):
            partner = pairing(len(held.frames), seed)
            made = self.decoded(held.static[partner], held.dynamic)
            measures = self.measurer.swaps(made, held.labels, partner)
            judged = judge.probabilities(made)
            measures |= judged_swap(self.dataset, labels, judged, partner)
            right = {f: x[partner] if f in self.dataset.static else x for f, x in labels.items()}
            for factor, matrix in self.confusion(right, judged).items():
                counts[factor] = counts.get(factor, 0) + matrix
            for source, codes in self.drawn_codes.items():
                static, dynamic = codes[i]
                moving = judge.probabilities(self.decoded(static, held.dynamic))
                standing = judge.probabilities(self.decoded(held.static, dynamic))
                measures |= judged_draws(self.dataset, labels, real, moving, standing, source)
                measures |= self.whole_draws(source, static, dynamic)
            rounds.append({f"{kind}_{name}": value for name, value in measures.items()})
        ceilings = {f: math.log(n) for f, n in self.classes.items() if f in self.dataset.dynamic}
        judged = self.judge_notes(real)
        notes = {"seeds": SEEDS, "inter_entropy at most": ceilings, "values": self.classes}
        outcome = over_seeds(rounds, notes | judged, self.units)
        shares = {f"judge_{name}_accuracy": s for name, s in judged["judge accuracy"].items()}
        outcome.notes["confusion"] = as_notes(counts, self.dataset.classes)
        return outcome._replace(figures=shares | outcome.figures)

    def whole_draws(self, source, static, dynamic):
        """Measures of clips whose two codes are drawn, and of how new their identities are."""
        measures = {}
        if self.view.fit:
            measures[f"{source}_novelty"] = self.view.novelty(static, dynamic)
        if not self.info.frames_only:
            made = self.measurer.draws(partial(self.decoded, static, dynamic))
            measures |= {f"{source}_{name}": measure for name, measure in made.items()}
        return measures

    def consistency(self):
        """The four steps of metrics/consistency.py."""
        held, known, judge = self.held_out, self.training, self.judge
        if self.adapts:
            judge = adapt(judge, known.frames[: len(known.rebuilt)], known.rebuilt, known.labels)
        real, rebuilt = judge.probabilities(held.frames), judge.probabilities(held.rebuilt)
        agreement = consistency.agreement(real, rebuilt, held.labels)
        rounds = [{} for _ in SEEDS]
        for source, codes in self.drawn_codes.items():
            prefix = "" if source == "prior" else f"{source}_"
            for one_round, drawn in zip(rounds, codes, strict=True):
                sampled = consistency.prior_entropies(judge.probabilities(self.decoded(*drawn)))
                one_round |= {prefix + name: value for name, value in sampled.items()}
        notes = {"seeds": SEEDS, **self.judge_notes(real)}
        outcome = over_seeds(rounds, notes | {"departs": DEPARTURE}, self.units)
        train, test = (
            {"identity_code": part.static, "dynamics_code": part.dynamic} for part in (known, held)
        )
        table = consistency.code_table(train, known.labels, test, held.labels, self.classes)
        real_inter = {"real_inter_entropy": consistency.prior_entropies(real)["inter_entropy"]}
        outcome.figures.update(figures(agreement) | real_inter | table)
        outcome.spread.update(spreads(agreement, self.units))
        counts = self.confusion(held.labels, rebuilt)
        outcome.notes["confusion"] = as_notes(counts, self.dataset.classes)
        return self.named("consistency", outcome)

    def pairs(self):
        """The figures of metrics/pairs.py: those of the judge first."""
        clips, train = self.dataset.split("pairs"), self.dataset.split("train")
        real = clips.take(range(len(clips)), 0, self.length)
        labels = {factor: clips.label(factor) for factor in self.classes}
        of_judge = judged_pairs("judge_", self.judge.probabilities(real), labels)
        rounds = []
        for seed in SEEDS:
            of_identity, of_motion = sources(self.dataset, seed)
            static = self.view.encode_clips(train, of_identity, self.length)[0]
            made = self.decoded(static, self.view.encode_clips(train, of_motion, self.length)[1])
            measures = of_judge | judged_pairs("", self.judge.probabilities(made), labels)
            apart = (made.astype(np.float32) - real) ** 2 / 255**2
            rounds.append({**measures, "psnr": quality.psnr(apart.mean((1, 2, 3, 4)))})
        notes = {"seeds": SEEDS, "clips of pairs": len(clips), "judge": type(self.judge).__name__}
        notes = notes | {"warnings": unmasked(figures(of_judge))}
        return self.named("pairs", over_seeds(rounds, notes, clips.label(GROUP)))

    def dci(self):
        """The figures of metrics/dci.py."""
        kinds = {f: "static" if f in self.dataset.static else "dynamic" for f in self.classes}
        sides = []
        for part in (self.training, self.held_out):
            labels = {factor: (kind, part.labels[factor]) for factor, kind in kinds.items()}
            sides += [(part.static, part.dynamic), labels]
        notes = {"learnt from": len(self.training.frames), "warnings": []}
        return self.named("dci", Outcome(dci(*sides), {}, {}, notes))

    def msd(self):
        """The figures of metrics/msd.py."""
        kinds = {f: "static" if f in self.dataset.static else "dynamic" for f in self.classes}
        return self.named("msd", msd.measured(self, kinds))

    def long(self):
        """The figures of metrics/long.py."""
        return self.named("long", long.measured(self))

    def fid(self):
        """The Frechet distances of metrics/fid.py, with clips drawn with the first seed."""
        features, held = Features(self.settings.fid_weights, self.device), self.held_out
        numbers, notes = {}, {}
        for source, codes in self.drawn_codes.items():
            distances, notes = fid(features, held.frames, self.decoded(*codes[0]), held.rebuilt)
            if source != "prior":
                distances.pop("fid_release_reconstructed")  # the same for every source
                distances = {f"{source}_{name}": value for name, value in distances.items()}
            numbers |= distances
        return self.named("", Outcome(numbers, {}, {}, {"seeds": SEEDS[:1], **notes}))


def measured_already(
    settings: RunSettings, stage_name: str, dataset: Dataset, folder: RunFolder
) -> bool:
    """Whether a stage is finished, and folder.metrics holds all that `evaluate` would measure.

    Figures of another checkpoint or judge do not count, nor any with --remeasure.
    """
    last, info = folder.checkpoint(stage_name, settings.epochs - 1), settings.info(stage_name)
    if not settings.measured or settings.remeasure or folder.newest(stage_name) != last:
        return False
    measured = results.read(folder.metrics)[1].get(stage_name, {})
    if "checkpoint" not in measured:  # figures of earlier versions
        if not measured or folder.metrics.stat().st_mtime < last.stat().st_mtime:
            return False
    elif measured["checkpoint"] != digest(last):
        return False
    wanted = ("reconstruction", *Evaluation(None, info, dataset, folder, settings, None).wanted)
    found, files = measured.get("protocols", {}), results.files_of(settings)
    of_this = measured.get("epoch"), measured.get("split")
    return of_this == (settings.epochs - 1, settings.split) and all(
        name in found and found[name].get("files", {}) == files.get(name, {}) for name in wanted
    )


def evaluate(
    view: VideoModel,
    info: StageInfo,
    dataset: Dataset,
    folder: RunFolder,
    settings: RunSettings,
    device: torch.device,
    epoch: int | None = None,
) -> dict[str, float]:
    """Measure one stage, trained to `epoch`, on settings.split; returns {figure: number}.

    The protocols are 'reconstruction' and those of settings.measured. The figures are printed and
    added to folder.metrics. Raises UserError if folder.metrics is not a file of figures.
    """
    # Fails now, and not after minutes of measuring.
    results.read(folder.metrics)
    task = Evaluation(view, info, dataset, folder, settings, device)
    outcomes, files = {}, results.files_of(settings)
    # fid is first, because its file of weights may be wrong.
    for name in sorted(("reconstruction", *task.wanted), key=lambda name: name != "fid"):
        try:
            outcomes[name] = getattr(task, name)()
            outcomes[name].notes.update({"files": files[name]} if name in files else {})
        except Missing as missing:
            task.omitted.append(f"{name} is left out: {missing}")
    clips: dict = {"data": dataset.name, "model": settings.model, "split": settings.split}
    clips |= {"n": len(task.held_out.frames), "frames": task.length}
    clips |= {"seed": settings.seed, "epoch": epoch}
    if epoch is not None:
        clips["checkpoint"] = digest(folder.checkpoint(info.name, epoch))
    unit = {"identity": "identities"}.get(task.unit, f"{task.unit or 'clip'}s")
    notes = {"spread is": f"standard error over {unit}, bootstrap"} | origin(device)
    if settings.trains_on_test and settings.split == "test":
        notes["warning"] = "not held out: --fidelity release trains on these clips"
    results.add(folder.metrics, info.name, clips, notes, outcomes)
    numbered = f"stage {settings.number(info.name)}"
    print(f"{numbered}, {clips['n']} {settings.split} clips, {notes.get('warning', 'held out')}")
    results.show(dataset.name, outcomes)
    for line in task.omitted:
        print(line)
    numbers = {name: value for each in outcomes.values() for name, value in each.figures.items()}
    if epoch is not None:
        # an earlier epoch may be measured: what later ones have logged stays
        with sinks(folder, info.name, settings, Progress(numbered, 0, 0, quiet=True)) as log:
            log_figures(log, epoch, numbers, dataclasses.asdict(settings))
    return numbers
