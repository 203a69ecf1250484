"""Ways to damage a file: its bytes, what it holds, what it is.

Each takes a generator and a path, and may return a word on what it did.
"""

import copy
import gzip
import io
import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

MARKER = "this-code-ran"  # file that a hostile pickle makes if anything runs it
ODD = (None, [], {}, "", "x", -1, 10**9, 0.5, True, math.nan, [1, 2], {"x": 1})
JSON_TEXTS = (
    "[]", "null", "5", '"x"', "{}", "[" * 100_000, '{"a":' * 100_000, "NaN", "1e999", "9" * 5000,
    "\ufeff{}", '{"EncDec": []}', '{"EncDec": null}', '{"EncDec": {}}', '{"details": []}',
)  # fmt: skip


class Evil:
    """A pickle of it makes MARKER when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def flipped(rng, data):
    """The bytes with some bits turned over."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero_end(rng, data):
    """The bytes as a disk leaves them whose end was never written."""
    keep = rng.randrange(len(data) + 1)
    return data[:keep] + bytes(len(data) - keep)


BYTES = {
    "bits flipped": flipped,
    "cut": lambda rng, data: data[: rng.randrange(len(data) + 1)],
    "emptied": lambda rng, data: b"",
    "rubbish": lambda rng, data: rng.randbytes(rng.choice((1, 100, len(data)))),
    "zeros at the end": zero_end,
    "longer": lambda rng, data: data + rng.randbytes(100),
}


def other_bytes(rng, path):
    way = rng.choice(list(BYTES))
    path.write_bytes(BYTES[way](rng, path.read_bytes()))
    return way


def special(rng, path):
    """A folder, a pipe, a terabyte of nothing, or a link to a device or to itself."""
    kind = rng.choice(("folder", "pipe", "huge", "link", "link"))
    if kind != "huge":
        path.unlink()
    if kind == "link":
        kind = rng.choice(("/dev/zero", "/dev/full", "/dev/tty", "/nowhere/at/all", "/", path.name))
        path.symlink_to(kind)
    else:
        made = {"folder": os.mkdir, "pipe": os.mkfifo, "huge": lambda p: os.truncate(p, 1 << 40)}
        made[kind](path)
    return kind


ANY = (other_bytes, other_bytes, special)  # for a file of any kind


def json_text(rng, path):
    path.write_text(text := rng.choice(JSON_TEXTS))
    return text[:20]


