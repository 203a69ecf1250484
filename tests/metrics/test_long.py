"""--evaluate long: physics itself drifts nowhere, and codes know what they were made of."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from data.pendulum import make, simulate
from metrics import long
from metrics.evaluate import need_labels
from metrics.pendulum import CONTINUE_FROM, read
from metrics.summary import figures
from metrics.words import in_words
from models.vdsm.settings import VDSMSettings
from tests.metrics.test_evaluate import Oracle, _evaluate, folder  # noqa: F401
from tests.metrics.test_pendulum import film
from utils.errors import UserError

COUNT, LAST = 8, max(long.LENGTHS)
MOTION = "amplitude", "phase", "speed"


@pytest.fixture(scope="module")
def clips():
    """Colours [8], true angles [8, 160], and what is read from films of both."""
    draw = np.random.default_rng(3)
    true, _ = simulate(draw.uniform(-1.5, 1.5, COUNT), draw.uniform(-2, 2, COUNT), LAST)
    colour = np.arange(COUNT)
    return colour, true, read(film(true, colour))


def test_physics_is_right_in_every_window(clips):
    identity, true, (colour, angle) = clips
    right = figures(long.windows(colour, angle, identity, true))
    for until in (40, 60, 160):
        for name in ("amplitude_ok", "period_ok", "frames_read", "identity_accuracy"):
            assert right[f"{name}_{until}"] == 1
        assert right[f"pose_error_deg_{until}"] < 0.5


def test_what_goes_wrong_later_is_seen_later(clips):
    identity, true, (colour, angle) = clips
    colour, angle = colour.copy(), angle.copy()
    colour[:, 60:] = (colour[:, 60:] + 1) % 8  # another identity from frame 61 on
    angle[:, 100:] = angle[:, 99:100]  # and no motion from frame 101 on
    numbers = figures(long.windows(colour, angle, identity, true))
    assert numbers["identity_accuracy_60"] == 1
    assert numbers["identity_accuracy_160"] == pytest.approx((60 - CONTINUE_FROM) / 144)
    curves = long.by_frame(colour, angle, identity, true)
    assert curves["identity_accuracy"] == [1] * 60 + [0] * 100
    assert max(curves["pose_error_deg"][:100]) < 0.5
    assert max(curves["pose_error_deg"][100:]) > 10
    # Another clip's motion is wrong everywhere.
    wrong = figures(long.windows(colour, np.roll(angle, 1, 0), identity, true))
    assert wrong["pose_error_deg_40"] > 10


def test_the_factors_of_known_swings():
    labels = {
        "angle": np.deg2rad([60, 0, -60]), "velocity": np.array([0, -2.0, 0]),
        "colour": np.array([2, 0, 7]),
    }  # fmt: skip
    made = long.factors(labels, np.ones(3))
    assert made["colour"].argmax(1).tolist() == [2, 0, 7]
    # Height of the turning point: v^2 / 2g.
    fast = np.rad2deg(np.arccos(1 - 2 / 9.81))
    assert made["amplitude"][:, 0] == pytest.approx([60, fast, 60])
    # To the right at rest, through the middle to the left, to the left at rest.
    assert made["phase"] == pytest.approx(np.array([[0, 1], [1, 0], [0, -1]]), abs=1e-9)
    assert made["speed"][:, 0].tolist() == [0, -2, 0]


@pytest.fixture(scope="module")
def two_sets():
    """Labels and factors of 200 training and 100 other swings."""
    draw, sets = np.random.default_rng(0), []
    for count in (200, 100):
        labels = {
            "angle": draw.uniform(-1.7, 1.7, count), "velocity": draw.uniform(-3, 3, count),
            "colour": draw.integers(8, size=count),
        }  # fmt: skip
        sets.append((labels, long.factors(labels, np.ones(count))))
    return sets


def scores(sets, code):
    (train, train_factors), (test, test_factors) = sets
    return long.regressed(code(train), train_factors, code(test), test_factors)


def test_a_code_of_the_motion_knows_all_of_it_and_no_colour(two_sets):
    found = scores(two_sets, lambda c: np.stack([c["angle"], c["velocity"]], 1))
    # The phase jumps where a swing is at rest at its lowest point.
    assert found["speed"] > 0.999 and found["amplitude"] > 0.99 and found["phase"] > 0.9
    assert found["colour"] < 0.3


def test_a_code_of_the_colour_knows_no_motion(two_sets):
    found = scores(two_sets, lambda c: np.eye(8)[c["colour"]])
    assert found["colour"] == 1
    assert max(found[name] for name in MOTION) < 0.1


def test_a_code_per_frame_and_one_without_information(two_sets):
    found = scores(two_sets, lambda c: c["speed" if "speed" in c else "velocity"][:, None, None])
    assert found["speed"] > 0.999 and found["amplitude"] < 0.9
    found = scores(two_sets, lambda c: np.zeros((len(c["angle"]), 4)))
    assert found["colour"] < 0.3 and max(found[name] for name in MOTION) < 0.1


@pytest.fixture(scope="module")
def pendula():
    return make(clips={"train": 40, "val": 8, "test": COUNT})


def test_the_protocol_of_an_oracle(pendula, folder):  # noqa: F811
    numbers = _evaluate(pendula, Oracle(), "Seq", folder, "long", epoch=2)
    for kind in ("continued", "transferred"):
        assert numbers[f"long_{kind}_identity_accuracy_160"] == 1
        assert numbers[f"long_{kind}_period_ok_60"] == numbers[f"long_{kind}_amplitude_ok_60"] == 1
    assert [name for name in numbers if not in_words(name)[0]] == []
    words = "continued clips: frames 17 to 160 of the right colour", "higher"
    assert in_words("long_continued_identity_accuracy_160") == words
    assert numbers["long_identity_code_colour"] == 1 and numbers["long_dynamics_code_speed"] > 0.9
    assert numbers["long_dynamics_code_amplitude"] > 0.5 > numbers["long_identity_code_amplitude"]
    notes = json.loads(folder.metrics.read_text())["details"]["Seq"]
    assert "long_continued_period_ok_60" in notes["spread"]
    curves = notes["protocols"]["long"]["by frame"]
    assert {len(c) for kind in curves.values() for c in kind.values()} == {160}
    assert folder.metrics.with_name("drift.png").read_bytes()[:4] == b"\x89PNG"


def test_a_model_that_cannot_continue_has_its_codes_measured(pendula, folder):  # noqa: F811
    numbers = _evaluate(pendula, Oracle(), "EncDec", folder, "long")
    assert numbers["stage1_long_identity_code_colour"] == 1
    assert not [name for name in numbers if "continued" in name]
    assert not folder.metrics.with_name("drift.png").exists()


def test_of_pendula_alone():
    with pytest.raises(UserError, match="measures pendula and found shapes: leave 'long' out"):
        need_labels(VDSMSettings(evaluate="long"), SimpleNamespace(name="shapes"))
