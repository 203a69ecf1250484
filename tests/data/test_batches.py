"""data/batches.py and data/base.py: a batch is its number's alone, windows lie inside clips, frames arrive as they are."""

import numpy as np
import pytest
import torch

from data.base import Clips, Dataset, fingerprint
from data.batches import FrameStore, Sampler
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips():
    """Seven of twelve clips of five frames; each pixel of clip c at time t tells both."""
    frames = np.zeros((12, 5, 64, 64, 3), np.uint8)
    frames += (10 * np.arange(12, dtype=np.uint8))[:, None, None, None, None]
    frames += np.arange(5, dtype=np.uint8)[None, :, None, None, None]
    frames[..., 0] += 100  # channels differ
    labels = {"who": np.arange(12) // 3}
    return Clips(frames, labels, np.array([11, 0, 1, 2, 3, 4, 10]))


def test_a_batch_is_its_seed_and_number_alone(clips):
    one, other = Sampler(clips, 3, seed=(0, 1)), Sampler(clips, 3, seed=(0, 1))
    for step in (5, 0, 5):
        one.draw(1, 7), one.pick(3, 7, 5, 2)
        for mine, same in zip(one.draw(step, 7), other.draw(step, 7)):
            assert np.array_equal(mine, same)
        assert np.array_equal(one.pick(step, 7, 5, 2), other.pick(step, 7, 5, 2))
    drawn = [Sampler(clips, 3, seed=seed).draw(step, 50) for seed in ((0, 1), (0, 0), (1, 1)) for step in (0, 1)]
    assert len({(clip.tobytes(), time.tobytes()) for clip, time in drawn}) == 6


def test_windows_lie_inside_clips_and_reach_everywhere(clips):
    clip, time = Sampler(clips, 3).draw(0, 500)
    assert clip.shape == time.shape == (500, 3)
    assert (clip == clip[:, :1]).all() and (np.diff(time, axis=1) == 1).all()
    assert set(clip.ravel()) == set(range(7)) and set(time[:, 0]) == {0, 1, 2}
    _, time = Sampler(clips, 5).draw(0, 10)
    assert (time == np.arange(5)).all()


def test_joined_clips_share_a_group(clips):
    clip, time = Sampler(clips, 3, group="who", joined=2).draw(0, 500)
    assert clip.shape == (500, 10)  # all frames of two clips, whatever the window
    assert (time == np.tile(np.arange(5), 2)).all()
    first, second = clip[:, 0], clip[:, 5]
    assert (clip[:, :5] == first[:, None]).all() and (clip[:, 5:] == second[:, None]).all()
    who = clips.label("who")
    assert (who[first] == who[second]).all() and (first != second).all()
    drawn = np.bincount(who[first])[[0, 1, 3]]
    assert (drawn > 130).all(), "groups are drawn evenly, however many clips they have"


def test_a_group_of_one_clip_is_joined_with_itself(clips):
    alone = Clips(clips.frames, {"who": np.arange(12)}, np.arange(4))
    clip, _ = Sampler(alone, 3, group="who", joined=2).draw(0, 20)
    assert (clip == clip[:, :1]).all()


def test_picked_positions_ascend_and_do_not_repeat(clips):
    picked = Sampler(clips, 3).pick(0, 300, 16, 6)
    assert picked.shape == (300, 6) and (np.diff(picked, axis=1) > 0).all()
    assert set(picked.ravel()) == set(range(16))


def test_frames_arrive_as_they_are(clips):
    store = FrameStore(clips, CPU)
    clip, time = Sampler(clips, 3).draw(0, 6)
    frames = store.pick(clip, time)
    assert frames.shape == (6, 3, 3, 64, 64) and frames.dtype == torch.float32
    true = clips.frames[clips.index[clip], time].transpose(0, 1, 4, 2, 3)  # clip is a row of the split, not of the set
    assert np.array_equal(frames.numpy(), true.astype(np.float32) / 255)
    assert 0 <= frames.min() and frames.max() <= 1


def test_a_store_reads_a_memory_map(clips, tmp_path):
    np.save(tmp_path / "frames.npy", clips.frames)
    mapped = Clips(np.load(tmp_path / "frames.npy", mmap_mode="r"), clips.labels, clips.index)
    clip, time = Sampler(clips, 3).draw(0, 6)
    assert torch.equal(FrameStore(mapped, CPU).pick(clip, time), FrameStore(clips, CPU).pick(clip, time))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_store_on_a_gpu_gives_the_same_frames(clips):
    store = FrameStore(clips, torch.device("cuda"))
    assert store.resident is not None
    clip, time = Sampler(clips, 3).draw(0, 6)
    assert torch.allclose(store.pick(clip, time).cpu(), FrameStore(clips, CPU).pick(clip, time), atol=1e-7)


def test_take(clips):
    assert np.array_equal(clips.take([0, 2]), clips.frames[[11, 1]])
    assert np.array_equal(clips.take([0, 2], 1, 3), clips.frames[[11, 1], 1:4])
    several = clips.take([0, 2], [2, 0], 3)
    assert np.array_equal(several, np.stack([clips.frames[11, 2:5], clips.frames[1, :3]]))
    taken = clips.take([0])
    taken[:] = 0
    assert clips.frames[11].any(), "not a copy"
    assert clips.label("who").tolist() == [3, 0, 0, 0, 1, 1, 3] and clips.label("who", [0]).tolist() == [3]


def test_too_few_frames(clips):
    splits = {name: np.arange(2) for name in ("train", "val", "test")}
    dataset = Dataset("own", clips.frames, clips.labels, {}, splits, (), (), "")
    dataset.need_frames(5)
    with pytest.raises(UserError, match="5 frames and --seq_len asks for 6: use --seq_len 5"):
        dataset.need_frames(6)


def test_fingerprint_sees_a_pixel_a_label_and_the_split(clips):
    splits = {"train": clips.index}
    known = fingerprint(clips.frames, clips.labels, splits)
    assert known == fingerprint(clips.frames.copy(), {"who": clips.labels["who"].copy()}, splits)
    changed = clips.frames.copy()
    changed[7, 3, 5, 5, 1] += 1
    assert known != fingerprint(changed, clips.labels, splits)
    assert known != fingerprint(clips.frames, {"who": clips.labels["who"][::-1]}, splits)
    assert known != fingerprint(clips.frames, clips.labels, {"train": clips.index[::-1]})
