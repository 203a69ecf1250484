"""utils/files.py: a file is written whole or not at all."""

import os

import pytest

from utils.files import replacing, unused, write_text


def test_a_text_is_replaced_whole(tmp_path):
    write_text(tmp_path / "t", "one")
    write_text(tmp_path / "t", "two")
    assert (tmp_path / "t").read_text() == "two" and os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize("sync, shared", [(False, False), (True, False), (True, True)])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, sync, shared):
    path = tmp_path / "t"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path, sync, shared) as beside:
        beside.write_text("half")
        assert (str(os.getpid()) in beside.name) == shared
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["t"]
    with replacing(path, sync, shared) as beside:
        beside.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["t"]


def test_kept_files_are_numbered(tmp_path):
    assert unused(tmp_path / "run").name == "run.kept1"
    (tmp_path / "run.kept1").mkdir()
    assert unused(tmp_path / "run").name == "run.kept2"
    assert unused(tmp_path / "run", "damaged").name == "run.damaged1"
