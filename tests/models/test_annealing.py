"""Schedules against their formulas and against values from runs of the release."""

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy.interpolate import interp1d

from models.annealing import (
    HIGHEST,
    LOWEST,
    Annealed,
    cosine_ramp,
    geometric,
    half_cosines,
    quadratic_spline,
)
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import schedules
from utils.plan import parse, preset_names

# The schedule flags of the authors' README, of stage 1 and of stage 2.
STAGE_1 = """
--anneal_start_dynamics 0.1 --anneal_end_dynamics 0.6 --anneal_frac_dynamics 1 --temp_id_end 10
--temp_id_start 1 --temp_id_frac 2 --anneal_end_id 1 --anneal_start_id 0.1 --anneal_frac_id 3
--anneal_start_t 30.0 --anneal_mid_t1 0.2 --anneal_mid_t2 0.4 --anneal_end_t 1
--anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8"""
STAGE_2 = """
--anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1 --temp_id_end 10.0
--temp_id_start 10.0 --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 --anneal_frac_id 3
--anneal_start_t 0.1 --anneal_mid_t1 0.4 --anneal_mid_t2 0.4 --anneal_end_t 1
--anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8"""


def curves_of(settings, stage_name="EncDec"):
    """All schedules of a stage by name, the temperature among them."""
    curves = schedules(settings, stage_name)
    return {"temperature": curves.temperature, **curves.weights}


def settings(flags, **changes):
    pairs = {name: float(value) for name, value in re.findall(r"--(\w+) (\S+)", flags)}
    return VDSMSettings(
        **{
            **{n: int(v) if "frac_" in n or n.endswith("_frac") else v for n, v in pairs.items()},
            **changes,
        }
    )


def test_cosine_ramp_of_the_release():
    values = cosine_ramp(1, 10, 2, 250)
    assert len(values) == 250
    np.testing.assert_allclose(values[:2], [1.00142, 1.00568], atol=5e-6)
    np.testing.assert_allclose(values[123], 9.99858, atol=5e-6)
    assert (values[124:] == 10).all() and values[123] < 10


