"""Where figures, exported codes and logs come from."""

import platform
import subprocess
from pathlib import Path

import torch


def commit():
    """The commit of the program, '-dirty' behind it if files were changed since; 'unknown' where git cannot tell."""
    here = Path(__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def origin(device):
    """Commit, machine and versions, of a computation on `device`: {'commit', 'machine', 'torch'}."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": commit(),
        "machine": f"{device.type}, {machine}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
