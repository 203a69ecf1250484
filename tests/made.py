"""Small files of noise in the form that users bring, for tests of what reads them."""

from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np

import data.sprites
from data.sprites import compose

# Frames per clip: 20 are kept, the default --seq_len.
FILM = 40
CLIPS = 16


def mug(folder, clips=CLIPS, film=FILM, actions=(0, 1, 3, 4, 7, 8), people=4, seed=0):
    """Write MUG-FED's two files into folder/MUG-FED, with actions and people in turn.

    film: frames per clip, one number or one per clip. Returns folder/MUG-FED, the clips (a list of
    uint8 arrays) and the labels [clips, 2].
    """
    rng = np.random.default_rng(seed)
    films = [_film(rng, length) for length in np.broadcast_to(film, clips)]
    number = np.arange(clips)
    labels = np.stack([number % people, np.array(actions)[number % len(actions)]], 1)
    folder = Path(folder) / "MUG-FED"
    folder.mkdir(parents=True, exist_ok=True)
    write_mug(folder, films, labels)
    return folder, films, labels


def write_mug(folder, films, labels):
    """Write clips (a list of arrays) and labels as the two files in `folder`."""
    clips = np.empty(len(films), object)
    clips[:] = films
    np.savez(folder / "MUG_0-255_OF_112x112_color.npz", clips)
    np.savez(folder / "labels.npz", labels)


def _film(rng, length):
    """Coloured squares that slide, so there is motion to learn: uint8 [length, 112, 112, 3]."""
    frames = np.full((length, 112, 112, 3), rng.integers(0, 60, 3), np.uint8)
    place, speed = rng.integers(0, 80, (3, 2)), rng.integers(1, 3, (3, 2))
    for time in range(length):
        for (y, x), colour in zip((place + time * speed) % 90, np.eye(3) * 200):
            frames[time, y : y + 20, x : x + 20] = colour + rng.integers(0, 50, 3)
    return frames


def sprites(folder, characters=6, value=None):
    """Write a set of sprites into folder/sprites, nine clips per character.

    value: of all pixels; noise by default.
    """
    labels = {name: np.zeros(9 * characters, np.int64) for name in compose.FACTORS}
    labels["action"] = np.tile(np.arange(9), characters)
    labels["character"] = np.repeat(np.arange(characters), 9)

    def fill(frames):
        noise = np.random.default_rng(0).integers
        frames[:] = noise(0, 256, frames.shape) if value is None else value
        return labels, compose.draw_split(labels["character"])

    shape = (9 * characters, 8, 64, 64, 3)
    data.sprites.write(Path(folder) / "sprites", shape, fill, "composed")


# JSON files that no command of the project writes, and one that is nested too deeply to be read
WRONG_KINDS = ["[]", "null", "5", '{"details": 5}', '{"Seq": []}', "[" * 100_000 + "]" * 100_000]


def videos(folder: Path) -> None:
    """Six clips below `folder`: a video, two folders of pictures and three GIFs."""
    for number in range(6):
        frames = np.zeros((6, 24, 40, 3), np.uint8)
        frames[..., 0], frames[..., 1] = 40 * number, 40 * np.arange(6)[:, None, None]
        place = folder / f"person{number % 2}" / f"clip{number}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if number == 0:
            with av.open(str(place.with_suffix(".avi")), "w") as container:
                stream = container.add_stream("mjpeg", 10)
                stream.height, stream.width, stream.pix_fmt = 24, 40, "yuvj420p"
                for frame in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
                container.mux(stream.encode())
        elif number < 3:
            place.mkdir()
            for i, frame in enumerate(frames):
                iio.imwrite(place / f"{i}.png", frame)
        else:
            iio.imwrite(place.with_suffix(".gif"), frames, duration=100, loop=0)


def digits(folder: Path) -> None:
    """MNIST's two training files, with 60 grey squares for digits."""
    folder.mkdir(parents=True)
    images = np.broadcast_to(np.arange(1, 61, dtype=np.uint8)[:, None, None], (60, 28, 28))
    labels = np.arange(60, dtype=np.uint8) % 10
    for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
        head = np.array([magic, *array.shape], ">i4").tobytes()
        (folder / f"train-{kind}-ubyte").write_bytes(head + array.tobytes())


FACTORS = ("body", "hair")  # of `sheets`


def sheets(folder: Path) -> None:
    """The layers of sprites-li for FACTORS, each a square of one colour in every cell."""
    height, width = compose.SHEET_ROWS * compose.CELL, compose.SHEET_COLUMNS * compose.CELL
    names = [f"{factor}/{value}" for factor in FACTORS for value in range(6)]
    for number, name in enumerate([*names, "shoes/1"]):
        layer = np.zeros((height // 8, 8, width // 8, 8, 4), np.uint8)
        layer[number % 8 :: 8, :, ::3] = 20 * number, 255 - 15 * number, 99, 255
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(path, layer.reshape(height, width, 4))
