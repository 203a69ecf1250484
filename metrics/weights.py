"""Weights of networks that others trained: from a file of the user's, or from torchvision's cache and its download."""

import torch

from utils.errors import UserError


class Missing(Exception):
    """Weights are not at hand; the message is one line that says how to supply them."""


def from_file(path, flag):
    """The tensors {name: tensor} of the file that --`flag` names, with a checkpoint's wrapping ('state_dict', 'module.') taken off.

    Raises UserError if it is not there or holds no tensors.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"--{flag} {path}: {error.strerror}: give a file of weights") from None
    except Exception:  # damaged bytes raise anything from the unpickler
        raise UserError(
            f"--{flag} {path} is truncated or not a file of torch weights: fetch it again"
        ) from None
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    found = {
        str(name).removeprefix("module."): value
        for name, value in found.items()
        if torch.is_tensor(value)
    }
    if not found:
        raise UserError(f"--{flag} {path} holds no tensors by name: give a file of torch weights")
    return found


def fitted(network, tensors, path, flag, heads=()):
    """`network` with the tensors of --`flag`'s file, in eval mode; `heads`: prefixes of names that may lack or differ.

    Raises UserError, naming a tensor, if others lack or differ in shape.
    """
    own = network.state_dict()
    for name, value in own.items():
        if not name.startswith(heads) and not name.endswith("num_batches_tracked"):
            if name not in tensors or tensors[name].shape != value.shape:
                found = list(tensors[name].shape) if name in tensors else "nothing"
                raise UserError(
                    f"--{flag} {path}: found {found} as '{name}', expected {list(value.shape)}: another network's?"
                )
    network.load_state_dict(
        {n: v for n, v in tensors.items() if n in own and not n.startswith(heads)}, strict=False
    )
    return network.eval().requires_grad_(False)


def from_torchvision(build, weights, hint):
    """torchvision's network build(weights=...), in eval mode, downloaded once where it is not cached. Raises Missing, with `hint`."""
    try:
        return build(weights=weights).eval().requires_grad_(False)
    except (OSError, RuntimeError):  # no network, no room, a damaged download
        raise Missing(f"{weights.url} is not cached and cannot be downloaded: {hint}") from None
