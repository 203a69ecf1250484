"""data/sprites/release.py: the folders of the authors' script load; other files are refused."""

import os
import shutil

import numpy as np
import pytest
import torch

from data import sprites
from data.sprites import release
from tests.data.test_sprites import config, refusal


def write_release(root, train=(3, 500), test=(839,), directed=True):
    """train/ and test/ as the authors' script leaves them; the grey level tells clip and time.

    directed: whether `action` includes the direction.
    """
    for part, characters in (("train", train), ("test", test)):
        (root / part).mkdir(parents=True)
        for i, character in enumerate(characters):
            rest, hair = divmod(character, 6)
            rest, legs = divmod(rest, 5)
            body, shirt = divmod(rest, 4)
            for action in range(9):
                grey = torch.full((8, 3, 64, 64), -1.0)
                grey[:, 1, 5] = (torch.arange(8)[:, None] + 10 * action) / 127.5 - 1
                item = {"body": body, "shirt": shirt, "pant": legs, "hair": hair, "sprite": grey}
                item["action"] = action if directed else action // 3
                torch.save(item, root / part / f"{9 * i + action + 1}.sprite")
    return root


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("inside", ["", "lpc-dataset"])
def test_the_folders_load(tmp_path, capsys, directed, inside):
    write_release(tmp_path / "sprites" / inside, directed=directed)
    dataset = sprites.load(config(tmp_path))
    assert dataset.frames.shape == (27 * 8, 64, 64, 3)
    assert dataset.labels["action"].tolist() == list(range(9)) * 3
    assert dataset.labels["character"].tolist() == [3] * 9 + [500] * 9 + [839] * 9
    assert [dataset.labels[factor][-1] for factor in dataset.static] == [6, 3, 4, 5]
    grey = dataset.frames[:, 5, 9, 1].reshape(-1, 8)
    assert np.array_equal(grey, np.arange(8) + 10 * dataset.labels["action"][:, None])
    assert not dataset.frames[..., 0].any()
    assert set(dataset.split("test").label("character")) == {839}
    assert {len(set(dataset.split(name).label("character"))) for name in ("train", "val")} == {1}
    assert sprites.stored(tmp_path / "sprites").read()[0]["origin"] == "release"
    assert sprites.RELEASE_NOTE in capsys.readouterr().out
    # Converted once: the files are not read again.
    shutil.rmtree(tmp_path / "sprites" / inside / "train")
    assert sprites.load(config(tmp_path)).fingerprint == dataset.fingerprint


class Harmful:
    def __reduce__(self):
        return (os.mkdir, ("harm-done",))


def replace_item(root, **values):
    path = root / "train" / "4.sprite"
    torch.save(torch.load(path, weights_only=True) | values, path)


@pytest.mark.parametrize(
    "values",
    [
        {"hair": Harmful()},
        {"hair": 6},
        {"hair": "blue"},
        {"hair": torch.tensor(torch.inf)},
        {"hair": torch.inf},
        {"action": 9},
        {"sprite": torch.zeros(8, 3, 32, 32)},
        {"sprite": torch.zeros(8, 3, 64, 64, dtype=torch.uint8)},
        # In [0, 1], not [-1, 1].
        {"sprite": torch.full((8, 3, 64, 64), 0.5)},
        {"sprite": torch.full((8, 3, 64, 64), -2.0)},
        {"sprite": torch.full((8, 3, 64, 64), torch.nan)},
        {"sprite": None},
    ],
)
def test_other_contents_are_refused_and_not_run(tmp_path, monkeypatch, values):
    monkeypatch.chdir(tmp_path)
    replace_item(write_release(tmp_path / "sprites"), **values)
    line = refusal(tmp_path)
    assert "4.sprite" in line and "create_lpc_dataset.py" in line
    assert not (tmp_path / "harm-done").exists()
    assert {path.name for path in (tmp_path / "sprites").iterdir()} == {"train", "test"}


def test_files_that_are_not_torch_files_are_refused(tmp_path):
    write_release(tmp_path / "sprites")
    (tmp_path / "sprites" / "test" / "2.sprite").write_bytes(b"PK\x03\x04 and then nothing")
    assert "2.sprite" in refusal(tmp_path)
    (tmp_path / "sprites" / "test" / "2.sprite").unlink()
    os.mkfifo(tmp_path / "sprites" / "test" / "2.sprite")
    assert "2.sprite is a pipe, expected a regular file" in refusal(tmp_path)


def test_a_character_in_both_parts_is_refused(tmp_path):
    write_release(tmp_path / "sprites", train=(3, 839))
    assert "character 839 is in both" in refusal(tmp_path)


def test_actions_that_contradict_the_files_numbers_are_refused(tmp_path):
    replace_item(write_release(tmp_path / "sprites", directed=False), action=2)
    assert "actions 0..2" in refusal(tmp_path)


def test_a_file_without_a_number_is_refused(tmp_path):
    (write_release(tmp_path / "sprites") / "test" / "readme.sprite").write_text("")
    assert "readme.sprite" in refusal(tmp_path)


def test_too_few_characters_are_refused(tmp_path):
    write_release(tmp_path / "sprites", train=(3,))
    assert "too few characters" in refusal(tmp_path)


def test_a_folder_without_test_files_is_not_the_authors(tmp_path):
    write_release(tmp_path)
    assert release.find(tmp_path) == tmp_path
    shutil.rmtree(tmp_path / "test")
    assert release.find(tmp_path) is None
