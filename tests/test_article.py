"""The printed commands of the authors' README and of a published guide to it.

tests/printed_commands.txt holds them word for word; flags added behind them shorten the runs.
"""

import functools
import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import train_test
from data import mug
from data.batches import Batches
from metrics import evaluate, judge
from tests import made
from utils.plan import parse, preset_names
from utils.settings import settings_class

HERE = Path(__file__).resolve().parent
_, *SECTIONS = re.split(r"^== (\w+) ==$", (HERE / "printed_commands.txt").read_text(), flags=re.M)
# {name: command}. '·' stands for a non-breaking space, so that a reader sees it.
PRINTED = dict(zip(SECTIONS[::2], (text.replace("·", "\xa0") for text in SECTIONS[1::2])))
DOCUMENTS = [HERE.parent / "README.md", *sorted((HERE.parent / "docs").glob("*.md"))]
PLACES = (
    "--image_path ./images/ --model_save_path ./models --log_dir ./tensorboard_runs/ "
    "--code_path ./codes/"
).split()
NARROW = (
    "--enc_widths 4,4,4,4,8 --dec_widths 8,8,4,4 --rnn_dim 8 --bs_per_epoch 1 --bs 2 "
    "--num_test_ids 2"
).split()
SMALL = [*NARROW, "--device", "cpu", "--threads", "1", *PLACES]
TEST = "--train_VDSMEncDec False --train_VDSMSeq False".split()
STAGE_1 = ("swap_ep_{}_rec.png", "train_{}_rec.png", "train_{}_targ.png")
STAGE_2 = (
    "seq_{}_rec.png",
    "seq_{}_gt.png",
    "vid_{}_gen.gif",
    "seq_swap_id_{}_gen.png",
    "vid_swap_{}_gen.gif",
)


def words(name):
    """The flags of a printed command as the shell hands them to main.py."""
    command = PRINTED[name].strip().removeprefix("!").replace("\\\n", "")
    program, script, *flags = shlex.split(command)
    assert (program, script) == ("python3", "main.py")
    return flags


@pytest.fixture
def run(command):
    """run(name of a printed command, *more flags): the command must succeed; returns its output."""

    def call(name, *more):
        result = command(*words(name), *SMALL, *more)
        assert result.code == 0, result
        return result.out

    return call


def assert_pictures(folder, names, *epochs):
    drawn = {path.name for path in folder.iterdir()}
    assert {name.format(epoch) for name in names for epoch in epochs} | {"config.txt"} <= drawn


def assert_checkpoints(folder, suffix, epochs):
    """Files {epoch}_{suffix}.pth of exactly these epochs, with the keys of the authors' files."""
    names = {path.name for path in folder.glob(f"*_{suffix}.pth")}
    assert names == {f"{epoch}_{suffix}.pth" for epoch in epochs}
    state = torch.load(folder / f"{max(epochs)}_{suffix}.pth", weights_only=True)
    assert state["epoch"] == max(epochs) + 1 and {"model", "optimizer"} <= state.keys()
    assert (folder / "config.txt").exists()


def milliseconds(gif):
    """How long a GIF lasts. It joins equal frames, and rounds times to hundredths of a second."""
    with Image.open(gif) as film:
        return sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))


@pytest.mark.parametrize("number, name", enumerate(["SPRITES_1", "SPRITES_2"]))
def test_our_documents_print_the_same_commands(number, name):
    blocks = [
        block.split("```")[0]
        for document in DOCUMENTS
        for block in document.read_text().split("python main.py ")
        if block.startswith("--RUN release_test_sprites")
    ]
    assert len(blocks) == 2
    ours = shlex.split(blocks[number].replace("\\\n", ""))
    assert len(ours) == len(words(name)) and parse(ours) == parse(words(name))


@pytest.mark.parametrize("dataset_name", ["mug", "sprites"])
def test_the_readme_presets_are_these_commands(dataset_name):
    plan = parse(["--preset", f"readme-{dataset_name}"])
    names = [f"{dataset_name.upper()}_{number}" for number in (1, 2)]
    for (stage_name, settings), name in zip(plan.stages.items(), names, strict=True):
        more = ["--RUN", settings.RUN, "--fidelity", "release", "--evaluate", "default", "--report"]
        assert parse([*words(name), *more]).stages[stage_name] == settings


def test_presets_follow_whom_their_names_say():
    for name in preset_names():
        followed = "release" if name.startswith("readme-") else "paper"
        for settings in parse(["--preset", name]).stages.values():
            assert settings.fidelity == followed, name


@pytest.mark.parametrize(
    "short, stage_1, stage_2",
    [
        (("--epochs", 3), [2], [2]),
        pytest.param((), [50, 100, 150, 200, 249], [50, 100, 150, 199], marks=pytest.mark.slow),
    ],
)
def test_mug(run, tmp_path, short, stage_1, stage_2):
    # Clips of different lengths, so that each has windows of its own.
    made.mug(tmp_path / "data", film=range(40, 40 + made.CLIPS))
    images, models = tmp_path / "images" / "release_test", tmp_path / "models" / "release_test"
    run("MUG_1", *short)
    assert_pictures(images, STAGE_1, 0, stage_1[-1])
    assert_checkpoints(models, "VDSM_EncDec", stage_1)
    encdec = ("--pretrained_model_VDSMEncDec", stage_1[-1]) if short else ()
    run("MUG_2", *short, *encdec)
    assert_pictures(images, STAGE_2, 0, stage_2[-1])
    assert_checkpoints(models, "VDSM_seq", stage_2)
    # 20 frames, 16 per second.
    assert 1200 <= milliseconds(images / f"vid_{stage_2[-1]}_gen.gif") <= 1250
    assert list((tmp_path / "tensorboard_runs" / "release_test").rglob("events*"))
    for picture in [*images.glob("*.png"), *images.glob("*.gif")]:
        picture.unlink()
    # The guide: to test, "just set both to False".
    assert "tested models/release_test" in run("MUG_2", *short, *encdec, *TEST)
    assert_pictures(images, STAGE_2, stage_2[-1])


