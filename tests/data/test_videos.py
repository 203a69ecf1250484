"""data/videos.py, data/video_cache.py: clips of every kind, decoded once; bad ones are listed."""

import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import av
import imageio.v3 as iio
import numpy as np
import pytest

import data
from data import video_cache, videos
from data.base import SPLITS
from utils.errors import UserError

SHADES = (40, 90, 140, 190, 240)


def config(data_dir, source=None, **other):
    flags = {"seq_len": 4, "data_seed": 0, "video_step": 1, "split_by": "clip", "quiet": True}
    places = {"data_dir": str(data_dir), "source": source and str(source)}
    return SimpleNamespace(**(flags | places | other))


def clip(shade, frames=6, height=48, width=80):
    """Frames of red `shade` and of green that grows with time; blue beside the centre square."""
    out = np.zeros((frames, height, width, 3), np.uint8)
    out[..., 0] = shade
    out[..., 1] = 20 * np.arange(frames)[:, None, None]
    margin = (width - height) // 2
    if margin > 0:
        out[:, :, : margin - 2, 2] = out[:, :, width - margin + 2 :, 2] = 255
    return out


def write(path, frames, rotation=0):
    """Write a clip in the form that its name asks for: .mp4, .gif, or a folder of pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", 10, options={"crf": "1"})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
            if rotation:
                stream.set_display_rotation(rotation)
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    elif path.suffix == ".gif":
        iio.imwrite(path, frames, duration=100, loop=0)
    else:
        path.mkdir()
        for i, frame in enumerate(frames):
            iio.imwrite(path / f"{i}.png", frame)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Five clips of three kinds in two sub-folders. Do not write into it."""
    root = tmp_path_factory.mktemp("videos")
    write(root / "ann" / "a.mp4", clip(SHADES[0], 6))
    write(root / "ann" / "b.gif", clip(SHADES[1], 12, 100, 100))
    write(root / "ann" / "c", clip(SHADES[2], 11, 90, 64))
    write(root / "bob" / "d.mp4", clip(SHADES[3], 5, 32, 32))
    write(root / "bob" / "e.gif", clip(SHADES[4], 7))
    return root


def shades(dataset, split):
    clips = dataset.split(split)
    return [int(clips.take([i], 0, 1)[0, 0, 32, 32, 0]) for i in range(len(clips))]


def test_every_kind_is_read_in_order_and_cut_to_its_centre(made, tmp_path):
    dataset = videos.load(config(tmp_path, made))
    assert sorted(dataset.lengths) == [5, 6, 7, 11, 12]
    assert dataset.frames.shape == (41, 64, 64, 3)
    identity = {}
    for split in SPLITS:
        clips = dataset.split(split)
        for i, length in enumerate(clips.lengths[clips.index]):
            frames = clips.take([i], 0, length)[0].astype(int)
            shade = min(SHADES, key=lambda shade: abs(shade - frames[0, 32, 32, 0]))
            assert np.abs(frames[..., 0] - shade).max() <= 6
            assert np.abs(frames[..., 1] - 20 * np.arange(length)[:, None, None]).max() <= 8
            assert frames[..., 2].max() < 60, "the margins are cut off"
            identity[shade] = dataset.classes["identity"][clips.label("identity", [i])[0]]
    assert [identity[shade] for shade in SHADES] == ["ann", "ann", "ann", "bob", "bob"]
    assert dataset.static == ("identity",)
    assert sum(map(len, dataset.splits.values())) == len(dataset.split("all").index) == 5


def test_a_video_that_was_filmed_sideways_is_turned(tmp_path):
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    # The upper third is light.
    frames[:, :20] = 250
    for turn, light in ((0, (slice(0, 10), slice(None))), (90, (slice(None), slice(0, 10)))):
        write(tmp_path / f"{turn}.mp4", frames, turn)
        decoded = np.stack(list(videos.decode(tmp_path / f"{turn}.mp4")))
        assert decoded[0][light].min() > 200 and decoded[0].mean() < 120, turn


def test_every_nth_frame(made):
    for name in ("ann/a.mp4", "ann/b.gif", "ann/c"):
        every, third = (list(videos.decode(made / name, step)) for step in (1, 3))
        assert np.array_equal(every[::3], third) and len(third) > 1


