"""pictures/drawing.py: which files a stage gets, and what lies where in them."""

from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from data.base import Dataset, flat
from models.view import VideoModel
from pictures import files
from pictures.choose import distinct
from pictures.drawing import RELEASED, _timeline, draw_stage
from utils.frames import as_float

COLOURS = np.array([[200, 0, 0], [0, 100, 0], [0, 0, 60], [80, 80, 80]])
LIGHT = np.array([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0], [0.8, 0.4]])  # of each frame
FRAMES = (COLOURS[:, None] * LIGHT[..., None]).astype(np.uint8)  # [clips, T, 3], one pixel each
TOLERANCE = 2  # of 255: codes are rounded to pixels
PANEL_GAP = 12  # px between sheets side by side
ENDED = [225, 225, 225]  # of a frame that nobody knows


class Painter(VideoModel):
    """A model that swaps perfectly: the static code is the hue, the dynamic code the brightness.

    A continued clip keeps its last brightness; drawn clips are black.
    """

    def encode(self, frames):
        light = frames.amax((2, 3, 4))
        return frames[:, 0, :, 0, 0] / light[:, :1], light

    def decode(self, static, dynamic, frames):
        times = torch.arange(frames).clamp(max=dynamic.shape[1] - 1)
        pixels = static[:, None] * dynamic[:, times, None]
        return pixels[..., None, None].expand(-1, -1, -1, 64, 64)

    def draw(self, clips, frames):
        return torch.zeros(clips, 3), torch.zeros(clips, frames)


class Drawing(Painter):
    """A Painter with priors: every sampled identity is blue, every sampled brightness one half."""

    def draw(self, clips, frames):
        light = self.draw_dynamic(torch.zeros(clips), frames)
        return torch.tensor([0.0, 0.0, 1.0]).expand(clips, 3), light

    def draw_dynamic(self, static, frames):
        return torch.full((len(static), frames), 0.5)


class Training:
    """Batches of clips in order."""

    size = 4

    def draw(self, step, size):
        return np.arange(size)[:, None], np.arange(2), np.zeros((size, 2), bool)

    def frames(self, clip, time, flip):
        return as_float(torch.from_numpy(dataset().frames.reshape(12, 2, 64, 64, 3)[clip, time]))


def dataset():
    # the same four clips in each split
    frames = np.broadcast_to(FRAMES[None, :, :, None, None], (3, 4, 2, 64, 64, 3))
    frames = frames.reshape(12, 2, 64, 64, 3)
    stack, lengths = flat(np.ascontiguousarray(frames))
    splits = dict(zip(("train", "val", "test"), np.arange(12).reshape(3, 4)))
    return Dataset("colours", stack, lengths, {}, {}, splits, (), (), "0", continuations=(3,))


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """draw(view, frames_only, batches): {name: a pixel of each tile of the file} after epoch 7.

    draw.sheets: {name: the sheets of the file, side by side}; none if it has no text.
    """
    made = []

    class Kept(files.Sheet):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append(self)

    def noting(save):
        def noted(path, *given):
            call.sheets[path.name] = made[:]
            made.clear()
            save(path, *given)

        return noted

    monkeypatch.setattr(files, "Sheet", Kept)
    for name in ("save_png", "save_gif"):
        monkeypatch.setattr(files, name, noting(getattr(files, name)))

    def tiles_of(name, picture):
        tiles, left = [], 0
        for sheet in call.sheets[name]:
            ys, xs = np.array(sheet.ys) + 2, np.array(sheet.xs) + 2 + left
            tiles.append(picture[ys[:, None], xs])
            left += sheet.width + PANEL_GAP
        return (np.concatenate(tiles, 1) if tiles else picture[2::65, 2::65]).astype(int)

    def call(view, frames_only=False, batches=None, last=True, data=None, **more):
        info = SimpleNamespace(frames_only=frames_only)
        settings = SimpleNamespace(num_test_ids=4, seq_len=2, info={"any": info}.get)
        vars(settings).update({"transfer_frames": None, "fidelity": "paper"} | more)
        stage = SimpleNamespace(name="any", settings=settings)
        logged = {}

        def log(tag, picture, epoch):
            assert epoch == 7
            if isinstance(picture, bytes):
                assert any(path.read_bytes() == picture for path in tmp_path.glob("*.gif")), tag
            else:
                logged[tag] = picture

        draw_stage(stage, view(), data or dataset(), batches, tmp_path, 7, log, last)
        pictures = {path.name: iio.imread(path, index=0) for path in tmp_path.iterdir()}
        for tag, picture in logged.items():
            start, _, end = tag.rpartition("_")
            named = (f"{tag}_7.png", f"{start}_7_{end}.png")
            assert any(np.array_equal(pictures.get(name), picture) for name in named), tag
        return {name: tiles_of(name, picture) for name, picture in pictures.items()}

    call.sheets = {}
    return call


