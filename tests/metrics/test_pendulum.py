"""Measures of pendula: the reader reads every real frame, the figures have their known answers."""

import numpy as np
import pytest

from data import pendulum
from data.pendulum import PALETTE, render, simulate
from metrics.judge import accuracy
from metrics.pendulum import (
    AMPLITUDES,
    SwingReader,
    angle_error,
    continuation_measures,
    draw_measures,
    fit,
    peak,
    period,
    read,
    states,
    swap_measures,
    swing,
    with_swing,
)
from metrics.summary import figures


def swap_figures(*clips):
    return figures(swap_measures(*clips))


def continuation_figures(*clips, **physics):
    return figures(continuation_measures(*clips, **physics))


def film(angles, colours):
    """Clips of pendula: angles [n, T] in rad, colours [n] -> uint8 [n, T, 64, 64, 3]."""
    frames = render(angles.ravel(), np.repeat(PALETTE[colours], angles.shape[1], 0))
    return frames.reshape(*angles.shape, 64, 64, 3)


@pytest.fixture(scope="module")
def swings():
    """Initial states [24], colours [24] and true angles [24, 40]."""
    draw = np.random.default_rng(5)
    angle, velocity = draw.uniform(-1.7, 1.7, 24), draw.uniform(-3, 3, 24)
    return angle, velocity, np.arange(24) % 8, simulate(angle, velocity, 40)[0]


def test_the_reader_reads_every_real_frame(pendula):
    blocks = [read(block) for block in np.split(pendula.frames.reshape(640, 16, 64, 64, 3), 20)]
    colour, angle = (np.concatenate(part) for part in zip(*blocks))
    assert (colour == pendula.labels["colour"][:, None]).mean() >= 0.995
    assert angle_error(angle, pendula.labels["angles"]).max() <= 0.5


def test_the_reader_takes_floats_too(pendula):
    clips = pendula.split("train").take(np.arange(8))
    colour, angle = read(clips)
    as_float = read(clips.astype(np.float32) / 255)
    assert np.array_equal(as_float[0], colour) and np.allclose(as_float[1], angle)


def test_the_reader_all_around():
    angles = np.linspace(-3.1, 3.1, 200)[:, None]
    colour, angle = read(film(angles, np.arange(200) % 8))
    assert (colour[:, 0] == np.arange(200) % 8).all() and angle_error(angle, angles).max() <= 0.5


def test_frames_that_cannot_be_read_are_wrong():
    colour, angle = read(np.zeros((1, 2, 64, 64, 3), np.uint8))
    assert (colour == -1).all() and np.isnan(angle).all()
    assert (angle_error(angle, np.zeros((1, 2))) == 180).all()
    haze = np.full((1, 1, 64, 64, 3), 20, np.uint8)
    assert read(haze)[0] == -1


def test_angle_error_goes_the_short_way():
    assert angle_error(np.array([3.1]), np.array([-3.1])) == pytest.approx(
        np.rad2deg(2 * np.pi - 6.2)
    )


def test_perfect_swaps_score_1_and_none_score_0(swings):
    _, _, colour, angles = swings
    partner = np.roll(np.arange(24), 1)
    oracle = swap_figures(film(angles, colour[partner]), angles, colour, colour[partner])
    assert oracle["identity_accuracy"] == 1 and oracle["leak_accuracy"] == 0
    assert oracle["pose_error_deg"] < 0.5
    idle = swap_figures(film(angles, colour), angles, colour, colour[partner])
    assert idle["identity_accuracy"] == 0 and idle["leak_accuracy"] == 1
    assert idle["pose_error_deg"] < 0.5
    wrong = swap_figures(film(angles[partner], colour[partner]), angles, colour, colour[partner])
    assert wrong["identity_accuracy"] == 1 and wrong["pose_error_deg"] > 10
    black = swap_figures(np.zeros((24, 40, 64, 64, 3), np.uint8), angles, colour, colour[partner])
    assert black == {"identity_accuracy": 0, "leak_accuracy": 0, "pose_error_deg": 180}


