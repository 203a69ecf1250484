"""models/start.py: layers rescaled on data, in blocks, and the mean colour."""

import numpy as np
import pytest
import torch
from torch import nn

from data import pendulum
from data.base import Clips
from data.batches import Batches
from models import start
from models.vdsm.stages import START_CLIPS, START_FRAMES, EncDecStage
from tests.tiny import FEW, TINY
from utils.plan import parse


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_give_what_the_whole_gives(layout):
    layer = nn.Conv2d(3, 5, 4).to(memory_format=layout)
    x = torch.rand(start.BLOCK + 3, 3, 8, 8).contiguous(memory_format=layout)
    with torch.no_grad():
        whole, blocks = layer(x), start.in_blocks(layer, x)
    torch.testing.assert_close(blocks, whole)
    assert blocks.stride() == whole.stride()


def test_a_layer_never_sees_more_than_a_block():
    seen = []
    start.in_blocks(lambda part: seen.append(len(part)) or part, torch.zeros(300, 1, 2, 2))
    assert max(seen) <= start.BLOCK and sum(seen) == 300


@pytest.mark.parametrize("shape", [(40, 3, 9, 9), (200, 7)])
def test_the_deviation_is_that_of_torch(shape):
    y = torch.randn(shape) * 0.3 + 2
    expected = y.double().std([d for d in range(y.dim()) if d != 1])
    torch.testing.assert_close(start.deviation(y).double(), expected, rtol=1e-6, atol=0)


def test_a_rescaled_layer_has_zero_mean_and_the_spread():
    x = torch.randn(500, 6)
    layer = nn.Linear(6, 4)
    with torch.no_grad():
        y = start.standardise(layer, x, rows=3, spread=0.5)
    assert torch.allclose(y[:, :3].std(0), torch.tensor(0.5), atol=1e-5)
    assert y[:, :3].mean(0).abs().max() < 1e-5 < y[:, 3].mean().abs()


@pytest.mark.parametrize("inputs", [torch.full((9, 6), 0.3), torch.rand(1, 6)], ids=["equal", "1"])
def test_a_constant_output_keeps_its_weights(inputs):
    layer = nn.Linear(6, 4)
    before = layer.weight.clone()
    with torch.no_grad():
        y = start.standardise(layer, inputs)
    assert torch.equal(layer.weight, before) and y.abs().max() < 1e-6


def test_the_mean_colour_is_that_of_numpy():
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    clips = Clips(frames, np.full(10, 4), {}, np.arange(10))
    expected = torch.from_numpy(frames.mean((0, 1, 2)) / 255).float()
    assert torch.equal(start.mean_colour(clips), expected)


@pytest.mark.parametrize("stage_name", ["EncDec", "Seq"])
def test_weights_and_scales_are_the_two_halves_of_a_start_from_data(monkeypatch, stage_name):
    monkeypatch.setattr("models.vdsm.stages.START_CLIPS", 4)
    settings = parse(TINY).stages[stage_name]
    batches = Batches(pendulum.make(16, 0, FEW).split("train"), torch.device("cpu"), 16, 2)
    changed = {}
    for name in ("torch", "data", "weights", "scales"):
        torch.manual_seed(0)
        settings.start = name
        stage = settings.info(stage_name).stage().build(settings)
        before = {k: v.clone() for k, v in stage.network.state_dict().items()}
        stage.start_from(batches)
        after = stage.network.state_dict()
        changed[name] = {k: v for k, v in after.items() if not torch.equal(v, before[k])}
    assert not changed["torch"] and changed["scales"]
    assert not changed["weights"].keys() & changed["scales"].keys()
    halves = changed["weights"] | changed["scales"]
    assert halves.keys() == changed["data"].keys()
    assert all(torch.equal(value, halves[name]) for name, value in changed["data"].items())


class Drawn:
    """Batches that record which frames were asked for."""

    def __init__(self, frames):
        self.count, self.asked = frames, None

    def draw(self, step, size):
        time = np.broadcast_to(np.arange(self.count), (size, self.count))
        return np.zeros_like(time), time, np.zeros(time.shape, bool)

    def frames(self, clip, time, flip):
        self.asked = time
        raise StopIteration


@pytest.mark.parametrize("frames, expected", [(8, 8), (START_FRAMES, 16), (20, 16), (200, 16)])
def test_the_start_reads_few_frames_of_long_clips(monkeypatch, frames, expected):
    monkeypatch.setattr("models.vdsm.stages.mean_colour", lambda clips: torch.full((3,), 0.5))
    stage, batches = EncDecStage(parse(TINY).stages["EncDec"]), Drawn(frames)
    batches.clips = None
    with pytest.raises(StopIteration):
        stage.start_from(batches)
    assert batches.asked.shape == (START_CLIPS, expected)
    rows = np.unique(batches.asked[0])
    assert len(rows) == expected and rows[0] == 0 and rows[-1] == frames - 1
