"""data/arrays.py: arrays of every layout are read; a pickle that names anything else is not run."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from data import arrays
from utils.errors import UserError


def packed(path, array, protocol=3, content=None):
    """Write an .npz file as np.savez does, with a pickle of `protocol` or the bytes `content`."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    body = content or pickle.dumps(array, protocol=protocol)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + body)
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
    loaded = arrays.load(packed(tmp_path / "a.npz", objects(*ITEMS), protocol))
    assert loaded.shape == (5,) and loaded.dtype == object and loaded[4] == 3
    for item, expected in zip(loaded, ITEMS[:4]):
        assert item.dtype == expected.dtype and np.array_equal(item, expected)


def test_files_of_numpy_1_and_2(tmp_path):
    content = pickle.dumps(objects(*ITEMS), protocol=3)
    assert b"numpy._core.multiarray" in content or b"numpy.core.multiarray" in content
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        renamed = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        renamed = renamed.replace(b"numpy.core.multiarray", name)
        loaded = arrays.load(packed(tmp_path / "a.npz", objects(*ITEMS), content=renamed))
        assert np.array_equal(loaded[0], ITEMS[0])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves(tmp_path, save):
    for array in (objects(*ITEMS), np.arange(6).reshape(2, 3), np.array([1, 2], np.float32)):
        save(tmp_path / "a.npz", array)
        loaded = arrays.load(tmp_path / "a.npz")
        assert loaded.dtype == array.dtype and loaded.shape == array.shape
        assert all(np.array_equal(a, b) for a, b in zip(loaded, array))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def refused(path):
    with pytest.raises(UserError) as error:
        arrays.load(path)
    assert "\n" not in str(error.value) and path.name in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "function, arguments",
    [
        (exec, ("import pathlib; pathlib.Path('ran').touch()",)),
        (np.load, ("ran.npy",)),
        (eval, ("1",)),
    ],
)
def test_a_function_in_the_pickle_is_named_and_not_run(tmp_path, monkeypatch, function, arguments):
    monkeypatch.chdir(tmp_path)
    line = refused(packed(tmp_path / "a.npz", objects(1, Call(function, *arguments))))
    assert function.__name__ in line and "none of it was run" in line
    assert not (tmp_path / "ran").exists()


def test_a_type_with_fields_is_refused(tmp_path):
    array = np.zeros(2, [("a", "O"), ("b", "u1")])
    assert "|V9" in refused(packed(tmp_path / "a.npz", objects(array)))


def test_files_that_cannot_be_read(tmp_path):
    assert "found no" in refused(tmp_path / "none.npz")
    path = packed(tmp_path / "a.npz", objects(*ITEMS))
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[:200], whole[:300] + whole[310:]):
        path.write_bytes(damaged)
        assert "damaged" in refused(path)
    path.unlink()
    os.mkfifo(path)
    assert "is a pipe, expected a regular file" in refused(path)
    path.unlink()
    np.savez(path, clips=np.zeros(2))
    assert "found key clips, expected arr_0" in refused(path)
    assert "differ" in refused(packed(path, objects(1, 2), content=pickle.dumps(objects(1))))
    assert "cannot be read" in refused(packed(path, objects(1, 2), content=pickle.dumps(3)))


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", np.zeros(10**6))
    assert (tmp_path / "a.npz").stat().st_size < 10**5
    monkeypatch.setattr(arrays, "memory", lambda: (10**6, "the machine"))
    assert "does not fit into memory" in refused(tmp_path / "a.npz")


HEADERS = [
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (%s,), }" % (b"9" * 40),
    b"{'descr': '|u1', 'fortran_order': False, 'shape': (-4,), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    b"{'descr': [('a', '|u1')] * 99, 'fortran_order': False, 'shape': (4,), }",
    b"{'descr': '|u1', 'fortran_order': 3, 'shape': (4,), }",
    b"{'descr': '|u1', 'fortran_order': False, 'shape': 4.5, }",
    b"(" * 5000,
    b"\xff\x00'",
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_every_kind_are_one_line(tmp_path, header):
    path = tmp_path / "a.npy"
    head = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    path.write_bytes(head + bytes(4))
    with pytest.raises(UserError, match="^cannot read .*a.npy .*: get it again$"):
        arrays.mapped(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(path, "arr_0.npy")
    refused(tmp_path / "a.npz")
    with pytest.raises(UserError, match="a.npz"):
        arrays.load_all(tmp_path / "a.npz")


def test_no_warning_of_numpy_stands_beside_a_refusal(tmp_path, recwarn):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**63}, 2), }}\n".encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("arr_0.npy", magic + header + bytes(100))
    with pytest.raises(UserError, match="cannot be read"):
        arrays.load(tmp_path / "a.npz")
    assert not recwarn
