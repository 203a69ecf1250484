"""DSA and Unordered from the command line: the same loop, files and figures as VDSM's."""

import json

import numpy as np
import pytest
import torch

import train_test
from data.shapes import CLASSES
from metrics import judge
from tests.runs import assert_same_checkpoint
from tests.tiny import STAGE_1, TINY
from utils.plan import parse

RUN = (
    "--RUN b --dataset_name pendulum --seq_len 16 --epochs 2 --bs_per_epoch 2 --bs 3 "
    "--num_test_ids 2 --f_dim 4 --width 3 --hidden 8 --model_test_interval 2 "
    "--model_save_interval 1 --tboard_log False --device cpu --threads 1"
).split()
MEASURE = "--train True --evaluate swap --export_codes True --split val --report True".split()
FLAGS = {"dsa": "--conv_dim 6 --rnn_dim 5 --z_dim 3".split(), "unordered": []}
PICTURES = {
    "seq_1_gt.png",
    "seq_1_rec.png",
    "transfer_1.png",
    "vid_swap_1_gen.gif",
    "samples_1.png",
    "fixed_f_1.png",
    "fixed_z_1.png",
}
# The pictures of one model alone.
MODEL_PICTURES = {
    "dsa": {"continue_1_40.gif"},
    "unordered": {"plane_1.png", "manifold_1.png", "curve_1.png"},
}
Z_DIM = {"dsa": 3, "unordered": 2}
# Of the published sizes, as --dry_run prints them.
PARAMETERS = {"dsa": "166,991,747", "unordered": "22,984,075"}
STEPS = {"dsa": "72,000 (200 epochs of 360", "unordered": "60,000 (60 epochs of 1000"}
models = pytest.mark.parametrize("model", FLAGS)


def flags(model):
    return ["--model", model, *RUN, *FLAGS[model]]


def names(folder):
    return {path.name for path in folder.iterdir()}


@models
def test_trains_draws_measures_exports_and_tests(command, tmp_path, model):
    trained = command(*flags(model), *MEASURE)
    assert trained.code == 0, trained.err
    run, other = tmp_path / "runs" / "b", {"dsa": "unordered", "unordered": "dsa"}[model]
    assert [path.name for path in (run / "checkpoints").glob("*.pth")] == [f"1_{model}.pth"]
    drawn = names(run / "images")
    assert PICTURES | MODEL_PICTURES[model] <= drawn and not MODEL_PICTURES[other] & drawn
    figures = json.loads((run / "metrics.json").read_text())
    measured = {"transfer_identity_accuracy", "transfer_pose_error_deg", "seq_reconstruction_psnr"}
    assert measured <= figures.keys()
    assert ("continuation_amplitude_ok" in figures) == (model == "dsa")
    codes = [
        np.load(run / "codes" / f"{name}_0.npz")["arr_0"].shape
        for name in ("id", "dynamics", "recon_images")
    ]
    assert codes == [(2, 1, 4), (2, 16, Z_DIM[model]), (2, 16, 3, 64, 64)]
    report = (run / "report.html").read_text()
    assert "Traversal of the code f" in report
    assert ("Frames over the plane" in report) == (model == "unordered")

    for path in (run / "images").iterdir():
        path.unlink()
    tested = command(*flags(model))
    assert tested.code == 0 and f"tested runs/b/checkpoints/1_{model}.pth" in tested.out
    assert PICTURES | MODEL_PICTURES[model] <= names(run / "images")


@models
def test_a_stopped_run_resumes_bit_for_bit(command, tmp_path, monkeypatch, model):
    monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)
    train = [*flags(model), "--train", "True", "--save_every_steps", "1"]
    assert command(*train, "--RUN", "unbroken").code == 0
    update = train_test.Stepper.update

    def update_and_stop(self, *losses):
        if self.calls == 4:
            raise KeyboardInterrupt
        update(self, *losses)

    monkeypatch.setattr(train_test.Stepper, "update", update_and_stop)
    assert command(*train).code == 130
    monkeypatch.setattr(train_test.Stepper, "update", update)
    resumed = command(*train)
    assert resumed.code == 0 and "1 steps of the next" in resumed.out
    checkpoints = [
        torch.load(tmp_path / "runs" / run / "checkpoints" / f"1_{model}.pth", weights_only=True)
        for run in ("b", "unbroken")
    ]
    assert_same_checkpoint(*checkpoints)


