"""What --device and --precision ask of the machine, and whether it has that."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

from utils.errors import UserError

CPU_INFO = Path("/proc/cpuinfo")
NO_GPU = "--device cuda: found no CUDA GPU: use --device cpu or --device auto"
NO_MPS = "--device mps: found no GPU of Apple: use --device cpu or --device auto"
NO_TF32 = "--precision tf32 is for a CUDA GPU, found a CPU: use --precision fp32"
NO_BF16 = "--precision bf16: found no fast bf16 in {}: use --precision fp32"
PROCESSOR, GPU = "this processor (it needs AVX512-BF16, and AMX if it is Intel's)", "this GPU"


def refuse_without_gpu(device: str, precision: str) -> None:
    """Raise UserError if this machine surely lacks the GPU or the precision. Imports no torch."""
    no_gpu = device in ("cpu", "mps") or no_gpu_driver()
    if device == "mps" and sys.platform != "darwin":
        raise UserError(NO_MPS)
    if no_gpu and device == "cuda":
        raise UserError(NO_GPU)
    if no_gpu and precision == "tf32":
        raise UserError(NO_TF32)
    if no_gpu and precision == "bf16" and processor_lacks_bf16():
        raise UserError(NO_BF16.format(PROCESSOR))


def no_gpu_driver() -> bool:
    """Whether this is a Linux machine without a driver for NVIDIA's or AMD's GPUs."""
    if sys.platform != "linux" or os.path.exists("/dev/kfd"):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def processor_lacks_bf16() -> bool:
    """Whether Linux lists the features of an x86 processor, and fast bf16 is not among them.

    AVX512-BF16 alone made products faster than fp32 on a processor of AMD, and slower on one of
    Intel, which needs AMX; a virtual machine may hide that (docs/SPEED.md).
    """
    text = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    if "avx2" not in text:
        return False
    return "avx512_bf16" not in text or ("GenuineIntel" in text and "amx_bf16" not in text)


def fast_bf16(device: Any) -> bool:
    """Whether the torch device multiplies bfloat16 numbers in hardware."""
    import torch

    if device.type == "mps":
        return False  # nobody has measured it
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if processor_lacks_bf16() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # oneDNN supports every processor with AVX-512, also those on which bf16 is slower than fp32.
    return platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_avx512_bf16_supported()


def prepare(precision: str, device: Any) -> None:
    """Let a CUDA GPU multiply in TF32 or not; raise UserError if `device` lacks the precision."""
    import torch

    if precision == "tf32" and device.type != "cuda":
        raise UserError(NO_TF32)
    if precision == "bf16" and not fast_bf16(device):
        raise UserError(NO_BF16.format(GPU if device.type == "cuda" else PROCESSOR))
    if device.type == "cuda":
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