def test_leakage_is_counted_on_pairs_that_differ(swings):
    _, _, colour, angles = swings
    identity = np.where(np.arange(24) < 12, colour, (colour + 1) % 8)
    half = swap_figures(film(angles, colour), angles, colour, identity)
    assert half["identity_accuracy"] == 0.5 and half["leak_accuracy"] == 1


def test_half_the_frames_black_is_half_right(swings):
    _, _, colour, angles = swings
    made = film(angles, colour)
    made[:, ::2] = 0
    assert swap_figures(made, angles, colour, colour)["identity_accuracy"] == 0.5


def test_the_physics_itself_continues_perfectly(swings):
    angle, velocity, colour, angles = swings
    perfect = continuation_figures(film(angles, colour), angle, velocity)
    assert perfect["amplitude_ok"] == perfect["period_ok"] == 1 and perfect["pose_error_deg"] < 0.5


def test_the_physics_of_other_lengths_and_dampings_too():
    made = pendulum.make(
        40, 3, {"train": 8, "val": 8, "test": 8}, lengths=(0.6, 1.2), dampings=(0.05, 0.5)
    )
    clips = made.split("test")
    state, real = (clips.label("angle"), clips.label("velocity")), clips.take(np.arange(8))
    physics = pendulum.constants({name: clips.label(name) for name in made.classes}, made.classes)
    perfect = continuation_figures(real, *state, **physics)
    assert perfect["amplitude_ok"] == perfect["period_ok"] == perfect["frames_read"] == 1
    assert perfect["pose_error_deg"] < 0.5
    # The usual length and damping give other angles.
    assert continuation_figures(real, *state)["pose_error_deg"] > 10


def test_known_failures_of_a_continuation(swings):
    angle, velocity, colour, angles = swings
    small = continuation_figures(film(0.4 * angles, colour), angle, velocity)
    assert small["amplitude_ok"] == 0 and small["period_ok"] == 1
    time = np.arange(40) * 0.1
    slow = np.stack([np.interp(time / 1.3, time, path) for path in angles])
    late = continuation_figures(film(slow, colour), angle, velocity)
    assert late["period_ok"] < 0.05 and late["amplitude_ok"] > 0.9
    still = continuation_figures(film(np.repeat(angles[:, 15:16], 40, 1), colour), angle, velocity)
    assert still["amplitude_ok"] == 0
    black = continuation_figures(np.zeros((24, 40, 64, 64, 3), np.uint8), angle, velocity)
    assert black["amplitude_ok"] == black["period_ok"] == black["frames_read"] == 0
    assert black["pose_error_deg"] == 180


def test_unread_frames_of_a_continuation(swings):
    angle, velocity, colour, angles = swings
    blinking = film(angles, colour)
    blinking[:, 25] = 0
    one_missing = continuation_figures(blinking, angle, velocity)
    assert one_missing["amplitude_ok"] == one_missing["period_ok"] == 0
    assert one_missing["frames_read"] == pytest.approx(23 / 24)
    before = film(angles, colour)
    # The frames that the model was given do not count.
    before[:, :16] = 0
    assert continuation_figures(before, angle, velocity)["period_ok"] == 1
    one = film(angles, colour)
    one[:12, 30] = 0
    assert continuation_figures(one, angle, velocity)["amplitude_ok"] == 0.5


@pytest.mark.parametrize("true", [1.5, 2.0, 2.6, 4.0])
def test_period_of_a_sine(true):
    time = np.arange(24) * 0.1
    angles = np.stack([0.3 + np.sin(2 * np.pi * time / true + phase) for phase in (0, 1, 4)])
    assert period(angles) == pytest.approx([true] * 3, abs=0.021)


# --- the judge that measures and is not trained ---


def test_it_reads_the_generating_values_of_real_clips(pendula):
    named = with_swing(pendula)
    right = accuracy(SwingReader(), named.split("test"))
    assert min(right[name] for name in ("colour", "amplitude", "start")) >= 0.99
    # No value is rare.
    for name in ("amplitude", "start"):
        counts = np.bincount(named.labels[name], minlength=len(named.classes[name]))
        assert counts.min() >= 0.6 * counts.mean()


