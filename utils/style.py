"""One style for all plots: for the report, for notebooks and for papers."""

import io
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from utils.files import write_bytes

# Okabe & Ito, Color Universal Design, 2008: eight colours that colour-blind readers tell apart.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"
)  # fmt: skip
# Beside the colours, so that points differ in print without colour, too.
MARKERS = "os^Dv<>P"
ABSENT = "#d9d9d9"
FORMATS = ("png", "pdf", "svg")
RC: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": f"cycler('color', {list(PALETTE)})",
    "grid.alpha": 0.3,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 10,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    # Letters stay letters in a PDF, as journals ask; an SVG has no random names in it.
    "pdf.fonttype": 42,
    "svg.hashsalt": "plot",
}


def in_style(**more):
    """A decorator, or a block of `with`, in which plots are drawn in the style."""
    return rc_context(RC | more)


def shades() -> Colormap:
    """From light to dark in one hue, for shares; what is masked is grey."""
    return colormaps["Blues"].with_extremes(bad=ABSENT)


def plain(text: str) -> str:
    """Text that matplotlib draws as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$").replace("_", " ")


class Plot(Figure):
    """A figure that a notebook shows as a picture, and that is saved whole or not at all."""

    def __init__(self, width: float, height: float, title: str = ""):
        """width, height: in inches."""
        super().__init__((width, height), layout="constrained")
        if title:
            self.suptitle(plain(title))

    def content(self, form: str = "png", dpi: int = 150) -> bytes:
        """The content of a file in one of FORMATS; equal plots give equal bytes."""
        file, dates = io.BytesIO(), {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
        with in_style():
            self.savefig(file, format=form, dpi=dpi, metadata=dates.get(form))
        return file.getvalue()

    def save(self, path: Path) -> None:
        """Write the plot to `path`, whose ending is one of FORMATS."""
        write_bytes(path, self.content(path.suffix[1:]), sync=False)

    def _repr_png_(self) -> bytes:
        return self.content(dpi=100)
