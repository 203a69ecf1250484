"""use.py: a trained model on files, from the command line."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import use
from data import one_clip
from data.decoders import decode
from models import load
from pictures.files import save_gif, save_mp4, save_png
from tests.runs import tree
from tests.test_docs import commands, python_blocks
from tests.tiny import STAGE_1, TEST, TINY

ROOT = Path(__file__).resolve().parent.parent
RUN = "--RUN", "demo", "--device", "cpu", "--threads", "1"


@pytest.fixture
def clips(tmp_path):
    """One clip of 20 frames in four forms: clip.gif, clip.mp4, clip.npy and the folder clip."""
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[20:40, 2 * t : 2 * t + 16] = 200, 40, 80
    np.save(tmp_path / "clip.npy", frames)
    save_gif(tmp_path / "clip.gif", frames, 10)
    save_mp4(tmp_path / "clip.mp4", frames, 10)
    (tmp_path / "clip").mkdir()
    for t, frame in enumerate(frames):
        save_png(tmp_path / "clip" / f"{t}.png", frame)
    return frames


def test_a_transfer_from_every_kind_of_clip(command, trained, tmp_path, clips):
    before = tree(trained)
    expected = load(trained).swap(clips, clips)
    for i, (motion, identity) in enumerate((("clip.npy", "clip"), ("clip.gif", "clip.mp4"))):
        said = command(*RUN, "--transfer", motion, identity, "--out", f"{i}.npz")
        assert (
            said.code == 0 and f"the motion of {motion} on the identity of {identity}" in said.out
        )
        with np.load(tmp_path / f"{i}.npz", allow_pickle=False) as file:
            assert sorted(file.files) == ["dynamic", "frames", "static"]
            difference = file["frames"].astype(int) - expected
        # a GIF has 256 colours, a video has losses
        assert np.abs(difference).max() <= (0, 8)[i]
    assert tree(trained) == before


@pytest.mark.parametrize(
    "flags, frames, size",
    [
        ("--transfer clip.gif clip.mp4", 16, (64, 64)),
        ("--transfer clip.gif clip.mp4 --continue_to 30", 30, (64, 64)),
        ("--encode clip.gif --continue_to 20", 20, (64, 64)),
        ("--generate 5", 16, (194, 129)),
        ("--generate 1 --continue_to 3", 3, (64, 64)),
        ("--traverse", 16, (584, 714)),
        ("--traverse --encode clip.mp4", 16, (584, 714)),
    ],
)
def test_results_as_films_and_as_pictures(
    command, trained, tmp_path, clips, monkeypatch, flags, frames, size
):
    monkeypatch.setattr("api.DRAWS", 4)
    for name in ("o.gif", "o.mp4", "o.png"):
        said = command(*RUN, *flags.split(), "--out", name)
        assert said.code == 0 and said.out.startswith(f"wrote {name}: ") and not said.err, said
    with Image.open(tmp_path / "o.gif") as film:
        assert film.size == size
    film = list(iter_video(tmp_path / "o.mp4"))
    assert len(film) == frames
    # one or no row and column more, because a video has an even number of both
    assert film[0].shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    with Image.open(tmp_path / "o.png") as picture:
        rows, columns = (size[1] + 1) // 65, (size[0] + 1) // 65
        if "traverse" not in flags:
            rows, columns = (5 if "5" in flags else 1), frames
        assert picture.size == (65 * columns - 1, 65 * rows - 1)


def iter_video(path):
    import av

    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def test_codes_that_are_read_back_decode_to_the_same(command, trained, tmp_path, clips):
    assert command(*RUN, "--encode", "clip.npy", "--out", "codes.npz").code == 0
    model = load(trained)
    with np.load(tmp_path / "codes.npz") as file:
        assert np.array_equal(model.decode(file["static"], file["dynamic"]), file["frames"])
        assert np.array_equal(file["static"], model.encode(clips).static)


def test_the_same_command_draws_the_same_clips(command, trained, tmp_path):
    for name, seed in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2)):
        flags = *RUN, "--generate", 2, "--seed", seed, "--out", name, "--draw_from", "fitted"
        assert command(*flags, "--quiet").out == ""
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b and len(a) == len(c)


def test_stage_1_alone_swaps_and_does_not_continue(command, refused, trained, tmp_path, clips):
    for path in (trained / "checkpoints").glob("*_seq*"):
        path.unlink()
    np.save(tmp_path / "short.npy", clips[:3])
    assert command(*RUN, "--transfer", "short.npy", "clip.gif", "--out", "o.gif").code == 0
    with Image.open(tmp_path / "o.gif") as film:
        assert film.n_frames <= 3
    line = refused(*RUN, "--encode", "clip.gif", "--continue_to", 30, "--out", "p.gif")
    assert "this model (vdsm, stage EncDec) cannot continue a clip, ask for at most 16" in line


def test_other_models_need_no_flag(command, refused, tmp_path, clips, no_pictures):
    small = "--width 4 --hidden 8 --f_dim 4 --seq_len 6 --bs 2 --bs_per_epoch 1 --epochs 1".split()
    train = "--model unordered --dataset_name pendulum --train True --tboard_log False".split()
    assert command(*RUN, *train, *small, "--num_test_ids", 2).code == 0
    assert command(*RUN, "--transfer", "clip.gif", "clip.npy", "--out", "o.mp4").code == 0
    assert command(*RUN, "--generate", 2, "--continue_to", 9, "--out", "p.gif").code == 0
    line = refused(*RUN, "--encode", "clip.gif", "--continue_to", 9, "--out", "q.gif")
    assert "this model (unordered, stage Unordered) cannot continue a clip" in line


def test_the_best_checkpoint(command, refused, trained, tmp_path, no_pictures):
    newest = trained / "checkpoints" / "3_VDSM_seq.pth"
    state = torch.load(newest, weights_only=True)
    state["place"]["best"] = (1, -5.0)
    torch.save(state, newest)
    said = command(*RUN, "--select", "best", "--generate", 1, "--out", "o.gif")
    assert "1_VDSM_seq.pth" in said.out
    flags = *TINY, *TEST, "--select", "best", "--export_codes", "True"
    said = command(*flags)
    assert said.code == 0 and "tested runs/demo/checkpoints/1_VDSM_seq.pth" in said.out
    assert "1_VDSM_seq.pth" in (trained / "codes" / "codes.json").read_text()
    # the epoch that a flag names comes first
    said = command(*TINY, *TEST, "--select", "best", "--pretrained_model_VDSMSeq", 2)
    assert "2_VDSM_seq.pth" in said.out
    assert "--select best is for a finished stage" in refused(*TINY, *STAGE_1, "--select", "best")


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--transfer clip.gif", "expected 2 arguments"),
        ("--transfer clip.gif absent.mp4 --out o.gif", "found no absent.mp4"),
        ("--transfer clip.gif clip.npy", "--transfer needs --out FILE"),
        ("--encode clip.gif --out o.avi", "--out o.avi: expected a name that ends in .gif, .mp4"),
        ("--encode clip.gif --out clip.npy", "--out clip.npy: expected"),
        ("--encode clip.npy --out clip.gif", "--out clip.gif is already there"),
        ("--encode clip.gif --out no/o.gif", "found no folder no: make it first"),
        ("--encode clip.gif --generate 2 --out o.gif", "found --encode and --generate: give one"),
        ("--continue_to 30 --out o.gif", "--continue_to 30 needs clips"),
        ("--traverse --generate 3 --out o.gif", "--traverse takes the one clip"),
        ("--generate 0 --out o.gif", "expected a number of at least 1"),
        ("--generate 9999 --continue_to 9999 --out o.gif", "99,980,001 frames"),
        ("--encode short.npy --out o.gif", "short.npy has 3 frames, expected 16 or more"),
        ("--encode text.mp4 --out o.gif", "text.mp4 cannot be read"),
        ("--encode text.npy --out o.gif", "cannot read text.npy"),
        ("--encode text.txt --out o.gif", "text.txt is no clip"),
        ("--encode . --out o.gif", ". holds no pictures"),
        ("--encode huge.npy --out o.gif", "pictures of at most 89,000,000 pixels"),
        ("--encode clip.gif --out o.gif --RUN other", "found no checkpoint in runs/other"),
        ("--encode number.npy --out o.gif", "number.npy is int64 [], expected uint8 [T, H, W, 3]"),
        ("--generate 1 --out nowhere.gif", "--out nowhere.gif is already there"),
        ("--generate 1 --out o.gif --weights .", ". is a folder, expected a regular file"),
        ("--generate 1 --out o.gif --weights=", "--weights is empty"),
        ("--encode clip.gif --out o.gif --stage2.out x", "this flag is of the whole run"),
        (
            "--generate 1 --out o.gif --evaluate swap",
            "found --evaluate beside --generate: give each",
        ),
        ("--weights w --traverse --test_harness", "found --test_harness beside --traverse"),
        ("--encode clip.gif --report --out o.gif", "found --report beside --encode"),
        ("--continue_to 9 --train_VDSMSeq 1", "found --train_VDSMSeq beside --continue_to"),
        ("--show --evaluate swap", "found --evaluate beside --show"),
        ("--weights w --evaluate swap --export_codes", "found --export_codes beside --weights"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(refused, trained, tmp_path, clips, flags, words):
    for name in ("text.mp4", "text.npy", "text.txt"):
        (tmp_path / name).write_text("no clip")
    np.save(tmp_path / "short.npy", clips[:3])
    np.save(tmp_path / "number.npy", 3)
    (tmp_path / "nowhere.gif").symlink_to("absent.gif")
    # a hole of 4.8 GB
    np.lib.format.open_memmap(tmp_path / "huge.npy", "w+", np.uint8, (16, 10**4, 10**4, 3))
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert words in refused(*RUN, *flags.split())
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_mistakes_are_told_before_torch_is_imported(tmp_path):
    code = (
        "import sys, main\n"
        "assert main.main(['--encode', 'absent.gif', '--out', 'o.gif']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "found no absent.gif" in done.stderr


def test_a_clip_is_cropped_as_the_data_set_of_videos_crops(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (4, 90, 150, 3), np.uint8)
    save_gif(tmp_path / "wide.gif", wide, 10)
    frames = np.stack(list(decode(tmp_path / "wide.gif")))
    assert np.array_equal(one_clip.read(tmp_path / "wide.gif"), frames)
    assert np.array_equal(one_clip.read(tmp_path / "wide.gif", 1, step=3), frames[:1])
    assert np.array_equal(one_clip.read(tmp_path / "wide.gif", step=3), frames[::3])


# --- the documents ---


@pytest.fixture
def two_clips(tmp_path, clips):
    """The clips of the documents."""
    shutil.copy(tmp_path / "clip.mp4", tmp_path / "a.mp4")
    shutil.copy(tmp_path / "clip.gif", tmp_path / "b.gif")


@pytest.mark.parametrize("page", ["README.md", "docs/PYTHON.md"])
def test_the_commands_of_the_documents(command, trained, tmp_path, monkeypatch, two_clips, page):
    monkeypatch.setattr("api.DRAWS", 4)
    lines = [line for line in commands((ROOT / page).read_text()) if " --out " in line]
    assert len(lines) == {"README.md": 1, "docs/PYTHON.md": 7}[page]
    for line in lines:
        flags = shlex.split(line.split(" #")[0])[2:]
        said = command(*flags, "--device", "cpu", "--threads", 1)
        assert said.code == 0 and (tmp_path / flags[-1]).stat().st_size > 0, said
        (tmp_path / flags[-1]).unlink()


@pytest.mark.parametrize("page", ["README.md", "docs/PYTHON.md"])
def test_the_python_of_the_documents(trained, two_clips, monkeypatch, page):
    monkeypatch.setattr("api.DRAWS", 4)
    (block,) = python_blocks((ROOT / page).read_text())
    names = {}
    exec(block, names)
    # what the comments say of the shapes is so
    for line in block.splitlines():
        if " = " in line and "uint8 [" in line and "dimensions" not in line:
            shape = line.partition("uint8 ")[2]
            assert str([*names[line.split()[0]].shape]) == shape, line


def test_films_have_the_rate_of_the_data_set():
    assert use.rate_of("MUG-FED") == 16 and use.rate_of("pendulum") == 10