def test_states_are_carried_back_by_physics(swings):
    angle, velocity, _, angles = swings
    first_angle, first_velocity = states(angles)
    assert np.abs(first_angle - angle[:, None]).max() < 0.02
    assert np.abs(first_velocity - velocity[:, None]).max() < 0.1
    # Four frames are too few for a velocity.
    assert [part.shape for part in states(angles[:, :4])] == [(24, 0)] * 2


def test_the_fit_finds_the_swing_in_noise_and_its_uncertainty():
    pendula = pendulum.make(clips={"train": 320, "val": 8, "test": 8})
    labels = pendula.labels
    true = np.stack([labels["angle"], labels["velocity"]], 1)
    noise = np.random.default_rng(0).normal(size=labels["angles"].shape)
    noisy = labels["angles"] + np.deg2rad(0.6) * noise
    state, covariance = fit(noisy)
    # The errors are as large as the covariance says.
    scaled = (state - true) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert 0.85 < np.median(np.abs(scaled)) / 0.6745 < 1.15
    off = np.abs(peak(*state.T) - peak(*true.T)).mean()
    assert off < 0.6 * np.abs(np.median(peak(*states(noisy)), 1) - peak(*true.T)).mean()
    # A broken frame in every clip changes little.
    broken = noisy.copy()
    broken[:, 5] += 0.7
    assert np.abs(peak(*fit(broken)[0].T) - peak(*true.T)).mean() < 1.3 * off
    assert np.isfinite(fit(noisy[:, :5])[0]).all() and np.isnan(fit(noisy[:, :4])[0]).all()
    noisy[0, ::2] = np.nan
    assert np.isnan(fit(noisy)[0][0]).all() and np.isfinite(fit(noisy)[0][1:]).all()


def test_a_swing_at_the_limit_of_two_classes_has_doubts():
    labels = pendulum.make(clips={"train": 320, "val": 8, "test": 8}).labels
    near = np.abs(peak(labels["angle"], labels["velocity"]) - AMPLITUDES["small"]).argmin()
    angles = np.repeat(labels["angles"][near][None], 2, 0)
    angles[1] += np.deg2rad(2) * np.random.default_rng(0).normal(size=angles.shape[1])
    certain, doubtful = SwingReader().probabilities(film(angles, np.zeros(2, int)))["amplitude"]
    assert certain.max() > doubtful.max() and doubtful[:2].min() > 0.05


def test_a_swing_at_rest_at_its_peak():
    amplitude, start = swing(np.deg2rad([48.0, -50, 77, 10]), np.array([0, 0, 0, 6.0]))
    assert amplitude.tolist() == [0, 1, 2, 2] and start.tolist() == [2, 0, 2, 3]


def test_unreadable_clips_give_no_verdict():
    black = np.zeros((2, 16, 64, 64, 3), np.uint8)
    for p in SwingReader().probabilities(black).values():
        assert p == pytest.approx(1 / p.shape[1])


def test_drawn_clips_are_compared_with_real_ones(swings):
    angle, velocity, colours, angles = swings
    angles = angles[:, :16]

    def drawn(clips, real=angles):
        measures = draw_measures(clips, real)
        return {name: getattr(m, "figure", lambda m=m: m)() for name, m in measures.items()}

    clips = film(angles, colours)
    same = drawn(clips)
    assert same["frames_read"] == same["one_colour"] == 1
    assert same["amplitude_ks_p"] > 0.9 and same["period_ks_p"] > 0.9
    small = drawn(film(angles / 4, colours))
    assert small["amplitude_ks"] > 0.5 and small["amplitude_ks_p"] < 1e-3
    spoilt = clips.copy()
    spoilt[:6, 3] = 0
    spoilt[6:9, :2] = film(angles[6:9, :2], (colours[6:9] + 1) % 8)
    figures_of = drawn(spoilt)
    assert figures_of["frames_read"] == 0.75
    assert figures_of["one_colour"] == 15 / 24
    assert np.isnan(drawn(np.zeros_like(clips))["amplitude_ks"])
