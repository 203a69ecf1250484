"""One optimiser step, made fast, and the machine it runs on."""

import ctypes
import math
import sys

import torch

from utils.errors import UserError

MALLOC = {
    -1: 2**31 - 1,
    -2: 2**28,
    -4: 0,
}  # glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX


def keep_freed_memory():
    """Have glibc keep the memory that a step frees for the next one: up to twice as fast on a CPU. Elsewhere it does nothing."""
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except (OSError, AttributeError):  # another C library
            return
        for option, value in MALLOC.items():
            mallopt(option, value)


def choose_device(name, threads=0):
    """The torch.device that --device asks for; sets the CPU threads if `threads` > 0. UserError if CUDA is asked for and absent."""
    if threads:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda: no CUDA GPU is visible here: use --device cpu, or --device auto to take one if there is"
        )
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    else:
        keep_freed_memory()
        # gradients of saturated pixels become denormal: they made a step of Unordered nearly twice as long
        torch.set_flush_denormal(True)
    return device


def learning_rate(base, step, steps, warmup=0, final=1.0):
    """The rate at `step` of `steps`: a linear warm-up times a cosine from `base` to final * base (1.0: constant)."""
    decay = final + (1 - final) * (1 + math.cos(math.pi * step / steps)) / 2
    return base * decay * min(1.0, (step + 1) / warmup if warmup else 1.0)


class Stepper:
    """Adam over groups of parameters, {share of the learning rate: parameters}: one call a step. clip: largest norm of the
    whole gradient, 0 off.

    From the first step on whose loss or gradient is not finite, nothing is updated, weights or moments. The device decides; the host
    asks by `bad_step`, when it likes. A gradient whose square overflows counts: Adam's second moment would never forget it.
    """

    def __init__(self, groups, clip=0.0):
        self.parameters, self.clip = [p for group in groups.values() for p in group], clip
        self.calls, self.updates = (
            0,
            torch.zeros((), dtype=torch.int64, device=self.parameters[0].device),
        )
        self.shares = list(groups)
        self.adam = torch.optim.Adam(
            [{"params": list(group)} for group in groups.values()], fused=True
        )

    def names(self, network):
        """The names that `network` gives the parameters, in the order of Adam's state."""
        own = {parameter: name for name, parameter in network.named_parameters()}
        return [own[parameter] for parameter in self.parameters]

    def adam_state(self, saved, network):
        """A checkpoint's 'optimizer' as Adam takes it: as it is, or from the {'moments': {name: state}} that a released file gives."""
        if "moments" not in saved:
            return saved
        states = {
            i: saved["moments"][n]
            for i, n in enumerate(self.names(network))
            if n in saved["moments"]
        }
        return {**self.adam.state_dict(), "state": states}

    def __call__(self, loss, rate):
        """Descend `loss` at learning rate `rate`."""
        for group, share in zip(self.adam.param_groups, self.shares):
            group["lr"] = rate * share
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        norm = self.judge(loss)
        if self.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        self.adam.step()

    def judge(self, loss):
        """Let the device decide whether the coming step updates anything; returns the gradient's norm."""
        norm = torch.nn.utils.get_total_norm(p.grad for p in self.parameters if p.grad is not None)
        well = torch.isfinite(loss.detach() + norm) & (self.updates == self.calls)
        self.calls += 1
        self.updates += well
        self.adam.found_inf = (
            ~well
        ).float()  # fused Adam leaves everything as it is where this is 1, as for a gradient scaler
        return norm

    def bad_step(self):
        """The number, from 0, of the first call whose loss or gradient was not finite, or None. Waits for the device."""
        made = int(self.updates.item())
        return made if made < self.calls else None