def near(tiles, expected):
    """Whether tiles [..., 3] show the colours `expected`."""
    return np.abs(tiles - expected).max() <= TOLERANCE


# The test clips in the order in which they are drawn.
ORDER = distinct(dataset(), dataset().split("test"), 4)
REAL = FRAMES[ORDER].astype(int)
HUE = COLOURS[ORDER] / COLOURS[ORDER].max(1, keepdims=True)
PIXEL_LIGHT = REAL.max(-1)


def test_a_stage_of_frames(draw):
    tiles = draw(Painter, True, Training())
    assert set(tiles) == {"train_7_targ.png", "train_7_rec.png", "swap_ep_7_rec.png"}
    assert near(tiles["train_7_targ.png"], FRAMES) and near(tiles["train_7_rec.png"], FRAMES)
    grid = tiles["swap_ep_7_rec.png"]
    assert near(grid[0, 1:], REAL[:, 0]) and near(grid[1:, 0], REAL[:, 0])
    # The hue of the column, the light of the row.
    assert near(grid[1:, 1:], HUE[None] * PIXEL_LIGHT[:, 0, None, None])


def test_a_stage_of_frames_without_training_batches(draw):
    assert set(draw(Painter, True)) == {"swap_ep_7_rec.png"}


def test_a_stage_of_clips(draw):
    tiles = draw(Painter)
    release = "seq_7_gt.png seq_7_rec.png vid_7_gen.gif seq_swap_id_7_gen.png vid_swap_7_gen.gif"
    ours = "transfer_7.png samples_7.png samples_7.gif continue_7_3.png continue_7_3.gif"
    assert set(tiles) == {*release.split(), *ours.split(), "transfer_7_3.png", "transfer_7_3.gif"}
    assert near(tiles["seq_7_gt.png"], REAL) and near(tiles["seq_7_rec.png"], REAL)
    grid = tiles["seq_swap_id_7_gen.png"]
    assert near(grid[1:, 1:], HUE[None] * PIXEL_LIGHT[:, 0, None, None])
    assert not tiles["samples_7.png"].any()


def test_early_pictures_leave_out_what_takes_long(draw):
    late = "samples", "continue", "transfer_7_"
    assert not any(name.startswith(late) for name in draw(Painter, last=False))


def test_transfer_gives_each_motion_the_identity_of_the_next_clip(draw):
    tiles = draw(Painter)["transfer_7.png"]
    assert tiles.shape == (8, 3, 3)
    for clip in range(4):
        other = (clip + 1) % 4
        assert near(tiles[2 * clip, 0], 255) and near(tiles[2 * clip, 1:], REAL[clip])
        assert near(tiles[2 * clip + 1, 0], REAL[other, 0])
        assert near(tiles[2 * clip + 1, 1:], HUE[other] * PIXEL_LIGHT[clip][:, None])


def test_a_transfer_is_continued_to_the_lengths_asked_for(draw):
    """Figure 5 of the supplementary: the motion of one clip, the identity of another, 60 frames."""
    tiles = draw(Painter, transfer_frames=(4, 60))
    assert "transfer_7_3.png" not in tiles
    for frames, columns in ((4, 4), (60, 20)):
        rows = tiles[f"transfer_7_{frames}.png"]
        assert rows.shape == (8, 1 + columns, 3)
        for clip in range(4):
            other, every = (clip + 1) % 4, frames // columns
            light = PIXEL_LIGHT[clip][np.minimum(np.arange(0, frames, every), 1)]
            assert near(rows[2 * clip + 1, 0], REAL[other, 0])
            assert near(rows[2 * clip + 1, 1:], HUE[other] * light[:, None])
            assert near(rows[2 * clip, 1], REAL[clip, 0]) and near(rows[2 * clip, 3:], ENDED)
    film = tiles["transfer_7_60.gif"]  # its first frame
    assert near(film[0], REAL[:, 0]) and near(film[1], np.roll(REAL[:, 0], -1, 0))
    assert near(film[2], np.roll(HUE, -1, 0) * PIXEL_LIGHT[:, 0, None])


def test_a_continuation_lies_below_the_true_frames(draw):
    tiles = draw(Painter)["continue_7_3.png"]
    assert near(tiles[::2, :2], REAL) and near(tiles[::2, 2], ENDED)
    assert near(tiles[1::2, :2], REAL) and near(tiles[1::2, 2], REAL[:, 1])


def test_a_view_that_cannot_continue_a_clip(draw):
    class Bounded(Painter):
        continues = False

    names = draw(Bounded, transfer_frames=(40,))
    assert not any(name.startswith(("continue", "transfer_7_")) for name in names)


