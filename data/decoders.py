"""Pictures, animations and videos of other people, decoded within limits of kind, size and work.

A small file can ask for a picture of gigabytes or for a million frames. What these functions refuse
is a `BadFile` with the reason, whatever the library underneath raised.
"""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from natsort import natsorted
from PIL import Image

from data.base import IMAGE_SIZE
from utils.errors import UserError
from utils.files import regular

VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
ANIMATIONS = {".gif", ".apng"}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
# Pillow also knows formats that it hands to other programs, such as EPS.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
# ffmpeg also knows lists of other files and addresses, such as m3u8.
CONTAINERS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,m4v,h264,hevc,mjpeg,ivf,mxf,dv,rm"
LARGEST = 89_000_000  # pixels of a picture: 8K video has 33 million, and Pillow warns above 89
# Pixels of a whole clip: two hours of 1080p have 4.5e11. GIFs are decoded more slowly.
MOST, MOST_ANIMATED = 1e12, 2e10


# Bytes of a file. A longer one is not read at all, because it may be nothing but a hole.
PICTURE_BYTES, VIDEO_BYTES = 1_000_000_000, 200_000_000_000


class BadFile(Exception):
    """A file cannot be decoded. The message is the reason, in one line."""


@contextmanager
def _reasons():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage that the pictures survive
            yield
    except BadFile:
        raise
    except Exception as error:  # damaged bytes can raise any exception
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise BadFile(why[:100] or type(error).__name__) from None


def _limit(shape, frames=1, most=math.inf):
    """Raise BadFile if frames of this height and width are too large, or too many."""
    height, width = shape
    if height * width > LARGEST:
        raise BadFile(f"{width}x{height} pixels, expected at most {LARGEST:,}")
    if height * width * frames > most:
        raise BadFile(f"{frames:,} frames of {width}x{height} pixels: more than can be decoded")


def refuse_long(path: Path, size: int) -> None:
    """Raise BadFile if a picture, animation or video of `size` bytes is too long to be read."""
    most = VIDEO_BYTES if path.suffix.lower() in VIDEOS else PICTURE_BYTES
    if size > most:
        raise BadFile(f"{path.name} has {size:,} bytes, expected at most {most:,}")


def _regular(path):
    try:
        regular(path)
    except UserError as error:
        raise BadFile(str(error).removeprefix(f"{path} ")) from None


@contextmanager
def _opened(path):
    # Pillow does not know these without being asked.
    from PIL import TiffImagePlugin, WebPImagePlugin  # noqa: F401

    _regular(path)
    with Image.open(path, formats=FORMATS) as image:
        _limit(image.size[::-1])
        yield image


def picture(path: Path, mode: str) -> np.ndarray:
    """The pixels of a picture as they are stored, uint8 [H, W, channels of `mode`].

    Raises BadFile, and FileNotFoundError for a file that is missing.
    """
    os.stat(path)
    with _reasons(), _opened(path) as image:
        return np.asarray(image.convert(mode))


def pictures(files) -> list[Path]:
    """The pictures among paths that are not hidden, in natural order."""
    shown = (path for path in files if not path.name.startswith("."))
    return natsorted((path for path in shown if path.suffix.lower() in PICTURES), key=str)


def parts(clip: Path) -> list[Path]:
    """The files of a clip."""
    return pictures(clip.iterdir()) if clip.is_dir() else [clip]


def decode(clip: Path, step: int = 1, sizes: list | None = None) -> Iterator[np.ndarray]:
    """Every step-th frame of a clip, upright, uint8 [64, 64, 3]. Raises BadFile.

    sizes: a list, to which [width, height] of each frame before it was cropped is appended.
    """
    with _reasons():
        if clip.is_dir():
            frames, most = _folder(clip, step), MOST
        elif clip.suffix.lower() in ANIMATIONS:
            frames, most = islice(_animation(clip), 0, None, step), MOST_ANIMATED
        else:
            frames, most = _video(clip, step), MOST
        pixels = 0
        for frame in frames:
            height, width = frame.shape[:2]
            pixels += height * width
            if sizes is not None:
                sizes.append([width, height])
            _limit((height, width), math.ceil(pixels / (height * width)), most)
            yield fit(frame)


def _folder(clip, step):
    import imageio.v3 as iio

    for path in parts(clip)[::step]:
        with _opened(path):
            pass
        yield iio.imread(path, plugin="pillow", mode="RGB", rotate=True, index=0)


def _animation(path):
    import imageio.v3 as iio

    with _opened(path) as image:
        _limit(image.size[::-1], getattr(image, "n_frames", 1), MOST_ANIMATED)
    yield from iio.imiter(path, plugin="pillow", mode="RGB")


def _video(path, step):
    import av

    _regular(path)
    source: Any = str(path)
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    with ExitStack() as opened:
        try:
            source.encode()
        except UnicodeEncodeError:  # ffmpeg takes names in UTF-8 only
            source = opened.enter_context(open(path, "rb"))
        container = opened.enter_context(av.open(source, options=options))
        if not container.streams.video:
            raise ValueError("no pictures in it")
        stream = container.streams.video[0]
        _limit((stream.height or 1, stream.width or 1), stream.frames or 1, MOST)
        stream.thread_type = "AUTO"
        for frame in islice(container.decode(video=0), 0, None, step):
            _limit((frame.height, frame.width))
            # Phones store how they were held instead of turning the picture.
            yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def fit(frame: np.ndarray) -> np.ndarray:
    """The centre square of a picture uint8 [H, W, 3], resized with anti-aliasing to 64x64."""
    height, width = frame.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box, size = (left, top, left + side, top + side), (IMAGE_SIZE, IMAGE_SIZE)
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=box))
