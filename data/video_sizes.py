"""The sizes that the preset `videos` chooses, from the number and the length of the clips."""

import math

import numpy as np

from data.videos import NAME, decoded_clips
from utils.errors import UserError

LONGEST = 16  # frames of a sequence
SHORT = 0.1  # share of the clips, the shortest, that may be left out
EXPERTS = 8, 40  # fewest and most experts
# Up to so many clips, the epochs and batches per epoch of stages 1 and 2. The first row is that of
# the preset `demo`.
TRAINING = (150, (22, 50), (26, 50)), (600, (40, 50), (40, 50)), (None, (60, 100), (40, 50))
WIDE = ["--enc_widths", "16,16,32,64,128", "--dec_widths", "128,64,32,16"]


def choose(config) -> list[list[str]]:
    """The flags of each stage for the clips of config.source, which are decoded first.

    Raises UserError if they cannot be read, or if another data set would not read them.
    """
    if config.dataset_name != NAME:
        if config.source:
            found = f"found --dataset_name {config.dataset_name} and --source {config.source}"
            raise UserError(f"{found}: --preset videos reads --source for {NAME}: leave one out")
        return [[], []]
    with decoded_clips(config) as (decoded, folder, paths, _):
        lengths = np.array([decoded.entries[key]["frames"] for key in paths], int)
        folders = {path.relative_to(folder.source).parts[:-1][:1] for path in paths.values()}
    if not len(lengths):
        return [[], []]  # `load` refuses them
    return flags(lengths, 0 if () in folders else len(folders))


def flags(lengths: np.ndarray, identities: int) -> list[list[str]]:
    """The flags of each stage. lengths: of the clips. identities: sub-folders; 0: no labels."""
    left_out = min(math.ceil(SHORT * len(lengths)), max(0, len(lengths) - 3))
    seq_len = int(np.clip(sorted(lengths)[left_out], 2, LONGEST))
    clips = int((lengths >= seq_len).sum())
    experts = int(np.clip(2 * identities if identities else clips // 8, *EXPERTS))
    shown = min(8, max(1, round(clips / 10)))
    both = ["--seq_len", str(seq_len), "--n_e_w", str(experts), "--num_test_ids", str(shown)]
    most, *stages = next(row for row in TRAINING if row[0] is None or clips <= row[0])
    both += [] if most == TRAINING[0][0] else WIDE
    both += [] if identities else ["--evaluate", "none"]
    return [
        [*both, "--epochs", str(epochs), "--bs_per_epoch", str(batches)]
        for epochs, batches in stages
    ]
