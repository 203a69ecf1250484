"""Training on a CUDA GPU: no wait for the device, graphs like plain steps, an exact resume.

None of these tests has run yet: no GPU was at hand. tests/test_device_steps.py walks the same path
on a CPU.
"""

import pytest
import torch

from benchmarks.cuda_parts import SMALL, Case, losses_and_gradients
from tests.runs import NETWORKS, checkpoint
from tests.tiny import TINY
from utils.graphs import WARM_UP, Recorder
from utils.step import choose_device

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
models = pytest.mark.parametrize("model", SMALL)
STEPS = 4 * WARM_UP
ON_GPU = [*TINY, "--device", "cuda", "--epochs", 2, "--bs_per_epoch", 8, "--save_every_steps", 3]


def case_of(model, **changes):
    """A small case in fp32 on the GPU."""
    device = choose_device("cuda", 0, "fp32")
    return Case(SMALL[model], device, "fp32", clips=8, bs=4, seq_len=6, **changes)


@models
def test_losses_and_gradients_are_those_of_a_cpu(model):
    device = choose_device("cuda", 0, "fp32")
    expected = losses_and_gradients(SMALL[model], torch.device("cpu"), "fp32", 1)
    found = losses_and_gradients(SMALL[model], device, "fp32", 1)
    for right, ours in zip(expected, found):
        assert right.keys() == ours.keys()
        for name in right:
            assert (ours[name] - right[name]).norm() <= 1e-3 * right[name].norm() + 1e-6, name


@models
def test_the_host_does_not_wait(model):
    case = case_of(model)
    steps = case.steps(None)
    steps(0, 8)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 12):  # step 8 sends the next inputs
            steps(step, step + 8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert case.stepper.bad_step() is None


@models
def test_graphs_are_the_plain_steps(model):
    """The same losses, weights and state of the generator, but for the order of sums."""
    found = []
    for recorder in (None, Recorder()):
        case = case_of(model)
        steps = case.steps(recorder)
        losses = [steps(step, STEPS)[1] for step in range(STEPS)]
        weights = [p.detach().clone() for p in case.stepper.parameters]
        found.append((losses, weights, torch.cuda.get_rng_state()))
    assert steps.graphs.recorder is not None and steps.graphs.graphs, "nothing was recorded"
    (losses, weights, state), (losses_2, weights_2, state_2) = found
    assert torch.equal(state, state_2)
    for one, other in zip(losses + weights, losses_2 + weights_2):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_graph_reads_the_learning_rate():
    case = case_of("stage 1")
    steps = case.steps(Recorder())
    for step in range(2 * WARM_UP):
        steps(step, 2 * WARM_UP)
    steps.values = lambda step: (case.schedules.at(0), 0.0)
    before = [p.detach().clone() for p in case.stepper.parameters]
    steps(1000, 1001)
    assert all(torch.equal(a, b) for a, b in zip(before, case.stepper.parameters))


def test_a_step_that_cannot_be_recorded_is_taken_plainly():
    case, warned = case_of("stage 1"), []
    steps = case.steps(Recorder())
    steps.graphs.warn = warned.append
    take = steps.take

    def waiting(inputs, annealed):
        names, losses = take(inputs, annealed)
        losses.sum().item()  # the host waits, which no graph can record
        return names, losses

    steps.take = waiting
    losses = [steps(step, STEPS)[1] for step in range(STEPS)]
    assert len(warned) == 1 and "without a CUDA graph" in warned[0]
    assert torch.isfinite(torch.stack(losses)).all() and case.stepper.bad_step() is None
    assert torch.randn(3, device="cuda").isfinite().all()


@pytest.mark.parametrize("graph", [True, False])
def test_a_killed_run_resumes(command, no_pictures, tmp_path, kill_at, graph):
    flags = [*ON_GPU, "--cuda_graph", graph, "--rnn_layers", 2, "--rnn_dropout", 0.3]
    assert command(*flags, "--RUN", "unbroken").code == 0
    for stage in NETWORKS:
        # Inputs are drawn at the beginning of an epoch, where the run dies in its second one.
        kill_at(stage, 13)
        assert command(*flags, "--RUN", "broken").code == 130
    assert command(*flags, "--RUN", "broken").code == 0
    for stage in NETWORKS:
        one, other = (
            checkpoint(tmp_path / "runs" / run, stage, 1) for run in ("broken", "unbroken")
        )
        assert torch.equal(one["rng"]["cuda"], other["rng"]["cuda"])
        for name, values in one["model"].items():
            torch.testing.assert_close(values, other["model"][name], rtol=1e-3, atol=1e-4)
        groups = [group["lr"] for group in one["optimizer"]["param_groups"]]
        assert all(isinstance(rate, float) for rate in groups)
