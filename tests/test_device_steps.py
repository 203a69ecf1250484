"""The steps as a GPU takes them, walked through on a CPU: from inputs sent ahead, by 'graphs'."""

from contextlib import nullcontext

import pytest
import torch

import train_test
from data import batches
from data.batches import Batches
from models.vdsm import image_networks
from tests.small_network import small_network
from tests.tiny import STAGE_1, TINY
from utils import graphs
from utils.graphs import Graphs

FLAGS = [*TINY, "--epochs", 2, "--bs_per_epoch", 7, "--save_every_steps", 3]
ONE_STAGE = "--width 4 --hidden 8 --f_dim 4 --z_dim 3 --bs 3 --device cpu --threads 1".split()
ONE_STAGE += "--epochs 2 --bs_per_epoch 7 --evaluate none --report False --tboard_log False".split()
RUNS = {
    "stage 1": [*FLAGS, *STAGE_1],
    "both stages": FLAGS,
    "the authors'": [*FLAGS, "--fidelity", "release", "--rnn_layers", 2, "--rnn_dropout", 0.3],
    "an image network": [*FLAGS, "--encoder", "resnet18"],
    "Monte Carlo": [*FLAGS, "--kl", "mc", "--foresight", 0, "--frames_per_clip", 0],
    "DSA": ["--preset", "demo-dsa", *ONE_STAGE, "--conv_dim", 8, "--rnn_dim", 4, "--RUN", "demo"],
    "Unordered": ["--preset", "demo-unordered", *ONE_STAGE, "--RUN", "demo"],
}


class Repeater:
    """Stands for a `Recorder`: 'repeats the kernels' of a function by calling it again.

    Like a graph, it fills the same tensor of losses every time.
    """

    made = []

    def __init__(self):
        self.recorded, self.repeated = 0, 0
        self.made.append(self)

    def warm_up(self):
        return nullcontext()

    def record(self, function):
        self.recorded += 1
        kept = []

        def repeat():
            self.repeated += 1
            names, losses, gradients = function()
            kept.append(losses)
            kept[0].copy_(losses)
            return names, kept[0], gradients

        return repeat


@pytest.fixture
def gpu(monkeypatch):
    """Let the CPU take its steps as a GPU does; gives the `Repeater`s that this makes."""
    prepare = Batches.__post_init__

    def resident(self):
        prepare(self)
        self.resident = batches.move(self.clips, self.device)

    def use():
        monkeypatch.setattr(Batches, "__post_init__", resident)
        monkeypatch.setattr(train_test, "Recorder", Repeater)
        monkeypatch.setattr(graphs, "WARM_UP", 1)
        Repeater.made.clear()
        return Repeater.made

    return use


def assert_same(mine, other):
    """Nested dicts, lists and tensors are equal, bit for bit."""
    if isinstance(mine, torch.Tensor):
        assert mine.dtype == other.dtype and torch.equal(mine, other)
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key in mine:
            assert_same(mine[key], other[key])
    elif isinstance(mine, (list, tuple)):
        assert len(mine) == len(other)
        for pair in zip(mine, other):
            assert_same(*pair)
    else:
        assert type(mine) is type(other) and mine == other


def checkpoints(folder):
    """{name: content} of the checkpoints of a run."""
    paths = (folder / "runs" / "demo" / "checkpoints").glob("*.pth")
    return {path.name: torch.load(path, weights_only=True) for path in paths}


