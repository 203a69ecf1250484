"""Files of tensors, read without running what they hold and within limits."""

import errno
import hashlib
import warnings
import zipfile
from pathlib import Path
from typing import Any

from utils.files import regular

# Tensors hardly shrink: what unpacks to so many times its size is no archive of them.
UNPACKED = 20
DIGITS = 16  # of a digest


def read_tensors(path: Path | str, limit: int | None = None) -> Any:
    """The content of a file that torch wrote, on the CPU; only plain types are unpickled.

    limit: bytes of the file. Raises UserError if `path` is no regular file or too large, OSError if
    it cannot be read, and ValueError, in one line, if it is damaged.
    """
    import torch

    size = regular(path, limit).st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > UNPACKED * size:
                    raise ValueError("it unpacks to much more than its size")
                if archive.testzip() is not None:  # torch does not look at the checksums
                    raise ValueError("it has changed since it was written (checksum)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats of earlier versions of torch
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # damaged bytes raise anything from the unpickler; a short file raises EINVAL from a seek
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(" ".join(str(error).split())[:100] or type(error).__name__) from None


def digest(path: Path) -> str:
    """What tells two whole files apart: a SHA-256 of the content, or of an archive's checksums.

    A zip archive, such as a checkpoint, holds a CRC-32 per record, so that gigabytes take no time.
    Raises UserError as `regular`, and OSError.
    """
    regular(path)
    with open(path, "rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                sums = [(entry.CRC, entry.file_size) for entry in archive.infolist()]
            return hashlib.sha256(repr(sums).encode()).hexdigest()[:DIGITS]
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
