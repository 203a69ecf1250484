"""What keeps a continuation swinging: d read from a first part of the clip, and two readings that must agree on what comes after."""

import pytest
import torch

from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings

SETTINGS = VDSMSettings(
    n_e_w=3, z_dim=4, enc_widths=(4, 4, 4, 4, 8), dec_widths=(8, 8, 4, 4), dynamics_dim=5, rnn_dim=6, rnn_layers=2, trans_dim=7
)  # fmt: skip


@pytest.fixture
def seq():
    torch.manual_seed(0)
    return Seq(SETTINGS, EncDec(SETTINGS))


def test_foresight_is_the_gap_between_the_two_paths(seq):
    poses = torch.randn(2, 6, 4)
    own = seq.poses(seq.dynamics(poses)[0], 12)[:, 6:]
    told = seq.poses(seq.dynamics(poses[:, 3:])[0], 9)[
        :, 3:
    ]  # its steps 4 to 9 are the clip's 7 to 12
    assert seq.foresight(poses).item() == pytest.approx(
        ((own - told) ** 2).sum().item() / 2, rel=1e-6
    )


def test_only_the_whole_clips_reading_learns_from_it(seq):
    poses = torch.randn(2, 6, 4)
    seq.foresight(poses).backward()
    own = {
        name for name, p in seq.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {"dynamics.code.weight", "context.to_h.weight", "combiner.loc.weight"} <= own
    assert not any(name.startswith(("encdec", "transition", "identity")) for name in own)
    told = seq.poses(seq.dynamics(poses[:, 3:])[0], 9)[:, 3:].detach()
    seq.zero_grad()
    (((seq.poses(seq.dynamics(poses)[0], 12)[:, 6:] - told) ** 2).sum() / 2).backward()
    expected = seq.combiner.loc.weight.grad.clone()
    seq.zero_grad()
    seq.foresight(poses).backward()
    assert torch.allclose(seq.combiner.loc.weight.grad, expected)


def test_d_is_read_from_the_frames_seen(seq):
    codes = [torch.randn(2, 6, 4), torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.1]
    later = [code.clone() for code in codes]
    later[0][:, 4:] += 1
    weights = {"s": 1.0, "d": 1.0, "z": 1.0, "temperature": 1.0}

    def kl_of_d(codes, **more):
        return seq.loss(codes, torch.rand(2, 6, 3, 64, 64), {**weights, **more})["d"].raw.item()

    assert kl_of_d(codes, seen=4) == kl_of_d(later, seen=4)
    assert kl_of_d(codes) != kl_of_d(later)