@pytest.mark.parametrize(
    "model", [pytest.param("dsa", marks=pytest.mark.slow), "unordered"], ids=["dsa", "unordered"]
)
def test_dry_run_and_published_defaults(command, tmp_path, model):
    printed = command("--model", model, "--train", "True", "--dry_run", "True")
    assert printed.code == 0, printed.err
    assert f"parameters  {PARAMETERS[model]}" in printed.out and STEPS[model] in printed.out
    assert not list(tmp_path.iterdir())


def test_mistakes(command, refused):
    assert "has 1 stages" in refused("--model", "dsa", "--preset", "demo")
    too_many = "--frames_per_clip 5 --seq_len 4"
    assert "--frames_per_clip 5 exceeds --seq_len 4" in refused(
        "--model", "unordered", *too_many.split(), "--train", "True"
    )
    assert "--kl_f_start" in refused("--model", "dsa", "--kl_f_start", 0.1, "--kl_f", 0)
    assert "--train_VDSMSeq" in refused("--model", "dsa", "--train_VDSMSeq", "True")
    assert "train first (--train True)" in refused(*flags("dsa"))
    assert command(*flags("dsa"), "--train", "True", "--epochs", 1).code == 0
    assert "--f_dim is 5 here and 4 there" in refused(*flags("dsa"), "--f_dim", 5)
    assert "--f_dim was 4 and is 5" in refused(*flags("dsa"), "--train", "True", "--f_dim", 5)
    assert "holds another run" in refused(*flags("dsa"), "--train", "True", "--posterior", "full")


def test_a_saved_configuration_gives_the_same_settings(command, tmp_path):
    train = [*flags("dsa"), "--train", "True", "--epochs", 1]
    assert command(*train).code == 0
    saved = parse(["--config", str(tmp_path / "runs" / "b" / "config.json")])
    assert saved.stages == parse([str(word) for word in train]).stages
    assert saved.training == ["DSA"]


@pytest.mark.slow
@models
def test_msd_measures_a_trained_run(command, tmp_path, model):
    given = [*flags(model), "--epochs", 1, "--train", "True", "--evaluate", "msd"]
    said = command(*given, "--bs_per_epoch", 1, "--model_test_interval", 9)
    assert said.code == 0, said.err
    assert_msd(tmp_path / "runs" / "b" / "metrics.json", ("colour", "amplitude", "start"))


@pytest.mark.slow
def test_msd_measures_a_trained_run_of_shapes(command, no_pictures, monkeypatch, tmp_path):
    # a judge that learnt little, in place of minutes of training
    monkeypatch.setattr(judge, "STEPS", 2)
    monkeypatch.setattr(judge, "WIDTH", 2)
    given = ["--dataset_name", "shapes", "--shapes_per_combination", 1, "--num_clips", 60]
    said = command(*TINY, *STAGE_1, *given, "--epochs", 1, "--RUN", "b", "--evaluate", "msd")
    assert said.code == 0, said.err
    assert_msd(tmp_path / "runs" / "b" / "metrics.json", list(CLASSES), "stage1_")


def assert_msd(path, factors, prefix=""):
    """metrics.json holds figures of the protocol msd, each in its range, for all factors."""
    numbers = json.loads(path.read_text())
    (notes,) = numbers["details"].values()
    figures = {name.removeprefix(prefix) for name in notes["protocols"]["msd"]["figures"]}
    assert figures and all(name.startswith("msd_") for name in figures)
    shares = "modularity", "compactness", *(f"explicitness_{factor}" for factor in factors)
    for name in shares:
        assert 0 <= numbers[f"{prefix}msd_{name}"] <= 1, name
    assert all(np.isfinite(numbers[prefix + name]) for name in figures)
