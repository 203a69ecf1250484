"""A published figure stands beside the same protocol, data set, column and network only."""

import pytest

from metrics.published import COLUMNS, FID_NETWORK, SWAP, reported


@pytest.mark.parametrize("dataset", SWAP)
@pytest.mark.parametrize("column", COLUMNS)
def test_the_familys_figures_stand_beside_draws_from_the_prior(dataset, column):
    place = COLUMNS.index(column)
    beside = reported(dataset, f"transfer_prior_action_{column}", {})
    assert beside == {system: row[place] for system, row in SWAP[dataset].items()}


@pytest.mark.parametrize(
    ("dataset", "figure"),
    [
        ("sprites", "transfer_prior_action_accuracy"),  # other characters
        ("pendulum", "transfer_prior_action_accuracy"),
        ("sprites-li", "transfer_action_accuracy"),  # column (a)
        ("sprites-li", "swap_prior_action_accuracy"),  # stage 1
        ("sprites-li", "transfer_prior_body_accuracy"),  # another factor
        ("sprites-li", "transfer_prior_action_variety"),
        ("sprites-li", "transfer_fitted_action_accuracy"),  # an ex-post density, ours alone
        ("sprites-li", "consistency_accuracy"),
        ("sprites", "stage1_consistency_accuracy"),
        ("pendulum", "fid_release_sampled"),
        ("MUG-FED", "fid"),  # prepared in another way
        ("MUG-FED", "fid_release_reconstructed"),
    ],
)
def test_every_other_figure_stands_alone(dataset, figure):
    assert reported(dataset, figure, {"network": FID_NETWORK}) == {}


def test_figures_of_the_paper():
    assert reported("sprites", "consistency_accuracy", {}) == {"VDSM": 0.9953}
    sampled, other = "fid_release_sampled", "torchvision R3D-18, Kinetics-400"
    assert reported("MUG-FED", sampled, {"network": FID_NETWORK}) == {"VDSM": 17.64}
    assert reported("MUG-FED", sampled, {"network": other}) == {}


def test_rows_of_mug_as_printed():
    assert SWAP["MUG-FED"]["DBSE"] == (0.8690, 5.598, 0.041, 1.782)
    assert SWAP["MUG-FED"]["DiffSDA"] == (0.8115, 5.382, 0.090, 1.773)
    assert len(SWAP["MUG-FED"]) == 9
