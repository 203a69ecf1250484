"""One's own videos (video-folder): a folder of videos or GIFs, or of folders of numbered frames, of any length and
size.

    python main.py --dataset_name video-folder --source FOLDER    # or put them into data_dir/video-folder

Clips that lie in sub-folders have the first sub-folder's name as label 'identity'. Each file is decoded once,
centre-cropped, resized to 64x64 and kept in data_dir/video-folder.cache, keyed by its content. What cannot be decoded
is listed and left out, and so are a second copy of a clip and clips shorter than --seq_len. docs/YOUR_OWN_VIDEOS.md
is the walk through it.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import imageio.v3 as iio
import numpy as np
from natsort import natsorted
from PIL import Image
from tqdm import tqdm

from data import video_cache
from data.base import IMAGE_SIZE, SPLITS, Dataset
from utils.errors import UserError
from utils.flags import flag
from utils.settings import DATA

NAME = "video-folder"
VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"}
ANIMATIONS = {".gif", ".apng"}
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
HELD_OUT = {"test": 0.1, "val": 0.1}
LISTED = 20  # bad files that are named one by one


@dataclass
class Flags:
    """The data set's own flags."""

    video_step: int = flag(1, DATA, low=1)
    """Take every n-th frame of a file."""
    split_by: str = flag("clip", DATA, choices=("clip", "identity"))
    """What is held out: clips, or all clips of some sub-folders."""


def find(source):
    """The clips below folder `source`, natsorted paths: video files, animations, and folders that hold two pictures
    or more."""
    clips = []
    for place, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(place, name) for name in files if not name.startswith(".")]
        clips += [path for path in files if path.suffix.lower() in VIDEOS | ANIMATIONS]
        if Path(place) != Path(source) and len(pictures(files)) > 1:
            clips.append(Path(place))
    return natsorted(clips, key=str)


def pictures(files):
    """The pictures among paths, in natural order."""
    return natsorted(
        (path for path in files if path.suffix.lower() in PICTURES and path.name[0] != "."), key=str
    )


def parts(clip):
    """The files that a clip is made of."""
    return pictures(clip.iterdir()) if clip.is_dir() else [clip]


def decode(clip, step=1):
    """Every step-th frame of a video, an animation or a folder of pictures, uint8 [64, 64, 3] each, upright. Raises
    whatever the decoder does."""
    read = (
        _pictures if clip.is_dir() else _animation if clip.suffix.lower() in ANIMATIONS else _video
    )
    return map(fit, read(clip, step))


def _pictures(folder, step):
    for path in parts(folder)[::step]:
        yield iio.imread(path, plugin="pillow", mode="RGB", rotate=True, index=0)


def _animation(path, step):
    yield from islice(iio.imiter(path, plugin="pillow", mode="RGB"), 0, None, step)


