"""The commands that the release's README and a published guide to it print, word for word, shortened only by flags behind them."""

import functools
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import train_test
from data import mug
from data.batches import Sampler
from metrics import evaluate, judge
from tests import made
from utils.settings import RunSettings, parse

MUG_1 = r"""
python3 main.py --RUN release_test --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 20 --epochs 250 --bs_per_epoch 50 \
 --num_test_ids 10 --dataset_name MUG-FED --model_save_interval 50  \
    --train_VDSMSeq False --train_VDSMEncDec True --model_test_interval 10  \
  --anneal_start_dynamics 0.1 --anneal_end_dynamics 0.6 --anneal_frac_dynamics 1  --lr_VDSMEncDec 0.001 --lr_resume 0.0008  --z_dim 30 --n_e_w 15 \
  --dynamics_dim 50 --test_temp_id 10  --temp_id_end 10 --temp_id_start 1 --temp_id_frac 2 --anneal_end_id 1 --anneal_start_id 0.1 \
    --anneal_frac_id 3 --anneal_start_t 30.0 --anneal_mid_t1 0.2 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8 \
    --rnn_dropout 0.2
"""
SPRITES_1 = r"""
python3 main.py --RUN release_test_sprites --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 16 --epochs 200 --bs_per_epoch 50 \
 --num_test_ids 12 --dataset_name sprites --model_save_interval 50  \
    --train_VDSMSeq False --train_VDSMEncDec True --model_test_interval 10  \
  --anneal_start_dynamics 0.1 --anneal_end_dynamics 0.6 --anneal_frac_dynamics 1  --lr_VDSMEncDec 0.001 --lr_resume 0.0008  --z_dim 30 --n_e_w 40 \
  --dynamics_dim 50 --test_temp_id 10  --temp_id_end 10 --temp_id_start 1 --temp_id_frac 2 --anneal_end_id 1 --anneal_start_id 0.1 \
    --anneal_frac_id 3 --anneal_start_t 30.0 --anneal_mid_t1 0.2 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8 \
    --rnn_dropout 0.2
"""
MUG_2 = r"""
python3 main.py --RUN release_test --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 20 --epochs 200 --bs_per_epoch 2 \
 --num_test_ids 6 --dataset_name MUG-FED --model_save_interval 50 --pretrained_model_VDSMEncDec 249\
    --train_VDSMSeq True --train_VDSMEncDec False --model_test_interval 10  \
   --anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1   --lr_VDSMSeq 0.001 --z_dim 30 --n_e_w 15 \
--dynamics_dim 50 --test_temp_id 10.0 --temp_id_end 10.0 --temp_id_start 10.0 --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 \
    --anneal_frac_id 3 --anneal_start_t 0.1 --anneal_mid_t1 0.4 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8  \
    --rnn_dropout 0.2
"""
SPRITES_2 = r"""
python3 main.py --RUN release_test_sprites --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 8 --epochs 200 --bs_per_epoch 50 \
 --num_test_ids 12 --dataset_name sprites --model_save_interval 50 --pretrained_model_VDSMEncDec 199\
    --train_VDSMSeq True --train_VDSMEncDec False --model_test_interval 10  \
   --anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1   --lr_VDSMSeq 0.001 --z_dim 30 --n_e_w 40 \
--dynamics_dim 50 --test_temp_id 10.0 --temp_id_end 10.0 --temp_id_start 10.0 --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 \
    --anneal_frac_id 3 --anneal_start_t 0.1 --anneal_mid_t1 0.4 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8  \
    --rnn_dropout 0.2
"""
# A web page, with the non-breaking spaces (here: ·) that a copy of it brings along.
ARTICLE_TRAIN = r"""
!python3 main.py --RUN release_test_sprites --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 8 --epochs 200 --bs_per_epoch 50 \
 ·--num_test_ids 12 --dataset_name sprites --model_save_interval 50 --pretrained_model_VDSMEncDec 199\
 ····--train_VDSMSeq True --train_VDSMEncDec True --model_test_interval 10· \
 ···--anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1 · --lr_VDSMSeq 0.001 --z_dim 30 --n_e_w 40 \
 --dynamics_dim 50 --test_temp_id 10.0 --temp_id_end 10.0 --temp_id_start 10.0 --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 \
 ····--anneal_frac_id 3 --anneal_start_t 0.1 --anneal_mid_t1 0.4 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8· \
 ····--rnn_dropout 0.2
""".replace("·", "\xa0")
ARTICLE_TEST = r"""
!python3 main.py --RUN release_test_sprites --rnn_layers 3 --rnn_dim 512 --bs 20 --seq_len 8 --epochs 200 --bs_per_epoch 50 \
 ·--num_test_ids 12 --dataset_name sprites --model_save_interval 50 --pretrained_model_VDSMEncDec 199\
 ····--train_VDSMSeq False --train_VDSMEncDec False --model_test_interval 10· \
 ···--anneal_start_dynamics 0.1 --anneal_end_dynamics 1.0 --anneal_frac_dynamics 1 · --lr_VDSMSeq 0.001 --z_dim 30 --n_e_w 40 \
 --dynamics_dim 50 --test_temp_id 10.0 --temp_id_end 10.0 --temp_id_start 10.0 --temp_id_frac 1 --anneal_end_id 1.0 --anneal_start_id .1 \
 ····--anneal_frac_id 3 --anneal_start_t 0.1 --anneal_mid_t1 0.4 --anneal_mid_t2 0.4 --anneal_end_t 1 --anneal_t_midfrac1 0.5 --anneal_t_midfrac2 0.8· \
 ····--rnn_dropout 0.2
""".replace("·", "\xa0")

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
PLACES = "--image_path ./images/ --model_save_path ./models --log_dir ./tensorboard_runs/ --code_path ./codes/".split()
NARROW = "--enc_widths 4,4,4,4,8 --dec_widths 8,8,4,4 --rnn_dim 8 --bs_per_epoch 1 --bs 2 --num_test_ids 2".split()
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


