"""utils/guards.py: what is said of a loss that was not finite, however late the device is asked."""

from types import SimpleNamespace

import pytest
import torch

from models.annealing import Annealed
from utils.checkpoints import Place
from utils.guards import NotFinite, raise_not_finite
from utils.step import Stepper


class Batches:
    """Batch `step` holds the clips 10 step and 10 step + 1."""

    def draw(self, step):
        return torch.arange(10 * step, 10 * step + 2)[:, None].expand(-1, 3).numpy(), None


@pytest.mark.parametrize("asked_after", [1, 3])
@pytest.mark.parametrize("bad", ["term", "gradient", None])
def test_the_first_bad_step_is_named(bad, asked_after):
    network = torch.nn.Linear(2, 1)
    stage = SimpleNamespace(network=network)
    stepper = Stepper({1.0: list(network.parameters())})
    place = Place(step=6, losses={"s": [torch.ones(2)], "x": [torch.ones(2)]})
    for i in range(1 + asked_after):  # steps 6, 7, ...; 7 is the first bad one
        loss, x = network(torch.ones(2)).sum(), torch.full((2,), float(i))
        if bad == "term" and i == 1:
            x[0] = float("inf")
            loss = loss + float("inf")
        if bad == "gradient" and i >= 1:
            loss = loss + torch.sqrt(network.bias.sum() * 0)
        stepper(loss, 0.1)
        place.losses["s"].append(torch.full((2,), float(i)))
        place.losses["x"].append(x)
        place.step += 1
    annealed = Annealed({"s": 0.5}, temperature=10.0)
    if bad is None:
        return raise_not_finite(stepper, place, stage, Batches(), annealed, saving=True)
    with pytest.raises(NotFinite) as caught:
        raise_not_finite(stepper, place, stage, Batches(), annealed)
    what = "the term 'x' of the loss" if bad == "term" else "the loss's gradient at bias"
    assert str(caught.value).startswith(
        f"{what} is not finite (losses per sequence: s 1, x {'inf' if bad == 'term' else 1};"
    )
    assert str(caught.value).endswith("weights: s 0.5, temperature 10; training clips 70, 71)")
    assert (caught.value.step, caught.value.begun) == (7, 6)
