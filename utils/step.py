"""The optimiser step and the device that it runs on."""

import ctypes
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch

from utils.adam import Adam, ShardedAdam
from utils.distributed import processes
from utils.errors import UserError
from utils.precision import NO_GPU, NO_MPS, prepare

# glibc's mallopt options: M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX
MALLOC = {-1: 2**31 - 1, -2: 2**28, -4: 0}


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees: a step on a CPU is up to twice as fast."""
    # other systems and C libraries have no mallopt
    with suppress(OSError, AttributeError):
        if sys.platform == "linux":
            mallopt = ctypes.CDLL(None).mallopt
            for option, value in MALLOC.items():
                mallopt(option, value)


def choose_device(name: str, threads: int = 0, precision: str = "fp32") -> torch.device:
    """The device of --device, made ready for --precision; `threads` > 0: number of CPU threads."""
    if threads:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(NO_GPU)
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError(NO_MPS)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    prepare(precision, device)
    if device.type == "cpu":
        keep_freed_memory()
        # gradients of saturated pixels become denormal, which nearly doubled a step of Unordered
        torch.set_flush_denormal(True)
    return device


def learning_rate(base: float, step: int, steps: int, warmup: int = 0, final: float = 1.0) -> float:
    """The learning rate at `step`: linear warm-up, cosine decay to final * base over `steps`."""
    decay = final + (1 - final) * (1 + math.cos(math.pi * min(step / steps, 1))) / 2
    return base * decay * min(1.0, (step + 1) / warmup if warmup else 1.0)


class Stepper:
    """Adam over groups of parameters; calling it makes one step.

    groups: {share of the learning rate: parameters}. clip: largest norm of the whole gradient; 0:
    no clipping. sharded: the processes of a run share out Adam's state. From the first loss or
    gradient that is not finite, nothing is updated. A gradient whose square overflows counts as not
    finite, because it would stay in Adam's second moment. The device decides; the host may ask with
    `bad_step` at any time.
    """

    def __init__(
        self,
        groups: Mapping[float, Iterable[torch.nn.Parameter]],
        clip: float = 0.0,
        sharded: bool = False,
    ):
        self.shares = list(groups)
        params = [{"params": list(group)} for group in groups.values()]
        kind = ShardedAdam if sharded and processes() > 1 else Adam
        self.adam: Any = kind(params, fused=True)
        self.parameters = [p for group in self.adam.param_groups for p in group["params"]]
        self.clip, self.calls = clip, 0
        device = self.parameters[0].device
        self.finite = torch.ones((), dtype=torch.bool, device=device)  # all losses and gradients
        self.updates = torch.zeros((), dtype=torch.int64, device=device)
        self.norm = torch.zeros((), device=device)  # of the last step's gradient

    def names(self, network: torch.nn.Module) -> list[str]:
        """The names of the parameters in `network`, in the order of Adam's state."""
        names = {parameter: name for name, parameter in network.named_parameters()}
        return [names[parameter] for parameter in self.parameters]

    def adam_state(self, saved: dict, network: torch.nn.Module) -> dict:
        """The 'optimizer' of a checkpoint as a state dict of Adam, in the order of its tensors."""
        if "moments" not in saved:
            return saved
        moments, names = saved["moments"], self.names(network)
        states = {i: moments[name] for i, name in enumerate(names) if name in moments}
        return {**self.adam.state_dict(), "state": states}

    def __call__(self, loss: torch.Tensor, rate: float) -> None:
        """Make one step that lowers the scalar `loss`, at the learning rate `rate`."""
        self.begin_step(rate)
        self.update(loss)

    def begin_step(self, rate: float) -> None:
        """Count a step and set its learning rate."""
        self.calls += 1
        for group, share in zip(self.adam.param_groups, self.shares):
            group["lr"] = rate * share

    @contextmanager
    def rates_from(self, rates: Sequence[torch.Tensor]):
        """Within the block, `update` reads the learning rate of each group from a tensor.

        A CUDA graph of `update` reads the tensors again whenever it is replayed.
        """
        numbers = [group["lr"] for group in self.adam.param_groups]
        captured = self.updates.is_cuda and torch.cuda.is_current_stream_capturing()
        for group, rate in zip(self.adam.param_groups, rates):
            group["lr"], group["capturable"] = rate, captured
        try:
            yield
        finally:
            # Checkpoints hold numbers, the same ones on every device.
            for group, rate in zip(self.adam.param_groups, numbers):
                group["lr"], group["capturable"] = rate, False

    def update(self, loss: torch.Tensor, whole: torch.Tensor | None = None) -> None:
        """Move the parameters against the gradient of `loss`. The host waits for nothing.

        whole: the loss of the whole batch, where `loss` is that of this process's share.
        """
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = self.judge(loss if whole is None else whole)
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.adam.step()

    def judge(self, loss: torch.Tensor) -> torch.Tensor:
        """Let the device decide whether the coming step updates; returns the gradient's norm."""
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        self.finite &= torch.isfinite(loss.detach() + norm)
        self.updates += self.finite
        self.norm.copy_(norm)
        # fused Adam updates nothing if found_inf is 1, which torch sets for its gradient scaler
        self.adam.found_inf = (~self.finite).float()
        return norm

    def last_step(self) -> dict[str, float]:
        """The learning rate and the norm of the gradient of the last step. Waits for the device."""
        rate = self.adam.param_groups[0]["lr"] / (self.shares[0] or 1)
        return {"learning rate": rate, "gradient norm": self.norm.item()}

    def bad_step(self) -> int | None:
        """The first call, from 0, whose loss or gradient was not finite. Waits for the device."""
        return None if self.finite.item() else int(self.updates.item())
