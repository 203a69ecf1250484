"""MSD: perfect, mixed and noisy codes have their known answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metrics import msd

FACTORS = ["hair", "legs", "action"]
COUNTS = {"hair": 3, "legs": 3, "action": 2}


def table_of(*rows):
    """Importances whose columns sum to 1."""
    table = np.array(rows, float)
    return table / table.sum(0)


def test_importances_in_closed_form():
    perfect = np.eye(3)
    mapping = msd.mapped(perfect, FACTORS)
    assert [dims.tolist() for dims in mapping.values()] == [[0], [1], [2]]
    assert msd.modularity(perfect, mapping) == msd.compactness(perfect, mapping) == 1
    # Each dimension is equally important for two factors, each factor for two dimensions.
    mixed = table_of([1, 1, 0], [0, 1, 1], [1, 0, 1])
    mapping = {factor: np.array([place]) for place, factor in enumerate(FACTORS)}
    expected = 1 - np.log(2) / np.log(3)
    assert msd.modularity(mixed, mapping) == pytest.approx(expected)
    assert msd.compactness(mixed, mapping) == pytest.approx(expected)
    # Two dimensions that serve one factor are one subset.
    shared = table_of([1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1])
    mapping = msd.mapped(shared, FACTORS)
    assert mapping["hair"].tolist() == [0, 1]
    assert msd.modularity(shared, mapping) == msd.compactness(shared, mapping) == 1
    assert msd.modularity(np.ones((4, 3)) / 4, mapping) == pytest.approx(0)


def test_the_intervention_score():
    chance = {"hair": 1 / 3, "action": 1 / 2}
    perfect = {"hair": {"hair": 1, "action": 1 / 2}, "action": {"hair": 1 / 3, "action": 1}}
    assert msd.intervention_score(perfect, chance) == 1
    # A code that carries everything: nothing else changes.
    whole = {kept: dict.fromkeys(chance, 1.0) for kept in chance}
    assert msd.intervention_score(whole, chance) == pytest.approx(1 - (2 / 3 + 1 / 2) / 2 / 2)
    # A code that carries nothing shows chance everywhere.
    nothing = {kept: chance for kept in chance}
    assert msd.intervention_score(nothing, chance) == pytest.approx(1 - (2 / 3 + 1 / 2) / 2 / 2)
    assert msd.intervention_score({}, chance) == 0


def test_dimensions_of_paths_and_of_shares():
    static, dynamic = torch.rand(4, 2), torch.rand(4, 3, 5)
    features, owner = msd.columns(static, dynamic)
    assert features.shape == (4, 17) and owner.tolist() == [0, 1, *[2, 3, 4, 5, 6] * 3]
    other = torch.rand(4, 2), torch.rand(4, 3, 5)
    f, z = msd.replaced((static, dynamic), other, np.array([1, 4]), mixes=False)
    assert torch.equal(f, torch.stack([other[0][:, 0], static[:, 1]], 1))
    assert torch.equal(z[..., 2], dynamic[..., 2]) and torch.equal(z[..., 3], other[1][..., 3])
    shares = static.softmax(-1), other[0].softmax(-1)
    mixed, _ = msd.replaced((shares[0], dynamic), (shares[1], other[1]), np.array([0]), mixes=True)
    assert torch.allclose(mixed.sum(1), torch.ones(4))
    # VDSM's prior gives poses in place of d.
    d = torch.rand(4, 5)
    assert msd.replaced((static, d), (other[0], dynamic), np.array([0]), False)[1] is dynamic
    assert msd.replaced((static, d), (other[0], dynamic), np.array([6]), False)[1] is d


# --- the whole protocol, on clips whose pixels hold the factors ---


class Sees:
    """A judge that reads three pixels of the last frame, as the codes below paint them."""

    classes = COUNTS

    def probabilities(self, clips):
        at = np.minimum(clips[:, -1, 0, :3, 0] // 80, np.array(list(COUNTS.values())) - 1)
        return {name: np.eye(count)[at[:, i]] for i, (name, count) in enumerate(COUNTS.items())}


def task_of(code, n=240):
    """A task whose codes are code(labels [n, 3]), and which paints `code`'s inverse."""
    draw = np.random.default_rng(0)
    labels = np.stack([draw.permutation(np.arange(n) % count) for count in COUNTS.values()], 1)
    encode, paint = code

    def part(rows):
        static, dynamic = encode(labels[rows].astype(np.float32), draw)
        clips = decoded(static, dynamic)
        named = {name: labels[rows, i] for i, name in enumerate(COUNTS)}
        return SimpleNamespace(static=static, dynamic=dynamic, frames=clips, labels=named)

    def decoded(static, dynamic):
        values = np.rint(paint(static, dynamic)).astype(int)
        clips = np.zeros((len(values), 4, 1, 3, 3), np.uint8)
        clips[..., 0, :, 0] = 80 * values[:, None] + 1
        return clips

    half = n // 2
    known, held = part(slice(half)), part(slice(half, n))
    drawn = [(held.static[p], held.dynamic[p]) for p in (draw.permutation(half) for _ in range(3))]
    view = SimpleNamespace(mixes=False)
    fields = {"held_out": held, "training": known, "judge": Sees(), "view": view}
    return SimpleNamespace(**fields, decoded=decoded, drawn_codes={"prior": drawn})


KINDS = {"hair": "static", "legs": "static", "action": "dynamic"}
# One factor per dimension, the action along the path of one dimension.
PERFECT = (
    lambda v, _: (torch.from_numpy(v[:, :2]), torch.from_numpy(v[:, 2:, None]).expand(-1, 4, 1)),
    lambda s, d: np.concatenate([s.numpy(), d[:, -1].numpy()], 1),
)
TURN = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1]], np.float32)
# All factors in all dimensions.
MIXED = (
    lambda v, _: tuple(torch.from_numpy((v @ TURN)[:, part]) for part in (slice(2), slice(2, 3))),
    lambda s, d: (np.concatenate([s, d], 1) @ np.linalg.inv(TURN)).clip(0, 2),
)
NOISE = (
    lambda v, draw: tuple(
        torch.from_numpy(draw.normal(size=(len(v), width)).astype(np.float32)) for width in (2, 1)
    ),
    lambda s, d: np.zeros((len(s), 3)),
)


def figures_of(code):
    return msd.measured(task_of(code), KINDS).figures


def test_perfect_mixed_and_noisy_codes(monkeypatch):
    monkeypatch.setattr(msd, "TREES", {"max_depth": 3, "n_estimators": 10})
    perfect = figures_of(PERFECT)
    for name in ("modularity", "compactness", "explicitness"):
        assert perfect[name] == pytest.approx(1, abs=1e-6), name
    for name in ("consistency_batch", "consistency_clip", "consistency_frame"):
        assert perfect[name] == 1, name
    assert perfect["judge_of_frames_hair_accuracy"] == 1
    # The partners' factors are those of chance only on average.
    assert perfect["swap_score"] > 0.96 and perfect["sample_score"] > 0.96
    mixed, noise = figures_of(MIXED), figures_of(NOISE)
    for name in ("modularity", "compactness", "swap_score"):
        assert mixed[name] < perfect[name] - 0.15, name
    assert mixed["explicitness"] > 0.9
    # Trees on noise: chance, 1/3, 1/3 and 1/2.
    assert noise["explicitness"] == pytest.approx(7 / 18, abs=0.1)
    assert noise["modularity"] < 0.3 and noise["swap_score"] < 0.75
