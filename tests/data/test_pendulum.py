"""data/pendulum.py: the physics is right, a seed decides the set, no state is in two splits."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from data import pendulum
from data.pendulum import COLOURS, GRAVITY, PALETTE, simulate

make = pendulum.make


SOME = {"train": 8, "val": 4, "test": 4}


def few(frames=16, seed=0):
    return make(frames, seed, {"train": 16, "val": 8, "test": 8})


def test_sizes(pendula):
    assert pendula.frames.shape == (640 * 16, 64, 64, 3) and pendula.frames.dtype == np.uint8
    counts = {name: len(pendula.split(name)) for name in ("train", "val", "test")}
    assert counts == {"train": 400, "val": 80, "test": 160}
    assert pendula.continuations == (40, 60) and pendula.static == ("colour",)


def test_a_seed_decides_the_set():
    one, again, other = few(), few(), few(seed=1)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert np.array_equal(one.frames, again.frames)
    assert all(np.array_equal(one.labels[name], again.labels[name]) for name in one.labels)


def test_splits_share_no_initial_state_and_have_all_colours(pendula):
    states = {}
    for name in ("train", "val", "test"):
        clips = pendula.split(name)
        assert set(clips.label("colour")) == set(range(len(COLOURS)))
        states[name] = set(zip(clips.label("angle"), clips.label("velocity")))
        assert len(states[name]) == len(clips)
    assert sum(map(len, states.values())) == len(set.union(*states.values())) == 640
    positions = np.concatenate([pendula.splits[name] for name in states])
    assert np.array_equal(np.sort(positions), np.arange(640))


def test_initial_states_fill_their_ranges(pendula):
    for name, top in (("angle", np.deg2rad(100)), ("velocity", 3.0)):
        values = pendula.labels[name]
        assert 0.95 * top < values.max() <= top and -top <= values.min() < -0.95 * top


def test_labels_are_the_states_that_were_drawn(pendula):
    assert np.allclose(pendula.labels["angles"][:, 0], pendula.labels["angle"])
    angles, _ = simulate(pendula.labels["angle"], pendula.labels["velocity"], 16)
    assert np.array_equal(angles, pendula.labels["angles"])


def test_clips_are_simulated_beyond_their_end():
    short = make(16, 0, SOME, lengths=(0.6, 1.0), dampings=(0.0, 0.4))
    long = make(40, 0, SOME, lengths=(0.6, 1.0), dampings=(0.0, 0.4))
    clips = np.array([5, 0, 9])
    true = long.frames.reshape(-1, 40, 64, 64, 3)[clips]
    assert np.array_equal(short.beyond(clips, 40), true)
    assert np.array_equal(short.beyond(clips, 16), true[:, :16])
    # Positions of clips stay, whichever clips are kept.
    assert np.array_equal(short.subsample(6, 0).beyond(clips, 16), true[:, :16])


def test_energy_is_kept_without_damping_and_lost_with_it():
    draw = np.random.default_rng(0)
    start, spin = draw.uniform(-2, 2, 50), draw.uniform(-3, 3, 50)
    for length in (0.5, 1.0, 2.0):
        theta, omega = simulate(start, spin, 60, length, damping=0)
        # Per mass and length squared, rad^2/s^2.
        energy = omega**2 / 2 - GRAVITY / length * np.cos(theta)
        assert np.abs(energy - energy[:, :1]).max() < 1e-5
    theta, omega = simulate(start, spin, 60)
    energy = omega**2 / 2 - GRAVITY * np.cos(theta)
    assert (np.diff(energy, axis=1) < 0).all()


@pytest.mark.parametrize("length", [0.5, 1.0, 2.0])
def test_period_of_small_swings(length):
    theta, _ = simulate([1e-3], [0.0], 200, length, damping=0)
    time = np.arange(200) * pendulum.FRAME_TIME
    down = np.flatnonzero((theta[0, :-1] > 0) & (theta[0, 1:] <= 0))
    before, after = theta[0, down], theta[0, down + 1]
    crossings = time[down] + pendulum.FRAME_TIME * before / (before - after)
    period = 2 * np.pi * np.sqrt(length / GRAVITY)
    assert np.diff(crossings).mean() == pytest.approx(period, rel=1e-3)


def test_damping_of_small_swings():
    damping = 0.2
    theta, omega = simulate([1e-3], [0.0], 200, damping=damping)
    amplitude = np.sqrt(theta**2 + omega**2 / GRAVITY)[0]
    assert amplitude[-1] / amplitude[0] == pytest.approx(np.exp(-damping / 2 * 19.9), rel=0.02)


def test_one_frame_is_the_state_itself():
    theta, omega = simulate([0.3], [-1.0], 1)
    assert theta.tolist() == [[0.3]] and omega.tolist() == [[-1.0]]


def test_pictures():
    down, right = pendulum.render(np.array([0.0, np.pi / 2]), PALETTE[[0, 5]])
    # The bob hangs 22 px below the pivot (26, 32); positive angles are to the right.
    assert not down[:20].any() and down[48, 32].tolist() == list(COLOURS["red"])
    assert not right[:, :24].any() and right[26, 54].tolist() == list(COLOURS["blue"])
    assert len(np.unique(down[..., 0])) > 3, "not anti-aliased"


def test_the_whole_pendulum_is_in_the_picture_at_every_angle():
    frames = pendulum.render(np.linspace(-np.pi, np.pi, 100), np.repeat(PALETTE[7:], 100, 0))
    light = frames.astype(float).sum((1, 2, 3))
    assert light.min() > 0.97 * light.max()
    cut = pendulum.render(np.array([np.pi]), PALETTE[7:], length=1.4).astype(float).sum()
    assert cut < 0.97 * light.max(), "the test sees a rod that leaves the picture"


def test_load_makes_as_many_frames_as_seq_len(monkeypatch):
    monkeypatch.setattr(pendulum, "make", few)
    plain = {"pendulum_lengths": None, "pendulum_dampings": None}
    shorter = pendulum.load(SimpleNamespace(seq_len=8, data_seed=0, **plain))
    assert shorter.split("test").num_frames == 16
    longer = pendulum.load(SimpleNamespace(seq_len=20, data_seed=3, **plain))
    assert longer.split("test").num_frames == 20 and longer.fingerprint == few(20, 3).fingerprint
    clips = longer.frames.reshape(-1, 20, 64, 64, 3)
    assert np.array_equal(clips[:, :16].reshape(-1, 64, 64, 3), few(16, 3).frames)


def test_the_default_set_has_the_fingerprint_of_earlier_versions(pendula):
    assert pendula.fingerprint == "2852afe65851599cf476298561ad46e057b882d75ba4d52d3543913df078a703"


def test_lengths_and_dampings_are_factors():
    clips = {"train": 24, "val": 8, "test": 8}
    dataset = make(16, 0, clips, lengths=(0.6, 1.2), dampings=(0.05, 0.6, 1.0))
    labels = dataset.labels
    assert dataset.static == ("colour", "length") and dataset.dynamic == ("damping",)
    assert dataset.classes["length"] == ("0.6", "1.2")
    for name, count in clips.items():
        assert np.bincount(dataset.split(name).label("length")).tolist() == [count // 2] * 2
    physics = pendulum.constants(labels, dataset.classes)
    assert np.array_equal(physics["damping"], np.array([0.05, 0.6, 1.0])[labels["damping"]])
    angles, _ = simulate(labels["angle"], labels["velocity"], 16, **physics)
    assert np.array_equal(angles, labels["angles"])
    light = dataset.frames.reshape(40, 16, -1).astype(float).sum(2)
    assert (light.min(1) > 0.97 * light.max(1)).all(), "the whole pendulum is in the picture"
    long = labels["length"] == 1
    shared = set(labels["colour"][long]) & set(labels["colour"][~long])
    assert len(shared) > 3
    for colour in shared:
        same = labels["colour"] == colour
        assert light[long & same].min() > light[~long & same].max(), "a longer rod is drawn longer"


def test_a_rod_that_leaves_the_picture_is_refused(refused):
    flags = ["--preset", "demo", "--pendulum_lengths"]
    assert "expected 1.2 m at most" in refused(*flags, "0.5,1.3")
    for text in ("0", "1,1", "a"):
        assert "different positive numbers" in refused(*flags, text)


def test_export_for_other_programs(tmp_path, monkeypatch, capsys):
    few_clips = functools.partial(make, clips={"train": 6, "val": 2, "test": 2})
    monkeypatch.setattr(pendulum, "make", few_clips)
    assert pendulum.main([str(tmp_path / "out"), "--num_clips", "5", "--seq_len", "8"]) == 0
    clips, angles = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("clips", "angles"))
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert clips.shape == (5, 16, 64, 64, 3) and angles.shape == (5, 16) and len(lines) == 6
    assert lines[0] == "split,colour,length,damping,angle,velocity"
    split, colour, length, damping, angle, _ = lines[1].split(",")
    assert (split, length, damping, float(angle)) == ("train", "1.0", "0.05", angles[0, 0])
    assert np.array_equal(pendulum.render(angles[0], np.repeat([COLOURS[colour]], 16, 0)), clips[0])
    (tmp_path / "file").write_text("")
    assert pendulum.main([str(tmp_path / "file")]) == pendulum.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_clips_are_continued_beyond_their_own_length():
    assert few(16).continuations == (40, 60)
    assert few(50).continuations == (60,)
    assert few(60).continuations == ()  # pictures take twice the length then


@pytest.mark.parametrize("block", [1, 7])
def test_the_block_of_frames_changes_no_pixel(monkeypatch, block):
    angles, colours = np.linspace(-3, 3, 20), pendulum.PALETTE[np.arange(20) % 8]
    lengths = np.linspace(0.3, pendulum.LONGEST, 20)
    whole = pendulum.render(angles, colours, lengths)
    monkeypatch.setattr(pendulum, "BLOCK", block)
    assert np.array_equal(pendulum.render(angles, colours, lengths), whole)


def test_no_pixel_of_a_pendulum_is_left_out():
    """Each pixel by the distances that the docstring's drawing means, in float64."""
    angles, rod = np.linspace(-2.5, 2.5, 9), pendulum.ROD
    drawn = pendulum.render(angles, np.full((9, 3), 255.0))[..., 0]
    rows, columns = np.mgrid[:64, :64] - np.reshape(pendulum.PIVOT, (2, 1, 1))
    for picture, angle in zip(drawn, angles):
        down, right = np.cos(angle), np.sin(angle)
        along = np.clip(rows * down + columns * right, 0, rod)
        to_rod = np.hypot(rows - along * down, columns - along * right)
        to_bob = np.hypot(rows - rod * down, columns - rod * right)
        depth = np.maximum(pendulum.ROD_HALF_WIDTH - to_rod, pendulum.BOB_RADIUS - to_bob)
        expected = 255 * np.clip(0.5 + depth, 0, 1)
        assert np.abs(picture - expected).max() < 0.51