def _video(path, step):
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no pictures in it")
        container.streams.video[0].thread_type = "AUTO"
        for frame in islice(container.decode(video=0), 0, None, step):
            # a telephone notes how it was held
            yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def fit(frame):
    """The centre square of a picture uint8 [H, W, 3], resized with anti-aliasing to [64, 64, 3]."""
    height, width = frame.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    picture = Image.fromarray(np.ascontiguousarray(frame))
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.asarray(
        picture.resize(size, Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    )


def assign(units, known, seed):
    """{unit: split}: a tenth each held out for validation and test, one at least, drawn by `seed`; those of `known`
    stay where they were, unless that leaves a split empty. Raises UserError below three units."""
    if len(units) < 3:
        raise UserError(
            f"{NAME}: found {len(units)} clips of --seq_len frames (sub-folders with --split_by identity), expected 3 or more "
            "for train, val and test: add some, or shorten --seq_len"
        )
    chosen = {unit: known[unit] for unit in units if unit in known}
    want = {name: max(1, round(share * len(units))) for name, share in HELD_OUT.items()}
    fresh = [unit for unit in sorted(units) if unit not in chosen]
    for i in np.random.default_rng(seed).permutation(len(fresh)):
        have = list(chosen.values())
        chosen[fresh[i]] = next((name for name in want if have.count(name) < want[name]), "train")
    return chosen if set(chosen.values()) == set(SPLITS) else assign(units, {}, seed)


class Folder:
    """What is known of one source folder, kept in a small JSON file beside the decoded clips: the digests of its
    files as they were when last looked at, and the splits."""

    def __init__(self, cache, source):
        name = hashlib.sha256(str(Path(source).resolve()).encode()).hexdigest()[:16]
        self.path, self.source = Path(cache) / f"folder-{name}.json", Path(source)
        try:
            known = json.loads(self.path.read_text())
            self.files, self.splits = dict(known["files"]), dict(known["splits"])
        except (OSError, ValueError, LookupError, TypeError):
            self.files, self.splits = {}, {}

    def digest(self, clip):
        """SHA-256 of the content of a clip's files; read again only where their sizes or times have changed."""
        files = parts(clip)
        stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
        name = str(clip.relative_to(self.source))
        if self.files.get(name, [None])[0] != stats:
            digest = hashlib.sha256()
            for path in files:
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            self.files[name] = [stats, digest.hexdigest()]
        return self.files[name][1]

    def save(self):
        """Write the file whole or not at all."""
        beside = self.path.with_suffix(".part")
        known = {"source": str(self.source), "files": self.files, "splits": self.splits}
        beside.write_text(json.dumps(known, indent=1))
        beside.replace(self.path)


def load(config):
    """The clips of config.source (default: config.data_dir/video-folder) as `data.base.Dataset`, frames
    memory-mapped; decodes what is not decoded yet. Raises UserError if there is no such folder or too little in
    it."""
    source, cache = (
        Path(config.source or Path(config.data_dir) / NAME),
        Path(config.data_dir) / f"{NAME}.cache",
    )
    clips = find(source)
    if not clips:
        found = "no video, GIF or folder of pictures in" if source.is_dir() else "no folder"
        raise UserError(
            f"{NAME}: found {found} {source}: give --source FOLDER (docs/YOUR_OWN_VIDEOS.md)"
        )
    try:
        with video_cache.opened(cache) as decoded:
            folder = Folder(cache, source)
            keys, skipped = _decode_all(decoded, folder, clips, config)
            keys, short = _long_enough(decoded, keys, config.seq_len)
            _report(skipped, short, config.seq_len, source)
            names = {key: path.relative_to(source).parts for key, path in keys.items()}
            dataset = _dataset(decoded, folder, names, config)
            folder.save()
    except OSError as error:
        place = error.filename or cache
        raise UserError(
            f"{NAME}: {place}: {error.strerror}: free some space, or choose another --data_dir"
        ) from None
    return dataset


def _decode_all(decoded, folder, clips, config):
    """{key: path} of the clips that are there in the cache in the end, and [(path, what is wrong)] of the others."""
    keys, skipped, new = {}, [], []
    for clip in clips:
        key = f"{folder.digest(clip)}-{config.video_step}"
        if key in keys:
            skipped.append((clip, f"the same as {keys[key].relative_to(folder.source)}"))
            continue
        keys[key] = clip
        if key not in decoded.entries:
            new.append(key)
    if new and not config.quiet:
        print(f"{NAME}: decoding {len(new)} of {len(keys)} clips once", flush=True)
    for key in tqdm(
        new, desc="decode", unit="clip", disable=config.quiet or not sys.stderr.isatty()
    ):
        why = None
        try:
            if not decoded.add(key, _told(decode(keys[key], config.video_step))):
                why = "no frame in it"
        except BadFile as error:
            why = error
        if why:
            skipped.append((keys.pop(key), why))
    return keys, skipped


class BadFile(Exception):
    """A file that its decoder refuses; anything else that goes wrong while it is decoded is no fault of the file's."""


def _told(frames):
    """The frames, with whatever the decoder raises as BadFile."""
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except Exception as error:  # damaged bytes raise anything
            raise BadFile(" ".join(str(error).split())[:100] or type(error).__name__) from None
        yield frame


def _long_enough(decoded, keys, length):
    """The clips of at least `length` frames, and the number of the others."""
    kept = {key: path for key, path in keys.items() if decoded.entries[key]["frames"] >= length}
    return kept, len(keys) - len(kept)


def _report(skipped, short, length, source):
    for path, why in skipped[:LISTED]:
        print(f"{NAME}: left out {path.relative_to(source)}: {why}", flush=True)
    if len(skipped) > LISTED:
        print(f"{NAME}: left out {len(skipped) - LISTED} more", flush=True)
    if short:
        print(
            f"{NAME}: left out {short} clips of fewer than {length} frames (--seq_len)", flush=True
        )


def _dataset(decoded, folder, names, config):
    """The Dataset of the clips `names`, {key: path's parts below the source}, among all that are decoded."""
    identity = {key: parts[0] for key, parts in names.items() if len(parts) > 1}
    labelled = len(identity) == len(names)
    if config.split_by == "identity" and not labelled:
        raise UserError(
            f"{NAME}: --split_by identity: not every clip lies in a sub-folder: use --split_by clip"
        )
    unit = identity if config.split_by == "identity" else {key: key for key in names}
    drawn = f"{config.split_by} {config.data_seed}"
    chosen = assign(set(unit.values()), folder.splits.get(drawn, {}), config.data_seed)
    folder.splits[drawn] = folder.splits.get(drawn, {}) | chosen
    place = {key: i for i, key in enumerate(decoded.entries)}
    rows = {name: [key for key in names if chosen[unit[key]] == name] for name in SPLITS}
    people = tuple(natsorted(set(identity.values()))) if labelled else ()
    labels = {}
    if labelled:  # clips of other folders in the same cache have -1 and are in no split
        labels["identity"] = np.full(len(place), -1)
        for key, name in identity.items():
            labels["identity"][place[key]] = people.index(name)
    told = [
        (name, decoded.entries[key]["pixels"], identity.get(key))
        for name in SPLITS
        for key in rows[name]
    ]
    frames, lengths = decoded.frames()
    return Dataset(
        name=NAME,
        frames=frames,
        lengths=lengths,
        labels=labels,
        classes={"identity": people} if labelled else {},
        splits={
            name: np.array([place[key] for key in keys], np.int64) for name, keys in rows.items()
        },
        static=("identity",) if labelled else (),
        dynamic=(),
        fingerprint=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
    )
