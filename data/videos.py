"""A user's own videos (video-folder): videos, GIFs or folders of numbered pictures, of any size.

    python main.py --dataset_name video-folder --source FOLDER    # default: data_dir/video-folder

Label 'identity' is the name of the first sub-folder, if all clips lie in sub-folders. Each file is
decoded once, cropped to its centre square, resized to 64x64 and stored by its content in
data_dir/video-folder.cache. Damaged files, copies, and clips shorter than --seq_len are left out
and listed. See docs/YOUR_OWN_VIDEOS.md.
"""

import hashlib
import json
import os
import sys
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from natsort import natsorted
from tqdm import tqdm

from data import video_cache
from data.base import IMAGE_SIZE, SPLITS, Dataset
from data.decoders import ANIMATIONS, VIDEOS, BadFile, decode, parts, pictures, refuse_long
from utils.errors import UserError
from utils.files import read_json, regular, write_text
from utils.flags import flag
from utils.settings import DATA

NAME = "video-folder"
LICENCE = "videos of the user who trained the model: ask that person"
HELD_OUT = {"test": 0.1, "val": 0.1}
LISTED = 20  # files that are left out and listed by name at most
NAMED = 3  # short clips that are named at most
LONG = 12  # clips of so many times --seq_len frames are long


@dataclass
class Flags:
    video_step: int = flag(1, DATA, low=1)
    """Take every n-th frame of a file."""
    split_by: str = flag("clip", DATA, choices=("clip", "identity"))
    """What is held out: clips, or all clips of some sub-folders."""


def files_below(source: Path) -> Iterator[tuple[Path, list[Path]]]:
    """`source` and each folder below it, with its files. Hidden ones are passed over."""
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield Path(place), [Path(place, name) for name in names if not name.startswith(".")]


def find(source: Path) -> list[Path]:
    """The clips below `source` in natural order: videos, animations, folders of pictures."""
    clips = []
    for place, files in files_below(source):
        clips += [path for path in files if path.suffix.lower() in VIDEOS | ANIMATIONS]
        if place != source and len(pictures(files)) > 1:
            clips.append(place)
    return natsorted(clips, key=str)


def others(source: Path, clips: Collection[Path]) -> str:
    """A line on the files below `source` that belong to none of `clips`, or ''."""
    used, kinds = set(clips), []
    for _, files in files_below(source):
        kinds += [path.suffix for path in files if not used & {path, path.parent}]
    if not kinds:
        return ""
    found = ", ".join(printable(kind or "no suffix") for kind in sorted(set(kinds))[:LISTED])
    count = "1 file that is" if len(kinds) == 1 else f"{len(kinds)} files that are"
    return f"{count} no video, GIF or picture of a clip ({found})"


def assign(units: Collection[str], known: dict[str, str], seed: int) -> dict[str, str]:
    """{unit: split}: 10 % each for validation and test, at least one, drawn by `seed`.

    Units of `known` keep their split, unless that leaves a split empty. Raises UserError if there
    are fewer than three units.
    """
    if len(units) < 3:
        kind = "clips of --seq_len frames (sub-folders with --split_by identity)"
        problem = f"found {len(units)} {kind}, expected 3 or more"
        raise UserError(f"{NAME}: {problem}: add some, or shorten --seq_len")
    chosen = {unit: known[unit] for unit in units if unit in known}
    want = {name: max(1, round(share * len(units))) for name, share in HELD_OUT.items()}
    fresh = [unit for unit in sorted(units) if unit not in chosen]
    for i in np.random.default_rng(seed).permutation(len(fresh)):
        have = list(chosen.values())
        chosen[fresh[i]] = next((name for name in want if have.count(name) < want[name]), "train")
    return chosen if set(chosen.values()) == set(SPLITS) else assign(units, {}, seed)


