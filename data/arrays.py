"""Arrays from .npz files that others made. An object array is a pickle, and a pickle can run anything: here it may rebuild
NumPy arrays and nothing else, and these are built anew from their bytes, not by what the pickle asks for."""

import pickle
import zipfile

import numpy as np
from numpy.lib import format as npy

from utils.errors import UserError

KEY = "arr_0"  # where np.savez(path, array) puts it


def load(path):
    """The array under 'arr_0' of the .npz file `path`; an object array's items are arrays, numbers or text.

    Raises UserError if the file is missing, damaged, has another key or holds anything but NumPy arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            keys = [name.removesuffix(".npy") for name in archive.namelist()]
            if KEY not in keys:
                found = f"key {', '.join(keys[:5])}" if keys else "no array"
                raise UserError(
                    f"{path}: found {found}, expected {KEY}: write it with np.savez(path, array)"
                )
            with archive.open(f"{KEY}.npy") as file:
                return _read(file)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"found no {path}: put the file there") from None
    except _Foreign as error:
        raise UserError(
            f"{path} holds {error}, expected NumPy arrays alone; nothing of it was run: get the file from a source you trust"
        ) from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory: read it on a larger machine") from None
    except Exception as error:  # damaged bytes raise anything
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged or no .npz, get it again"
        ) from None


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


class _Foreign(Exception):
    """A name in a pickle that no array needs."""


class _Type:
    """Stands in for numpy.dtype: a plain number or object type. No fields: those of a pickle can lie about memory."""

    def __init__(self, name, align=False, copy=False):
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in "biufO":
            raise _Foreign(f"arrays of {self.dtype}")

    def __setstate__(self, state):  # version, byte order, ...
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for an array until its state is read."""

    def __setstate__(self, state):
        _, shape, kind, fortran, content = state
        if kind.dtype.hasobject:
            flat = np.empty(len(content), object)
            for place, item in enumerate(content):
                flat[place] = _value(item)
        else:
            flat = np.frombuffer(content, kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _value(item):
    return item.value if isinstance(item, _Array) else item


class _Unpickler(pickle.Unpickler):
    """Reads a pickled array. A name other than those below is not even looked up."""

    ADMITTED = {
        ("multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): None,  # an argument of the first
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): lambda text, _: text.encode(
            "latin1"
        ),  # bytes in a pickle of version 2
        ("__builtin__", "bytes"): lambda: b"",  # ... and no bytes
    }

    def find_class(self, module, name):
        short = (
            "multiarray"
            if module in ("numpy.core.multiarray", "numpy._core.multiarray")
            else module
        )
        if (short, name) not in self.ADMITTED:
            raise _Foreign(f"{module}.{name}")
        return self.ADMITTED[short, name]
