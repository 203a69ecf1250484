"""data/batches.py and data/base.py: a batch depends on its number alone; windows lie in clips."""

import dataclasses

import numpy as np
import pytest
import torch

from data.base import Clips, Dataset, fingerprint
from data.batches import Batches, move
from utils.errors import UserError

CPU = torch.device("cpu")


def batches(clips, seq_len, device=CPU, **options):
    return Batches(clips, device, seq_len, 7, **options)


LENGTHS = {"uniform": np.full(12, 5), "ragged": np.array([5, 7, 3, 5, 9, 4, 3, 3, 3, 5, 6, 8])}
INDEX = np.array([11, 0, 1, 2, 3, 4, 10])


def make(lengths):
    """Seven of twelve clips; each pixel of clip c at time t tells both."""
    clip = np.repeat(np.arange(12), lengths)
    time = np.concatenate([np.arange(length) for length in lengths])
    frames = np.zeros((len(clip), 64, 64, 3), np.uint8)
    frames += (10 * clip + time).astype(np.uint8)[:, None, None, None]
    frames[..., 0] += 100  # channels differ
    frames[:, :, :5, 2] += 1  # and so do left and right
    return Clips(frames, lengths, {"who": np.arange(12) // 3}, INDEX)


@pytest.fixture(scope="module")
def clips():
    return make(LENGTHS["uniform"])


@pytest.fixture(scope="module", params=LENGTHS)
def any_clips(request):
    return make(LENGTHS[request.param])


def told(frames):
    """Which clip and time the pixels of frames [..., 64, 64, 3] tell."""
    return np.divmod(frames[..., 9, 9, 1], 10)


def test_a_batch_is_its_seed_and_number_alone(any_clips):
    def made(seed=(0, 1)):
        return batches(any_clips, 3, seed=seed, flips=True)

    one, other = made(), made()
    for step in (5, 0, 5):
        one.draw(1, 7), one.pick(3, 7, 5, 2)
        for mine, same in zip(one.draw(step, 7), other.draw(step, 7)):
            assert np.array_equal(mine, same)
        assert np.array_equal(one.pick(step, 7, 5, 2), other.pick(step, 7, 5, 2))
    drawn = [made(seed).draw(step, 50) for seed in ((0, 1), (0, 0), (1, 1)) for step in (0, 1)]
    for part in zip(*drawn):
        assert len({array.tobytes() for array in part}) == 6


def test_batches_of_clips_of_one_length_are_those_of_earlier_versions(clips):
    clip, time, flip = batches(clips, 3, seed=(3, 1, False)).draw(8, 8)
    assert clip[:, 0].tolist() == [1, 2, 3, 3, 0, 2, 1, 6] and time[:, 0].tolist() == [
        1,
        0,
        2,
        0,
        0,
        2,
        0,
        1,
    ]
    assert not flip.any()


def test_windows_lie_inside_clips_and_reach_everywhere(any_clips):
    clip, time, _ = batches(any_clips, 3).draw(0, 900)
    assert clip.shape == time.shape == (900, 3)
    assert (clip == clip[:, :1]).all() and (np.diff(time, axis=1) == 1).all()
    for row, length in enumerate(any_clips.lengths[INDEX]):
        assert set(time[clip[:, 0] == row, 0]) == set(range(length - 2))


def test_flips_take_half_of_the_samples_whole(clips):
    _, _, flip = batches(clips, 3, flips=True).draw(0, 500)
    assert flip.shape == (500, 3) and (flip == flip[:, :1]).all() and 200 < flip[:, 0].sum() < 300
    same, other = (batches(clips, 3, flips=flips).draw(0, 500)[0] for flips in (True, False))
    assert np.array_equal(same, other), "windows are drawn alike"


def test_frozen_windows_and_flips_are_drawn_once(any_clips):
    sampler = batches(any_clips, 3, flips=True, frozen=True)
    clip, time, flip = (
        np.concatenate(part) for part in zip(*(sampler.draw(step, 50) for step in range(9)))
    )
    for row in range(7):
        seen = clip[:, 0] == row
        assert (time[seen] == time[seen][0]).all() and (flip[seen] == flip[seen][0]).all()
    assert (flip.any(1) & ~flip.all(1)).any(), "frame by frame"
    assert not np.array_equal(sampler.start, batches(any_clips, 3, seed=(1,), frozen=True).start)


def test_joined_clips_share_a_group(clips):
    clip, time, _ = batches(clips, 3, group="who", joined=2).draw(0, 500)
    assert clip.shape == (500, 10)  # all frames of two clips, whatever the window
    assert (time == np.tile(np.arange(5), 2)).all()
    first, second = clip[:, 0], clip[:, 5]
    assert (clip[:, :5] == first[:, None]).all() and (clip[:, 5:] == second[:, None]).all()
    who = clips.label("who")
    assert (who[first] == who[second]).all() and (first != second).all()
    drawn = np.bincount(who[first])[[0, 1, 3]]
    assert (drawn > 130).all(), "groups are drawn evenly, however many clips they have"


def test_a_group_of_one_clip_is_joined_with_itself(clips):
    alone = Clips(clips.frames, clips.lengths, {"who": np.arange(12)}, np.arange(4))
    clip, *_ = batches(alone, 3, group="who", joined=2).draw(0, 20)
    assert (clip == clip[:, :1]).all()


def test_distinct_batches_take_a_clip_at_most_once(any_clips):
    sampler = batches(any_clips, 3, distinct=True)
    drawn = np.stack([sampler.draw(step, 4)[0][:, 0] for step in range(300)])
    assert all(len(set(rows)) == 4 for rows in drawn)
    assert (abs(np.bincount(drawn.ravel()) / 300 - 4 / 7) < 0.1).all(), "all alike"
    repeated = np.stack([batches(any_clips, 3).draw(step, 4)[0][:, 0] for step in range(300)])
    assert any(len(set(rows)) < 4 for rows in repeated)
    # A batch beyond the number of clips takes each once, and counts as that many sequences.
    more = Batches(any_clips, CPU, 3, 20, distinct=True)
    assert more.size == 7 and sorted(more.draw(0)[0][:, 0]) == [*range(7)]


def test_a_clip_of_the_release_may_be_joined_with_itself(clips):
    """Both actions of a character are drawn independently, from all of its clips."""
    many = Clips(clips.frames, clips.lengths, {"who": np.arange(12) // 4}, np.arange(12))
    sampler = batches(many, 3, group="who", joined=2, distinct=True)
    clip = np.concatenate([sampler.draw(step, 5)[0] for step in range(200)])
    assert clip.shape == (1000, 10)
    first, second = clip[:, 0], clip[:, 5]
    assert (first // 4 == second // 4).all()
    assert (first == second).mean() == pytest.approx(1 / 4, abs=0.05)
    for row in range(12):
        assert (first == row).mean() == pytest.approx(1 / 12, abs=0.03)
    # A character comes at most as often as it has clips: 4 of 12 in a batch of 12.
    whole, _, _ = sampler.draw(0, 12)
    assert np.bincount(many.label("who")[whole[:, 0]]).tolist() == [4, 4, 4]


def test_stage_2_of_the_release_draws_a_character_and_then_an_action(clips):
    many = Clips(clips.frames, clips.lengths, {"who": np.arange(12) // 4}, np.arange(12))
    clip, time, _ = batches(many, 3, group="who", distinct=True).draw(0, 12)
    assert clip.shape == time.shape == (12, 3)
    assert np.bincount(many.label("who")[clip[:, 0]]).tolist() == [4, 4, 4]
    assert len(set(clip[:, 0])) < 12, "an action can come twice"


def test_picked_positions_ascend_and_do_not_repeat(clips):
    picked = batches(clips, 3).pick(0, 300, 16, 6)
    assert picked.shape == (300, 6) and (np.diff(picked, axis=1) > 0).all()
    assert set(picked.ravel()) == set(range(16))


def test_frames_arrive_as_they_are(any_clips):
    store = batches(any_clips, 3)
    clip, time, _ = batches(any_clips, 3).draw(0, 6)
    frames = store.frames(clip, time)
    assert frames.shape == (6, 3, 3, 64, 64) and frames.dtype == torch.float32
    pixels = (frames * 255).round().byte().movedim(2, -1).numpy()
    assert np.array_equal(
        told(pixels), (INDEX[clip], time)
    )  # clip is a row of the split, not of the set
    assert np.array_equal(frames[..., 0, 9, 9].numpy() * 255, pixels[..., 9, 9, 1] + 100.0)
    mirrored = store.frames(clip, time, np.array([[True, False, True]] * 6))
    assert torch.equal(mirrored[:, ::2], frames[:, ::2].flip(-1)) and torch.equal(
        mirrored[:, 1], frames[:, 1]
    )


def test_a_store_reads_a_memory_map(any_clips, tmp_path):
    np.save(tmp_path / "frames.npy", any_clips.frames)
    mapped = dataclasses.replace(any_clips, frames=np.load(tmp_path / "frames.npy", mmap_mode="r"))
    clip, time, _ = batches(any_clips, 3).draw(0, 6)
    assert torch.equal(
        batches(mapped, 3).frames(clip, time), batches(any_clips, 3).frames(clip, time)
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_store_on_a_gpu_gives_the_same_frames(any_clips):
    store = batches(any_clips, 3, torch.device("cuda"))
    assert store.resident is not None
    batch = batches(any_clips, 3, flips=True).draw(0, 6)
    assert torch.allclose(
        store.frames(*batch).cpu(), batches(any_clips, 3).frames(*batch), atol=1e-7
    )


def test_a_split_moves_block_by_block(any_clips):
    moved = move(any_clips, CPU, block=4)
    clip, time = any_clips.every_frame()
    assert np.array_equal(told(moved.numpy()), (INDEX[clip], time))
    store = batches(any_clips, 3)
    clip, time, _ = batches(any_clips, 3).draw(0, 6)
    mapped, store.resident = store.frames(clip, time), moved
    assert torch.equal(store.frames(clip, time), mapped)


def test_every_frame_in_order(any_clips):
    clip, time = any_clips.every_frame()
    assert np.array_equal(any_clips.rank[clip] + time, np.arange(any_clips.lengths[INDEX].sum()))
    assert np.array_equal(told(any_clips.frames[any_clips.first[clip] + time]), (INDEX[clip], time))


def test_take(any_clips):
    assert any_clips.num_frames == any_clips.lengths[INDEX].min()
    assert np.array_equal(
        told(any_clips.take([0, 2]))[0], [[11] * any_clips.num_frames, [1] * any_clips.num_frames]
    )
    assert np.array_equal(told(any_clips.take([0, 2], 1, 3))[1], [[1, 2, 3]] * 2)
    clip, time = told(any_clips.take([0, 2], [2, 0], 3))
    assert np.array_equal(clip, [[11] * 3, [1] * 3]) and np.array_equal(
        time, [[2, 3, 4], [0, 1, 2]]
    )
    any_clips.take([0])[:] = 0
    assert any_clips.frames[any_clips.first[0]].any(), "not a copy"
    with pytest.raises(IndexError):
        any_clips.take([2], int(any_clips.lengths[1]) - 2, 3)  # would run into the next clip
    assert any_clips.label("who").tolist() == [3, 0, 0, 0, 1, 1, 3] and any_clips.label(
        "who", [0]
    ).tolist() == [3]


def test_too_few_frames(any_clips):
    splits = {"train": INDEX[2:], "val": INDEX[:1], "test": INDEX[1:2]}
    dataset = Dataset(
        "own", any_clips.frames, any_clips.lengths, any_clips.labels, {}, splits, (), (), ""
    )
    shortest = int(any_clips.lengths[INDEX].min())
    dataset.need_frames(shortest)
    with pytest.raises(
        UserError, match=f"{shortest} frames and --seq_len asks for 6: use --seq_len {shortest}"
    ):
        dataset.need_frames(6)


@pytest.mark.parametrize("group", [None, "who"])
def test_a_subset_keeps_the_splits_apart_and_their_shares(group):
    splits = {"train": np.arange(0, 60), "val": np.arange(60, 72), "test": np.arange(72, 96)}
    labels = {"who": np.arange(96) // 6}
    frames = np.zeros((96, 64, 64, 3), np.uint8)
    whole = Dataset("own", frames, np.ones(96, int), labels, {}, splits, (), (), "known", group)
    part = whole.subsample(32, 0)
    assert {name: len(rows) for name, rows in part.splits.items()} == {
        "train": 20,
        "val": 4,
        "test": 8,
    }
    assert all(set(part.splits[name]) < set(splits[name]) for name in splits)
    assert part.frames is whole.frames, "nothing is copied"
    assert (
        part.fingerprint
        == whole.subsample(32, 0).fingerprint
        != whole.subsample(32, 1).fingerprint
        != "known"
    )
    assert (
        whole.subsample(96, 0) is whole
        and min(map(len, whole.subsample(1, 0).splits.values())) == 1
    )
    people = len(set(part.split("train").label("who")))
    assert people == 4 if group else people > 4, "whole identities, where there are such"


def test_fingerprint_sees_a_pixel_a_label_and_the_split(clips):
    splits = {"train": clips.index}
    known = fingerprint(clips.frames, clips.labels, splits)
    assert known == fingerprint(clips.frames.copy(), {"who": clips.labels["who"].copy()}, splits)
    changed = clips.frames.copy()
    changed[38, 5, 5, 1] += 1
    assert known != fingerprint(changed, clips.labels, splits)
    assert known != fingerprint(clips.frames, {"who": clips.labels["who"][::-1]}, splits)
    assert known != fingerprint(clips.frames, clips.labels, {"train": clips.index[::-1]})


def test_the_indices_of_several_steps_may_lie_on_the_device(any_clips):
    store = batches(any_clips, 3, flips=True)
    steps = [dict(zip(("clip", "time", "flip"), store.draw(step))) for step in range(3)]
    expected = [store.frames(**step) for step in steps]
    store.resident = move(any_clips, CPU)
    sent = store.send_steps([step | {"seen": i} for i, step in enumerate(steps)])
    for i, (step, frames) in enumerate(zip(sent, expected)):
        assert step.pop("seen") == i
        assert torch.equal(store.frames(**step), frames)
