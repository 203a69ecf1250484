"""What --precision asks of the processor or GPU, and whether it can be had there."""

import platform

import torch

from utils.errors import UserError


def fast_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bfloat16 numbers in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # oneDNN supports every processor with AVX-512, also those on which bf16 is slower than fp32.
    return platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_avx512_bf16_supported()


def prepare(precision: str, device: torch.device) -> None:
    """Let a CUDA GPU multiply in TF32 or not; raise UserError if `device` lacks the precision."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32 is for a CUDA GPU, found a CPU: use --precision fp32")
    if precision == "bf16" and not fast_bf16(device):
        name = "this GPU" if device.type == "cuda" else "this processor (it needs AVX512-BF16)"
        raise UserError(f"--precision bf16: found no fast bf16 in {name}: use --precision fp32")
    if device.type == "cuda":
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
