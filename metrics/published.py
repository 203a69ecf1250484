"""Figures printed in papers, shown beside ours as 'reported': none of them was run again here.

The swap figures are measured on Li & Mandt's Sprites (1296 characters) and on MUG; those of VDSM
on its own 840 characters and on MUG-FED. Some rows contradict IS = exp(H(y) - H(y|x)) in print too.
"""

# What the columns of SWAP hold, of the factor 'action'.
COLUMNS = ("accuracy", "inception_score", "intra_entropy", "inter_entropy")
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
# The paper's own figures; it holds out 10 % of the sprites. It does not say how it joins the
# factors; the authors' notebooks count each factor by itself.
VDSM = {
    "sprites": {"consistency_accuracy": 0.9953},
    "MUG-FED": {"consistency_accuracy": 0.9333, "fid": 17.64},
}
for figures in VDSM.values():
    figures["consistency_accuracy_per_factor"] = figures["consistency_accuracy"]


def reported(dataset: str, figure: str) -> dict[str, float]:
    """What papers print for a figure of metrics.json on a data set, by system."""
    kind, _, rest = figure.partition("_")
    factor, _, column = rest.removeprefix("prior_").partition("_")
    if kind in ("swap", "transfer") and factor == "action" and column in COLUMNS:
        place = COLUMNS.index(column)
        return {system: row[place] for system, row in SWAP.get(dataset, {}).items()}
    paper = VDSM.get(dataset, {})
    return {"VDSM": paper[figure]} if figure in paper else {}


def as_text(by_system: dict[str, float], separator: str = ", ") -> str:
    """Reported figures in one line: 'DSA 0.9073, SPYL 1'."""
    return separator.join(f"{system} {number:g}" for system, number in by_system.items())