def test_decoded_once_by_content_wherever_it_lies(made, tmp_path, monkeypatch):
    first = videos.load(config(tmp_path, made))
    moved = shutil.copytree(made, tmp_path / "moved")
    shutil.move(moved / "ann" / "a.mp4", moved / "ann" / "z.mp4")
    # Nothing may be decoded again.
    monkeypatch.setattr(videos, "decode", None)
    again = videos.load(config(tmp_path, made))
    assert again.fingerprint == first.fingerprint
    assert all(np.array_equal(again.splits[name], first.splits[name]) for name in SPLITS)
    assert len(videos.load(config(tmp_path, moved)).lengths) == 5, "found by content"


def test_bad_files_are_listed_and_left_out(made, tmp_path, capsys):
    root = shutil.copytree(made, tmp_path / "in")
    (root / "ann" / "text.mp4").write_text("no video")
    (root / "ann" / "cut.mp4").write_bytes((made / "ann" / "a.mp4").read_bytes()[:1500])
    (root / "ann" / "cut.gif").write_bytes((made / "ann" / "b.gif").read_bytes()[:200])
    (root / "ann" / "empty.gif").write_bytes(b"")
    (root / "bob" / "frames").mkdir()
    for i in range(3):
        (root / "bob" / "frames" / f"{i}.png").write_text("no picture")
    shutil.copy(root / "ann" / "a.mp4", root / "bob" / "copy.mp4")
    write(root / "bob" / "short.gif", clip(70, 3))
    (root / "notes.txt").write_text("left alone")
    dataset = videos.load(config(tmp_path, root))
    lines = capsys.readouterr().out.splitlines()
    bad = "ann/text.mp4 ann/cut.mp4 ann/cut.gif ann/empty.gif bob/frames bob/copy.mp4".split()
    for name in bad:
        assert sum(f"left out {name}: " in line for line in lines) == 1, (name, lines)
    assert any("the same as ann/a.mp4" in line for line in lines)
    assert any(
        "left out 1 clip of fewer than 4 frames (--seq_len): bob/short.gif" in line
        for line in lines
    )
    assert len(lines) == len(bad) + 1
    told = videos.others(root, videos.find(root))
    assert told == "1 file that is no video, GIF or picture of a clip (.txt)"
    (root / "ann" / "frames.npy").touch()
    assert "2 files that are no" in videos.others(root, videos.find(root))
    assert not videos.others(made, videos.find(made))
    assert sum(len(dataset.splits[name]) for name in SPLITS) == 5
    assert dataset.fingerprint == videos.load(config(tmp_path / "other", made)).fingerprint