def words(command):
    """The flags of a command as the shell would hand them to main.py."""
    program, script, *flags = shlex.split(command.strip().removeprefix("!").replace("\\\n", ""))
    assert (program, script) == ("python3", "main.py")
    return flags


@pytest.fixture
def run(command):
    """run(printed command, *more flags): it must go through, what it says is returned."""

    def call(printed, *more):
        said = command(*words(printed), *SMALL, *more)
        assert said.code == 0, said
        return said.out

    return call


def assert_pictures(folder, names, *epochs):
    there = {path.name for path in folder.iterdir()}
    assert {name.format(epoch) for name in names for epoch in epochs} | {"config.txt"} <= there


def assert_checkpoints(folder, suffix, next_epochs):
    """Files {e}_{suffix}.pth of exactly these epochs, each a dict as the release's."""
    assert {path.name for path in folder.glob(f"*_{suffix}.pth")} == {
        f"{e}_{suffix}.pth" for e in next_epochs
    }
    state = torch.load(folder / f"{max(next_epochs)}_{suffix}.pth", weights_only=True)
    assert state["epoch"] == max(next_epochs) + 1 and {"model", "optimizer"} <= state.keys()
    assert (folder / "config.txt").exists()


def milliseconds(gif):
    """How long a GIF lasts; frames alike are one in it, and its clock knows hundredths of a second."""
    with Image.open(gif) as film:
        return sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))


@pytest.mark.parametrize("name", ["SPRITES_1", "SPRITES_2"])
def test_our_readme_has_the_same_command(name):
    blocks = [
        block
        for block in README.split("python main.py ")
        if block.startswith("--RUN release_test_sprites")
    ]
    printed = blocks[("SPRITES_1", "SPRITES_2").index(name)].split("```")[0]
    ours = shlex.split(printed.replace("\\\n", ""))
    theirs = words(globals()[name])
    assert len(ours) == len(theirs) and parse(ours) == parse(theirs)


@pytest.mark.parametrize(
    "preset, first, second", [("mug", MUG_1, MUG_2), ("sprites", SPRITES_1, SPRITES_2)]
)
def test_the_readme_presets_are_these_commands(preset, first, second):
    plan = parse(["--preset", f"readme-{preset}"])
    for (stage, settings), printed in zip(plan.stages.items(), (first, second)):
        assert parse([*words(printed), "--RUN", settings.RUN]).stages[stage] == settings


