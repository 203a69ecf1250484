"""data/mug_aligned.py: OpenFace's frames give the same clips as the authors' files."""

import numpy as np
import pytest
from PIL import Image

from data import mug
from data.base import SPLITS
from tests import made
from tests.data.test_mug import config
from utils.errors import UserError


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same twelve clips twice: the data_dir of the authors' files, a folder of frames."""
    root = tmp_path_factory.mktemp("mug")
    folder, films, labels = made.mug(root / "files", 12, 8, actions=range(9), people=4)
    aligned, rows = root / "aligned", ["clip,identity,action"]
    for i, (film, (identity, action)) in enumerate(zip(films, labels)):
        place = aligned / (f"take {i}_aligned" if i % 2 else f"take {i}")
        place.mkdir(parents=True)
        # Numbered so that natural order (9, 10) differs from the order of names.
        for t, frame in enumerate(film, 5):
            Image.fromarray(frame).save(place / f"frame_det_00_{t}.bmp")
        rows.append(f"take {i},{identity},{mug.ACTIONS.get(action, action) if i % 3 else action}")
    (aligned / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder.parent, aligned


def test_the_same_clips_as_from_the_authors_files(both, tmp_path):
    files, aligned = both
    expected = mug.load(config(files, 4))
    dataset = mug.load(config(tmp_path, 4, source=str(aligned)))
    assert np.array_equal(dataset.frames, expected.frames)
    assert dataset.fingerprint == expected.fingerprint


def test_frames_are_read_once_and_again_when_a_file_changes(both, tmp_path, capsys):
    for changed, read in ((False, True), (False, False), (True, True)):
        if changed:
            (both[1] / "take 0" / "frame_det_00_8.bmp").touch()
        mug.load(config(tmp_path, 4, source=str(both[1])))
        assert ("reading" in capsys.readouterr().out) == read


def test_whole_people_can_be_held_out(tmp_path):
    made.mug(tmp_path, 80, 2, people=20)
    dataset = mug.load(config(tmp_path, 1, split_by="identity"))
    people = [set(dataset.split(name).label("identity")) for name in SPLITS]
    # 15 % of 20 people are 3.
    assert [len(part) for part in people] == [15, 2, 3] and len(set.union(*people)) == 20
    other = mug.load(config(tmp_path, 1, seed=1, split_by="identity"))
    assert other.fingerprint != dataset.fingerprint
    made.mug(tmp_path / "few", 8, 2, people=2)
    with pytest.raises(UserError, match="found 2 people"):
        mug.load(config(tmp_path / "few", 1, split_by="identity"))


@pytest.mark.parametrize(
    "text, words",
    [
        ("clip,identity,action\n", "has no clip"),
        ("clip,who\na,1\n", "lacks a column"),
        ("clip,identity,action\na,1,joy\n", "line 2: found action 'joy', expected anger"),
        ("clip,identity,action\nb,1,anger\n", "found no pictures in .*b or b_aligned"),
        ("clip,identity,action\n../in/a,1,fear\n", "line 2: found clip '../in/a', expected"),
        ("clip,identity,action\n/tmp,1,fear\n", "found clip '/tmp', expected"),
        ("clip,identity,action\na,1,9\n", "found action '9'"),
        (b"\xff\xfe\x00", "cannot read"),
        ("clip,identity,action\na,1,fear\n", "is 64x64 pixels, expected 112x112"),
        ("clip,identity,action\nbad,1,fear\n", "cannot read .*0.png"),
    ],
)
def test_wrong_label_files_and_pictures_are_one_line(tmp_path, text, words):
    for name in ("a", "bad"):
        (tmp_path / "in" / name).mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a" / "0.png")
    (tmp_path / "in" / "bad" / "0.png").write_text("not a picture")
    (tmp_path / "in" / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=words) as error:
        mug.load(config(tmp_path, 4, source=str(tmp_path / "in")))
    assert "\n" not in str(error.value)


def test_a_source_without_a_label_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="found no .*labels.csv"):
        mug.load(config(tmp_path, 4, source=str(tmp_path)))
