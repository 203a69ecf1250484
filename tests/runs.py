"""What the tests of training share: names of stages, files of a run, and comparisons."""

import hashlib
import time
from pathlib import Path

import torch

from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq
from models.vdsm.stages import EncDecStage, SeqStage

TERMS = {"EncDec": ("s", "z", "x"), "Seq": ("s", "d", "z_1", "z", "x")}
NETWORKS = {"EncDec": EncDec, "Seq": Seq}
STAGES = {"EncDec": EncDecStage, "Seq": SeqStage}
SUFFIX = {"EncDec": "VDSM_EncDec", "Seq": "VDSM_seq"}


def tree(folder):
    """{path: digest} of every file below `folder`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    digests = (hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    return dict(zip((str(path.relative_to(folder)) for path in files), digests))


def checkpoint(run, stage, epoch):
    return torch.load(run / "checkpoints" / f"{epoch}_{SUFFIX[stage]}.pth", weights_only=True)


def assert_same_checkpoint(a, b):
    assert a["epoch"] == b["epoch"] and a["model"].keys() == b["model"].keys()
    for name, values in a["model"].items():
        assert torch.equal(values, b["model"][name]), name
    for mine, other in zip(
        a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert torch.equal(a["rng"]["cpu"], b["rng"]["cpu"])


def wait_for(name, seconds=120, folder="runs"):
    """Return once the file `name` is in `folder`, and holds something if it is a `*.began`."""
    end, path = time.monotonic() + seconds, Path(folder) / name
    while not path.exists() or (name.endswith("began") and not path.read_text()):
        assert time.monotonic() < end, f"no {name}"
        time.sleep(0.02)
