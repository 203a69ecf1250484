"""Weights that travel: tensors in the safetensors format, with a card as JSON in the header.

The card is {'format': FORMAT, 'sha256': of all the rest, ...}. A file holds numbers and text alone,
so that reading one runs nothing. Sizes, digest and numbers are checked before anything is used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.files import MEBIBYTE, regular, write_bytes
from utils.limits import memory, out_of_memory

if TYPE_CHECKING:
    import torch

SUFFIX = ".safetensors"
FORMAT = "vdsm-in-practice weights 1"
LONGEST_HEADER = 8 * MEBIBYTE  # bytes; ours have less than 0.1 MB
COPIES = 4  # of a file that reading it needs in memory, if it is in half precision


def wrong(path: Path, why: str) -> UserError:
    """The error of a weights file that cannot be used."""
    return UserError(f"{path} {why}: get it again, or export it again")


def _digest(tensors, card):
    """SHA-256 of tensors, their names and kinds, and the card."""
    import torch

    rest = {name: value for name, value in card.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save(path: Path, tensors: dict[str, torch.Tensor], card: dict[str, Any]) -> None:
    """Write contiguous CPU tensors and their card to `path`, whole or not at all."""
    from safetensors.torch import save as as_bytes

    card = {"format": FORMAT, **card}
    card["sha256"] = _digest(tensors, card)
    # a single entry, because the order of several differs from call to call
    write_bytes(path, as_bytes(tensors, {"card": json.dumps(card)}))


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, those of any precision as float32, and the card of the file at `path`.

    Raises UserError for a file that is damaged, of another program, too large or unreadable.
    """
    from safetensors.torch import load as from_bytes

    try:
        regular(path, memory()[0] / COPIES)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        if length > min(LONGEST_HEADER, len(content)):
            raise ValueError("header")
        card = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["card"])
        known, stored = card["format"] == FORMAT, from_bytes(content)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # damaged bytes raise anything from the reader
        if out_of_memory(error) and not isinstance(error, MemoryError):
            raise
        raise wrong(path, "is truncated, damaged or no weights file of this program") from None
    if not known:
        raise wrong(path, f"is of another version ('{str(card['format'])[:60]}')")
    if card.get("sha256") != _digest(stored, card):
        raise wrong(path, "has changed since it was written (SHA-256)")
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in stored.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise wrong(path, f"has a number in '{name}' that is not finite")
    return tensors, card