def test_stage_2_takes_stage_1s_split(run, command, tmp_path):
    made.mug(tmp_path / "data")
    run("MUG_1", "--epochs", 1)
    more = "--epochs 1 --pretrained_model_VDSMEncDec 0 --seed 1".split()
    result = command(*words("MUG_2"), *SMALL, *more)
    assert result.code == 2 and "--seed 0" in result.err
    assert not list((tmp_path / "models" / "release_test").glob("*_seq.pth"))


@pytest.mark.slow
def test_mug_as_the_release_trained_it(run, tmp_path, monkeypatch):
    quick = functools.partial(judge.load_or_train_judge, steps=2, width=2)
    monkeypatch.setattr(evaluate, "load_or_train_judge", quick)
    made_batches = []

    def recorded(*args, **options):
        made_batches.append(Batches(*args, **options))
        return made_batches[-1]

    monkeypatch.setattr(train_test, "Batches", recorded)
    made.mug(tmp_path / "data")
    more = "--fidelity release --epochs 1 --num_test_ids 3 --evaluate swap".split()
    out = run("MUG_1", *more) + run("MUG_2", *more, "--pretrained_model_VDSMEncDec", 0)
    assert out.count("trains on its test clips") == 2 and out.count("not held out") == 4
    splits = mug.load(
        settings_class("vdsm", "MUG-FED")(data_dir=tmp_path / "data", quiet=True)
    ).splits
    # The training batches and the validation batches, of stage 1 and of stage 2.
    expected = [("test", True), ("val", False), ("test", False), ("val", False)]
    for batches, (split, flips) in zip(made_batches, expected, strict=True):
        assert np.array_equal(batches.clips.index, splits[split])
        released = split == "test"
        assert (batches.flips, batches.size) == (flips, 3)
        assert (batches.frozen, batches.distinct) == (released, released)
    figures = json.loads((tmp_path / "runs" / "release_test" / "metrics.json").read_text())
    measured = {"judge_identity_accuracy", "swap_identity_accuracy", "transfer_action_accuracy"}
    assert measured <= figures.keys()
    for stage_name in ("EncDec", "Seq"):
        assert "not held out" in figures["details"][stage_name]["warning"]
    out = run("MUG_2", *more, "--pretrained_model_VDSMEncDec", 0, *TEST, "--split", "val")
    assert "not held out" not in out and "held out" in out


@pytest.mark.parametrize(
    "short, stage_1, stage_2",
    [
        (("--epochs", 3), [2], [2]),
        pytest.param((), [50, 100, 150, 199], [50, 100, 150, 199], marks=pytest.mark.slow),
    ],
)
def test_sprites(run, tmp_path, short, stage_1, stage_2):
    made.sprites(tmp_path / "data")
    assert_sprites(run, tmp_path, short, stage_1, stage_2)


def assert_sprites(run, folder, short, stage_1, stage_2):
    images, models = (folder / name / "release_test_sprites" for name in ("images", "models"))
    run("SPRITES_1", *short)
    assert_pictures(images, STAGE_1, 0, stage_1[-1])
    assert_checkpoints(models, "VDSM_EncDec", stage_1)
    run("SPRITES_2", *short, *(("--pretrained_model_VDSMEncDec", stage_1[-1]) if short else ()))
    assert_pictures(images, STAGE_2, 0, stage_2[-1])
    assert_checkpoints(models, "VDSM_seq", stage_2)
    # 8 frames, 10 per second.
    assert milliseconds(images / f"vid_{stage_2[-1]}_gen.gif") == 800


@pytest.mark.parametrize(
    "short, epochs",
    [(("--epochs", 3), [2]), pytest.param((), [50, 100, 150, 199], marks=pytest.mark.slow)],
)
def test_the_guides_commands(run, tmp_path, short, epochs):
    made.sprites(tmp_path / "data")
    if short:
        short = (*short, "--pretrained_model_VDSMEncDec", epochs[-1])
    images, models = (tmp_path / name / "release_test_sprites" for name in ("images", "models"))
    # This command trains both stages.
    run("ARTICLE_TRAIN", *short)
    for suffix in ("VDSM_EncDec", "VDSM_seq"):
        assert_checkpoints(models, suffix, epochs)
    shutil.rmtree(images)
    out = run("ARTICLE_TEST", *short)
    assert out.count("tested models/release_test_sprites") == 2
    assert {path.name for path in images.iterdir()} >= {
        name.format(epochs[-1]) for name in ("swap_ep_{}_rec.png", *STAGE_2)
    }


@pytest.mark.slow
def test_sprites_of_the_real_art(run, tmp_path):
    data = os.environ.get("VDSM_REAL_DATA")
    if not data or not (Path(data) / "lpc").is_dir():
        pytest.skip("real LPC art not checked: VDSM_REAL_DATA does not name a folder with lpc/")
    try:
        assert_sprites(run, tmp_path, ("--epochs", 3, "--source", Path(data) / "lpc"), [2], [2])
    finally:
        # 743 MB.
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
