"""data/decoders.py: what a file may ask for, and that every refusal is one line."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest

from data import decoders
from data.decoders import BadFile, decode, picture
from tests.data.test_videos import clip, write


def png(width, height):
    """A PNG of a few hundred bytes that states this size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def gif(width, height, frames):
    """A GIF whose frames of one pixel lie on a canvas of this size."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame * frames + b";"


BOMBS = {
    "wide.png": (png(60_000, 60_000), "could be decompression bomb"),
    "screen.gif": (gif(60_000, 60_000, 2), "could be decompression bomb"),
    "long.gif": (gif(9000, 9000, 300), "300 frames of 9000x9000 pixels"),
    "large.png": (png(10_000, 10_000), "10000x10000 pixels, expected at most 89,000,000"),
    # Pillow hands it to another program, Ghostscript
    "page.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
    # ffmpeg reads the files and addresses that it names
    "list.mp4": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///dev/zero\n",
        "Invalid data",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_one_line(tmp_path, name):
    content, words = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(content)
    if path.suffix == ".png":
        with pytest.raises(BadFile, match=words):
            picture(path, "RGB")
        path = tmp_path / "folder"
        path.mkdir()
        shutil.move(tmp_path / name, path / name)
    with pytest.raises(BadFile, match=words) as error:
        list(decode(path))
    assert "\n" not in str(error.value)


def test_a_video_larger_than_it_may_be_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", clip(90))
    assert len(list(decode(tmp_path / "a.mp4"))) == 6
    monkeypatch.setattr(decoders, "MOST", 48 * 80 * 5)
    with pytest.raises(BadFile, match="^6 frames of 80x48 pixels: more than can be decoded"):
        next(decode(tmp_path / "a.mp4"))
    monkeypatch.setattr(decoders, "LARGEST", 1000)
    with pytest.raises(BadFile, match="^80x48 pixels, expected at most 1,000"):
        next(decode(tmp_path / "a.mp4"))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a"])
def test_names_that_are_no_utf_8_are_read(tmp_path, name):
    write(tmp_path / name, clip(90))
    strange = os.fsdecode(b"caf\xe9") + (tmp_path / name).suffix
    expected = list(decode(tmp_path / name))
    shutil.move(tmp_path / name, tmp_path / strange)
    if (tmp_path / strange).is_dir():
        shutil.move(tmp_path / strange / "0.png", tmp_path / strange / os.fsdecode(b"\xe9.png"))
    assert len(list(decode(tmp_path / strange))) == len(expected) == 6


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_pipes_and_devices_are_not_opened(tmp_path, name):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        folder = tmp_path / make.__name__.strip("<>")
        folder.mkdir()
        make(folder / name)
        whole = folder if name == "a.png" else folder / name
        with pytest.raises(BadFile, match=r"^(\S*a.png )?is a (pipe|device), expected a regular"):
            list(decode(whole))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png"])
def test_damaged_bytes_are_one_line_or_a_picture(tmp_path, name):
    """Every error is a BadFile, whichever byte is wrong."""
    made = tmp_path / "made"
    write(made / name, clip(90)) if name != "a.png" else write(made, clip(90))
    path = made / (name if name != "a.png" else "0.png")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(15):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            list(decode(made if name == "a.png" else path))
        except BadFile as error:
            assert str(error) and "\n" not in str(error)
