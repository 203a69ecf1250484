"""Safe reading of arrays from files of other people.

An object array is stored as a pickle, and a pickle can run any code. Here it can only create NumPy
arrays, which are built from their bytes and not by the functions that the pickle names.
"""

import pickle
import warnings
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from utils.errors import UserError
from utils.files import regular
from utils.limits import memory

KEY = "arr_0"  # the key that np.savez(path, array) uses


def load(path: Path) -> np.ndarray:
    """The array KEY of the .npz file `path`. An object array may hold arrays, numbers and text.

    Raises UserError if the file is missing or damaged, has another key, or holds anything else.
    """
    with _archive(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        if KEY not in keys:
            problem = f"{path}: found key {', '.join(keys[:5]) or 'none'}, expected {KEY}"
            raise UserError(f"{problem}: write the file with np.savez(path, array)")
        with archive.open(f"{KEY}.npy") as file:
            return _read(file)


def load_all(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the .npz file `path`, by name; none may hold objects. Raises as `load`."""
    with _archive(path) as archive:
        content = {}
        for name in archive.namelist():
            with archive.open(name) as file:
                content[name.removesuffix(".npy")] = npy.read_array(file, allow_pickle=False)
        return content


@contextmanager
def _archive(path) -> Generator[zipfile.ZipFile]:
    """The open archive. Whatever is raised while it is read is a UserError."""
    try:
        regular(path)
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of impossible numbers in a damaged header
            # a small archive can unpack to more than this process may hold
            if sum(entry.file_size for entry in archive.infolist()) > memory()[0]:
                raise MemoryError
            yield archive
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"found no {path}: put the file there") from None
    except _ForeignError as error:
        problem = f"{path} holds {error}, expected only NumPy arrays; none of it was run"
        raise UserError(f"{problem}: get the file from a source that you trust") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory: read it on a larger machine") from None
    except Exception as error:  # damaged bytes can raise any exception
        why = " ".join(str(error).split())[:200]
        problem = f"{path} cannot be read ({type(error).__name__}: {why})"
        raise UserError(f"{problem}: it is damaged or no .npz file, get it again") from None


def mapped(path: Path) -> np.ndarray:
    """The array of the .npy file `path`, memory-mapped. Raises UserError if it cannot be read."""
    try:
        regular(path)
        return npy.open_memmap(path, mode="r")
    except UserError:
        raise
    except Exception as error:  # a damaged header can raise any exception
        why = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"cannot read {path} ({why}): get it again") from None


def _read(file):
    header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    shape, _, dtype = header[npy.read_magic(file)](file)
    if dtype.hasobject:
        array = _value(_Unpickler(file).load())
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise ValueError("its header and its content differ")
        return array
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


class _ForeignError(Exception):
    """The pickle names something that no array needs."""


class _Type:
    """Replaces numpy.dtype while unpickling. Refuses fields, which can state wrong sizes."""

    def __init__(self, name, align=False, copy=False):
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufO":
            raise _ForeignError(f"arrays of {self.dtype}")

    def __setstate__(self, state):
        _, byte_order, *_ = state
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Replaces an array while unpickling; its state becomes the array `value`."""

    def __setstate__(self, state):
        _, shape, kind, fortran, content = state
        if kind.dtype.hasobject:
            flat = np.empty(len(content), object)
            for position, item in enumerate(content):
                flat[position] = _value(item)
        else:
            flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _value(item):
    return item.value if isinstance(item, _Array) else item


class _Unpickler(pickle.Unpickler):
    """Unpickles an array. A name that is not admitted is not even imported."""

    ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): None,  # only an argument of _reconstruct
        ("numpy", "dtype"): _Type,
        # Pickles of protocol 2 store bytes as text, and empty bytes as a call of bytes().
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        ("__builtin__", "bytes"): lambda: b"",
    }

    def find_class(self, module, name):
        key = (module.replace("numpy._core", "numpy.core"), name)  # NumPy 2 renamed numpy.core
        if key not in self.ADMITTED:
            raise _ForeignError(f"{module}.{name}")
        return self.ADMITTED[key]
