"""The completion file, as bash itself uses it."""

import errno
import shutil
import subprocess

import pytest

from utils import completion
from utils.completion import main, script, values_by_flag

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def completed(*words):
    """What bash offers after these words; the last one is being typed."""
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _vdsm_main; echo ${{COMPREPLY[@]}}"
    command = ["bash", "-c", f"{script()}\n{ask}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_every_choice_and_every_boolean_is_offered():
    offered = values_by_flag()
    assert offered["--dry_run"] == ("True", "False")
    assert "video-folder" in offered["--dataset_name"] and "demo" in offered["--preset"]
    assert offered["--seed"] == () and "--hold_out" in offered and "--n_e_w" in offered


@bash
def test_bash_completes_flags_values_and_leaves_other_programs_alone():
    assert completed("python", "main.py", "--model_te") == ["--model_test_interval"]
    assert completed("python", "main.py", "--model", "d") == ["dsa"]
    assert completed("python", "/some/main.py", "--preset", "readme-s") == ["readme-sprites"]
    assert completed("python", "main.py", "--source", "") == []  # bash completes file names
    assert completed("python", "other.py", "--mod") == []


def test_the_command_takes_no_words_and_tells_of_a_full_disk(capsys, monkeypatch):
    with pytest.raises(SystemExit, match="^2$"):
        main(["zsh"])
    assert capsys.readouterr().err.count("\n") == 1

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(completion, "script", full)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("a file: No space left on device")
