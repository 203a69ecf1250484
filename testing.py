"""What a stage is tested with: validation loss and view; and the test of trained stages."""

import time
from functools import partial
from pathlib import Path

import torch

from data.base import Dataset
from data.batches import Batches
from export import export
from metrics.evaluate import evaluate
from models.annealing import Annealed
from models.density import fitted
from models.stage import Stage
from models.view import VideoModel
from pictures.drawing import draw_stage
from utils import guards
from utils.checkpoints import check_sizes, undisturbed
from utils.errors import warn
from utils.plan import Plan
from utils.run_folder import RunFolder

VALIDATION_BATCHES = 4


def view_of(stage: Stage, dataset: Dataset, folder: RunFolder, checkpoint: Path) -> VideoModel:
    """The view of a stage that has, or will have, the weights of `checkpoint`."""
    view, c, place = stage.view(), stage.settings, folder.densities(checkpoint)
    view.draw_from = c.draw_from
    view.fit = partial(fitted, view, stage.network, dataset, c.seq_len, place)
    return view


@torch.no_grad()
def validation_loss(stage: Stage, batches: Batches, annealed: Annealed) -> dict[str, float]:
    """Validation loss per term, in nats per sequence, with all KL weights at 1.

    The batches and the noise are the same at every call. The random state is restored.
    """
    with undisturbed(batches.device):
        torch.manual_seed(0)
        sums = {}
        for step in range(VALIDATION_BATCHES):
            terms, sequences = stage.loss(batches, step, annealed.unweighted())
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.raw.item() / sequences / VALIDATION_BATCHES
    return sums


def test(plan: Plan, folder: RunFolder, device: torch.device, datasets: dict) -> None:
    """Draw, measure and export the checkpoints that the flags name, by default the newest."""
    folder.put_away(warn)
    folder.sweep()
    began = time.monotonic()
    for name, path in guards.to_test(plan, folder).items():
        settings, dataset, info = plan.stages[name], datasets[name], plan.stages[name].info(name)
        state = folder.load(path, name)
        check_sizes(state, path, settings, info.sizes)
        if settings.measured:
            guards.refuse_other_data(state, path, dataset)
        folder.make(settings.export_codes)
        stage = info.stage().build(settings)
        stage.network.load_state_dict(state["model"])
        stage.to(device).network.eval()
        epoch, view = state["epoch"] - 1, view_of(stage, dataset, folder, path)
        torch.manual_seed(settings.seed)
        draw_stage(stage, view, dataset, None, folder.images, epoch, lambda *_: None, True)
        if settings.measured:
            evaluate(view, info, dataset, folder, settings, device, epoch)
        if settings.export_codes and info is settings.STAGES[-1]:
            export(view, dataset, folder, settings, path)
        print(f"tested {path}: pictures of epoch {epoch} in {folder.images}")
    if not plan.first.quiet:
        print(f"done in {time.monotonic() - began:.0f} s")