def json_value(rng, path):
    """One value of a JSON file, replaced by an odd one or left out."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = rng.randrange(len(lines))
    lines[number] = json.dumps(changed(rng, json.loads(lines[number])))
    path.write_text("\n".join(lines) + "\n")


def changed(rng, value):
    """A copy of nested dicts and lists with one value odd or missing."""
    root = copy.deepcopy(value)
    at = root
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        if not keys:
            return rng.choice(ODD)
        key = rng.choice(keys)
        inside = isinstance(at[key], (dict, list)) and at[key]
        if not inside or rng.random() < 0.2:
            break
        at = at[key]
    if isinstance(at, dict) and rng.random() < 0.3:
        del at[key]
    elif isinstance(at[key], torch.Tensor):
        tensor = at[key]
        odd = (tensor[..., None], tensor.to(torch.int8), torch.zeros(0), tensor.to_sparse(), None)
        at[key] = rng.choice(odd)
    else:
        at[key] = rng.choice([odd for odd in ODD if repr(odd) != repr(at[key])])
    return root


def state_value(rng, path):
    """One value of a checkpoint, replaced by an odd one or left out."""
    torch.save(changed(rng, torch.load(path, weights_only=True)), path)


def weights_value(rng, path):
    """A file of weights with one tensor odd, not finite or missing, or with none by name."""
    tensors = torch.load(path, weights_only=True)["state_dict"]
    kind, name = rng.choice(("odd", "not finite", "list", "a network")), rng.choice(list(tensors))
    if kind == "not finite":
        tensors[name] = tensors[name] * math.nan
    odd = changed(rng, tensors) if kind == "odd" else tensors
    torch.save({"list": list(tensors), "a network": torch.nn.ReLU()}.get(kind, odd), path)
    return kind


def state_named(rng, path):
    """A checkpoint that is well formed and wrong, as users and other programs leave them."""
    state = torch.load(path, weights_only=True)
    less = dict(list(state["model"].items())[1:])
    others = [p for p in sorted(path.parent.glob("*.pth")) if p.name[2:] != path.name[2:]]
    wrong = {
        "no optimiser": {**state, "optimizer": None}, "no random state": {**state, "rng": {}},
        "no settings": {**state, "settings": {}}, "no weights": {**state, "model": {}},
        "an epoch in words": {**state, "epoch": "one"}, "missing tensor": {**state, "model": less},
        "far ahead": {**state, "place": {**state["place"], "step": 10**9}},
        "other stage": torch.load(others[-1]) if others else None, "list": [state], "number": 5,
    }  # fmt: skip
    name = rng.choice(list(wrong))
    torch.save(wrong[name], path)
    return name


def evil_pickle(rng, path):
    """A checkpoint or an array that runs code where a plain pickle is loaded."""
    evil = Evil(path.parent / MARKER)
    if path.suffix in (".npz", ".npy"):
        with open(path, "wb") as file:
            {".npz": np.savez, ".npy": np.save}[path.suffix](file, np.array([evil], object))
    elif rng.random() < 0.3:
        path.write_bytes(pickle.dumps({"model": evil}))
    else:
        torch.save({"model": evil}, path, _use_new_zipfile_serialization=rng.random() < 0.5)


def array_header(rng, path):
    """An array whose header promises far more than the file holds, or odd types."""
    shape = rng.choice(((10**12,), (2**40, 64, 64, 3), (-1, 64, 64, 3), (2**63, 2), ()))
    kind = rng.choice(("|u1", "<f8", "|O", "|V8", "|S100000000000", "x"))
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(100)
    if path.suffix != ".npz":
        path.write_bytes(data)
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", data)


def wrong_labels(rng, path):
    """Labels of 0.5; in a stored set perhaps a validation split of training clips."""
    if path.suffix == ".npz":
        np.savez(path, np.full((12, 2), 0.5))
        return
    known = json.loads(path.read_text())
    labels = known["labels"]
    if rng.random() < 0.5 and "splits" in known:
        known["splits"]["val"] = known["splits"]["train"]
    else:
        name = rng.choice(list(labels) if isinstance(labels, dict) else range(len(labels)))
        labels[name] = [0.5] * len(labels[name])
    path.write_text(json.dumps(known))


def bomb(rng, path):
    """A small picture, or a packed file, of enormous content."""
    if path.suffix == ".gif":
        path.write_bytes(b"GIF89a\xff\xff\xff\xff\x80\0\0" + path.read_bytes()[13:])
    elif path.suffix == ".png":
        out = io.BytesIO()
        Image.new("1", (13_000, 13_000)).save(out, "png")
        path.write_bytes(out.getvalue())
    else:
        packed = gzip.compress(bytes(1 << 28), 1)
        path.with_name(f"{path.name}.gz").write_bytes(packed * 4)
        path.unlink()


def odd_name(rng, path):
    """A copy whose name no text can hold, or which breaks lines."""
    name = rng.choice((b"\xff\xfe", b"two\nlines", b"\x1b[31mred", b"a" * 240, b"-rf"))
    copied = os.path.join(os.fsencode(path.parent), name + os.fsencode(path.suffix))
    with open(copied, "wb") as file:
        file.write(path.read_bytes() + b"\0")


CHECKPOINT = (state_value, state_value, state_named, evil_pickle)
JSON = (json_text, json_value, json_value)
