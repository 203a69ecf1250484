"""metrics.json: what an oracle scores on pendula, how stages add up, and what it refuses."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.pendulum import PALETTE, make, render, simulate
from metrics.evaluate import evaluate
from metrics.pendulum import read
from utils.errors import UserError
from utils.frames import as_float, as_uint8


@pytest.fixture(scope="module")
def pendula():
    return make(clips={"train": 8, "val": 8, "test": 24})


class Oracle:
    """Swaps perfectly: reads colour and state, and draws them by physics. swaps=False: it ignores the static code it is given."""

    def __init__(self, dataset, swaps=True):
        clips = dataset.split("test")
        self.state = np.stack([clips.label("angle"), clips.label("velocity"), clips.label("colour")], 1)
        self.swaps = swaps

    def encode(self, frames):
        colour, _ = read(as_uint8(frames))
        return torch.from_numpy(colour[:, :1]), torch.from_numpy(self.state)

    def decode(self, static, dynamic, frames):
        angles, _ = simulate(dynamic[:, 0].numpy(), dynamic[:, 1].numpy(), frames)
        colour = static[:, 0].numpy() if self.swaps else dynamic[:, 2].numpy().astype(int)
        drawn = render(angles.ravel(), np.repeat(PALETTE[colour], frames, 0))
        return as_float(torch.from_numpy(drawn.reshape(*angles.shape, 64, 64, 3)))


def _evaluate(dataset, model, stage, folder):
    settings = SimpleNamespace(split="test", seq_len=16, seed=0)
    return evaluate(model, stage, dataset, folder, settings, torch.device("cpu"))


def test_an_oracle_scores_1_and_a_model_that_ignores_its_static_code_0(pendula, tmp_path, capsys):
    folder = SimpleNamespace(metrics=tmp_path / "metrics.json", root=tmp_path / "run")
    found = _evaluate(pendula, Oracle(pendula), "EncDec", folder)
    assert found["swap_identity_accuracy"] == 1 and found["swap_leak_accuracy"] == 0
    assert found["swap_pose_error_deg"] < 0.1 and found["reconstruction_psnr"] > 60
    found = _evaluate(pendula, Oracle(pendula, swaps=False), "Seq", folder)
    assert found["transfer_leak_accuracy"] == 1 and found["transfer_identity_accuracy"] < 0.3
    assert found["continuation_amplitude_ok"] == found["continuation_period_ok"] == 1
    saved = json.loads(folder.metrics.read_text())
    assert saved["swap_identity_accuracy"] == 1 and saved["transfer_leak_accuracy"] == 1
    assert saved["details"]["Seq"]["n"] == 24 and saved["details"]["EncDec"]["spread"]["swap_identity_accuracy"] == 0
    assert "swap_identity_accuracy" in capsys.readouterr().out


def test_a_file_that_is_not_figures_is_left_alone(pendula, tmp_path):
    folder = SimpleNamespace(metrics=tmp_path / "metrics.json", root=tmp_path / "run")
    folder.metrics.write_text("[1")
    with pytest.raises(UserError, match="move it away"):
        _evaluate(pendula, Oracle(pendula), "EncDec", folder)
    assert folder.metrics.read_text() == "[1"
