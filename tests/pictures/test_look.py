"""data/info.py and pictures/look.py: they show what the set holds; mistakes end in one line."""

import os
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import data
from data import info, pendulum
from data.base import SPLITS
from pictures import look
from pictures.sheets import EDGE, LINE
from tests import made
from tests.conftest import few
from utils.errors import UserError
from utils.plan import parse
from utils.settings import DATASETS


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(pendulum, "make", few)
    monkeypatch.chdir(tmp_path)


def test_info_counts(capsys):
    assert info.main(["pendulum", "--seq_len", "16"]) == 0
    out = capsys.readouterr().out
    for part in (
        "32 clips of 16 frames",
        "64 x 64 x 3 uint8",
        "train 16, val 8, test 8",
        "colour: 8 values (red, orange",
    ):
        assert part in out
    assert few().fingerprint in out and f"{32 * 16 * 64 * 64 * 3:,}" in out
    assert info.main(["pendulum", "--seq_len", "16", "--num_clips", "8"]) == 0
    assert "train 4, val 2, test 2" in capsys.readouterr().out


@pytest.mark.parametrize("program", [info.main, look.main])
def test_a_missing_set_or_a_wrong_flag_is_one_line(program, capsys, tmp_path):
    for argv, words in (
        ([], "usage: "),
        (["--seq_len", "3"], "NAME is one of MUG-FED, moving-mnist, pendulum"),
        (["cats"], "unknown data set 'cats'"),
        (["sprites", "--data_dir", "none"], "743,178,240 bytes"),
        (["sprites-li", "--data_dir", "none"], "1,146,617,856 bytes"),
        (["moving-mnist", "--data_dir", "none"], "532,480,000 bytes"),
        (["pendulum", "--flag", "3"], "unrecognized"),
    ):
        assert program(argv) == 2
        out, err = capsys.readouterr()
        assert words in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.iterdir())


def test_the_sheet_shows_clips_of_each_split_under_their_labels(capsys):
    assert look.main(["pendulum", "--seq_len", "16"]) == 0
    picture = iio.imread("runs/look/pendulum.png")
    dataset = few()
    chosen = look.choose(dataset)
    assert [split for split, _ in chosen] == [name for name in SPLITS for _ in range(4)]
    height, left = len(picture) // 12, EDGE
    assert picture.shape == (12 * height, 12 * 65 - 1 + 2 * EDGE, 3)
    for i, (split, row) in enumerate(chosen):
        clip = dataset.split(split).take([row])[0]
        shown = picture[(i + 1) * height - 64 - EDGE : (i + 1) * height - EDGE, left:-left]
        assert np.array_equal(shown[:, :64], clip[0]) and np.array_equal(shown[:, -64:], clip[15])
        assert picture[i * height : i * height + LINE].min() < 99, "no text"
        colour = dataset.classes["colour"][dataset.split(split).label("colour")[row]]
        assert look.caption(dataset, split, row) == [f"{split} {row}", f"colour {colour}"]
    film = iio.imread("runs/look/pendulum.gif", mode="RGB")
    assert film.shape == (16, 3 * (128 + 2 * LINE) + 2, 4 * 129 - 1, 3)


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert look.main(["pendulum", "--runs_dir", "file"]) == 2
    assert "cannot write to file/look" in capsys.readouterr().err


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_takes_the_settings_of_the_command_line(name):
    settings = parse(["--dataset_name", name, "--data_dir", "none"]).first
    if name in ("pendulum", "shapes"):
        assert data.load(settings).name == name
    else:
        with pytest.raises(UserError, match=name):
            data.load(settings)


def test_importing_the_data_sets_is_cheap():
    """`--help` imports the modules of data sets for their flags."""
    modules = [*DATASETS.values(), "data.sprites.release"]
    heavy = {"torch", "sklearn", "av", "imageio", "matplotlib"}
    code = f"import sys, {', '.join(modules)}; print(*({heavy} & sys.modules.keys()))"
    root = Path(data.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done


def test_info_verifies_every_byte(tmp_path, capsys, monkeypatch):
    made.sprites(tmp_path)
    path = tmp_path / "sprites" / "frames.npy"
    asked = ["sprites", "--data_dir", str(tmp_path), "--seq_len", "8", "--verify", "True"]
    assert info.main(asked) == 0 and "verified     every stored byte" in capsys.readouterr().out
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr("data.checked.SAMPLE", 0)  # a start looks at a few blocks alone
    assert info.main(asked[:-2]) == 0
    capsys.readouterr()
    assert info.main(asked) == 2
    line = capsys.readouterr().err
    assert "the stored bytes are not those of fingerprint" in line and line.count("\n") == 1
    assert info.main(["pendulum", "--seq_len", "16", "--verify", "True"]) == 0
    assert "nothing is stored" in capsys.readouterr().out
