"""utils/files.py: a file is written whole or not at all, and read if it is a regular file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import read_json, regular, replacing, sweep, unused, write_text

ROOT = Path(__file__).resolve().parents[2]


def test_a_text_is_replaced_whole(tmp_path):
    write_text(tmp_path / "t", "one")
    write_text(tmp_path / "t", "two")
    assert (tmp_path / "t").read_text() == "two" and os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize("sync", [False, True])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, sync):
    path = tmp_path / "t"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path, sync) as beside:
        beside.write_text("half")
        assert str(os.getpid()) in beside.name
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["t"]
    with replacing(path, sync) as beside:
        beside.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["t"]


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "f"
    with pytest.raises(KeyboardInterrupt), replacing(path, folder=True) as beside:
        (beside / "a").write_text("half")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)
    with replacing(path, folder=True) as beside:
        (beside / "a").write_text("whole")
    assert os.listdir(tmp_path) == ["f"] and (path / "a").read_text() == "whole"


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "t"):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path / "t") and not os.listdir(tmp_path)


WRITER = """
import sys
from pathlib import Path
from utils.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_sweep_takes_what_a_killed_process_left_and_spares_a_living_one(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "t")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed, living = (subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2))
    with killed, living:
        for process in (killed, living):
            assert process.stdout.readline() == b"writing\n"
        killed.kill()
        killed.wait()
        assert len(os.listdir(tmp_path)) == 2
        (tmp_path / "u.7.part").mkdir()
        sweep(tmp_path, "t")
        assert sorted(os.listdir(tmp_path)) == [f"t.{living.pid}.part", "u.7.part"]
        living.stdin.close()
        assert living.wait() == 0
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["t"] and (tmp_path / "t").read_text() == "half"


def test_a_name_that_is_no_utf_8_is_written_in_plain_characters(tmp_path):
    write_text(tmp_path / "t", os.fsdecode(b"caf\xe9 \xc3\xa9"))
    assert (tmp_path / "t").read_bytes() == b"caf\\udce9 \xc3\xa9"


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), ("link", "a device"), (".", "a folder")):
        with pytest.raises(
            UserError, match=f"is {kind}, expected a regular file: move it away, or"
        ):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "none")
    (tmp_path / "t").write_text("12345")
    assert regular(tmp_path / "t", 5).st_size == 5 and read_json(tmp_path / "t") == 12345
    with pytest.raises(UserError, match="has 5 bytes, expected at most 4"):
        regular(tmp_path / "t", 4)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b""])
def test_json_of_every_kind_is_a_value_error(tmp_path, text):
    (tmp_path / "t").write_bytes(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "t")


def test_kept_files_are_numbered(tmp_path):
    assert unused(tmp_path / "run").name == "run.kept1"
    (tmp_path / "run.kept1").mkdir()
    assert unused(tmp_path / "run").name == "run.kept2"
    assert unused(tmp_path / "run", "damaged").name == "run.damaged1"
