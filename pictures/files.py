"""PNG and GIF files from uint8 arrays, and the layout of frames as a sheet of tiles."""

import io
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from PIL import Image

from pictures.sheets import Labels, Sheet, beside
from utils.files import write_bytes


def sheet(tiles: np.ndarray, gap: int = 1, shade: int = 96) -> np.ndarray:
    """One picture of tiles uint8 [rows, columns, H, W, 3], `gap` pixels of grey between them."""
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=shade)
    rows, columns, height, width, _ = tiles.shape
    picture = tiles.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    return picture[:-gap, :-gap]


def with_margins(inside: np.ndarray, left: np.ndarray, top: np.ndarray) -> np.ndarray:
    """A grid of results with the sources in its first column and row. Its corner is black.

    inside [R, C, H, W, 3], left [R, H, W, 3], top [C, H, W, 3] -> [R + 1, C + 1, H, W, 3]
    """
    rows, columns = inside.shape[:2]
    grid = np.zeros((rows + 1, columns + 1, *inside.shape[2:]), np.uint8)
    grid[1:, 1:], grid[1:, 0], grid[0, 1:] = inside, left, top
    return grid


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture uint8 [H, W, 3]; if that fails, an older file stays."""
    _save(path, Image.fromarray(picture), "PNG")


def save_gif(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames uint8 [T, H, W, 3] as an endless GIF; if that fails, an older file stays."""
    # One palette for all frames, exact if it can hold their colours. The default, one per frame by
    # median cut, takes six times as long.
    count, height, width, _ = frames.shape
    column = Image.fromarray(frames.reshape(count * height, width, 3))
    few = column.getcolors(256) is not None
    method = Image.Quantize.MEDIANCUT if few else Image.Quantize.FASTOCTREE
    column = column.quantize(method=method, dither=Image.Dither.NONE)
    tops = range(0, count * height, height)
    first, *others = [column.crop((0, top, width, top + height)) for top in tops]
    animation = {"save_all": True, "append_images": others, "duration": 1000 / fps, "loop": 0}
    _save(path, first, "GIF", **animation)


def save_mp4(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames uint8 [T, H, W, 3] as a video; if that fails, an older file stays."""
    import av  # slow to import

    # H.264 stores colours for blocks of two by two pixels
    _, height, width, _ = frames.shape
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    write_bytes(path, content.getvalue(), sync=False)


def _save(path, image, form, **options):
    # In memory first: a full disk is then one error of one write, which names the file.
    content = io.BytesIO()
    image.save(content, form, **options)
    write_bytes(path, content.getvalue(), sync=False)


class Album:
    """Writes the pictures of one stage after `epoch` into `folder`.

    The name of a picture is a key of `pictures.drawing.CAPTIONS`; keyword arguments fill the fields
    of the key other than {e}. log(tag, picture, epoch) receives the pictures with log=True, and the
    bytes of all animations. plain: names whose pictures have no text, and the layout that the
    authors' code gives them.
    """

    def __init__(
        self, folder: Path, epoch: int, fps: float, log: Callable, plain: Collection[str] = ()
    ):
        self.folder, self.epoch, self.fps, self.log = folder, epoch, fps, log
        self.plain = plain

    def path(self, name: str, **fields) -> Path:
        """The path of the picture `name`."""
        return self.folder / name.format(e=self.epoch, **fields)

    def png(self, name: str, *panels: tuple[np.ndarray, Labels], log=False, **fields) -> None:
        """Write sheets side by side, each of tiles [rows, columns, H, W, 3] and their labels."""
        pictures = [
            sheet(tiles)
            if name in self.plain
            else Sheet(*tiles.shape[:3], labels=labels).filled(tiles)
            for tiles, labels in panels
        ]
        self.picture(name, beside(pictures), log, **fields)

    def picture(self, name: str, picture: np.ndarray, log: bool = False, **fields) -> None:
        """Write a picture [H, W, 3]."""
        save_png(self.path(name, **fields), picture)
        if log:
            tag = name.removesuffix(".png").replace("_{e}", "")
            self.log(tag.format(**fields), picture, self.epoch)

    def gif(
        self, name: str, clips: np.ndarray, labels: Labels, trained: int | None = None, **fields
    ) -> None:
        """Write clips [rows, columns, T, H, W, 3] and their labels as one animated sheet.

        Frames from `trained` on are marked as later than those of training.
        """
        if name in self.plain:
            frames = np.stack([sheet(clips[:, :, t]) for t in range(clips.shape[2])])
        else:
            rows, columns, _, tile = clips.shape[:4]
            frames = Sheet(rows, columns, tile, labels, clocked=True).film(clips, trained)
        save_gif(path := self.path(name, **fields), frames, self.fps)
        tag = name.removesuffix(".gif").replace("_{e}", "")
        self.log(f"videos/{tag.format(**fields)}", path.read_bytes(), self.epoch)
