"""Weights of networks that others trained, from a file of the user."""

import hashlib
from pathlib import Path

import torch
from torch import nn

from utils.errors import UserError
from utils.files import MEBIBYTE, regular
from utils.tensors import read_tensors

LARGEST = 1024 * MEBIBYTE  # bytes of a file in torch's cache; AlexNet's has 233 MiB


class Missing(Exception):
    """The weights are not available. The message is one line that says how to supply them."""


def cached(url: str) -> Path | None:
    """The path of torch's own copy of `url`, or None if there is none.

    Raises Missing unless the file has the hash that its name ends with: torch runs what a pickle in
    its cache says, and a damaged file would end in an error of torch.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    digest = path.stem.rpartition("-")[2]
    try:
        regular(path, LARGEST)
        if _sha256(path).startswith(digest):
            return path
        problem = f"the SHA-256 of {path} does not begin with {digest}"
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"{path}: {error.strerror}"
    except UserError as error:
        problem = str(error)
    raise Missing(f"{problem}; fetch {url} again")


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def from_file(path: str | Path, flag: str) -> dict[str, torch.Tensor]:
    """The tensors of the weights file that --`flag` names, by name.

    The wrappings of a checkpoint ('state_dict', 'module.') are removed. Raises UserError if the
    file does not exist or holds no tensors.
    """
    try:
        content = read_tensors(path)
    except OSError as error:
        raise UserError(f"--{flag} {path}: {error.strerror}: give a file of weights") from None
    except ValueError:
        problem = "is truncated or not a file of torch weights"
        raise UserError(f"--{flag} {path} {problem}: fetch it again") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    named = {str(name).removeprefix("module."): value for name, value in content.items()}
    tensors = {name: value for name, value in named.items() if _plain(value)}
    if not tensors:
        raise UserError(f"--{flag} {path} holds no tensors by name: give a file of torch weights")
    return tensors


def _plain(value):
    """Whether a value is a dense tensor of numbers in memory."""
    return torch.is_tensor(value) and value.layout == torch.strided and value.device.type == "cpu"


def fitted(network: nn.Module, tensors: dict, path, flag: str, heads: tuple = ()) -> nn.Module:
    """`network` with the tensors of --`flag`'s file, in eval mode and without gradients.

    Raises UserError if a tensor is absent or has another shape. heads: prefixes of the names of
    tensors that may.
    """
    needed = network.state_dict()
    for name, value in needed.items():
        if name.startswith(heads) or name.endswith("num_batches_tracked"):
            continue
        if name not in tensors or tensors[name].shape != value.shape:
            shape = list(tensors[name].shape) if name in tensors else "nothing"
            problem = f"found {shape} as '{name}', expected {list(value.shape)}"
            raise UserError(f"--{flag} {path}: {problem}: give the weights of this network")
        if not torch.isfinite(tensors[name]).all():
            problem = f"'{name}' holds numbers that are not finite"
            raise UserError(f"--{flag} {path}: {problem}: fetch it again")
    known = {n: v for n, v in tensors.items() if n in needed and not n.startswith(heads)}
    network.load_state_dict(known, strict=False)
    return network.eval().requires_grad_(False)