def printable(name: str) -> str:
    """The name of a file, with bytes that are no UTF-8 written as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()


class Folder:
    """What is known of a source folder, stored in a JSON file beside the decoded clips.

    files: per clip, sizes and times of its files and the SHA-256 of their content. splits: per
    --split_by and seed, the split of each unit.
    """

    def __init__(self, cache: Path, source: Path):
        name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:16]
        self.path, self.source = cache / f"folder-{name}.json", source
        self.files, self.splits = {}, {}
        try:
            known = read_json(self.path)
            files, splits = dict(known["files"]), dict(known["splits"])
            whole = all(len(bytes.fromhex(digest)) == 32 for _, digest in files.values())
            if not whole or any(set(units.values()) - set(SPLITS) for units in splits.values()):
                raise ValueError("its values")
            self.files, self.splits = files, splits
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError):
            print(f"{NAME}: {self.path} is damaged: what is held out is drawn anew", flush=True)

    def digest(self, clip: Path) -> str:
        """SHA-256 of the content of a clip's files, read again only if size or time changed.

        Raises BadFile if one cannot be read.
        """
        try:
            return self._digest(clip)
        except (OSError, UserError) as error:
            raise BadFile(getattr(error, "strerror", None) or str(error)) from None

    def _digest(self, clip):
        files, name = parts(clip), str(clip.relative_to(self.source))
        known = [(path.name, regular(path)) for path in files]
        stats = [[name, status.st_size, status.st_mtime_ns] for name, status in known]
        if self.files.get(name, [None])[0] != stats:
            digest = hashlib.sha256()
            for path, (_, status) in zip(files, known):
                refuse_long(path, status.st_size)
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            self.files[name] = [stats, digest.hexdigest()]
        return self.files[name][1]

    def save(self) -> None:
        """Write the JSON file."""
        known = {"source": str(self.source), "files": self.files, "splits": self.splits}
        write_text(self.path, json.dumps(known, indent=1))


def load(config) -> Dataset:
    """Load the clips of config.source, memory-mapped, and decode those that are not in the cache.

    Tells which are used and which are left out. Raises UserError if the folder is missing or holds
    too few clips.
    """
    with decoded_clips(config) as (decoded, folder, paths, left_out):
        long_enough = {k for k in paths if decoded.entries[k]["frames"] >= config.seq_len}
        places = {key: path.relative_to(folder.source) for key, path in paths.items()}
        short = [place for key, place in places.items() if key not in long_enough]
        few = ", ".join(map(printable, map(str, short[:NAMED])))
        more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
        clips_of = "1 clip" if len(short) == 1 else f"{len(short)} clips"
        shortage = f"{clips_of} of fewer than {config.seq_len} frames (--seq_len): {few}{more}"
        foreign = "" if config.quiet else others(folder.source, find(folder.source))
        for line in filter(None, [*left_out, shortage if short else "", foreign]):
            _tell(config, f"left out {line}")
        names = {key: places[key].parts for key in paths if key in long_enough}
        dataset = _dataset(decoded, folder, names, config)
        for line in () if config.quiet else _check(dataset, decoded, names, config):
            _tell(config, line)
    return dataset


@contextmanager
def decoded_clips(config) -> Generator[tuple]:
    """The clips of config.source, decoded: the cache, the `Folder`, {key: path}, and lines.

    The lines say which files are left out, and why. Raises UserError.
    """
    data_dir = Path(config.data_dir)
    source, cache = Path(config.source or data_dir / NAME), data_dir / f"{NAME}.cache"
    clips = find(source)
    if not clips:
        what = "video, GIF or folder of pictures in" if source.is_dir() else "folder"
        raise UserError(f"{NAME}: found no {what} {source}: see docs/YOUR_OWN_VIDEOS.md")
    try:
        with video_cache.opened(cache) as decoded:
            folder = Folder(cache, source)
            yield decoded, folder, *_decode_all(decoded, folder, clips, config)
            folder.save()
    except OSError as error:
        problem = f"{error.filename or cache}: {error.strerror}"
        raise UserError(f"{NAME}: {problem}: free some space, or move --data_dir") from None


def _check(dataset, decoded, names, config):
    """Lines on the clips `names`: how many, how long and large, and how they are cropped."""
    entries = [decoded.entries[key] for key in names]
    lengths = sorted(entry["frames"] for entry in entries)
    held = ", ".join(f"{len(dataset.splits[name])} for {name}" for name in SPLITS)
    labels = [f"{len(values)} identities (sub-folders)" for values in dataset.classes.values()]
    yield f"{len(names)} clips are used: {held}; {', '.join(labels) or 'no labels (sub-folders)'}"
    middle = lengths[len(lengths) // 2]
    span = f"{lengths[0]} frames"
    if lengths[0] < lengths[-1]:
        span = f"{lengths[0]} to {lengths[-1]} frames, half of them {middle} or more"
    yield f"they have {span}; training reads {config.seq_len} at a time (--seq_len)"
    if middle >= LONG * config.seq_len:
        yield f"much more than --seq_len: --video_step {LONG // 4} would show longer motions"
    sizes = sorted({(w * h, w, h) for w, h in (e["size"] for e in entries if "size" in e)})
    if sizes:
        few = dict.fromkeys(f"{width}x{height}" for _, width, height in (sizes[0], sizes[-1]))
        cut = max(1 - min(w, h) / max(w, h) for _, w, h in sizes)
        loss = f", which cuts off up to {cut:.0%} of the longer side" if cut else ""
        crop = f"the centre square is kept{loss}, and resized to {IMAGE_SIZE}x{IMAGE_SIZE}"
        yield f"their pictures have {' to '.join(few)} pixels: {crop}"


def _tell(config, line):
    """Print a line, once per command: every stage may load the set (see data.load_stages)."""
    said = getattr(config, "said", set())
    if line not in said:
        print(f"{NAME}: {line}", flush=True)
    said.add(line)


def _decode_all(decoded, folder, clips, config):
    """Decode new clips. Returns {key: path} of the decoded clips, and lines on the others."""
    paths, skipped, new = {}, [], []
    for clip in clips:
        try:
            key = f"{folder.digest(clip)}-{config.video_step}"
        except BadFile as error:
            skipped.append((clip, str(error)))
            continue
        if key in paths:
            skipped.append((clip, f"the same as {paths[key].relative_to(folder.source)}"))
            continue
        paths[key] = clip
        if key not in decoded.entries:
            new.append(key)
    if new and not config.quiet:
        _tell(config, f"decoding {len(new)} of {len(paths)} clips once")
    hidden = config.quiet or not sys.stderr.isatty()
    for key in tqdm(new, desc="decode", unit="clip", disable=hidden):
        try:
            sizes = []
            count = decoded.add(key, decode(paths[key], config.video_step, sizes), sizes)
            reason = "" if count else "no frame in it"
        except BadFile as error:
            reason = str(error)
        if reason:
            skipped.append((paths.pop(key), reason))
    lines = [f"{path.relative_to(folder.source)}: {reason}" for path, reason in skipped]
    more = [f"{len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return paths, lines[:LISTED] + more


def _dataset(decoded, folder, names, config):
    """The Dataset of the clips `names`, {key: parts of the path below the source}."""
    identity = {key: printable(parts[0]) for key, parts in names.items() if len(parts) > 1}
    labelled = len(identity) == len(names)
    if config.split_by == "identity" and not labelled:
        problem = "not every clip lies in a sub-folder"
        raise UserError(f"{NAME}: --split_by identity: {problem}: use --split_by clip")
    unit = identity if config.split_by == "identity" else {key: key for key in names}
    drawn_by = f"{config.split_by} {config.data_seed}"
    known = folder.splits.get(drawn_by, {})
    chosen = assign(set(unit.values()), known, config.data_seed)
    folder.splits[drawn_by] = known | chosen
    position = {key: i for i, key in enumerate(decoded.entries)}
    pixels = {key: decoded.entries[key]["pixels"] for key in names}
    # An order by content, so that the names of files change nothing.
    ordered = sorted(names, key=lambda key: (pixels[key], identity.get(key, ""), key))
    keys = {name: [key for key in ordered if chosen[unit[key]] == name] for name in SPLITS}
    people = tuple(natsorted(set(identity.values()))) if labelled else ()
    labels = {}
    if labelled:
        labels["identity"] = np.full(len(position), -1)  # -1: cached clips that are in no split
        for key, name in identity.items():
            labels["identity"][position[key]] = people.index(name)

    def digest(order):
        used = [(chosen[unit[key]], pixels[key], identity.get(key)) for key in order]
        content = [clip for name in SPLITS for clip in used if clip[0] == name]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    return Dataset(
        NAME,
        *decoded.frames(),
        labels=labels,
        classes={"identity": people} if labelled else {},
        splits={name: np.array([position[key] for key in keys[name]], np.int64) for name in SPLITS},
        static=tuple(labels),
        dynamic=(),
        fingerprint=digest(ordered),
        former=(digest(names),),  # earlier versions counted the clips in the order of their names
        verify=decoded.verify,
    )
