"""docs/ADDING_A_MODEL.md: its file, its line and its command, as they stand there."""

import ast
import importlib.util
import re
import shlex
import sys
from pathlib import Path

from utils.progress import Progress
from utils.settings import MODELS

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "ADDING_A_MODEL.md").read_text()
FEWER = (
    "--epochs 3 --bs_per_epoch 8 --bs 4 --width 8 --device cpu --threads 1 --tboard_log False "
    "--lr 0.01"
).split()


def test_the_example_trains(command, tmp_path, monkeypatch):
    code, line = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    told = re.search(r"^python main\.py (.*)$", TEXT, re.MULTILINE).group(1)
    (tmp_path / "plain.py").write_text(code)
    spec = importlib.util.spec_from_file_location("models.plain", tmp_path / "plain.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "models.plain", module)
    spec.loader.exec_module(module)
    for name, place in ast.literal_eval("{" + line + "}").items():
        monkeypatch.setitem(MODELS, name, place)
    losses, show = [], Progress.epoch
    monkeypatch.setattr(
        Progress,
        "epoch",
        lambda self, *a: (losses.append(sum(w for _, w in a[2].values())), show(self, *a)),
    )
    said = command(*shlex.split(told), *FEWER)
    assert said.code == 0, said.err
    assert losses[-1] < 0.8 * losses[0]
    run = tmp_path / "runs" / "plain"
    assert (run / "checkpoints" / "2_plain.pth").exists() and (run / "metrics.json").exists()
    assert {"seq_2_rec.png", "transfer_2.png", "samples_2.gif", "fixed_f_2.png"} <= {
        p.name for p in (run / "images").iterdir()
    }
    assert (
        "tested"
        in command(
            "--model",
            "plain",
            "--RUN",
            "plain",
            "--dataset_name",
            "pendulum",
            "--seq_len",
            16,
            *FEWER,
        ).out
    )
