"""Checkpoints of the authors' code ('released') from the command line.

They can be tested, resumed and trained on by stage 2; --convert turns them into ours and back.
"""

import pytest
import torch

import testing
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
    """models/held as the authors' code leaves it after epoch 1 of both stages.

    Returns the folder and {stage name: state}.
    """
    folder = tmp_path / "models" / "held"
    folder.mkdir(parents=True)
    stage_1, encdec, _ = released.checkpoint("EncDec", 1, SIZES)
    states = {"EncDec": stage_1, "Seq": released.checkpoint("Seq", 1, SIZES, encdec=encdec)[0]}
    for stage_name, state in states.items():
        torch.save(state, folder / NAMES[stage_name])
    return folder, states


@pytest.fixture
def quick(monkeypatch):
    """Draw no pictures, to save time."""
    monkeypatch.setattr(testing, "draw_stage", lambda *_: None)


def read(path):
    return torch.load(path, weights_only=True)


def adam_steps(path):
    """The steps that Adam has made, as its state of each tensor counts them."""
    return {int(moments["step"]) for moments in read(path)["optimizer"]["state"].values()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_tested(command, held, tmp_path, monkeypatch, zipped):
    folder, states = held
    if not zipped:
        monkeypatch.setattr(testing, "draw_stage", lambda *_: None)
    for stage_name, state in states.items():
        torch.save(state, folder / NAMES[stage_name], _use_new_zipfile_serialization=zipped)
    tested = command(*FLAGS, *TEST)
    assert tested.code == 0, tested.err
    for name in NAMES.values():
        assert f"tested models/held/{name}" in tested.out
    assert (tmp_path / "runs" / "held" / "images" / "seq_1_rec.png").exists() == zipped


def test_found_where_the_authors_code_left_them(command, held, quick):
    place = FLAGS.index("--model_save_path")
    tested = command(*FLAGS[:place], *FLAGS[place + 2 :], *TEST)
    assert tested.code == 0, tested.err
    for name in NAMES.values():
        assert f"tested models/held/{name}" in tested.out


def test_resumed(command, held, quick):
    folder, states = held
    resumed = command(*FLAGS, "--lr_VDSMEncDec", 0, "--lr_VDSMSeq", 0)
    assert resumed.code == 0 and "afresh" not in resumed.out, resumed.err
    for stage_name, name in NAMES.items():
        assert f"(models/held/{name})" in resumed.out
        # The released file stays as it was.
        assert_same(read(folder / name), states[stage_name])
        path = folder / name.replace("1", "3", 1)
        ours = read(path)
        assert ours["epoch"] == 4 and ours["data"] and ours["settings"]["fidelity"] == "release"
        # The file's two steps, and two epochs of two.
        assert adam_steps(path) == {2 + 2 * 2}
    # At a learning rate of 0 the weights are the released ones.
    code = read(folder / "3_VDSM_seq.pth")["model"]["dynamics.code.weight"]
    assert torch.equal(code, states["Seq"]["model"]["cats.weight"])


def test_an_adam_that_does_not_fit_starts_afresh(command, held, quick):
    folder, states = held
    del states["Seq"]["optimizer"]["param_groups"][0]["params"][0]
    torch.save(states["Seq"], folder / NAMES["Seq"])
    resumed = command(*FLAGS, "--train_VDSMEncDec", "False", "--epochs", 3)
    assert resumed.code == 0 and resumed.out.count("Adam starts afresh") == 1
    assert adam_steps(folder / "2_VDSM_seq.pth") == {2}


def test_stage_2_trains_on_a_released_stage_1(command, held, quick):
    folder, states = held
    (folder / NAMES["Seq"]).unlink()
    trained = command(*FLAGS, *STAGE_2, "--epochs", 1, "--pretrained_model_VDSMEncDec", 1)
    assert trained.code == 0 and f"stage 2 stands on models/held/{NAMES['EncDec']}" in trained.out
    ours = read(folder / "0_VDSM_seq.pth")["model"]
    assert torch.equal(ours["encdec.decoder.kernels.0"], states["EncDec"]["model"]["dec.EW1"])


@pytest.mark.parametrize("flags", [TEST, STAGE_1, STAGE_2], ids=["test", "stage 1", "stage 2"])
@pytest.mark.parametrize(
    "wrong, right",
    [
        (["--fidelity", "paper"], "--fidelity release"),
        (["--z_dim", 5], "--z_dim 4"),
        (["--dec_widths", "8,8,4,5"], "--dec_widths 8,8,4,4"),
        (["--single_decoder", True], "--single_decoder False"),
    ],
)
def test_other_sizes_are_refused(refused, held, flags, wrong, right):
    line = refused(*FLAGS, *wrong, *flags)
    assert f"{wrong[0]} is {wrong[1]} here" in line
    assert line.endswith(f"give the flags it was trained with: {right}\n")


@pytest.mark.parametrize(
    "flag, value, right", [("rnn_dim", 9, 8), ("rnn_layers", 2, 1), ("dynamics_dim", 3, 4)]
)
@pytest.mark.parametrize("flags", [TEST, STAGE_2], ids=["test", "train"])
def test_other_sizes_of_stage_2_are_refused(refused, held, flags, flag, value, right):
    message = f"1_VDSM_seq.pth is of another kind: --{flag} is {value} here and {right} there"
    assert message in refused(*FLAGS, f"--{flag}", value, *flags)


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


# --convert


@pytest.mark.parametrize("stage_name", NAMES)
def test_released_to_ours_and_back(command, held, stage_name):
    folder, states = held
    name = NAMES[stage_name]
    converted = command("--convert", folder / name, "--to", "ours")
    ours = folder / "ours" / name
    assert converted.code == 0 and f"wrote {ours}" in converted.out
    assert "--fidelity release --z_dim 4 --n_e_w 3" in converted.out
    assert command("--convert", ours, "--to", "release").code == 0
    assert_same(read(folder / "ours" / "release" / name), states[stage_name])
    assert_same(read(folder / name), states[stage_name])
    assert not list(folder.rglob("*.part"))
    # What both forms hold is stored once.
    assert ours.stat().st_size < 1.5 * (folder / name).stat().st_size


def summaries(moments_by_tensor):
    """Adam's moments as (length, steps, sum) of each tensor, in an order of their own."""
    return sorted(
        (len(moments["exp_avg"]), int(moments["step"]), moments["exp_avg"].sum().item())
        for moments in moments_by_tensor.values()
    )


def test_ours_to_released_and_back(command, held, quick):
    folder, _ = held
    assert command(*FLAGS, "--epochs", 3).code == 0
    for name in ("2_VDSM_EncDec.pth", "2_VDSM_seq.pth"):
        assert command("--convert", folder / name, "--to", "release").code == 0
        as_released = folder / "release" / name
        assert list(read(as_released)) == ["epoch", "model", "optimizer"]
        assert command("--convert", as_released, "--to", "ours").code == 0
        before, after = read(folder / name), read(folder / "release" / "ours" / name)
        for key, values in before["model"].items():
            assert torch.equal(values, after["model"][key])
        moments = summaries(before["optimizer"]["state"])
        assert moments and moments == summaries(after["optimizer"]["moments"])


def test_a_converted_run_resumes(command, held, quick):
    folder, _ = held
    for name in NAMES.values():
        assert command("--convert", folder / name, "--to", "ours").code == 0
        (folder / "ours" / name).replace(folder / name)
    resumed = command(*FLAGS, "--epochs", 3)
    assert resumed.code == 0 and "afresh" not in resumed.out
    assert adam_steps(folder / "2_VDSM_seq.pth") == {2 + 2}


def test_conversions_that_are_refused(command, refused, held, trained_once):
    folder, _ = held
    path = folder / NAMES["EncDec"]
    assert "go together" in refused("--convert", path)
    assert "go together" in refused("--to", "ours")
    assert "'theirs'" in refused("--convert", path, "--to", "theirs")
    assert "is not one of ours" in refused("--convert", path, "--to", "release")
    assert "cannot read" in refused("--convert", folder / "none.pth", "--to", "ours")
    assert "is a folder" in refused("--convert", folder, "--to", "ours")
    assert "--z_dim is 5 here and 4 there" in refused(
        "--convert", path, "--to", "ours", "--z_dim", 5
    )

    paper = trained_once / "runs" / "demo" / "checkpoints" / "3_VDSM_seq.pth"
    assert "--fidelity paper" in refused("--convert", paper, "--to", "release")
    assert "is not a released" in refused("--convert", paper, "--to", "ours")

    other = folder / "other.pth"
    torch.save({"model": {}}, other)
    assert "is not a released checkpoint" in refused("--convert", other, "--to", "ours")
    assert "not a checkpoint of" in refused("--convert", other, "--to", "release")
    state = read(paper)
    state["settings"]["fidelity"] = "release"
    del state["model"]["combiner.z_0"]
    torch.save(state, other)
    assert "'combiner.z_0' is not in it" in refused("--convert", other, "--to", "release")

    assert not (folder / "ours").exists() and not (folder / "release").exists()
    assert command("--convert", path, "--to", "ours").code == 0
    before = (folder / "ours" / path.name).read_bytes()
    assert "already there" in refused("--convert", path, "--to", "ours")
    assert (folder / "ours" / path.name).read_bytes() == before
