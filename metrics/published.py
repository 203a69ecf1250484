"""Figures that papers print, to stand beside ours as 'reported': none of them was run again here.

The literature's swap figures are of Li & Mandt's Sprites (1296 characters) and of MUG; VDSM's own of its 840 characters and of
MUG-FED. Not all rows satisfy IS = exp(H(y) - H(y|x)): they stand as printed.
"""

COLUMNS = (
    "action_accuracy",
    "action_inception_score",
    "action_intra_entropy",
    "action_inter_entropy",
)  # of the rows
SWAP = {
    "sprites": {
        "MoCoGAN": (0.9289, 8.461, 0.090, 2.192),
        "DSA": (0.9073, 8.384, 0.072, 2.192),
        "S3VAE": (0.9949, 8.637, 0.041, 2.197),
        "C-DSVAE": (0.9999, 8.871, 0.014, 2.197),
        "SPYL": (1.0, 8.942, 0.006, 2.197),
    },
    "MUG-FED": {
        "DSA": (0.5429, 3.608, 0.374, 1.657),
        "S3VAE": (0.7051, 5.136, 0.135, 1.760),
        "C-DSVAE": (0.8116, 5.341, 0.092, 1.775),
        "SPYL": (0.8571, 5.548, 0.066, 1.779),
        "DBSE": (0.8690, 5.598, 0.041, 1.782),
    },
}
SWAP["sprites-li"] = SWAP["sprites"]
VDSM = {  # the paper's, with 10 % of the sprites held out
    "sprites": {"consistency_accuracy": 0.9953},
    "MUG-FED": {"consistency_accuracy": 0.9333, "fid": 17.64},
}


def reported(dataset, figure):
    """{system: number} that papers print for `figure`, a name of metrics.json, on the data set of that name; {} if none does."""
    known = VDSM.get(dataset, {}).get(figure)
    found = {} if known is None else {"VDSM": known}
    kind, _, rest = figure.partition("_")
    if kind in ("swap", "transfer"):
        column = rest.removeprefix("prior_")
        if column in COLUMNS:
            found |= {
                name: row[COLUMNS.index(column)] for name, row in SWAP.get(dataset, {}).items()
            }
    return found
