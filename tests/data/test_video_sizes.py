"""data/video_sizes.py and what a user is told of a folder of clips before training starts."""

import numpy as np
import pytest

from data.video_sizes import choose, flags
from tests.data.test_videos import SHADES, clip, write
from tests.tiny import STAGE_1, TINY
from utils.plan import parse

SMALL = [part for part in TINY if part not in ("--preset", "demo")]
SMALL = ["--preset", "videos", *SMALL]


def chosen(lengths, identities=0):
    """The settings of each stage for clips of these lengths."""
    return list(parse(["--preset", "videos"], flags(np.array(lengths), identities)).stages.values())


def test_few_clips_are_trained_as_the_demo_is():
    demo = list(parse(["--preset", "demo"]).stages.values())
    for ours, theirs in zip(chosen([40] * 120, 8), demo):
        flags = (vars(ours).keys() & vars(theirs).keys()) - {"RUN", "dataset_name"}
        assert {n: getattr(ours, n) for n in flags} == {n: getattr(theirs, n) for n in flags}


def test_sizes_grow_with_the_number_of_clips():
    steps = []
    for clips in (100, 400, 2000):
        first, second = chosen([30] * clips)
        steps.append(first.epochs * first.bs_per_epoch)
        assert first.enc_widths == second.enc_widths and first.n_e_w == second.n_e_w
        assert first.evaluate == second.evaluate == "none"  # without labels
    assert steps == [1100, 2000, 6000]
    assert [chosen([30] * 2000)[0].n_e_w, chosen([30] * 8)[0].n_e_w] == [40, 8]
    assert chosen([30] * 50, 15)[0].n_e_w == 30
    assert chosen([30] * 3)[0].num_test_ids == 1


def test_sequences_are_as_short_as_nine_tenths_of_the_clips_need():
    assert chosen([100] * 20)[0].seq_len == 16
    assert chosen([5] + [12] * 19)[0].seq_len == 12
    assert chosen([5] * 3 + [12] * 17)[0].seq_len == 5
    assert chosen([1] * 20)[0].seq_len == 2


@pytest.fixture
def clips(tmp_path):
    """Six clips of two identities, a broken one, a text, and one of two frames."""
    for i, shade in enumerate((*SHADES, 60)):
        write(tmp_path / "videos" / ("ann", "bob")[i % 2] / f"{i}.gif", clip(shade, 6 + i))
    write(tmp_path / "videos" / "bob" / "wide.gif", clip(20, 9, 32, 128))
    write(tmp_path / "videos" / "bob" / "short.gif", clip(99, 2))
    (tmp_path / "videos" / "bob" / "broken.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


def test_what_is_used_and_what_is_not_is_told_before_training(clips, command, no_pictures):
    said = command(*SMALL, "--source", clips, *STAGE_1, "--epochs", 1, "--bs_per_epoch", 1)
    assert said.code == 0, said
    lines = said.out.splitlines()
    told = [line.removeprefix("video-folder: ") for line in lines if "video-folder: " in line]
    assert told[0] == "decoding 9 of 9 clips once"
    assert any(line.startswith("left out bob/broken.mp4: ") for line in told)
    assert "left out 1 clip of fewer than 6 frames (--seq_len): bob/short.gif" in told
    used = "7 clips are used: 5 for train, 1 for val, 1 for test; 2 identities (sub-folders)"
    assert used in told
    assert any("have 6 to 11 frames, half of them 9 or more; training reads 6" in x for x in told)
    crop = "the centre square is kept, which cuts off up to 75% of the longer side, and resized"
    assert f"their pictures have 80x48 to 128x32 pixels: {crop} to 64x64" in told
    before = next(i for i, line in enumerate(lines) if line.startswith("stage 1"))
    assert all("video-folder" not in line for line in lines[before:])
    # The same command resumes; the sizes of the clips are still known.
    again = command(*SMALL, "--source", clips, *STAGE_1, "--epochs", 1, "--bs_per_epoch", 1)
    assert again.code == 0 and "80x48 to 128x32" in again.out


def test_a_missing_folder_and_too_few_clips_are_one_line(clips, refused, command):
    assert "found no folder nowhere" in refused(*SMALL, "--source", "nowhere")
    for path in (clips / "ann").iterdir():
        path.unlink()
    for path in sorted((clips / "bob").glob("[0-9]*.gif"))[1:]:
        path.unlink()
    line = refused(*SMALL, "--source", clips, "--seq_len", 4)
    assert "found 2 clips of --seq_len frames" in line


def test_the_preset_with_another_data_set_and_without_training(clips, command, refused):
    assert choose(parse([*SMALL, "--dataset_name", "pendulum"]).first) == [[], []]
    line = refused(*SMALL, "--dataset_name", "shapes", "--source", clips)
    assert "found --dataset_name shapes and --source" in line and "leave one out" in line
    said = command(*SMALL, "--source", clips, "--dry_run", "--start", "torch")
    assert said.code == 0 and "only the clips were read" in said.out