@pytest.mark.parametrize(
    "short, stage_1, stage_2",
    [
        (("--epochs", 3), [2], [2]),
        pytest.param((), [50, 100, 150, 200, 249], [50, 100, 150, 199], marks=pytest.mark.slow),
    ],
)
def test_mug(run, tmp_path, short, stage_1, stage_2):
    made.mug(tmp_path / "data", film=range(40, 40 + made.CLIPS))  # windows differ from clip to clip
    images, models = tmp_path / "images" / "release_test", tmp_path / "models" / "release_test"
    run(MUG_1, *short)
    assert_pictures(images, STAGE_1, 0, stage_1[-1])
    assert_checkpoints(models, "VDSM_EncDec", stage_1)
    stands_on = ("--pretrained_model_VDSMEncDec", stage_1[-1]) if short else ()
    run(MUG_2, *short, *stands_on)
    assert_pictures(images, STAGE_2, 0, stage_2[-1])
    assert_checkpoints(models, "VDSM_seq", stage_2)
    assert (
        1200 <= milliseconds(images / f"vid_{stage_2[-1]}_gen.gif") <= 1250
    )  # 20 frames, 16 a second
    assert list((tmp_path / "tensorboard_runs" / "release_test").rglob("events*"))
    for picture in images.glob("*.*f"):
        picture.unlink()
    assert "tested models/release_test" in run(
        MUG_2, *short, *stands_on, *TEST
    )  # 'just set both to False'
    assert_pictures(images, STAGE_2, stage_2[-1])


def test_stage_2_takes_stage_1s_split(run, command, tmp_path):
    made.mug(tmp_path / "data")
    run(MUG_1, "--epochs", 1)
    said = command(
        *words(MUG_2), *SMALL, "--epochs", 1, "--pretrained_model_VDSMEncDec", 0, "--seed", 1
    )
    assert said.code == 2 and "--seed 0" in said.err
    assert not list((tmp_path / "models" / "release_test").glob("*_seq.pth"))


def test_mug_as_the_release_trained_it(run, tmp_path, monkeypatch):
    quick = functools.partial(judge.load_or_train_judge, steps=2, width=2)
    monkeypatch.setattr(evaluate, "load_or_train_judge", quick)
    samplers = []

    def recorded(*given, **more):
        samplers.append(Sampler(*given, **more))
        return samplers[-1]

    monkeypatch.setattr(train_test, "Sampler", recorded)
    made.mug(tmp_path / "data")
    more = "--fidelity release --epochs 1 --num_test_ids 3 --evaluate swap".split()
    out = run(MUG_1, *more) + run(MUG_2, *more, "--pretrained_model_VDSMEncDec", 0)
    assert out.count("trains on its test clips") == 2 and out.count("not held out") == 4
    splits = mug.load(RunSettings(data_dir=tmp_path / "data", quiet=True)).splits
    for sampler, split, flips in zip(
        samplers, ("test", "val", "test", "val"), (True, False, False, False)
    ):
        assert np.array_equal(sampler.clips.index, splits[split])
        assert (sampler.flips, sampler.frozen) == (flips, split == "test")
    saved = torch.load(tmp_path / "models" / "release_test" / "0_VDSM_seq.pth", weights_only=True)
    assert saved["settings"]["bs"] == 3
    figures = json.loads((tmp_path / "runs" / "release_test" / "metrics.json").read_text())
    assert {
        "judge_identity_accuracy",
        "swap_identity_accuracy",
        "transfer_action_accuracy",
    } <= figures.keys()
    assert all(
        "not held out" in figures["details"][stage]["warning"] for stage in ("EncDec", "Seq")
    )
    out = run(MUG_2, *more, "--pretrained_model_VDSMEncDec", 0, *TEST, "--split", "val")
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
    images, models = (
        folder / "images" / "release_test_sprites",
        folder / "models" / "release_test_sprites",
    )
    run(SPRITES_1, *short)
    assert_pictures(images, STAGE_1, 0, stage_1[-1])
    assert_checkpoints(models, "VDSM_EncDec", stage_1)
    run(SPRITES_2, *short, *(("--pretrained_model_VDSMEncDec", stage_1[-1]) if short else ()))
    assert_pictures(images, STAGE_2, 0, stage_2[-1])
    assert_checkpoints(models, "VDSM_seq", stage_2)
    assert milliseconds(images / f"vid_{stage_2[-1]}_gen.gif") == 800  # 8 frames, 10 a second


@pytest.mark.parametrize(
    "short, epochs",
    [(("--epochs", 3), [2]), pytest.param((), [50, 100, 150, 199], marks=pytest.mark.slow)],
)
def test_the_guides_commands(run, tmp_path, short, epochs):
    made.sprites(tmp_path / "data")
    if short:
        short = (*short, "--pretrained_model_VDSMEncDec", epochs[-1])
    images, models = (
        tmp_path / "images" / "release_test_sprites",
        tmp_path / "models" / "release_test_sprites",
    )
    run(ARTICLE_TRAIN, *short)  # both stages
    for suffix in ("VDSM_EncDec", "VDSM_seq"):
        assert_checkpoints(models, suffix, epochs)
    shutil.rmtree(images)
    out = run(ARTICLE_TEST, *short)
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
        shutil.rmtree(tmp_path / "data", ignore_errors=True)  # 743 MB
