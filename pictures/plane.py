"""The figures of a model whose dynamic code is a point of the plane, one a frame (Helminger et al. 2018, Figures 3 and 4).

plane_{e}.png: frames decoded over a grid of the plane, the static code of one clip held fixed in each block. manifold_{e}.png: the codes
of held-out frames, coloured by what moves and by what stays. curve_{e}.png: each component over the frames of a clip, with frames.
"""

import io

import imageio.v3 as iio
import numpy as np
import torch

from pictures.files import save_png, sheet
from utils.frames import as_float, as_uint8

SIDE = 9  # of the grid
BLOCKS = 3  # clips whose static code is held fixed
CLIPS = 80  # whose frames the manifold shows
SHOWN = 8  # frames beside a curve
INSIDE = (2, 98)  # percentiles of the codes between which the grid lies


def draw_plane(view, dataset, rows, length, images, epoch):
    """Write the three figures into folder `images`, from `length` frames of the clips at `rows` of the test split and of others."""
    clips = dataset.split("test")
    some = np.unique(np.r_[rows, np.linspace(0, len(clips) - 1, CLIPS).astype(int)])
    static, dynamic = view.encode(as_float(torch.from_numpy(clips.take(some, 0, length))))
    own = np.searchsorted(some, rows)
    save_png(images / f"plane_{epoch}.png", grid(view, static[own[:BLOCKS]], dynamic))
    save_png(
        images / f"manifold_{epoch}.png",
        manifold(dynamic.numpy(), colourings(dataset, some, length)),
    )
    save_png(
        images / f"curve_{epoch}.png",
        curve(dynamic[own[0]].numpy(), clips.take(rows[:1], 0, length)[0]),
    )


def grid(view, static, dynamic):
    """One picture [H, W, 3]: for each static code [n, ...] a block of SIDE x SIDE frames over the region of the codes [N, T, 2], first
    component to the right, second upwards."""
    low, high = np.percentile(dynamic.flatten(0, 1).numpy(), INSIDE, axis=0)
    across, up = (np.linspace(low[i], high[i], SIDE) for i in (0, 1))
    points = torch.tensor(np.stack(np.meshgrid(across, up[::-1]), -1), dtype=dynamic.dtype).view(
        1, -1, 2
    )
    made = as_uint8(view.decode(static, points.expand(len(static), -1, -1), SIDE**2))
    return sheet(
        np.stack([sheet(block.reshape(SIDE, SIDE, *block.shape[1:])) for block in made])[None],
        gap=8,
        shade=255,
    )


def colourings(dataset, rows, length):
    """{what: values [n, length]} to colour the frames by: an angle or a dynamic factor where there is one, else time; and identity."""
    clips, found = dataset.split("test"), {}
    if "angles" in dataset.labels:
        found["angle in degrees"] = np.rad2deg(clips.label("angles", rows)[:, :length])
    else:
        found.update({name: clips.label(name, rows) for name in dataset.dynamic[:1]})
    found = found or {"frame": np.broadcast_to(np.arange(length), (len(rows), length))}
    found.update({name: clips.label(name, rows) for name in dataset.static[:1]})
    return {
        name: np.broadcast_to(v if v.ndim == 2 else v[:, None], (len(rows), length))
        for name, v in found.items()
    }


def manifold(codes, colours):
    """A picture of the codes [n, T, 2], one panel a colouring {what: values [n, T]}."""
    figure, panels = _figure(1, len(colours), (5 * len(colours), 4))
    for panel, (what, values) in zip(panels, colours.items()):
        dots = panel.scatter(*codes.reshape(-1, 2).T, c=values.ravel(), s=6, cmap="turbo")
        figure.colorbar(dots, ax=panel, label=what)
        panel.set(xlabel="$z_1$", ylabel="$z_2$")
    return _drawn(figure)


def curve(codes, frames):
    """A picture of both components of the codes [T, 2] over time, with some of the frames [T, 64, 64, 3] in a row below."""
    at = np.unique(np.linspace(0, len(codes) - 1, SHOWN).astype(int))
    figure, panels = _figure(2, 1, (8, 4), height_ratios=(3, 1))
    for i, line in enumerate(codes.T):
        panels[0].plot(line, "-", label=f"$z_{i + 1}$")
        panels[0].plot(at, line[at], "k.")
    panels[0].set(xlabel="frame", ylabel="component of z")
    panels[0].legend()
    panels[1].imshow(sheet(frames[at][None], shade=255))
    panels[1].set_axis_off()
    panels[1].set_title("frames " + ", ".join(map(str, at)), fontsize=8)
    return _drawn(figure)


def _figure(rows, columns, size, **ratios):
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(size, dpi=100, layout="constrained")
    return figure, np.ravel(figure.subplots(rows, columns, squeeze=False, gridspec_kw=ratios))


def _drawn(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return iio.imread(file.getvalue())[..., :3]
