"""Download of the art of the Sprites set: the sheets that compose.py draws, and their authors.

art.sha256 lists the files with their checksums, in the form that sha256sum reads.
"""

import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from data.sprites.compose import UPSTREAM
from utils.errors import UserError
from utils.files import PART

# The state of the public repository that the checksums are of.
COMMIT = "2668274d5a96c91584172f2d299b90f0a8c0caac"
ADDRESS = f"https://raw.githubusercontent.com/{UPSTREAM.removeprefix('github.com/')}/{COMMIT}"
TRIES, TIMEOUT = 3, 30  # of each file, and seconds without a byte
# ValueError: the address is none
NETWORK_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, ValueError)
TOO_FAR = 416  # the answer of a server if nothing is left of a file


def files() -> dict[str, str]:
    """{path in the repository: SHA-256, hexadecimal} of the files to download."""
    lines = Path(__file__).with_name("art.sha256").read_text().splitlines()
    return {path: digest for digest, path in (line.split("  ") for line in lines)}


def download(folder: Path, address: str = ADDRESS) -> None:
    """Download into `folder` what it lacks of `files()` below `address`, with a progress bar.

    A file is there only when its checksum is right. What was downloaded before the network failed
    stays, so that the next call resumes there. Raises UserError.
    """
    missing = {p: digest for p, digest in files().items() if _digest(folder / p) != digest}
    try:
        for path, digest in tqdm(missing.items(), "download", unit="file", disable=None):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            _fetch(f"{address}/{path}", folder / path, digest)
    except OSError as error:
        problem = f"cannot write to {folder} ({error.strerror})"
        raise UserError(f"{problem}: choose another --data_dir") from None


def _fetch(url, path, digest):
    part = path.with_name(path.name + PART)
    for tries_left in reversed(range(TRIES)):
        have = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, have)
        except HTTPError as error:
            if error.code != TOO_FAR or not have:
                problem = f"{url}: the server answered {error.code} {error.reason}"
                raise UserError(f"{problem}: {_by_hand()}") from None
        except NETWORK_ERRORS as error:
            if not tries_left:
                problem = f"cannot download {url} ({getattr(error, 'reason', error)})"
                again = "the same command resumes; without a network,"
                raise UserError(f"{problem}: {again} {_by_hand()}") from None
            continue
        if _digest(part) == digest:
            os.replace(part, path)
            return
        part.unlink()
        if not have:  # else the beginning may have been of another file
            break
    raise UserError(f"{url} has another checksum than {path.name} should have: {_by_hand()}")


def _by_hand():
    return f"give --lpc CLONE, a clone of {UPSTREAM} (git clone https://{UPSTREAM})"


def _transfer(url, part, have):
    """Append the rest of a file of which `part` has `have` bytes, or all if the server does."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        begin = have if answer.status == 206 else 0  # 206: the rest alone
        with open(part, "ab" if begin else "wb") as file:
            while block := answer.read(1 << 16):
                file.write(block)
        expected, size = answer.headers["Content-Length"], part.stat().st_size
    if expected is not None and size < begin + int(expected):
        raise ConnectionError(f"cut after {size:,} of {begin + int(expected):,} bytes")


def _digest(path):
    """SHA-256 (hexadecimal) of a file; None if it does not exist."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None
