"""utils/step.py: the schedule of the learning rate, Adam over groups, the device."""

import copy

import pytest
import torch

from utils.errors import UserError
from utils.step import Stepper, choose_device, learning_rate


def test_learning_rate_is_constant_by_default():
    assert {learning_rate(0.1, step, 10) for step in range(10)} == {0.1}


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(1.0, step, 1000, warmup=100, final=0.1) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == pytest.approx(max(rates), abs=0.01)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4) and rates[500] == pytest.approx(0.55)
    assert all(b < a for a, b in zip(rates[100:], rates[101:]))


def test_a_step_is_adams_and_each_group_has_its_share():
    start = torch.tensor([1.0, -2.0])
    fast, slow = (torch.nn.Parameter(start.clone()) for _ in range(2))
    stepper = Stepper({1.0: [fast], 0.1: [slow]})
    stepper((fast**2).sum() + (slow**2).sum(), 0.01)
    # Adam's first step is the learning rate, against the sign of the gradient
    assert torch.allclose(fast.data, start - 0.01 * start.sign(), atol=1e-6)
    assert torch.allclose(slow.data, start - 0.001 * start.sign(), atol=1e-6)


def test_gradients_do_not_accumulate():
    p = torch.nn.Parameter(torch.ones(1))
    stepper = Stepper({1.0: [p]})
    for _ in range(2):
        stepper(3 * p.sum(), 0.0)
    assert p.grad.item() == 3


def test_clipping_is_of_the_whole_gradient():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    stepper = Stepper({1.0: parameters[:1], 0.5: parameters[1:]}, clip=1.0)
    stepper(sum((300 * p).sum() for p in parameters), 0.1)
    assert torch.cat([p.grad for p in parameters]).norm() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("clip", [0, 1.0])
@pytest.mark.parametrize("bad", ["loss", "gradient", "overflow"])
def test_what_is_not_finite_updates_nothing_from_then_on(clip, bad):
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    stepper = Stepper({1.0: [p], 0.1: [q]}, clip)

    def loss():
        return (p**2).sum() + (q**3).sum()

    stepper(loss(), 0.1)
    assert stepper.bad_step() is None
    before = [
        p.detach().clone(),
        q.detach().clone(),
        copy.deepcopy(stepper.adam.state_dict()["state"]),
    ]
    spoiled = {
        "loss": loss() + float("nan"),
        "gradient": loss() + torch.sqrt(q[0] - q[0]),
        "overflow": loss() + 1e30 * q[1],
    }
    for each in (spoiled[bad], loss()):
        stepper(each, 0.1)
    assert stepper.bad_step() == 1
    assert torch.equal(p, before[0]) and torch.equal(q, before[1])
    for now, then in zip(stepper.adam.state_dict()["state"].values(), before[2].values()):
        assert all(torch.equal(now[key], then[key]) for key in then)


def test_rates_may_be_read_from_tensors():
    """Of each group; the state that a checkpoint holds keeps the numbers."""
    shares, start = (1.0, 0.1), torch.randn(3)
    read, given = ([torch.nn.Parameter(start.clone()) for _ in shares] for _ in range(2))
    tensors = [torch.zeros((), dtype=torch.float64) for _ in shares]
    steppers = [Stepper({s: [p] for s, p in zip(shares, group)}) for group in (read, given)]
    for rate in (0.1, 0.03):
        steppers[0].begin_step(rate)
        for tensor, share in zip(tensors, shares):
            tensor.fill_(rate * share)
        with steppers[0].rates_from(tensors):
            steppers[0].update(sum((p**2).sum() for p in read))
        steppers[1](sum((p**2).sum() for p in given), rate)
    assert all(torch.equal(p, q) for p, q in zip(read, given))
    mine, plain = (stepper.adam.state_dict()["param_groups"] for stepper in steppers)
    assert mine == plain and all(type(group["lr"]) is float for group in mine)


def test_the_guard_changes_no_number():
    torch.manual_seed(0)
    a = torch.nn.Parameter(torch.randn(50))
    b = torch.nn.Parameter(a.detach().clone())
    stepper, plain = Stepper({1.0: [a]}), torch.optim.Adam([b], lr=0.01, fused=True)
    for _ in range(5):
        stepper((a**4).sum(), 0.01)
        plain.zero_grad()
        (b**4).sum().backward()
        plain.step()
    assert torch.equal(a, b)


def test_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="no CUDA GPU"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    assert not torch.backends.cuda.matmul.allow_tf32
    choose_device("cuda", precision="fp32")
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    choose_device("cuda", precision="tf32")
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU of Apple"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("mps").type == "mps" and choose_device("auto").type == "cuda"
