"""Released checkpoints by the front door: tested, gone on with, stood on, refused; and --convert both ways."""

import copy

import pytest
import torch

import train_test
from tests.models import released
from tests.models.test_release import assert_same
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY

SIZES = {
    "z_dim": 4, "n_e_w": 3, "dynamics_dim": 4, "rnn_dim": 8, "rnn_layers": 1,
    "enc_widths": (4, 4, 4, 4, 8), "dec_widths": (8, 8, 4, 4),
}  # fmt: skip
FLAGS = [*TINY, "--fidelity", "release", "--RUN", "held", "--model_save_path", "models"]
NAMES = {"EncDec": "1_VDSM_EncDec.pth", "Seq": "1_VDSM_seq.pth"}


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A folder models/held as the release leaves it, with both stages of epoch 1; returns it and {stage: state}."""
    folder = tmp_path / "models" / "held"
    folder.mkdir(parents=True)
    first, encdec, _ = released.checkpoint("EncDec", 1, SIZES)
    states = {"EncDec": first, "Seq": released.checkpoint("Seq", 1, SIZES, encdec=encdec)[0]}
    for stage, state in states.items():
        torch.save(state, folder / NAMES[stage])
    return folder, states


@pytest.fixture
def quick(monkeypatch):
    """Leave the pictures out, to save time."""
    monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)


def read(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_tested(command, held, tmp_path, monkeypatch, zipped):
    folder, states = held
    drawn = zipped
    if not drawn:
        monkeypatch.setattr(train_test, "draw_stage", lambda *_: None)
    for stage, state in states.items():
        torch.save(state, folder / NAMES[stage], _use_new_zipfile_serialization=zipped)
    said = command(*FLAGS, *TEST, "--n_decoders", 3)  # one an expert, said aloud
    assert said.code == 0, said.err
    assert all(f"tested models/held/{name}" in said.out for name in NAMES.values())
    assert (tmp_path / "runs" / "held" / "images" / "seq_1_rec.png").exists() == drawn


def test_found_where_the_release_left_them(command, held, quick):
    folder, _ = held
    at = FLAGS.index("--model_save_path")
    said = command(*FLAGS[:at], *FLAGS[at + 2 :], *TEST)
    assert said.code == 0, said.err
    assert all(f"tested models/held/{name}" in said.out for name in NAMES.values())


def test_gone_on_with(command, held, quick):
    folder, states = held
    said = command(*FLAGS, "--lr_VDSMEncDec", 0, "--lr_VDSMSeq", 0)
    assert said.code == 0, said.err
    for stage, name in NAMES.items():
        assert f"({folder.relative_to(folder.parents[1])}/{name})" in said.out
        assert_same(read(folder / name), states[stage])  # left as it was
    assert "afresh" not in said.out
    for stage, number in (("EncDec", 3), ("Seq", 3)):
        mine = read(folder / NAMES[stage].replace("1", str(number), 1))
        assert mine["epoch"] == 4 and mine["data"] and mine["settings"]["fidelity"] == "release"
        steps = {int(moments["step"]) for moments in mine["optimizer"]["state"].values()}
        assert steps == {2 + 2 * 2}  # the file's two, and two epochs of two
    mine = read(folder / "3_VDSM_seq.pth")["model"]
    assert torch.equal(
        mine["dynamics.code.weight"], states["Seq"]["model"]["cats.weight"]
    )  # at rate 0


def test_an_adam_that_does_not_fit(command, held, quick):
    folder, states = held
    del states["Seq"]["optimizer"]["param_groups"][0]["params"][0]
    torch.save(states["Seq"], folder / NAMES["Seq"])
    said = command(*FLAGS, "--train_VDSMEncDec", "False", "--epochs", 3)
    assert said.code == 0 and said.out.count("Adam starts afresh") == 1
    steps = {
        int(moments["step"])
        for moments in read(folder / "2_VDSM_seq.pth")["optimizer"]["state"].values()
    }
    assert steps == {2}


def test_stage_2_stands_on_a_released_stage_1(command, held, quick):
    folder, states = held
    (folder / NAMES["Seq"]).unlink()
    said = command(*FLAGS, *STAGE_2, "--epochs", 1, "--pretrained_model_VDSMEncDec", 1)
    assert said.code == 0 and f"stage 2 stands on models/held/{NAMES['EncDec']}" in said.out
    mine = read(folder / "0_VDSM_seq.pth")["model"]
    assert torch.equal(mine["encdec.decoder.kernels.0"], states["EncDec"]["model"]["dec.EW1"])


@pytest.mark.parametrize("flags", [TEST, STAGE_1, STAGE_2], ids=["test", "stage 1", "stage 2"])
@pytest.mark.parametrize(
    "wrong, words",
    [
        (["--fidelity", "paper"], "--fidelity release"),
        (["--z_dim", 5], "--z_dim 4"),
        (["--dec_widths", "8,8,4,5"], "--dec_widths 8,8,4,4"),
        (["--n_decoders", 1], "no --n_decoders"),
    ],
)
def test_other_sizes_are_refused(refused, held, flags, wrong, words):
    line = refused(*FLAGS, *wrong, *flags)
    assert f"{wrong[0]} is {wrong[1]} here" in line and line.endswith(
        f"give the flags it was trained with: {words}\n"
    )


@pytest.mark.parametrize(
    "flag, value, own", [("rnn_dim", 9, 8), ("rnn_layers", 2, 1), ("dynamics_dim", 3, 4)]
)
@pytest.mark.parametrize("flags", [TEST, STAGE_2], ids=["test", "train"])
def test_other_sizes_of_stage_2_are_refused(refused, held, flags, flag, value, own):
    assert (
        f"1_VDSM_seq.pth is of another kind: --{flag} is {value} here and {own} there"
        in refused(*FLAGS, f"--{flag}", value, *flags)
    )


def test_damaged_files_are_refused(refused, held):
    folder, states = held
    path = folder / NAMES["EncDec"]
    whole = path.read_bytes()
    del states["EncDec"]["model"]["id_layers.loc_layer.bias"]
    torch.save(states["EncDec"], path)
    for flags in (TEST, STAGE_1, STAGE_2):
        assert "'id_layers.loc_layer.bias' is not in it" in refused(*FLAGS, *flags)
    path.write_bytes(whole[:-500])
    for flags in (TEST, STAGE_1, ["--convert", path, "--to", "ours"]):
        assert f"{NAMES['EncDec']} is truncated" in refused(*FLAGS, *flags)


# --- --convert ---


@pytest.mark.parametrize("stage", NAMES)
def test_released_to_ours_and_back(command, held, stage):
    folder, states = held
    said = command("--convert", folder / NAMES[stage], "--to", "ours")
    mine = folder / "ours" / NAMES[stage]
    assert (
        said.code == 0
        and f"wrote {mine}" in said.out
        and "--fidelity release --z_dim 4 --n_e_w 3" in said.out
    )
    assert command("--convert", mine, "--to", "release").code == 0
    assert_same(read(folder / "ours" / "release" / NAMES[stage]), states[stage])
    assert_same(read(folder / NAMES[stage]), states[stage])
    assert not list(folder.rglob("*.part"))
    assert (
        mine.stat().st_size < 1.5 * (folder / NAMES[stage]).stat().st_size
    )  # what both forms hold lies there once


def test_ours_to_release_and_back(command, held, quick):
    folder, _ = held
    assert command(*FLAGS, "--epochs", 3).code == 0
    for name in ("2_VDSM_EncDec.pth", "2_VDSM_seq.pth"):
        assert command("--convert", folder / name, "--to", "release").code == 0
        there = folder / "release" / name
        assert list(read(there)) == ["epoch", "model", "optimizer"]
        assert command("--convert", there, "--to", "ours").code == 0
        mine, back = read(folder / name), read(folder / "release" / "ours" / name)
        for key, values in mine["model"].items():
            assert torch.equal(values, back["model"][key])
        held = [
            (len(m["exp_avg"]), int(m["step"]), m["exp_avg"].sum())
            for m in mine["optimizer"]["state"].values()
        ]
        moments = [
            (len(m["exp_avg"]), int(m["step"]), m["exp_avg"].sum())
            for m in back["optimizer"]["moments"].values()
        ]
        assert held and sorted(held) == sorted(moments)


def test_what_was_converted_goes_on(command, held, quick):
    folder, _ = held
    for name in NAMES.values():
        assert command("--convert", folder / name, "--to", "ours").code == 0
        (folder / "ours" / name).replace(folder / name)
    said = command(*FLAGS, "--epochs", 3)
    assert said.code == 0 and "afresh" not in said.out
    steps = {
        int(moments["step"])
        for moments in read(folder / "2_VDSM_seq.pth")["optimizer"]["state"].values()
    }
    assert steps == {2 + 2}


def test_conversions_that_are_refused(command, refused, held, trained_once):
    folder, _ = held
    path = folder / NAMES["EncDec"]
    assert "go together" in refused("--convert", path)
    assert "go together" in refused("--to", "ours")
    assert "'theirs'" in refused("--convert", path, "--to", "theirs")
    assert "is not one of ours" in refused("--convert", path, "--to", "release")
    assert "cannot read" in refused("--convert", folder / "none.pth", "--to", "ours")
    assert "Is a directory" in refused("--convert", folder, "--to", "ours")
    assert "--z_dim is 5 here and 4 there" in refused(
        "--convert", path, "--to", "ours", "--z_dim", 5
    )
    paper = trained_once / "runs" / "demo" / "checkpoints" / "3_VDSM_seq.pth"
    assert "--fidelity paper" in refused("--convert", paper, "--to", "release")
    assert "is not a released" in refused("--convert", paper, "--to", "ours")
    torch.save({"model": {}}, folder / "other.pth")
    assert "is not a released checkpoint" in refused(
        "--convert", folder / "other.pth", "--to", "ours"
    )
    assert "not a checkpoint of" in refused("--convert", folder / "other.pth", "--to", "release")
    state = read(paper)
    state["settings"]["fidelity"] = "release"
    lacking = copy.deepcopy(state)
    del lacking["model"]["combiner.z_0"]
    torch.save(lacking, folder / "lacking.pth")
    assert "'combiner.z_0' is not in it" in refused(
        "--convert", folder / "lacking.pth", "--to", "release"
    )
    assert not (folder / "ours").exists() and not (folder / "release").exists()
    assert command("--convert", path, "--to", "ours").code == 0
    before = (folder / "ours" / path.name).read_bytes()
    assert "already there" in refused("--convert", path, "--to", "ours")
    assert (folder / "ours" / path.name).read_bytes() == before
