"""--pretrained_model_* of a stage that trains: training goes on from the named checkpoint."""

import pytest
import torch

from tests.runs import SUFFIX, assert_same_checkpoint, checkpoint, tree
from tests.tiny import STAGE_1, STAGE_2, TINY

FLAG = "--pretrained_model_VDSM"
ALONE = {"EncDec": STAGE_1, "Seq": STAGE_2}


@pytest.mark.parametrize("stage", ALONE)
def test_training_goes_on_from_the_named_checkpoint(
    command, no_pictures, trained_once, trained, kill_at, stage
):
    folder, name = trained / "checkpoints", f"{{}}_{SUFFIX[stage]}.pth"
    old = {epoch: (folder / name.format(epoch)).read_bytes() for epoch in (2, 3)}
    again = [*TINY, *ALONE[stage], FLAG + stage, 1]
    kill_at(stage, 6)
    said = command(*again)
    number = 1 if stage == "EncDec" else 2
    assert said.code == 130
    assert said.out.count(f"stage {number} goes on from runs/demo/checkpoints/1_VDSM") == 1
    assert ".kept1 and 1 more\n" in said.out
    for epoch, content in old.items():
        assert (folder / f"{name.format(epoch)}.kept1").read_bytes() == content
    # The run remembers that it stands on epoch 1, and resumes what it has made since.
    said = command(*again)
    assert said.code == 0 and "goes on from" not in said.out
    assert f"epoch 2 of 3 is done (runs/demo/checkpoints/2_{SUFFIX[stage]}.pth)" in said.out
    unbroken = trained_once / "runs" / "demo"
    assert_same_checkpoint(checkpoint(trained, stage, 3), checkpoint(unbroken, stage, 3))
    before = tree(folder)
    assert command(*again).code == 0 and tree(folder).keys() == before.keys()
    # Another number starts there, and the newest checkpoint again becomes one of the old.
    assert "goes on from" in command(*again, FLAG + stage, 2).out
    assert (folder / f"{name.format(3)}.kept2").exists()


def test_a_number_to_come_is_the_checkpoint_that_the_command_leaves(command, no_pictures, trained):
    first = trained / "checkpoints" / "3_VDSM_EncDec.pth"
    first.unlink()
    said = command(*TINY, *STAGE_1, f"{FLAG}EncDec", 3)
    assert said.code == 0 and "2_VDSM_EncDec.pth" in said.out and first.exists()
    assert "goes on from" not in said.out


def test_a_number_to_stand_on_does_not_restart_the_stage_below(command, no_pictures, trained):
    folder = trained / "checkpoints"
    for path in folder.glob("*_seq.pth"):
        path.unlink()
    below = {path: path.read_bytes() for path in folder.glob("*_EncDec.pth")}
    said = command(*TINY, f"{FLAG}EncDec", 1)
    assert said.code == 0 and "goes on from" not in said.out
    assert {path: path.read_bytes() for path in folder.glob("*_EncDec.pth")} == below
    stood_on = checkpoint(trained, "EncDec", 1)["model"]
    model = checkpoint(trained, "Seq", 3)["model"]
    kept = [name for name in stood_on if torch.equal(model[f"encdec.{name}"], stood_on[name])]
    assert kept == list(stood_on)


def test_numbers_of_no_checkpoint(refused, trained):
    before = tree(trained)
    line = refused(*TINY, *STAGE_1, f"{FLAG}EncDec", 0)
    assert "0_VDSM_EncDec.pth is not there (there are 1, 2, 3)" in line
    line = refused(*TINY, *STAGE_1, f"{FLAG}EncDec", 1, "--fresh", "True")
    assert "--fresh True starts over" in line and f"{FLAG}EncDec 1" in line
    assert tree(trained) == before
    (trained / "checkpoints" / "1_VDSM_EncDec.pth").write_bytes(b"no checkpoint")
    before = tree(trained)
    assert "1_VDSM_EncDec.pth is truncated" in refused(*TINY, *STAGE_1, f"{FLAG}EncDec", 1)
    assert tree(trained) == before
