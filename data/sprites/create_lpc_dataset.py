#!/usr/bin/env python3
"""Compose the Sprites set from the art of Universal-LPC-spritesheet.

Without --lpc, downloads the art first, 0.4 MB, into DIR/sprites/lpc. Writes DIR/sprites/frames.npy
and dataset.json (743 MB), unless they are complete. Needs no torch.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from data.sprites import compose, make, stored  # noqa: E402
from data.sprites.download import ADDRESS, download  # noqa: E402
from utils.errors import in_one_line  # noqa: E402
from utils.flags import OneLineParser  # noqa: E402


@in_one_line
def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    clone = f"folder of a clone of {compose.UPSTREAM}; default: download the art"
    parser.add_argument("--lpc", metavar="CLONE", help=clone)
    mirror = "where to download the art from; default: GitHub"
    parser.add_argument("--url", metavar="ADDRESS", default=ADDRESS, help=mirror)
    place = "default: the project's data/"
    parser.add_argument("--data_dir", metavar="DIR", default=str(ROOT / "data"), help=place)
    options = parser.parse_args(arguments)
    folder = Path(options.data_dir) / "sprites"
    if stored(folder).verify():
        print(f"{folder} already holds the complete set")
        return 0
    if options.lpc is None:
        download(folder / "lpc", options.url.rstrip("/"))
        print(f"the art is in {folder / 'lpc'}; its authors are in AUTHORS.txt (docs/CREDITS.md)")
    make(options.lpc or folder / "lpc", folder)
    print(f"wrote {compose.SHAPE[0]} clips of {compose.NUM_CHARACTERS} characters to {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
