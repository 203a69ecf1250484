"""Which commit, machine and versions made a figure, an export or a log."""

import platform
import subprocess
from pathlib import Path

import torch


def commit() -> str:
    """The commit of this program, with '-dirty' if files have changed; 'unknown' without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def origin(device: torch.device) -> dict[str, str]:
    """'commit', 'machine' and 'torch' (its version) of a computation on `device`."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": commit(),
        "machine": f"{device.type}, {machine}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
