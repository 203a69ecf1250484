"""Models on the Hugging Face Hub, through the package huggingface_hub, which is optional."""

import re
from pathlib import Path
from typing import Any

from utils.errors import UserError, in_short
from utils.weights_file import SUFFIX

PREFIX = "hf://"
FILE, CARD = f"model{SUFFIX}", "README.md"  # names in a repository of the Hub


def name_of(place: str) -> str:
    """'user/name' of 'hf://user/name' or 'user/name'. Raises UserError for anything else."""
    name = place.removeprefix(PREFIX)
    if not re.fullmatch(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", name, re.ASCII):
        raise UserError(f"found '{place}', expected {PREFIX}USER/NAME, a model on the Hub")
    return name


def package() -> Any:
    """The package huggingface_hub. Raises UserError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        install = 'install it with: pip install -e ".[hub]"'
        raise UserError(f"the Hub needs the package huggingface_hub: {install}") from None
    return huggingface_hub


def _answer(place, task):
    """What `task()` returns; the errors of the network, the Hub and its tokens as UserError."""
    try:
        return task()
    except Exception as error:  # the package and its HTTP library have no common class of errors
        check = "check the name, the network and the token (hf auth login)"
        raise UserError(f"{PREFIX}{place}: {in_short(error)}: {check}") from None


def pull(place: str) -> Path:
    """The weights of a model on the Hub, in the cache of the package: its path."""
    name, hub = name_of(place), package()
    return Path(_answer(name, lambda: hub.hf_hub_download(name, FILE)))


def push(path: Path, card: str, place: str) -> str:
    """Upload a weights file and the text of its card; returns the model's address on the Hub."""
    name, hub = name_of(place), package()

    def upload():
        api = hub.HfApi()
        api.create_repo(name, exist_ok=True)
        parts = (FILE, path), (CARD, card.encode())
        files = [hub.CommitOperationAdd(*part) for part in parts]
        api.create_commit(name, files, commit_message=f"Upload {path.name}")
        return f"{PREFIX}{name}"

    return _answer(name, upload)
