"""Schedules against their formulas and against the numbers that the release's runs show."""

import re

import numpy as np
import pytest
from scipy.interpolate import interp1d

from models.vdsm.settings import VDSMSettings
from utils.annealing import HIGHEST, LOWEST, cosine_ramp, geometric, quadratic_spline, schedules

# The README's four commands: their schedule flags (stage 1 and 2; MUG-FED's and Sprites' agree but for the epochs)
STAGE_1 = """--anneal_start_dynamics 0.1 --anneal_end_dynamics 0.6 --anneal_frac_dynamics 1 --temp_id_end 10 --temp_id_start 1
    --temp_id_frac 2 --anneal_end_id 1 --anneal_start_id 0.1 --anneal_frac_id 3 --anneal_start_t 30.0 --anneal_mid_t1 0.2
    --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8"""
STAGE_2 = """--anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1 --temp_id_end 10.0 --temp_id_start 10.0
    --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 --anneal_frac_id 3 --anneal_start_t 0.1 --anneal_mid_t1 0.4
    --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8"""


def settings(flags, **changes):
    pairs = {name: float(value) for name, value in re.findall(r"--(\w+) (\S+)", flags)}
    return VDSMSettings(
        **{**{n: int(v) if "frac_" in n or n.endswith("_frac") else v for n, v in pairs.items()}, **changes}
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
    """Also where frac does not divide the epochs, or exceeds them."""
    values = cosine_ramp(0.1, 0.6, frac, epochs)
    n = -(-epochs // frac)
    assert len(values) == epochs
    for e, value in enumerate(values):
        phase = np.cos(np.pi * (n - 1 - e) / (epochs / frac))
        assert value == pytest.approx(0.1 + 0.5 * (1 + phase) / 2 if e < n else 0.6, abs=1e-12)
    assert values[n - 1] == pytest.approx(0.6, abs=1e-12) and (np.diff(values) > -1e-12).all()


def test_cosine_ramp_falls_too():
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
        for name, curve in schedules(settings(flags, epochs=epochs)).items():
            assert curve.shape == (epochs,) and np.isfinite(curve).all(), name
            assert (curve > 0).all() and (curve <= HIGHEST).all(), name


def test_spline_where_nodes_coincide_is_linear():
    """Two epochs: the nodes 0, 1, 1.6 and E - 1 = 1 are out of order."""
    values = quadratic_spline([30, 0.2, 0.4, 1], [0.5, 0.8], 2)
    assert values[0] == 30 and values[1] in (0.2, 1)


@pytest.mark.parametrize("epochs", [200, 250])
def test_schedules_of_the_first_stage_in_the_readme(epochs):
    curves = schedules(settings(STAGE_1, epochs=epochs))
    assert set(curves) == {"temperature", "s", "d", "z"}
    assert curves["temperature"][epochs // 2 - 1] == 10 and curves["s"][-1] == 1
    assert curves["s"][-(-epochs // 3) - 2] < 1 == curves["s"][-(-epochs // 3) - 1]
    assert curves["d"][-1] == pytest.approx(0.6) and curves["d"][-2] < 0.6
    z = curves["z"]
    assert z[0] == 30 and z[-1] == pytest.approx(1) and z.min() == LOWEST
    assert z[epochs // 2] == pytest.approx(0.2) and z[int(0.8 * epochs)] == pytest.approx(0.4)
    assert 0.15 < (z == LOWEST).mean() < 0.25  # the curve undershoots for about a fifth of the epochs


def test_schedules_of_the_second_stage_in_the_readme():
    curves = schedules(settings(STAGE_2, epochs=200))
    assert (curves["temperature"] == 10).all()
    assert curves["z"][0] == pytest.approx(0.1) and curves["z"][100] == curves["z"][160] == pytest.approx(0.4)
    assert curves["z"][-1] == pytest.approx(1)
    assert curves["d"][-1] == pytest.approx(1)
    assert curves["s"][65] < 0.9999 and curves["s"][66:] == pytest.approx(np.ones(134))


def test_clip():
    curve = quadratic_spline([200, 100, 0, 0], [0.3, 0.6], 100)
    assert curve.max() == 80 and curve.min() == 0.005


def test_geometric():
    values = geometric([16, 1], [0.25, 0.75], 101)
    assert values[:26] == pytest.approx(np.full(26, 16.0)) and values[75:] == pytest.approx(np.ones(26))
    assert values[50] == pytest.approx(4)  # half way in the logarithm
    assert geometric([16, 1], [0.25, 0.75], 1) == pytest.approx([16])


def test_geometric_schedules():
    curves = schedules(settings(STAGE_1, epochs=101, schedule="geometric"))
    assert curves["z"][:51] == pytest.approx(np.full(51, 30.0)) and curves["z"][80:] == pytest.approx(np.ones(21))
    assert curves["z"][65] == pytest.approx(np.sqrt(30))  # through no middle value
    assert curves["s"][0] == pytest.approx(0.1) and curves["s"][34:] == pytest.approx(np.ones(67))
    assert curves["d"][[0, 50, 100]] == pytest.approx([0.1, np.sqrt(0.06), 0.6])
