"""What stage 2 shows of a clip: d from a part of it, agreement on what follows it, first frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.batches import Batches
from data.pendulum import make
from models.annealing import Annealed
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq, Sequences
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import SeqStage

SETTINGS = VDSMSettings(
    n_e_w=3, z_dim=4, enc_widths=(4, 4, 4, 4, 8), dec_widths=(8, 8, 4, 4),
    dynamics_dim=5, rnn_dim=6, rnn_layers=2, trans_dim=7,
)  # fmt: skip


@pytest.fixture
def seq():
    torch.manual_seed(0)
    return Seq(SETTINGS, EncDec(SETTINGS))


def gap(seq, poses):
    """Half the squared distance of the paths from the whole clip and from its second half."""
    whole = seq.poses(seq.dynamics(poses)[0], 12)[:, 6:]
    # Steps 4 to 9 of the second half are steps 7 to 12 of the clip.
    half = seq.poses(seq.dynamics(poses[:, 3:])[0], 9)[:, 3:]
    return ((whole - half.detach()) ** 2).sum() / 2


def test_foresight_is_the_gap_between_two_predictions(seq):
    poses = torch.randn(2, 6, 4)
    assert seq.foresight(poses).item() == pytest.approx(gap(seq, poses).item(), rel=1e-6)


def test_only_the_prediction_from_the_whole_clip_learns(seq):
    poses = torch.randn(2, 6, 4)
    gradients = []
    for loss in (seq.foresight(poses), gap(seq, poses)):
        seq.zero_grad()
        loss.backward()
        gradients.append({name: p.grad for name, p in seq.named_parameters() if p.grad is not None})
    ours, expected = gradients
    assert {"dynamics.code.weight", "context.to_h.weight", "combiner.loc.weight"} <= ours.keys()
    assert not any(name.startswith(("encdec", "transition", "identity")) for name in ours)
    assert ours.keys() == expected.keys()
    for name in expected:
        assert expected[name].any() and torch.allclose(ours[name], expected[name]), name


def test_the_pose_error_is_the_distance_from_the_poses_of_stage_1(seq):
    poses = torch.randn(2, 6, 4)
    error = seq.pose_error(poses)
    expected = ((seq.poses(seq.dynamics(poses)[0], 6) - poses) ** 2).sum() / 2
    assert error.item() == pytest.approx(expected.item(), rel=1e-6)
    error.backward()
    learning = {name for name, p in seq.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"dynamics.code.weight", "context.to_h.weight", "combiner.loc.weight"} <= learning
    assert not any(name.startswith(("encdec", "transition", "identity")) for name in learning)


@pytest.mark.parametrize("training", [True, False])
def test_the_pose_error_counts_in_training_alone(training):
    settings = replace(SETTINGS, bs=6, seq_len=4, near_poses=3.0)
    clips = make(clips={"train": 8, "val": 1, "test": 1}).split("train")
    batches = Batches(clips, torch.device("cpu"), 4, 6)
    stage = SeqStage(settings, EncDec(settings))
    stage.network.train(training)
    inputs = stage.inputs(batches, 0)
    terms = stage.terms(batches, inputs, Annealed(dict.fromkeys("sdz", 1.0), 1.0))
    assert ("pose error" in terms) == training
    if training:
        codes = stage.codes(batches, inputs["clip"], inputs["time"])
        error = stage.network.pose_error(codes[0]).item()
        assert terms["pose error"].raw.item() == pytest.approx(error)
        assert terms["pose error"].weighted.item() == pytest.approx(3 * error)


def test_d_is_read_from_the_first_frames_alone(seq):
    codes = [torch.randn(2, 6, 4), torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.1]
    later = [code.clone() for code in codes]
    later[0][:, 4:] += 1
    annealed = Annealed({"s": 1.0, "d": 1.0, "z": 1.0}, temperature=1.0)

    def kl_of_d(codes, **more):
        batch = Sequences(codes, torch.rand(2, 6, 3, 64, 64), **more)
        return seq.loss(batch, annealed)["d"].raw.item()

    assert kl_of_d(codes, seen=4) == kl_of_d(later, seen=4)
    assert kl_of_d(codes) != kl_of_d(later)


def test_the_first_frame_of_every_training_sequence_counts():
    settings = replace(SETTINGS, bs=6, seq_len=4, frames_per_clip=2, with_first_frame=True)
    clips = make(clips={"train": 8, "val": 1, "test": 1}).split("train")
    batches = Batches(clips, torch.device("cpu"), 4, 6)
    stage = SeqStage(settings, EncDec(settings))
    drawn = np.concatenate([stage.inputs(batches, step)["picked"] for step in range(20)])
    assert drawn.shape == (120, 3) and (drawn[:, 0] == 0).all()
    # The others are drawn from the later frames, each equally often.
    assert (np.diff(drawn, axis=1) > 0).all()
    assert (abs(np.bincount(drawn[:, 1:].ravel())[1:] / 120 - 2 / 3) < 0.15).all()
    terms = stage.terms(batches, stage.inputs(batches, 0), stage.schedules().at(0))
    assert torch.isfinite(terms["x"].raw)
    # The validation loss estimates the ELBO of all frames.
    stage.network.eval()
    assert stage.inputs(batches, 0)["picked"].shape == (6, 2)
