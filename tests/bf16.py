"""Bfloat16 for processors that lack it: the products of bfloat16 tensors, computed in float32.

    python -m tests.bf16 --preset demo --precision bf16 ...

runs main.py with its flags. A processor with fast bf16 multiplies rounded operands, sums in
float32 and rounds the sum. `emulate` lets the functions that networks call do the same. A
gradient is rounded where the hardware would round it, too, because autograd sees the casts.
"""

import functools
import os
import sys

# As in main.py: torch reads this variable when it is imported.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

PRODUCTS = (
    (F, "conv2d"), (F, "conv_transpose2d"), (F, "linear"), (torch, "bmm"), (torch, "convolution"),
    (torch.ops.aten, "convolution_backward"),
)  # fmt: skip


def _to(dtype, value):
    return value.to(dtype) if isinstance(value, torch.Tensor) else value


def _in_float32(function):
    @functools.wraps(function)
    def product(*args, **kwargs):
        if args[0].dtype != torch.bfloat16:
            return function(*args, **kwargs)
        out = function(*(_to(torch.float32, x) for x in args), **kwargs)
        if isinstance(out, tuple):
            return tuple(_to(torch.bfloat16, x) for x in out)
        return out.to(torch.bfloat16)

    return product


def emulate(setattr=setattr):
    """Let this process compute bfloat16 products in float32, and let --precision bf16 pass.

    setattr: for instance that of pytest's monkeypatch, which takes the change back.
    """
    from utils import precision

    for module, name in PRODUCTS:
        setattr(module, name, _in_float32(getattr(module, name)))
    setattr(precision, "fast_bf16", lambda device: True)
    setattr(precision, "processor_lacks_bf16", lambda: False)


if __name__ == "__main__":
    import main

    emulate()
    sys.exit(main.main(sys.argv[1:]))
