"""Sheets of tiles with their axes written around them: what a row, a column and a tile show.

The font is the one that matplotlib brings along, so that a picture looks alike on every machine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
SIZE, LINE = 12, 15  # height of letters and of a line, px
PAPER, INK, QUIET, MARK = (255, 255, 255), (25, 25, 25), (95, 95, 95), (200, 80, 0)
SHADES = 4  # between paper and ink
EDGE = 6  # px around everything
GAP, BREAK = 1, 7  # px between tiles, and between groups of tiles
ROW_WIDTH = 150  # px, the widest label of a row
LEAST = 340  # px, the least width of a sheet: titles need room
CUT = "…"  # ends a text that was shortened

Span = tuple[int, int, str]  # a text over the tiles first to last - 1


@dataclass(frozen=True)
class Labels:
    """The text around a sheet of tiles.

    title: one sentence above the sheet. top, left: names of the axes, each over some columns or
    rows. columns, rows: one label per column or row; a label may have several lines. values: a
    short text above each tile. breaks: columns, and rows, after which a group of tiles ends. mark:
    the column after which a coloured line is drawn. blank: tiles (row, column) without a picture.
    """

    title: str
    top: Sequence[Span] = ()
    columns: Sequence[str] = ()
    left: Sequence[Span] = ()
    rows: Sequence[str] = ()
    values: Sequence[Sequence[str]] = ()
    breaks: tuple[Sequence[int], Sequence[int]] = ((), ())
    mark: int | None = None
    blank: Sequence[tuple[int, int]] = ()
    note: str = ""


@cache
def font() -> ImageFont.FreeTypeFont:
    """The font of all pictures."""
    spec = find_spec("matplotlib")  # only looked up: to import it takes long
    assert spec is not None and spec.submodule_search_locations, "requirements.txt has matplotlib"
    place = Path(spec.submodule_search_locations[0]) / FONT
    return ImageFont.truetype(place, SIZE, layout_engine=ImageFont.Layout.BASIC)


def wrap(text: str, width: int, most: int = 99) -> list[str]:
    """The text in lines of at most `width` px, at most `most` of them; what is too long is cut."""
    lines = []
    for given in str(text).splitlines():
        line = ""
        for word in re.split(r"(?<=[- ])", given):
            if not line or font().getlength((line + word).rstrip(" ")) <= width:
                line += word
            else:
                lines, line = [*lines, line.rstrip(" ")], word
        lines.append(line)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + CUT]
    return [_cut(line, width) for line in lines]


def _cut(line, width):
    if font().getlength(line) <= width:
        return line
    kept = line.removesuffix(CUT)
    while kept and font().getlength(kept + CUT) > width:
        kept = kept[:-1]
    return kept + CUT


def text(lines: Sequence[str], width: int, colour=INK, centred=False) -> np.ndarray:
    """Lines of text on paper, a picture uint8 [LINE len(lines), width, 3]."""
    mask = Image.new("L", (max(1, width), max(1, LINE * len(lines))))
    pen = ImageDraw.Draw(mask)
    for i, line in enumerate(lines):
        left = (width - font().getlength(line)) // 2 if centred else 0
        pen.text((max(0, left), LINE * i + LINE - 3), line, 255, font(), anchor="ls")
    # Few shades, so that the palette of a GIF has room for the colours of its frames.
    cover = np.rint(np.asarray(mask)[: LINE * len(lines), :, None] / 255 * SHADES) / SHADES
    return np.rint(PAPER + cover * np.subtract(colour, PAPER)).astype(np.uint8)


class Sheet:
    """A sheet of `rows` x `columns` tiles of `tile` px square, with `labels` around them.

    clocked: whether a line for the number of the frame lies below the title.
    """

    def __init__(self, rows: int, columns: int, tile: int, labels: Labels, clocked=False):
        self.labels, self.tile, self.clocked = labels, tile, clocked
        heads = [wrap(label, tile - 4, 7) for label in labels.columns]
        sides = [wrap(label, ROW_WIDTH, tile // LINE) for label in labels.rows]
        longest = max((font().getlength(line) for side in sides for line in side), default=0)
        left = EDGE + (LINE + 6) * bool(labels.left) + (int(longest) + EDGE) * bool(longest)
        self.xs = _places(columns, tile, [*labels.breaks[0], labels.mark], left)
        self.width = max(self.xs[-1] + tile + EDGE, LEAST)
        title, note = (wrap(line, self.width - 2 * EDGE) for line in (labels.title, labels.note))
        self.clock = EDGE + LINE * len(title)
        self.head = self.clock + LINE * clocked + EDGE // 2
        top = self.head + LINE * (bool(labels.top) + max(map(len, heads), default=0)) + 3
        above = LINE * bool(labels.values)  # the strip above the tiles of a row
        self.ys = [y + above for y in _places(rows, tile + above, labels.breaks[1], top)]
        foot = self.ys[-1] + tile + EDGE
        self.height = foot + (LINE * len(note) + EDGE) * bool(note)
        self.canvas = np.full((self.height, self.width, 3), PAPER, np.uint8)
        self.texts: list[tuple[int, int, int, int]] = []  # y, x, height, width of each
        self._write(EDGE, EDGE, text(title, self.width - 2 * EDGE))
        self._write(foot, EDGE, text(note, self.width - 2 * EDGE, QUIET))
        for lines, x in zip(heads, self.xs):
            picture = text(lines, tile, centred=True)
            self._write(top - 3 - len(picture), x, picture)
        for lines, y in zip(sides, self.ys):
            room = int(longest) + 1
            y += (tile - LINE * len(lines)) // 2
            self._write(y, self.xs[0] - EDGE - room, text(lines, room))
        for first, end, name in labels.top:
            room = self.xs[end - 1] + tile - self.xs[first]
            picture = text([_cut(name, room)], room, QUIET, centred=True)
            self._write(self.head, self.xs[first], picture)
        for first, end, name in labels.left:
            room = self.ys[end - 1] + tile - self.ys[first]
            picture = np.rot90(text([_cut(name, room)], room, QUIET, centred=True))
            self._write(self.ys[first], EDGE, picture)
        for y, texts in zip(self.ys, labels.values):
            for x, value in zip(self.xs, texts):
                self._write(y - LINE, x, text([_cut(value, tile)], tile, QUIET, centred=True))
        if labels.mark is not None:
            x = self.xs[labels.mark] + tile + BREAK // 2
            self.canvas[self.head : self.ys[-1] + tile + 3, x - 1 : x + 2] = MARK

    def _write(self, y, x, picture):
        height, width = picture.shape[:2]
        self.canvas[y : y + height, x : x + width] = picture
        if picture.size:
            self.texts.append((y, x, height, width))

    def filled(self, tiles: np.ndarray) -> np.ndarray:
        """The sheet as a picture, with tiles uint8 [rows, columns, tile, tile, 3]."""
        picture = self.canvas.copy()
        for row, y in enumerate(self.ys):
            for column, x in enumerate(self.xs):
                if (row, column) not in self.labels.blank:
                    picture[y : y + self.tile, x : x + self.tile] = tiles[row, column]
        return picture

    def film(self, clips: np.ndarray, trained: int | None) -> np.ndarray:
        """The sheet as frames [T, H, W, 3], with clips [rows, columns, T, tile, tile, 3].

        trained: frames of a training clip; what comes later is marked. None: nothing is marked.
        """
        frames, count = [], clips.shape[2]
        for t in range(count):
            later, picture = trained is not None and t >= trained, self.filled(clips[:, :, t])
            words = f"frame {t + 1} of {count}"
            words += f": later than the {trained} frames of training" * later
            lines = [_cut(words, self.width - 2 * EDGE)]
            line = text(lines, self.width - 2 * EDGE, MARK if later else QUIET)
            picture[self.clock : self.clock + LINE, EDGE:-EDGE] = line
            if later:
                _frame(picture, self.ys, self.xs, self.tile)
            frames.append(picture)
        return np.stack(frames)


def _places(count, size, breaks, start):
    """Where each of `count` tiles begins, if the first begins at `start`."""
    gaps = [BREAK if i in breaks else GAP for i in range(count)]
    return [start + i * size + sum(gaps[:i]) for i in range(count)]


def _frame(picture, ys, xs, tile):
    """Draw a coloured frame of 2 px around the tiles."""
    top, bottom, left, right = ys[0] - 3, ys[-1] + tile + 1, xs[0] - 3, xs[-1] + tile + 1
    for y in (top, bottom):
        picture[y : y + 2, left : right + 2] = MARK
    for x in (left, right):
        picture[top : bottom + 2, x : x + 2] = MARK


def beside(pictures: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Pictures uint8 [..., H, W, 3] next to each other, on paper, their tops in one line."""
    height, shape = max(picture.shape[-3] for picture in pictures), pictures[0].shape[:-3]
    parts = []
    for picture in pictures:
        room = np.full((*shape, height, picture.shape[-2] + gap, 3), PAPER, np.uint8)
        room[..., : picture.shape[-3], : picture.shape[-2], :] = picture
        parts.append(room)
    parts[-1] = parts[-1][..., :-gap, :]
    return np.concatenate(parts, -2)