@pytest.mark.parametrize("frac", range(1, 8))
@pytest.mark.parametrize("epochs", [*range(1, 13), 200, 250])
def test_cosine_ramp_formula(epochs, frac):
    """Also if frac does not divide the epochs, or exceeds them."""
    values = cosine_ramp(0.1, 0.6, frac, epochs)
    n = -(-epochs // frac)
    assert len(values) == epochs
    for e, value in enumerate(values):
        phase = np.cos(np.pi * (n - 1 - e) / (epochs / frac))
        assert value == pytest.approx(0.1 + 0.5 * (1 + phase) / 2 if e < n else 0.6, abs=1e-12)
    assert values[n - 1] == pytest.approx(0.6, abs=1e-12) and (np.diff(values) > -1e-12).all()


@pytest.mark.parametrize("epochs, frac", [(100, 3), (10, 4), (7, 2), (9, 3), (2, 5)])
def test_lambda_d_of_the_release_runs_one_epoch_ahead(epochs, frac):
    """Unless frac divides the epochs. The value of the last epoch, which it lacks, is the end."""
    flags = f"--anneal_start_dynamics 0.1 --anneal_end_dynamics 1 --anneal_frac_dynamics {frac}"
    ours, release = (
        curves_of(settings(flags, epochs=epochs, fidelity=fidelity))
        for fidelity in ("paper", "release")
    )
    # The release counts down whole epochs of the ramp, above which it has lain ones.
    whole = [
        0.1 + 0.9 * (math.cos(math.pi * left / (epochs / frac)) + 1) / 2
        for left in reversed(range(epochs // frac))
    ]
    rest = [1.0] * ((frac - 1) * epochs // frac)
    assert len(whole + rest) == epochs - (epochs % frac > 0)
    np.testing.assert_allclose(release["d"], [*whole, *rest, 1.0][:epochs], rtol=1e-12)
    if epochs % frac:
        np.testing.assert_allclose(release["d"][:-1], ours["d"][1:], rtol=1e-12)
    for name in ("s", "z", "temperature"):
        np.testing.assert_array_equal(release[name], ours[name])


def test_cosine_ramp_downwards():
    np.testing.assert_allclose(cosine_ramp(2, 1, 1, 50), 3 - cosine_ramp(1, 2, 1, 50))


@pytest.mark.parametrize("epochs", [5, 7, 200, 250])
def test_quadratic_spline_formula(epochs):
    nodes = [0, 0.3 * epochs, 0.6 * epochs, epochs - 1]
    values = [10, 0.1, 0.1, 1]
    expected = np.clip(interp1d(nodes, values, kind="quadratic")(np.arange(epochs)), 0.005, 80)
    np.testing.assert_array_equal(quadratic_spline(values, [0.3, 0.6], epochs), expected)
    assert (LOWEST, HIGHEST) == (0.005, 80)


@pytest.mark.parametrize("epochs", range(1, 13))
def test_short_runs_have_all_their_values(epochs):
    for flags in (STAGE_1, STAGE_2, ""):
        for name, curve in curves_of(settings(flags, epochs=epochs)).items():
            assert curve.shape == (epochs,) and np.isfinite(curve).all(), name
            assert (curve > 0).all() and (curve <= HIGHEST).all(), name


def test_spline_where_nodes_coincide_is_linear():
    """Two epochs: the nodes 0, 1, 1.6 and E - 1 = 1 are out of order."""
    values = quadratic_spline([30, 0.2, 0.4, 1], [0.5, 0.8], 2)
    np.testing.assert_allclose(values, [30, 1])


@pytest.mark.parametrize("epochs", [200, 250])
def test_schedules_of_the_first_stage_in_the_readme(epochs):
    curves = curves_of(settings(STAGE_1, epochs=epochs))
    assert set(curves) == {"temperature", "s", "d", "z"}
    assert curves["temperature"][epochs // 2 - 1] == 10 and curves["s"][-1] == 1
    assert curves["s"][-(-epochs // 3) - 2] < 1 == curves["s"][-(-epochs // 3) - 1]
    assert curves["d"][-1] == pytest.approx(0.6) and curves["d"][-2] < 0.6
    z = curves["z"]
    assert z[0] == 30 and z[-1] == pytest.approx(1) and z.min() == LOWEST
    assert z[epochs // 2] == pytest.approx(0.2) and z[int(0.8 * epochs)] == pytest.approx(0.4)
    # The curve undershoots for about a fifth of the epochs
    assert 0.15 < (z == LOWEST).mean() < 0.25


def test_schedules_of_the_second_stage_in_the_readme():
    curves = curves_of(settings(STAGE_2, epochs=200))
    assert (curves["temperature"] == 10).all()
    assert curves["z"][[0, 100, 160, 199]] == pytest.approx([0.1, 0.4, 0.4, 1])
    assert curves["d"][-1] == pytest.approx(1)
    assert curves["s"][65] < 0.9999 and curves["s"][66:] == pytest.approx(np.ones(134))


def ramp(start, end, frac, epochs, e):
    """The cosine ramp of the description at epoch e."""
    n = math.ceil(epochs / frac)
    if e >= n:
        return end
    return start + (end - start) * (1 + math.cos(math.pi * (n - 1 - e) / (epochs / frac))) / 2


def through(nodes, values, epochs):
    """interp1d through the nodes, in any order; linear if two nodes coincide."""
    kind = "quadratic" if len(set(nodes)) == 4 else "linear"
    return np.clip(interp1d(nodes, values, kind=kind)(np.arange(epochs)), 0.005, 80)


def in_logarithm(start, end, first, last, share):
    """Linear in the logarithm from start, at the share `first` of the run, to end, at `last`."""
    part = min(max((share - first) / (last - first), 0), 1)
    return start ** (1 - part) * end**part


def waves(nodes, values, epochs):
    """Half cosines between the nodes, whose values may be given in any order."""
    points = sorted(zip(nodes, values), key=lambda point: point[0])
    curve = []
    for e in range(epochs):
        before = [point for point in points if point[0] <= e][-1]
        after = next((point for point in points if point[0] > e), before)
        part = (e - before[0]) / ((after[0] - before[0]) or 1)
        curve.append(before[1] + (after[1] - before[1]) * math.sin(math.pi * part / 2) ** 2)
    return curve


def expected_schedules(c, stage_name):
    times, middle = range(c.epochs), (c.anneal_t_midfrac1, c.anneal_t_midfrac2)
    ramps = {"temperature": (c.temp_id_start, c.temp_id_end, c.temp_id_frac)}
    weights = {
        "s": (c.anneal_start_id, c.anneal_end_id, c.anneal_frac_id),
        "d": (c.anneal_start_dynamics, c.anneal_end_dynamics, c.anneal_frac_dynamics),
    }
    if c.schedule == "geometric":
        shares = [e / max(c.epochs - 1, 1) for e in times]
        curves = {
            key: [in_logarithm(a, b, 0, 1 / frac, x) for x in shares]
            for key, (a, b, frac) in weights.items()
        }
        curves["z"] = [in_logarithm(c.anneal_start_t, c.anneal_end_t, *middle, x) for x in shares]
    else:
        values = [c.anneal_start_t, c.anneal_mid_t1, c.anneal_mid_t2, c.anneal_end_t]
        nodes = [0, c.epochs * middle[0], c.epochs * middle[1], c.epochs - 1]
        sinusoidal = c.schedule == "paper" and stage_name == "EncDec"
        curves = {"z": (waves if sinusoidal else through)(nodes, values, c.epochs)}
        ramps |= weights
    return curves | {
        key: [ramp(*three, c.epochs, e) for e in times] for key, three in ramps.items()
    }


def vdsm_presets():
    """Names of VDSM's presets, and '' for the defaults. The README's commands are among them."""
    stages = {name: parse(["--preset", name]).stages for name in preset_names()}
    return ["", *(n for n, each in stages.items() if next(iter(each.values())).model == "vdsm")]


@pytest.mark.parametrize("preset", vdsm_presets())
def test_schedules_of_every_preset(preset):
    for name, stage_settings in parse(["--preset", preset] if preset else []).stages.items():
        for epochs in (stage_settings.epochs, *range(1, 13)):
            c = dataclasses.replace(stage_settings, epochs=epochs)
            curves, expected = curves_of(c, name), expected_schedules(c, name)
            assert curves.keys() == expected.keys()
            for key, curve in curves.items():
                case = f"{name}, {epochs}: {key}"
                np.testing.assert_allclose(curve, expected[key], rtol=1e-12, err_msg=case)


@pytest.mark.parametrize("epochs", range(1, 13))
@pytest.mark.parametrize("middle", [(0.3, 0.6), (0.5, 0.8), (0.33, 0.77), (0.25, 1.0), (0.0, 0.5)])
def test_spline_of_short_runs(epochs, middle):
    """Nodes may be out of order, as with 3 epochs (0, 1.5, 2.4, 2): interp1d sorts them."""
    values = [30, 0.2, 0.4, 1]
    expected = through([0, epochs * middle[0], epochs * middle[1], epochs - 1], values, epochs)
    np.testing.assert_allclose(quadratic_spline(values, middle, epochs), expected, rtol=1e-12)


def test_clip():
    curve = quadratic_spline([200, 100, 0, 0], [0.3, 0.6], 100)
    assert curve.max() == 80 and curve.min() == 0.005


def test_geometric():
    values = geometric([16, 1], [0.25, 0.75], 101)
    assert values[:26] == pytest.approx(np.full(26, 16.0))
    assert values[75:] == pytest.approx(np.ones(26))
    assert values[50] == pytest.approx(4)
    assert geometric([16, 1], [0.25, 0.75], 1) == pytest.approx([16])


def test_geometric_schedules():
    curves = curves_of(settings(STAGE_1, epochs=101, schedule="geometric"))
    assert curves["z"][:51] == pytest.approx(np.full(51, 30.0))
    assert curves["z"][80:] == pytest.approx(np.ones(21))
    # Between the nodes, the middle values of the flags do not count.
    assert curves["z"][65] == pytest.approx(np.sqrt(30))
    assert curves["s"][0] == pytest.approx(0.1) and curves["s"][34:] == pytest.approx(np.ones(67))
    assert curves["d"][[0, 50, 100]] == pytest.approx([0.1, np.sqrt(0.06), 0.6])


def test_half_cosines_pass_through_the_nodes_level_and_never_leave_their_values():
    curve = half_cosines([30, 0.2, 0.4, 1], [0.5, 0.8], 201)
    assert curve[[0, 200]] == pytest.approx([30, 1])
    # the nodes are at 100.5 and 160.8, and a curve is level where it meets them
    assert curve[100:102] == pytest.approx([0.2, 0.2], abs=0.01)
    assert curve[160:162] == pytest.approx([0.4, 0.4], abs=0.001)
    assert curve[0] - curve[1] < 0.01 < curve[50] - curve[51]
    assert curve[50] == pytest.approx((30 + 0.2) / 2, abs=0.15)
    assert curve.min() >= 0.2 and curve.max() == 30


def test_the_schedule_of_the_paper_differs_in_lambda_z_of_stage_1_alone():
    release, paper = (settings(STAGE_1, epochs=50, schedule=name) for name in ("release", "paper"))
    for stage_name in ("EncDec", "Seq"):
        before, after = curves_of(release, stage_name), curves_of(paper, stage_name)
        other = [name for name in before if not np.array_equal(before[name], after[name])]
        assert other == (["z"] if stage_name == "EncDec" else [])


def test_the_values_of_an_epoch():
    curves = schedules(settings(STAGE_1, epochs=10), "EncDec")
    annealed = curves.at(3)
    assert annealed.temperature == curves.temperature[3]
    assert annealed.weights == {name: curve[3] for name, curve in curves.weights.items()}
    ones = Annealed({"s": 1.0, "d": 1.0, "z": 1.0}, annealed.temperature)
    assert annealed.unweighted() == ones
