"""Where figures and exported codes come from."""

import subprocess
from pathlib import Path


def commit():
    """The commit of the program, '-dirty' behind it if files were changed since; 'unknown' where git cannot tell."""
    here = Path(__file__).resolve().parent.parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