def test_many_bad_files_are_counted(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(videos, "LISTED", 2)
    root = shutil.copytree(made, tmp_path / "in")
    for i in range(5):
        (root / f"{i}.mp4").write_text(f"no video {i}")
    videos.load(config(tmp_path, root))
    assert capsys.readouterr().out.splitlines()[2:] == ["video-folder: left out 3 more"]


def test_what_is_left_out_is_named_once_per_command(made, tmp_path, capsys):
    root = shutil.copytree(made, tmp_path / "in")
    (root / "text.mp4").write_text("no video")
    for i in range(5):
        write(root / "bob" / f"short{i}.gif", clip(70 + i, 3))
    more = {"clips_per_sample_of": lambda *_: 1, "dataset_name": videos.NAME}
    given = {str(n): config(tmp_path, root, num_clips=n, **more) for n in (0, 4)}
    loaded = data.load_stages(given)
    assert loaded["0"] is not loaded["4"]
    out = capsys.readouterr().out
    assert out.count("text.mp4") == 1
    assert out.count("5 clips of fewer than 4 frames") == 1
    assert "bob/short0.gif, bob/short1.gif, bob/short2.gif and 2 more\n" in out


def test_a_file_of_a_terabyte_is_not_read(made, tmp_path, capsys):
    films = shutil.copytree(made, tmp_path / "films")
    os.truncate(next(films.rglob("*.mp4")), 1 << 40)  # a hole, which takes no space
    videos.load(config(tmp_path / "data", films))
    assert "has 1,099,511,627,776 bytes, expected at most" in capsys.readouterr().out


def test_an_interrupted_or_damaged_cache_is_resumed(made, tmp_path, monkeypatch):
    whole = videos.load(config(tmp_path / "whole", made))
    decode, decoded = videos.decode, []

    def interrupted(path, step, _=None):
        decoded.append(path)
        for i, frame in enumerate(decode(path, step)):
            if len(decoded) == 3 and i == 2:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(videos, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        videos.load(config(tmp_path, made))
    cache = tmp_path / "video-folder.cache"
    with open(cache / "frames.bin", "ab") as file:
        file.write(b"half a frame that a killed process left")
    assert videos.load(config(tmp_path, made)).fingerprint == whole.fingerprint
    assert len(decoded) == 3 + 3, "the two whole clips were kept"
    with open(cache / "frames.bin", "r+b") as file:
        # The end of the last clip is lost.
        file.truncate((cache / "frames.bin").stat().st_size - 5)
    with open(cache / "clips.jsonl", "a") as file:
        file.write('{"key": "half a li')
    again = videos.load(config(tmp_path, made))
    assert again.fingerprint == whole.fingerprint and len(decoded) == 7
    assert again.lengths.sum() == len(again.frames) == 41


def test_new_clips_leave_the_others_in_their_splits(made, tmp_path):
    root = shutil.copytree(made, tmp_path / "in")
    before = videos.load(config(tmp_path, root))
    kept = {shade: split for split in SPLITS for shade in shades(before, split)}
    for i in range(4):
        write(root / "ann" / f"0{i}.gif", clip(10 + 5 * i))
    after = videos.load(config(tmp_path, root))
    now = {shade: split for split in SPLITS for shade in shades(after, split)}
    assert len(now) == 9 and all(now[shade] == split for shade, split in kept.items())


def test_whole_folders_can_be_held_out(made, tmp_path):
    root = shutil.copytree(made, tmp_path / "in")
    write(root / "cy" / "f.gif", clip(60))
    write(root / "cy" / "g.gif", clip(70))
    dataset = videos.load(config(tmp_path, root, split_by="identity"))
    people = [set(dataset.split(name).label("identity")) for name in SPLITS]
    assert sum(map(len, people)) == len(set.union(*people)) == 3
    write(root / "loose.gif", clip(80))
    with pytest.raises(UserError, match="use --split_by clip"):
        videos.load(config(tmp_path, root, split_by="identity"))
    assert videos.load(config(tmp_path, root)).static == (), "no labels where one clip has none"


def test_splits_are_disjoint_seeded_and_never_empty():
    units = [f"clip {i}" for i in range(40)]
    chosen = videos.assign(units, {}, 0)
    assert sorted(chosen) == sorted(units)
    assert [list(chosen.values()).count(name) for name in SPLITS] == [32, 4, 4]
    assert chosen == videos.assign(units[::-1], {}, 0) != videos.assign(units, {}, 1)
    for known in ({}, dict.fromkeys(units[:3], "train")):
        assert set(videos.assign(units[:3], known, 0).values()) == set(SPLITS)


def test_a_folder_with_too_few_clips_is_refused(made, tmp_path):
    for source, words in (
        (tmp_path / "none", "no folder"),
        (tmp_path, "no video, GIF or folder of pictures"),
    ):
        with pytest.raises(UserError, match=words):
            videos.load(config(tmp_path / "data", source))
    with pytest.raises(UserError, match="found 2 clips of --seq_len frames .*, expected 3"):
        videos.load(config(tmp_path / "data", made / "bob"))
    with pytest.raises(UserError, match="shorten --seq_len"):
        videos.load(config(tmp_path / "data", made, seq_len=50))


def test_a_full_disk_is_one_line(made, tmp_path, monkeypatch):
    def full(self, key, frames, sizes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video_cache.Cache, "add", full)
    with pytest.raises(UserError, match="No space left on device: free some space"):
        videos.load(config(tmp_path, made))


def test_main_trains_on_videos(made, tmp_path, command):
    from tests.tiny import TINY

    flags = (
        "--dataset_name video-folder --seq_len 5 --epochs 1 --frames_per_clip 0 --data_dir".split()
    )
    done = command(*TINY, *flags, tmp_path, "--source", made)
    assert done.code == 0, done
    assert (tmp_path / "runs" / "demo" / "images" / "vid_swap_0_gen.gif").exists()


def test_names_change_nothing(made, tmp_path):
    root = shutil.copytree(made, tmp_path / "in")
    before = videos.load(config(tmp_path, root))
    shutil.move(root / "ann" / "a.mp4", root / "ann" / os.fsdecode(b"z\xe9.mp4"))
    shutil.move(root / "bob" / "e.gif", root / "bob" / "a.gif")
    after = videos.load(config(tmp_path, root))
    assert after.fingerprint == before.fingerprint
    for name in SPLITS:
        assert np.array_equal(after.splits[name], before.splits[name])


def test_a_run_of_an_earlier_version_knows_its_data(made, tmp_path):
    dataset = videos.load(config(tmp_path, made))
    order = {key: shade for shade in SHADES for key in [shade]}
    split = {shade: name for name in SPLITS for shade in shades(dataset, name)}
    with video_cache.opened(tmp_path / "video-folder.cache") as cache:
        pixels = [entry["pixels"] for entry in cache.entries.values()]
    people = ["ann", "ann", "ann", "bob", "bob"]
    clips = list(zip((split[shade] for shade in order), pixels, people))
    content = [clip for name in SPLITS for clip in clips if clip[0] == name]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    assert dataset.knows(digest) and digest != dataset.fingerprint
    assert not dataset.knows("other") and dataset.subsample(4, 0).former


def test_a_changed_frame_is_decoded_again(made, tmp_path, capsys):
    first, path = videos.load(config(tmp_path, made)), tmp_path / "video-folder.cache/frames.bin"
    assert first.verify()
    with open(path, "r+b") as file:
        file.seek(100_000)
        file.write(b"flipped")
    assert not first.verify()
    again = videos.load(config(tmp_path, made))
    assert "a clip was changed since it was decoded" in capsys.readouterr().out
    assert again.fingerprint == first.fingerprint and again.verify()
    assert len(again.frames) > len(first.frames), "what another process reads stays in its place"
    videos.load(config(tmp_path, made))
    assert not capsys.readouterr().out


def test_a_digest_of_the_wrong_kind_is_decoded_again(made, tmp_path):
    first, index = videos.load(config(tmp_path, made)), tmp_path / "video-folder.cache/clips.jsonl"
    entry, *rest = map(json.loads, index.read_text().splitlines())
    entry["pixels"] = [entry["pixels"]]
    index.write_text("".join(json.dumps(line) + "\n" for line in [entry, *rest]))
    assert videos.load(config(tmp_path, made)).fingerprint == first.fingerprint


def test_a_known_cache_is_not_read_whole(made, tmp_path, monkeypatch):
    videos.load(config(tmp_path, made))
    monkeypatch.setattr(video_cache.Cache, "damaged", None)
    videos.load(config(tmp_path, made))


@pytest.mark.parametrize(
    "text", ["[]", '{"files": 3}', "[" * 10**5, '{"files": {"a": 1}, "splits": {}}', "\xff"]
)
def test_a_damaged_side_file_is_one_line(made, tmp_path, capsys, text):
    first = videos.load(config(tmp_path, made))
    (path,) = (tmp_path / "video-folder.cache").glob("folder-*.json")
    path.write_text(text, "latin1")
    again = videos.load(config(tmp_path, made))
    assert capsys.readouterr().out.count("is damaged: what is held out is drawn anew\n") == 1
    assert again.fingerprint == first.fingerprint, "of the same seed"


def test_a_pipe_among_the_clips_is_left_out(made, tmp_path, capsys):
    root = shutil.copytree(made, tmp_path / "in")
    os.mkfifo(root / "ann" / "pipe.mp4")
    (root / "ann" / "gone.mp4").symlink_to("nowhere")
    assert len(videos.load(config(tmp_path, root)).lengths) == 5
    lines = capsys.readouterr().out
    assert "pipe.mp4: " in lines and "is a pipe, expected a regular file" in lines
    assert "gone.mp4: No such file or directory" in lines
