"""Moving MNIST (moving-mnist): two handwritten digits bounce in 64x64 (Srivastava et al., 2015).

    python main.py --dataset_name moving-mnist --source FOLDER       # MNIST's IDX files, or .gz
    python main.py --dataset_name moving-mnist --source torchvision  # torchvision downloads them

FOLDER may also hold the public mnist_test_seq.npy. Its default is data_dir/moving-mnist.

A digit starts anywhere, moves in a random direction by a tenth of its 36 px of room per frame, and
is reflected at the border. Where digits overlap, the brighter pixel counts. Identity is the pair of
digits; dynamics are starts and directions. No digit image is in two splits. The set is stored in
data_dir/moving-mnist in grey (532 MB) and loaded as three equal channels.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np

from data import arrays
from data.base import IMAGE_SIZE, Dataset, consecutive
from data.store import Store, dataset, pack, unpack
from utils.errors import UserError
from utils.files import regular

LICENCE = "MNIST, by LeCun, Cortes & Burges"
NAME, VERSION = "moving-mnist", 1
CLIPS = {"train": 5000, "val": 500, "test": 1000}
FRAMES, DIGITS, SIDE = 20, 2, 28
PLAY = IMAGE_SIZE - SIDE  # px that the corner of a digit can move
STEP = 0.1  # per frame, as a share of PLAY
HELD_OUT = 0.1  # share of the digit images, or of the public clips, in validation and in test
IDX = {"train": "train-{}-ubyte", "test": "t10k-{}-ubyte"}
PARTS = {"images": ("images-idx3", 2051), "labels": ("labels-idx1", 2049)}  # and magic numbers
PUBLIC = "mnist_test_seq.npy"
PAIRS = tuple((a, b) for a in range(10) for b in range(a, 10))  # the identities, in no order


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Images uint8 [n, 28, 28] or labels uint8 [n] of one of MNIST's IDX files.

    magic: the number that the file must start with. Raises UserError if it is another file.
    """
    try:
        regular(path)
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            numbers = 4 if magic == 2051 else 2
            head = np.frombuffer(file.read(4 * numbers), ">i4")
            wrong = len(head) < numbers or head[0] != magic or any(head[2:] != SIDE)
            if wrong or not 0 < head[1] <= 10**6:
                raise ValueError(f"its header is {head.tolist()}")
            size = int(head[1]) * (SIDE**2 if len(head) == 4 else 1)
            body = file.read(size + 1)
            if len(body) != size:
                raise ValueError(f"expected {size:,} bytes after its header")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} is no IDX file of MNIST ({error}): get it again") from None
    return np.frombuffer(body, np.uint8).reshape(head[1], *head[2:])


def find(folder) -> dict[str, tuple[Path, ...]]:
    """The files in `folder`, or where torchvision puts them below it, to make the set from.

    {'train' and/or 'test': (images, labels)}, {'public': (clips,)}, or {} if there are none.
    """
    for place in (Path(folder), Path(folder) / "MNIST" / "raw", Path(folder) / "raw"):
        files: dict[str, tuple[Path, ...]] = {}
        for part, name in IDX.items():
            names = [name.format(kind) for kind, _ in PARTS.values()]
            existing = [[*place.glob(name), *place.glob(f"{name}.gz")] for name in names]
            if all(existing):
                files[part] = tuple(paths[0] for paths in existing)
        if not files and (place / PUBLIC).exists():
            files = {"public": (place / PUBLIC,)}
        if files:
            return files
    return {}


def hold_out(names: tuple[str, ...], count: int, seed: int) -> dict[str, np.ndarray]:
    """Sorted positions 0 to count - 1 by split: a tenth for each of `names`, the rest for train."""
    rows, size = np.random.default_rng(seed).permutation(count), max(1, round(count * HELD_OUT))
    parts = np.split(rows, size * np.arange(1, len(names) + 1))
    return {name: np.sort(part) for name, part in zip((*names, "train"), parts)}


