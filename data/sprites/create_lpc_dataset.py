#!/usr/bin/env python3
"""Compose the Sprites set from a clone of Universal-LPC-spritesheet: --lpc CLONE [--data_dir DIR].

Writes DIR/sprites/frames.npy and dataset.json (743 MB), unless they are complete. Needs no torch.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.sprites import compose, make, stored  # noqa: E402
from utils.errors import UserError, in_one_line  # noqa: E402


@in_one_line
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lpc", metavar="CLONE", help=f"folder of a clone of {compose.UPSTREAM}")
    place = "default: the project's data/"
    parser.add_argument("--data_dir", metavar="DIR", default=str(ROOT / "data"), help=place)
    options = parser.parse_args(arguments)
    if options.lpc is None:
        raise UserError(f"found no --lpc: pass --lpc CLONE, a clone of {compose.UPSTREAM}")
    folder = Path(options.data_dir) / "sprites"
    if stored(folder).verify():
        print(f"{folder} already holds the complete set")
        return 0
    make(options.lpc, folder)
    print(f"wrote {compose.SHAPE[0]} clips of {compose.NUM_CHARACTERS} characters to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