def test_one_code_is_kept_and_the_other_is_sampled(draw):
    tiles = draw(Drawing)
    for clip in range(3):
        rows = slice(3 * clip + 1, 3 * clip + 3)  # two samples below each clip
        assert near(tiles["fixed_f_7.png"][3 * clip], REAL[clip])
        assert near(tiles["fixed_f_7.png"][rows], HUE[clip] * 127.5)
        assert near(tiles["fixed_z_7.png"][rows], [0, 0, 1] * PIXEL_LIGHT[clip][:, None])


def labels_of(draw, name):
    return [sheet.labels for sheet in draw.sheets[name]]


def test_the_axes_and_the_clips_are_named(draw):
    draw(Drawing, True, Training())
    (labels,) = labels_of(draw, "swap_ep_7_rec.png")
    called = [f"clip\u00a0{row}" for row in ORDER]
    assert labels.top == [(1, 5, "identity of")] and labels.left == [(1, 5, "pose of")]
    assert labels.columns == labels.rows == ["", *called] and labels.blank == [(0, 0)]
    draw(Drawing)
    (labels,) = labels_of(draw, "vid_swap_7_gen.gif")
    assert labels.left == [(1, 5, "motion of")]
    (labels,) = labels_of(draw, "transfer_7.png")
    assert labels.columns == ["identity", "1", "2"] and labels.mark is None
    assert labels.rows[:2] == [f"motion of\n{called[0]}", f"with {called[1]}"]
    assert all(draw.sheets.values())
    for name, (labels, *_) in {name: labels_of(draw, name) for name in draw.sheets}.items():
        assert labels.title, name


def test_the_end_of_training_is_marked(draw):
    draw(Painter)
    (labels,) = labels_of(draw, "continue_7_3.png")
    assert labels.mark == 1 and labels.columns == ["1", "2", "3"]
    assert [span[:2] for span in labels.top] == [(0, 2), (2, 3)]
    # Column 0 is the identity. Then every third frame: the first one is of training.
    (labels,) = labels_of(draw, "transfer_7_3.png")
    assert labels.mark == 2 and labels.columns == ["identity", "1", "2", "3"]
    labels = _timeline(range(0, 60, 3), trained=2, first=1)
    assert labels["mark"] == 1 and labels["columns"][:3] == ["", "1", "4"]


def test_what_is_true_after_the_end_of_a_clip_is_simulated(draw):
    def beyond(clip, frames):
        later = np.full((len(clip), frames - 2, 3), [9, 60, 9], np.uint8)
        clips = np.concatenate([FRAMES[clip % 4], later], 1)
        return clips[:, :, None, None].repeat(64, 2).repeat(64, 3)

    tiles = draw(Painter, data=replace(dataset(), beyond=beyond))
    assert near(tiles["continue_7_3.png"][::2, :2], REAL)
    assert near(tiles["continue_7_3.png"][::2, 2], [9, 60, 9])
    assert near(tiles["transfer_7_3.png"][::2, 3], [9, 60, 9])


def test_the_releases_pictures_keep_its_layout(draw):
    tiles = draw(Drawing, fidelity="release") | draw(Drawing, True, Training(), fidelity="release")
    plain = {name for name, sheets in draw.sheets.items() if not sheets}
    assert plain == {name.format(e=7) for name in RELEASED} and len(plain) == 8
    for name in ("swap_ep_7_rec.png", "seq_swap_id_7_gen.png", "vid_swap_7_gen.gif"):
        grid = tiles[name]
        assert grid.shape == (5, 5, 3) and not grid[0, 0].any()
        assert near(grid[0, 1:], REAL[:, 0]) and near(grid[1:, 0], REAL[:, 0])


def test_clips_of_the_prior_and_of_the_fitted_density_stand_side_by_side(draw):
    class Fitted(Drawing):
        draw_from = "fitted"

        def draw_fitted(self, clips, frames):
            return torch.tensor([0.0, 1.0, 0.0]).expand(clips, 3), torch.ones(clips, frames)

        def nearest(self, static, dynamic):
            return torch.zeros(len(static)), torch.full((len(static),), 2)

    tiles = draw(Fitted)
    prior, fitted = labels_of(draw, "samples_7.png")
    assert "prior" in prior.title and "fitted" in fitted.title
    assert near(tiles["samples_7.png"][:, :2], [0, 0, 127]) and prior.columns == ["1", "2"]
    assert near(tiles["samples_7.png"][:, 2:], [0, 255, 0])
    assert near(tiles["samples_7.gif"][0], [0, 0, 127])
    assert near(tiles["samples_7.gif"][1], [0, 255, 0])
    assert near(tiles["drawn_7.png"][::2], [0, 255, 0]) and near(
        tiles["drawn_7.png"][1::2], FRAMES[2]
    )
