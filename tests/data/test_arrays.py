"""data/arrays.py: arrays of any layout come out as they went in, and a pickle that asks for more is not run."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from data import arrays
from utils.errors import UserError


def packed(path, array, protocol=3, content=None):
    """A .npz as np.savez writes it, its object array pickled by `protocol`, or with `content` in the pickle's place."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "arr_0.npy", header.getvalue() + (content or pickle.dumps(array, protocol=protocol))
        )
    return path


def objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


ITEMS = (
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i4"),
    np.zeros((0, 2), bool),
    3,
)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_every_layout(tmp_path, protocol):
    found = arrays.load(packed(tmp_path / "a.npz", objects(*ITEMS), protocol))
    assert found.shape == (5,) and found.dtype == object and found[4] == 3
    for item, true in zip(found, ITEMS[:4]):
        assert item.dtype == true.dtype and np.array_equal(item, true)


def test_names_of_numpy_1_and_2(tmp_path):
    content = pickle.dumps(objects(*ITEMS), protocol=3)
    assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        new = old.replace(b"numpy.core.multiarray", name)
        assert np.array_equal(
            arrays.load(packed(tmp_path / "a.npz", objects(*ITEMS), content=new))[0], ITEMS[0]
        )


def test_what_numpy_saves(tmp_path):
    for number, array in enumerate(
        (objects(*ITEMS), np.arange(6).reshape(2, 3), np.float32([1, 2]))
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, array) if number else np.savez_compressed(path, array)
        found = arrays.load(path)
        assert found.dtype == array.dtype and found.shape == array.shape
        assert all(np.array_equal(a, b) for a, b in zip(found, array))


class Evil:
    def __init__(self, call, *arguments):
        self.what = call, arguments

    def __reduce__(self):
        return self.what


def refused(path):
    with pytest.raises(UserError) as error:
        arrays.load(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "call, arguments",
    [
        (exec, ("import pathlib; pathlib.Path('ran').touch()",)),
        (np.load, ("ran.npy",)),
        (eval, ("1",)),
    ],
)
def test_what_is_no_array_is_named_and_not_run(tmp_path, monkeypatch, call, arguments):
    monkeypatch.chdir(tmp_path)
    line = refused(packed(tmp_path / "a.npz", objects(1, Evil(call, *arguments))))
    assert call.__name__ in line and "nothing of it was run" in line
    assert not (tmp_path / "ran").exists()


def test_a_type_with_fields_is_refused(tmp_path):
    assert "|V9" in refused(
        packed(tmp_path / "a.npz", objects(np.zeros(2, [("a", "O"), ("b", "u1")])))
    )


def test_files_that_cannot_be_read(tmp_path):
    assert "found no" in refused(tmp_path / "none.npz")
    path = packed(tmp_path / "a.npz", objects(*ITEMS))
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[:200], whole[:300] + whole[310:]):
        path.write_bytes(damaged)
        assert "damaged" in refused(path)
    np.savez(path, clips=np.zeros(2))
    assert "found key clips, expected arr_0" in refused(path)
    assert "differ" in refused(packed(path, objects(1, 2), content=pickle.dumps(objects(1))))
    assert "cannot be read" in refused(packed(path, objects(1, 2), content=pickle.dumps(3)))
