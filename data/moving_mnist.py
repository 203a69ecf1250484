"""Moving MNIST (moving-mnist): two handwritten digits bouncing in 64x64, made as Srivastava, Mansimov & Salakhutdinov
did (2015).

    python main.py --dataset_name moving-mnist --source FOLDER       # MNIST's IDX files, gzipped or not
    python main.py --dataset_name moving-mnist --source torchvision  # torchvision downloads them
    ... or the public mnist_test_seq.npy [20, 10000, 64, 64] in FOLDER, or any of these files in data_dir/moving-mnist

A digit starts anywhere, moves 0.1 of its 36 px of play a frame in a random direction, and is reflected at the border;
where two overlap, the brighter counts. Identity is the pair of digits, dynamics their starts and directions. Digit
images of one split appear in no other. The set is kept in data_dir/moving-mnist in grey, 532 MB, and given as three
equal channels.
"""

import gzip
from pathlib import Path

import numpy as np

from data import store
from data.base import IMAGE_SIZE, Dataset, flat
from utils.errors import UserError

NAME, VERSION = "moving-mnist", 1
CLIPS = {"train": 5000, "val": 500, "test": 1000}
FRAMES, DIGITS, SIDE = 20, 2, 28
STEP = 0.1  # of the play, a frame
PLAY = IMAGE_SIZE - SIDE  # px that a digit's corner can move
HELD_OUT = {"val": 0.1, "test": 0.1}  # shares of the digit images, or of the public clips
IDX = {"train": "train-{}-ubyte", "test": "t10k-{}-ubyte"}
PARTS = {"images": ("images-idx3", 2051), "labels": ("labels-idx1", 2049)}  # name, magic number
PUBLIC = "mnist_test_seq.npy"
PAIRS = tuple(
    (a, b) for a in range(10) for b in range(a, 10)
)  # the identities, an unordered pair of digits each


