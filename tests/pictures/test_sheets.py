"""pictures/sheets.py: where tiles and their texts lie, that they fit, and what is marked."""

from itertools import combinations

import numpy as np
import pytest

from pictures import sheets
from pictures.sheets import Labels, Sheet, beside, font, text, wrap

TILE = 64
LONG = "a title that is so long that it does not fit into one line above two small tiles"
FULL = Labels(
    LONG,
    top=[(1, 3, "identity of")],
    columns=["", "dark-blonde\nspellcast front", "an_endless_word_without_any_space"],
    left=[(1, 2, "motion of")],
    rows=["", "walk right, in a coat, with a hat, a stick and a dog that barks at the moon"],
    values=[["-1.25", "0.00", "1.25"], ["-0.10", "", "a value that is too long"]],
    breaks=([0], [0]),
    blank=[(0, 0)],
    note=LONG,
)


def boxes(sheet):
    """(y, x, height, width) of each text and of each tile."""
    return [*sheet.texts, *((y, x, TILE, TILE) for y in sheet.ys for x in sheet.xs)]


def apart(one, other):
    (y, x, height, width), (y2, x2, height2, width2) = one, other
    return y + height <= y2 or y2 + height2 <= y or x + width <= x2 or x2 + width2 <= x


@pytest.mark.parametrize("clocked", [False, True])
def test_nothing_overlaps_and_nothing_is_cut_off(clocked):
    sheet = Sheet(2, 3, TILE, FULL, clocked)
    line = [(sheet.clock, sheets.EDGE, sheets.LINE, 300)] * clocked
    for one, other in combinations([*boxes(sheet), *line], 2):
        assert apart(one, other), (one, other)
    for y, x, height, width in boxes(sheet):
        assert y >= 0 and x >= 0 and y + height <= sheet.height and x + width <= sheet.width
    assert sheet.canvas.shape == (sheet.height, sheet.width, 3)
    # Title, note, two axes, two columns, one row and six values, one of which is empty.
    inked = [sheet.canvas[y : y + h, x : x + w].min() < 130 for y, x, h, w in sheet.texts]
    assert len(inked) == 13 and sum(inked) == 12


def test_every_tile_lies_at_its_place_and_blank_ones_are_paper():
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, TILE, TILE, 3), np.uint8)
    sheet = Sheet(2, 3, TILE, FULL)
    picture = sheet.filled(tiles)
    for row, y in enumerate(sheet.ys):
        for column, x in enumerate(sheet.xs):
            shown = picture[y : y + TILE, x : x + TILE]
            blank = (row, column) == (0, 0)
            assert (shown == 255).all() if blank else np.array_equal(shown, tiles[row, column])
    assert sheet.xs[1] - sheet.xs[0] == TILE + sheets.BREAK
    assert sheet.xs[2] - sheet.xs[1] == TILE + sheets.GAP


def test_a_line_divides_what_is_later_than_training():
    sheet = Sheet(1, 4, TILE, Labels("clips", mark=1))
    marked = (sheet.canvas == sheets.MARK).all((0, 2)) | (sheet.canvas == sheets.MARK).all(-1).any(
        0
    )
    x = np.flatnonzero(marked)
    assert len(x) == 3 and sheet.xs[1] + TILE <= x[0] and x[-1] < sheet.xs[2]
    assert not (Sheet(1, 4, TILE, Labels("clips")).canvas == sheets.MARK).all(-1).any()


def test_a_film_counts_its_frames_and_marks_the_late_ones():
    clips = np.zeros((1, 2, 5, TILE, TILE, 3), np.uint8)
    sheet = Sheet(1, 2, TILE, Labels("clips"), clocked=True)
    film = sheet.film(clips, trained=3)
    assert film.shape == (5, sheet.height, sheet.width, 3)
    late = (film == sheets.MARK).all(-1).any((1, 2))
    assert late.tolist() == [False, False, False, True, True]
    lines = film[:, sheet.clock : sheet.clock + sheets.LINE]
    assert all(not np.array_equal(*pair) for pair in combinations(lines, 2))
    assert not (sheet.film(clips, None) == sheets.MARK).all(-1).any()


def test_texts_are_wrapped_at_spaces_and_hyphens_and_the_rest_is_cut():
    width = int(font().getlength("dark-blonde"))
    assert wrap("dark-blonde hair", width) == ["dark-blonde", "hair"]
    assert wrap("dark-blonde", width - 1) == ["dark-", "blonde"]
    assert wrap("a clip\u00a07", int(font().getlength("clip 7"))) == ["a", "clip\u00a07"]
    (cut,) = wrap("unbreakable_and_long", width)
    assert cut.endswith("…") and font().getlength(cut) <= width
    assert wrap("one two three four", int(font().getlength("two…")) + 1, 2) == ["one", "two…"]
    assert wrap("", width) == []


def test_the_font_is_that_of_a_package_and_has_the_letters():
    assert "matplotlib" in str(font().path)
    # A letter that the font lacks would look like another one.
    shapes = [text([letter], 20).tobytes() for letter in "…°−éßä\ue000"]
    assert len(set(shapes)) == len(shapes)


def test_panels_stand_side_by_side_on_paper():
    small, large = np.zeros((2, 10, 10, 3), np.uint8), np.full((2, 20, 30, 3), 7, np.uint8)
    picture = beside([small, large], gap=5)
    assert picture.shape == (2, 20, 45, 3)
    assert not picture[:, :10, :10].any() and (picture[:, :, 15:] == 7).all()
    assert (picture[:, 10:, :15] == 255).all() and (picture[:, :, 10:15] == 255).all()