def trained(command, folder, monkeypatch, flags):
    """The checkpoints of a run in a folder of its own."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    said = command(*flags)
    assert said.code == 0, said
    return checkpoints(folder)


@pytest.mark.parametrize("name", RUNS)
def test_steps_of_a_gpu_are_the_plain_ones(command, no_pictures, gpu, tmp_path, monkeypatch, name):
    flags = RUNS[name]
    monkeypatch.setattr(image_networks, "build", small_network)
    plain = trained(command, tmp_path / "plain", monkeypatch, flags)
    recorders = gpu()
    assert_same(trained(command, tmp_path / "gpu", monkeypatch, flags), plain)
    assert recorders and all(made.repeated >= 5 for made in recorders)
    # With --foresight, stage 2 has a graph per number of frames that d reads.
    several = name in ("both stages", "the authors'", "an image network")
    assert (recorders[-1].recorded > 1) == several and recorders[0].recorded == 1


@pytest.mark.parametrize("stage, step", [("EncDec", 10), ("Seq", 5)])
def test_a_run_that_was_killed_resumes_exactly(
    command, no_pictures, gpu, tmp_path, monkeypatch, stage, step
):
    plain = trained(command, tmp_path / "plain", monkeypatch, FLAGS)
    gpu()
    save = train_test.save_if_due

    def die(t, *args, **kwargs):
        save(t, *args, **kwargs)
        if (t.info.name, t.place.step) == (stage, step):
            monkeypatch.setattr(train_test, "save_if_due", save)
            raise KeyboardInterrupt

    monkeypatch.setattr(train_test, "save_if_due", die)
    (tmp_path / "gpu").mkdir()
    monkeypatch.chdir(tmp_path / "gpu")
    assert command(*FLAGS).code == 130
    said = command(*FLAGS)
    assert said.code == 0 and "steps of the next" in said.out
    assert_same(checkpoints(tmp_path / "gpu"), plain)


def test_a_step_that_cannot_be_recorded_is_taken_plainly(
    command, no_pictures, gpu, tmp_path, monkeypatch
):
    plain = trained(command, tmp_path / "plain", monkeypatch, RUNS["stage 1"])
    gpu()

    def fail(self, function):
        try:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        except RuntimeError:
            raise RuntimeError("the recording is not valid") from None

    monkeypatch.setattr(Repeater, "record", fail)
    (tmp_path / "gpu").mkdir()
    monkeypatch.chdir(tmp_path / "gpu")
    said = command(*RUNS["stage 1"])
    assert said.code == 0 and said.err.count("\n") == 1
    assert "without a CUDA graph" in said.err and "operation not permitted" in said.err
    assert_same(checkpoints(tmp_path / "gpu"), plain)


def test_the_flag_turns_graphs_off(command, no_pictures, gpu, tmp_path, monkeypatch):
    plain = trained(command, tmp_path / "plain", monkeypatch, RUNS["stage 1"])
    recorders = gpu()
    flags = [*RUNS["stage 1"], "--cuda_graph", "False"]
    state = trained(command, tmp_path / "gpu", monkeypatch, flags)
    assert not recorders
    for content in (*state.values(), *plain.values()):
        del content["settings"]["cuda_graph"]
    assert_same(state, plain)


def test_a_loss_that_is_not_finite_is_named(command, no_pictures, gpu, monkeypatch, tmp_path):
    """The message holds the losses and clips of the bad step, whichever way the step was taken."""
    from models.elbo import Term
    from models.vdsm.encdec import EncDec

    loss = EncDec.loss
    lines = []
    for way in ("plain", "gpu"):
        calls = iter(range(1000))

        def spoiled(self, x, annealed, kl, calls=calls):
            terms = loss(self, x, annealed, kl)
            bad = terms["s"].raw * float("nan")
            return terms | {"s": Term(bad, bad)} if next(calls) == 5 else terms

        if way == "gpu":
            gpu()
        (tmp_path / way).mkdir()
        monkeypatch.chdir(tmp_path / way)
        monkeypatch.setattr(EncDec, "loss", spoiled)
        said = command(*RUNS["stage 1"], "--nan_retries", 0)
        assert said.code == 2 and "the term 's' of the loss is not finite" in said.err
        lines.append(said.err)
    assert lines[0] == lines[1]


def test_a_graph_reads_its_inputs_from_the_same_tensors():
    seen = []

    def function(inputs):
        seen.append(inputs["x"].data_ptr())
        return None, inputs["x"] * inputs["by"], None

    recorder = Repeater()
    run = Graphs(function, recorder, print)
    results = []
    for step in range(9):
        by = 2 if step % 2 else 3
        _, result, _ = run({"x": torch.full((2,), float(step)), "by": by})
        results.append(result.tolist())
        assert result.tolist() == [step * by] * 2
    assert len(set(seen)) == 1
    assert (recorder.recorded, recorder.repeated) == (2, 9 - 2 * graphs.WARM_UP)