def digits_by_split(files: dict, seed: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """{split: positions of its digit images}, the images [n, 28, 28] and their labels [n].

    The test split has the images of MNIST's test file, and validation is drawn from the training
    file. With one file only, all three are drawn from it.
    """
    arrays_by_file = []
    for paths in files.values():
        images, labels = (read_idx(path, kind[1]) for path, kind in zip(paths, PARTS.values()))
        if len(images) != len(labels) or labels.max() > 9:
            problem = f"{paths[1]} has not one label 0 to 9 per image of {paths[0].name}"
            raise UserError(f"{problem}: get both again")
        arrays_by_file.append((images, labels))
    images, labels = (np.concatenate(parts) for parts in zip(*arrays_by_file))
    first = len(arrays_by_file[0][0])
    if len(files) == 1:
        return hold_out(("val", "test"), first, seed), images, labels
    test = {"test": np.arange(first, len(images))}
    return hold_out(("val",), first, seed) | test, images, labels


def paths(start: np.ndarray, direction: np.ndarray, frames: int) -> np.ndarray:
    """Upper left corners of digits, int [n, frames, 2]: row and column, 0 to 36 px.

    start [n, 2] in 0..1 of PLAY, direction [n] in rad; reflected at 0 and 1.
    """
    velocity = STEP * np.stack([np.sin(direction), np.cos(direction)], -1)
    free = start[:, None] + velocity[:, None] * np.arange(frames)[:, None]
    return np.rint(PLAY * (1 - np.abs(free % 2 - 1))).astype(int)


def draw(frames: np.ndarray, images: np.ndarray, places: np.ndarray) -> None:
    """Draw digits [n, 28, 28] at corners [n, T, 2] into frames [n, T, 64, 64]."""
    for clip, image, corners in zip(frames, images, places):
        for picture, (row, column) in zip(clip, corners):
            window = picture[row : row + SIDE, column : column + SIDE]
            np.maximum(window, image, out=window)


def compose(frames: np.ndarray, files: dict, seed: int) -> tuple[dict, dict]:
    """Fill frames, uint8 [6500, 20, 64, 64], with random clips. Returns labels and splits.

    Labels: digits (index into PAIRS), image [n, 2] (positions of the digit images), start
    [n, 2, 2] (row and column in 0..1 of PLAY), direction [n, 2] (rad).
    """
    pool, images, classes = digits_by_split(files, seed)
    rng = np.random.default_rng([seed, 1])
    image = np.concatenate([rng.choice(pool[name], (n, DIGITS)) for name, n in CLIPS.items()])
    start = rng.random((len(image), DIGITS, 2))
    direction = rng.uniform(0, 2 * np.pi, (len(image), DIGITS))
    for digit in range(DIGITS):
        corners = paths(start[:, digit], direction[:, digit], frames.shape[1])
        draw(frames, images[image[:, digit]], corners)
    pair = np.array([PAIRS.index((min(two), max(two))) for two in classes[image].tolist()])
    labels = {"digits": pair, "image": image, "start": start, "direction": direction}
    return labels, consecutive(CLIPS)


def read_public(path: Path) -> np.ndarray:
    """The public clips, memory-mapped, uint8 [10000, 20, 64, 64]. UserError if they are not."""
    clips, size = arrays.mapped(path), (IMAGE_SIZE, IMAGE_SIZE)
    if clips.dtype != np.uint8 or clips.ndim != 4 or clips.shape[2:] != size or clips.shape[1] < 10:
        kind = f"{clips.dtype} {[*clips.shape]}"
        raise UserError(f"{path} is {kind}, expected uint8 [20, 10000, 64, 64]: get it again")
    return clips.swapaxes(0, 1)


def download(folder: Path) -> None:
    """Let torchvision download MNIST into `folder`. Raises UserError if that fails."""
    from torchvision.datasets import MNIST

    try:
        for train in (True, False):
            MNIST(folder, train, download=True)
    except (RuntimeError, OSError) as error:
        problem = f"torchvision cannot download MNIST ({error})"
        raise UserError(f"{problem}: give --source FOLDER with its IDX files") from None


def load(config) -> Dataset:
    """Load the set in config.data_dir/moving-mnist, frames memory-mapped, clips of 20 frames.

    A set that is missing, damaged, or of another config.data_seed or other files is made first from
    the files in config.source or in the same folder. Raises UserError if there are none.
    """
    folder = Path(config.data_dir) / NAME
    if config.source == "torchvision" and not find(folder):
        download(folder)
    files = find(folder if config.source in (None, "torchvision") else config.source)
    if config.source and not files:
        problem = f"found neither MNIST's IDX files nor {PUBLIC} in {config.source}"
        raise UserError(f"{NAME}: {problem}: give their folder")
    sizes = [[path.name, path.stat().st_size] for pair in files.values() for path in pair]

    def check(metadata, frames):
        unpack(metadata, frames)
        key = metadata["key"]
        if key["seed"] != config.data_seed or (files and key["files"] != sizes):
            raise UserError(f"{folder} was made with --data_seed {key['seed']} or of other files")

    stored, seed = Store(folder, VERSION, check), config.data_seed
    metadata, grey = stored.load(lambda problem: _make(stored, files, seed, sizes, problem))
    known = bool(metadata["labels"])
    clips = np.broadcast_to(grey[..., None], (*grey.shape, 3))  # a view: nothing is copied
    classes = {"digits": tuple(f"{a} {b}" for a, b in PAIRS)} if known else {}
    return dataset(NAME, metadata, clips, classes, static=("digits",) if known else (), dynamic=())


def _make(stored, files, seed, sizes, problem):
    if not files:
        size = sum(CLIPS.values()) * FRAMES * IMAGE_SIZE**2
        how = f"put MNIST's IDX files or {PUBLIC} into {stored.folder}, or give --source FOLDER or"
        raise UserError(f"{NAME}: {problem}: the set needs {size:,} bytes; {how} torchvision")
    if "public" in files:
        public = read_public(*files["public"])
        shape = public.shape
        print(f"{NAME}: {PUBLIC} has no digit labels: clips are held out, not digit images")
    else:
        public, shape = None, (sum(CLIPS.values()), FRAMES, IMAGE_SIZE, IMAGE_SIZE)
    print(f"{NAME}: making {shape[0]} clips in {stored.folder} once", flush=True)

    def fill(frames):
        if public is None:
            labels, splits = compose(frames, files, seed)
        else:
            frames[:] = public
            labels, splits = {}, hold_out(("val", "test"), len(frames), seed)
        return pack(frames, labels, splits, key={"seed": seed, "files": sizes})

    stored.write(shape, fill)
