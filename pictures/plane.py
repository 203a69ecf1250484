"""Figures of a two-dimensional code z per frame, as Figures 3 and 4 of Helminger et al. 2018."""

import io
from collections.abc import Mapping, Sequence

import imageio.v3 as iio
import numpy as np
import torch

from data.base import IMAGE_SIZE, Dataset
from models.view import VideoModel
from pictures.files import Album, sheet
from pictures.sheets import Labels, Sheet, beside

SIDE = 9  # frames along a side of a block of the grid
PERCENTILES = 2, 98  # of each component of z; a block spans the range between them
BLOCKS = 3  # clips whose static codes the grid uses
MANIFOLD_CLIPS = 80
CURVE_FRAMES = 8
NAMED = 20  # values of a factor in a legend


def draw_plane(
    view: VideoModel,
    dataset: Dataset,
    rows: np.ndarray,
    called: Sequence[str],
    length: int,
    album: Album,
) -> None:
    """Write the three figures, from the first `length` frames of test clips.

    rows: test clips; called: their names. The first BLOCKS give their static codes; the first gives
    the curve.
    """
    clips = dataset.split("test")
    evenly = np.linspace(0, len(clips) - 1, MANIFOLD_CLIPS).astype(int)
    encoded = np.unique(np.r_[rows, evenly])
    static, dynamic = view.encode_clips(clips, encoded, length)
    place = np.searchsorted(encoded, rows)
    album.picture("plane_{e}.png", grid(view, static[place[:BLOCKS]], dynamic, called))
    colours = colourings(dataset, encoded, length)
    album.picture("manifold_{e}.png", manifold(dynamic.numpy(), colours, dataset.classes))
    first = clips.take(rows[:1], 0, length)[0]
    album.picture("curve_{e}.png", curve(dynamic[place[0]].numpy(), first))


def grid(
    view: VideoModel, static: torch.Tensor, dynamic: torch.Tensor, clips: Sequence[str]
) -> np.ndarray:
    """A picture [H, W, 3] with a block of SIDE x SIDE decoded frames per static code [n, ...].

    clips: the names of the clips that gave the static codes. A block spans the range of the codes
    `dynamic` [N, T, 2]: z_1 to the right, z_2 upwards.
    """
    low, high = np.percentile(dynamic.flatten(0, 1).numpy(), PERCENTILES, axis=0)
    across, up = (np.linspace(low[i], high[i], SIDE) for i in (0, 1))
    mesh = np.stack(np.meshgrid(across, up[::-1]), -1)
    points = torch.tensor(mesh, dtype=dynamic.dtype).view(1, -1, 2)
    frames = view.decode_uint8(static, points.expand(len(static), -1, -1), SIDE**2)
    blocks = []
    for name, block in zip(clips, frames):
        labels = Labels(
            f"f of {name}",
            top=[(0, SIDE, "z_1")],
            columns=[f"{value:z.2f}" for value in across],
            left=[(0, SIDE, "z_2")],
            rows=[f"{value:z.2f}" for value in up[::-1]],
        )
        tiles = block.reshape(SIDE, SIDE, *block.shape[1:])
        blocks.append(Sheet(SIDE, SIDE, IMAGE_SIZE, labels).filled(tiles))
    return beside(blocks)


def colourings(dataset: Dataset, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """{name: values [n, length]} that colour the frames of the test clips at `rows`.

    First what moves (the angle, a dynamic factor or time), then the first static factor.
    """
    clips = dataset.split("test")
    if "angles" in dataset.labels:
        values = {"angle in degrees": np.rad2deg(clips.label("angles", rows)[:, :length])}
    elif dataset.dynamic:
        values = {dataset.dynamic[0]: clips.label(dataset.dynamic[0], rows)[:, None]}
    else:
        values = {"frame": np.arange(length)[None]}
    values |= {name: clips.label(name, rows)[:, None] for name in dataset.static[:1]}
    return {name: np.broadcast_to(value, (len(rows), length)) for name, value in values.items()}


def manifold(
    codes: np.ndarray, colours: dict[str, np.ndarray], classes: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """A picture of the codes [n, T, 2], with one panel per entry of `colourings`.

    classes: names of the values of categorical factors, for the legend; at most NAMED are named.
    """
    # Slow to import.
    from matplotlib.colors import ListedColormap, is_color_like

    from pictures.plots import plain

    figure, panels = _figure(1, len(colours), (5 * len(colours), 4))
    for panel, (name, values) in zip(panels, colours.items()):
        known = list(classes.get(name, ()))[:NAMED]
        cmap = "tab20" if known else "viridis"
        if known and all(map(is_color_like, known)):  # the colours of pendula
            cmap = ListedColormap(known)
            panel.set_facecolor("dimgray")
        dots = panel.scatter(*codes.reshape(-1, 2).T, c=values.ravel(), s=6, cmap=cmap)
        if known:
            marks = [panel.scatter([], [], s=20, color=dots.to_rgba(i)) for i in range(len(known))]
            words = {"title": plain(name), "loc": "center left", "bbox_to_anchor": (1, 0.5)}
            panel.legend(marks, list(map(plain, known)), fontsize=8, **words)
        else:
            figure.colorbar(dots, ax=panel, label=plain(name))
        panel.set(xlabel="$z_1$", ylabel="$z_2$")
    return _pixels(figure)


def curve(codes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """A picture of a clip's codes [T, 2] over time, above some of its frames uint8 [T, ...]."""
    shown = np.unique(np.linspace(0, len(codes) - 1, CURVE_FRAMES).astype(int))
    figure, panels = _figure(2, 1, (8, 4), height_ratios=(3, 1))
    for i, component in enumerate(codes.T):
        panels[0].plot(np.arange(len(codes)) + 1, component, "-", label=f"$z_{i + 1}$")
        panels[0].plot(shown + 1, component[shown], "k.")
    panels[0].set(xlabel="frame", ylabel="component of z")
    panels[0].legend()
    panels[1].imshow(sheet(frames[shown][None], shade=255))
    panels[1].set_axis_off()
    panels[1].set_title("frames " + ", ".join(str(t + 1) for t in shown), fontsize=8)
    return _pixels(figure)


def _figure(rows, columns, size, **ratios):
    # Slow to import.
    from matplotlib.figure import Figure

    figure = Figure(size, dpi=100, layout="constrained")
    return figure, np.ravel(figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios))


def _pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return iio.imread(file.getvalue())[..., :3]
