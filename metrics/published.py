"""Figures printed in papers, shown beside ours as 'reported': none of them was run again here.

A figure stands beside one of ours only if protocol, data set and column are the same. What is known
of each protocol:

- SWAP, factor 'action' (the S3VAE family: S3VAE, C-DSVAE, SKD, SPYL, DBSE, DiffSDA). Read from the
  public evaluation scripts of SPYL and DBSE: the dynamics are the posterior's mean, the static code
  is drawn from N(0, I), five repeats, equally many clips per class for IS and entropies, the
  incomplete last batch dropped, one pretrained judge for all papers. The columns `transfer_prior_*`
  of `sprites-li` and MUG-FED are ours of this kind: the static code is drawn from the model's own
  prior (N(0, I) in DSA and Unordered), three repeats, classes weighted equally, no batch dropped,
  and the judge is ours unless --judge names theirs.
- VDSM: its notebooks, on its own 840 characters and on MUG-FED. Its FID has features of a 3D
  ResNeXt-101, of MP4 files (metrics.fid.as_release). Their code measures reconstructed and sampled
  clips; the figure is taken as that of sampled ones, as FID is elsewhere.
"""

# What the columns of SWAP hold, of the factor 'action'.
COLUMNS = ("accuracy", "inception_score", "intra_entropy", "inter_entropy")
# Some rows contradict IS = exp(H(y) - H(y|x)) in print too.
SWAP = {
    # Li & Mandt's 1296 characters, as the family's papers pass them on (the table of SPYL).
    "sprites-li": {
        "MoCoGAN": (0.9289, 8.461, 0.090, 2.192),
        "DSA": (0.9073, 8.384, 0.072, 2.192),
        "S3VAE": (0.9949, 8.637, 0.041, 2.197),
        "C-DSVAE": (0.9999, 8.871, 0.014, 2.197),
        "SPYL": (1.0, 8.942, 0.006, 2.197),
    },
    # MUG, all rows from one table (DiffSDA, Table 9).
    "MUG-FED": {
        "MoCoGAN": (0.6312, 4.332, 0.183, 1.721),
        "DSA": (0.5429, 3.608, 0.374, 1.657),
        "S3VAE": (0.7051, 5.136, 0.135, 1.760),
        "R-WAE": (0.7125, 5.149, 0.131, 1.771),
        "SKD": (0.7745, 5.569, 0.052, 1.769),
        "C-DSVAE": (0.8116, 5.341, 0.092, 1.775),
        "SPYL": (0.8571, 5.548, 0.066, 1.779),
        "DBSE": (0.8690, 5.598, 0.041, 1.782),
        "DiffSDA": (0.8115, 5.382, 0.090, 1.773),
    },
}
# The paper's own figures; it holds out 10 % of the sprites. It does not say how it joins the
# factors; the authors' notebooks count each factor by itself.
VDSM = {
    "sprites": {"consistency_accuracy": 0.9953},
    "MUG-FED": {"consistency_accuracy": 0.9333, "fid_release_sampled": 17.64},
}
for figures in VDSM.values():
    figures["consistency_accuracy_per_factor"] = figures["consistency_accuracy"]
# The network of the paper's FID, as metrics/fid.py names it.
FID_NETWORK = "3D ResNeXt-101, Kinetics"


def reported(dataset: str, figure: str, notes: dict) -> dict[str, float]:
    """What papers print for a figure of metrics.json on a data set, by system.

    notes: those of the figure's protocol. A FID stands beside the same 'network' only.
    """
    factor, _, column = figure.removeprefix("transfer_prior_").partition("_")
    if figure.startswith("transfer_prior_") and factor == "action" and column in COLUMNS:
        place = COLUMNS.index(column)
        return {system: row[place] for system, row in SWAP.get(dataset, {}).items()}
    paper = VDSM.get(dataset, {})
    of_other_network = figure.startswith("fid") and notes.get("network") != FID_NETWORK
    return {} if figure not in paper or of_other_network else {"VDSM": paper[figure]}


def as_text(by_system: dict[str, float], separator: str = ", ") -> str:
    """Reported figures in one line: 'DSA 0.9073, SPYL 1'."""
    return separator.join(f"{system} {number:g}" for system, number in by_system.items())
