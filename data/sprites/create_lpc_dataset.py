#!/usr/bin/env python3
"""Compose the Sprites set from a clone of Universal-LPC-spritesheet: --lpc CLONE [--data_dir DIR].

Writes DIR/sprites/frames.npy and dataset.json (743 MB); DIR is the project's data/ unless said otherwise, from wherever it is
run. A set that is there and whole is kept. Needs no torch.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.sprites import compose, make, store  # noqa: E402
from utils.errors import UserError, in_one_line  # noqa: E402


@in_one_line
def main(arguments):
    """Run with a list of arguments; the exit status, 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lpc", metavar="CLONE", help=f"folder of a clone of {compose.UPSTREAM}")
    parser.add_argument(
        "--data_dir", metavar="DIR", default=str(ROOT / "data"), help="default: the project's data/"
    )
    options = parser.parse_args(arguments)
    if options.lpc is None:
        raise UserError(
            f"pass --lpc CLONE, the folder of a clone of {compose.UPSTREAM} (see --help)"
        )
    folder = Path(options.data_dir) / "sprites"
    if store.verify(folder):
        print(f"{folder} holds the whole set already")
        return 0
    make(options.lpc, folder)
    print(f"wrote {compose.SHAPE[0]} clips of {compose.NUM_CHARACTERS} characters to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