def read_idx(path, magic):
    """The array of an IDX file of MNIST: images uint8 [n, 28, 28] or labels uint8 [n]. UserError if it is something
    else."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            head = np.frombuffer(file.read(16 if magic == 2051 else 8), ">i4")
            if (
                not len(head)
                or head[0] != magic
                or not 0 < head[1] <= 10**6
                or any(head[2:] != SIDE)
            ):
                raise ValueError(f"its header is {head.tolist()}")
            size = int(head[1]) * (SIDE**2 if len(head) == 4 else 1)
            body = file.read(size + 1)
    except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
        raise UserError(f"{NAME}: {path} is no IDX file of MNIST ({error}): get it again") from None
    if len(body) != size:
        raise UserError(
            f"{NAME}: {path} is cut or too long, expected {size:,} bytes after the header: get it again"
        )
    return np.frombuffer(body, np.uint8).reshape(head[1], *head[2:])


def find(folder):
    """What there is to make the set from in `folder` (or where torchvision puts it below): {'train' and/or 'test':
    (images, labels)}, paths, or {'public': path}, or {}."""
    for place in (Path(folder), Path(folder) / "MNIST" / "raw", Path(folder) / "raw"):
        found = {}
        for part, name in IDX.items():
            pair = [_existing(place, name.format(PARTS[kind][0])) for kind in PARTS]
            if all(pair):
                found[part] = tuple(pair)
        if not found and (place / PUBLIC).exists():
            found = {"public": place / PUBLIC}
        if found:
            return found
    return {}


def _existing(place, name):
    return next((path for path in (place / name, place / f"{name}.gz") if path.exists()), None)


def digits_by_split(found, seed):
    """{split: positions among all images} of the images [n, 28, 28] that `found` names, and those with their labels
    [n].

    The test file's digits are the test split's and validation comes from the training file; where there is one file,
    all three do.
    """
    read = {
        part: [read_idx(path, magic) for path, (_, magic) in zip(paths, PARTS.values())]
        for part, paths in found.items()
    }
    for part, (images, labels) in read.items():
        if len(images) != len(labels) or labels.max() > 9:
            raise UserError(
                f"{NAME}: {found[part][1]} has {len(labels)} labels for {len(images)} images: get both again"
            )
    images, labels = (np.concatenate(arrays) for arrays in zip(*read.values()))
    first = len(next(iter(read.values()))[0])  # images of the first file, or of the only one
    rows = np.random.default_rng(seed).permutation(first)
    val, test = (max(1, round(first * share)) for share in HELD_OUT.values())
    if len(read) == 2:
        return (
            {"train": rows[val:], "val": rows[:val], "test": np.arange(first, len(images))},
            images,
            labels,
        )
    return (
        {"train": rows[val + test :], "val": rows[:val], "test": rows[val : val + test]},
        images,
        labels,
    )


def paths(start, direction, frames):
    """Places of the digits' upper left corners, int [n, frames, 2] (row, column) in 0..36 px.

    start [n, 2] in [0, 1] of the play, direction [n] in rad; reflected at 0 and 1.
    """
    speed = STEP * np.stack([np.sin(direction), np.cos(direction)], -1)  # [n, 2]
    free = start[:, None] + speed[:, None] * np.arange(frames)[:, None]
    return np.rint(PLAY * (1 - np.abs(free % 2 - 1))).astype(int)


def draw(frames, images, places):
    """Draw digits images [n, 28, 28] at places [n, T, 2] over frames [n, T, 64, 64], in place: the brighter pixel
    counts."""
    for clip, image, path in zip(frames, images, places):
        for picture, (row, column) in zip(clip, path):
            window = picture[row : row + SIDE, column : column + SIDE]
            np.maximum(window, image, out=window)


def compose(frames, found, seed):
    """Fill frames, uint8 [6500, 20, 64, 64], with clips of digits drawn from `seed`; returns labels and splits.

    Labels: digits (a position in PAIRS), image [n, 2] (which digit images), start [n, 2, 2] (row, column in 0..1),
    direction [n, 2] (rad).
    """
    pool, images, classes = digits_by_split(found, seed)
    rng = np.random.default_rng([seed, 1])
    image = np.concatenate(
        [rng.choice(np.sort(pool[name]), (count, DIGITS)) for name, count in CLIPS.items()]
    )
    start, direction = (
        rng.random((len(image), DIGITS, 2)),
        rng.uniform(0, 2 * np.pi, (len(image), DIGITS)),
    )
    for digit in range(DIGITS):
        draw(
            frames,
            images[image[:, digit]],
            paths(start[:, digit], direction[:, digit], frames.shape[1]),
        )
    pair = [PAIRS.index((min(two), max(two))) for two in classes[image].tolist()]
    ends = np.cumsum([0, *CLIPS.values()])
    splits = {name: np.arange(a, b) for name, a, b in zip(CLIPS, ends, ends[1:])}
    return {
        "digits": np.array(pair),
        "image": image,
        "start": start,
        "direction": direction,
    }, splits


def split_public(count, seed):
    """Positions of the public clips by split: its digits are not told, so that only clips can be kept apart."""
    rows = np.random.default_rng(seed).permutation(count)
    val, test = (round(count * share) for share in HELD_OUT.values())
    parts = {"train": rows[val + test :], "val": rows[:val], "test": rows[val : val + test]}
    return {name: np.sort(part) for name, part in parts.items()}


def read_public(path):
    """The public clips, memory-mapped, [10000, 20, 64, 64] uint8. UserError if the file is something else."""
    try:
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{NAME}: cannot read {path} ({error}): get it again") from None
    if (
        clips.dtype != np.uint8
        or clips.ndim != 4
        or clips.shape[2:] != (IMAGE_SIZE,) * 2
        or clips.shape[1] < 10
    ):
        want = "uint8 [20, 10000, 64, 64]"
        raise UserError(
            f"{NAME}: {path} is {clips.dtype} {list(clips.shape)}, expected {want}: get it again"
        )
    return clips.swapaxes(0, 1)


def download(folder):
    """Have torchvision download MNIST below `folder`; UserError if it cannot."""
    from torchvision.datasets import MNIST

    try:
        for train in (True, False):
            MNIST(folder, train, download=True)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{NAME}: torchvision cannot download MNIST ({error}): give --source FOLDER with its IDX files"
        ) from None


def load(config):
    """The set in config.data_dir/moving-mnist as `data.base.Dataset`, frames memory-mapped, clips of 20 frames.

    If it is not there, not whole, or made from another seed or other files than config asks for, it is made once,
    from the files in config.source or in the same folder. Raises UserError if there are none.
    """
    folder = Path(config.data_dir) / NAME
    wrong = store.fault(folder, VERSION)
    if config.source == "torchvision" and not find(folder):
        download(folder)
    found = find(folder if config.source in (None, "torchvision") else config.source)
    if config.source and not found:
        raise UserError(
            f"{NAME}: found neither MNIST's IDX files nor {PUBLIC} in {config.source}: give their folder"
        )
    key = {"seed": config.data_seed, "files": _files(found)}
    if not wrong:
        stored = store.read(folder, VERSION)[0]["key"]
        if stored["seed"] != key["seed"] or (found and stored["files"] != key["files"]):
            wrong = f"{folder} is of --data_seed {stored['seed']} or of other files"
    if wrong:
        _make(folder, found, key, wrong)
    metadata, grey = store.read(folder, VERSION)
    frames, lengths = flat(grey)
    labels = metadata["labels"]
    return Dataset(
        name=NAME,
        frames=np.broadcast_to(
            frames[..., None], (*frames.shape, 3)
        ),  # a view: what is picked is copied, not the set
        lengths=lengths,
        labels=labels,
        classes={"digits": tuple(f"{a} {b}" for a, b in PAIRS)} if labels else {},
        splits=metadata["splits"],
        static=("digits",) if labels else (),
        dynamic=(),
        fingerprint=metadata["fingerprint"],
    )


def _files(found):
    paths = [
        path
        for value in found.values()
        for path in (value if isinstance(value, tuple) else (value,))
    ]
    return [[path.name, path.stat().st_size] for path in paths]


def _make(folder, found, key, wrong):
    if not found:
        size = sum(CLIPS.values()) * FRAMES * IMAGE_SIZE**2
        raise UserError(
            f"{NAME}: {wrong}: the set needs {size:,} bytes; put MNIST's IDX files or {PUBLIC} into {folder}, "
            "or give --source FOLDER, or --source torchvision to download them"
        )
    public = read_public(found["public"]) if "public" in found else None
    shape = (
        (sum(CLIPS.values()), FRAMES, IMAGE_SIZE, IMAGE_SIZE) if public is None else public.shape
    )
    print(f"{NAME}: making {shape[0]} clips in {folder} once", flush=True)
    if public is not None:
        print(
            f"{NAME}: {PUBLIC} does not tell its digits: clips are held out, digit images cannot be",
            flush=True,
        )

    def fill(frames):
        if public is None:
            made = compose(frames, found, key["seed"])
        else:
            for block in range(0, len(frames), 256):
                frames[block : block + 256] = public[block : block + 256]
            made = {}, split_public(len(frames), key["seed"])
        return store.pack(frames, *made, version=VERSION, key=key)

    store.write(NAME, folder, shape, fill)
