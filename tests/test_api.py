"""api.py: `load` gives a trained model of any kind, from any folder, without side effects."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import api
from models import load
from pictures.files import save_gif
from tests.models import released
from utils.checkpoints import Damaged
from utils.errors import UserError
from utils.run_folder import RunFolder
from utils.settings import settings_class

SMALL = {
    "vdsm": {"z_dim": 4, "n_e_w": 3, "enc_widths": (4,) * 5, "dec_widths": (4,) * 4, "rnn_dim": 8},
    "dsa": {"width": 4, "hidden": 8, "conv_dim": 6, "rnn_dim": 5, "f_dim": 4, "z_dim": 3},
    "unordered": {"width": 4, "hidden": 8, "f_dim": 4},
}


def fresh(model, stage=-1, seq_len=5):
    """An `api.Model` with fresh weights."""
    torch.manual_seed(0)
    settings = settings_class(model)(seq_len=seq_len, **SMALL[model])
    info = settings.STAGES[stage]
    weights = info.stage().build(settings).network.state_dict()
    # twice the fresh weights, so that codes of different clips differ
    weights = {name: w * 2 if w.dim() > 1 else w for name, w in weights.items()}
    return api.Model(api.Trained(Path("none.pth"), settings, info, weights, 0), torch.device("cpu"))


def clips(count, frames=5, side=64):
    return np.random.default_rng(0).integers(0, 256, (count, frames, side, side, 3), np.uint8)


def alike(a, b):
    """Whether pictures differ by roundings alone."""
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 1


def close(a, b):
    return np.allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def demo(trained_once):
    """The tiny run as a model. Its folder is only read."""
    return load(trained_once / "runs" / "demo")


# --- from where ---


def test_a_run_and_its_checkpoints_from_another_folder(trained, tmp_path, monkeypatch, demo):
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    file = trained / "checkpoints" / "3_VDSM_seq.pth"
    moved = shutil.copy(file, tmp_path / "mine.pth")
    x = clips(1, demo.seq_len)[0]
    for place in ("../runs/demo", str(trained), trained / "checkpoints", file, moved):
        model = load(place)
        assert (model.info.name, model.epochs, model.seq_len) == ("Seq", 4, 16), place
        assert np.array_equal(model.continue_(x, 20), demo.continue_(x, 20)), place
    assert load(trained, stage=1).info.name == "EncDec"


def test_checkpoints_that_a_path_flag_placed_elsewhere(command, tmp_path, trained, monkeypatch):
    config = (trained / "config.json").read_text()
    config = config.replace('"model_save_path": null', '"model_save_path": "./models"')
    (trained / "config.json").write_text(config)
    (tmp_path / "models").mkdir()
    (trained / "checkpoints").rename(tmp_path / "models" / "demo")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert load(trained).path == tmp_path / "models" / "demo" / "3_VDSM_seq.pth"


@pytest.mark.parametrize("stage", ["EncDec", "Seq"])
def test_a_checkpoint_of_the_release(tmp_path, stage):
    path = tmp_path / "any name.pth"
    torch.save(released.checkpoint(stage, 3)[0], path)
    model = load(path)
    assert (model.info.name, model.epochs, model.settings.n_e_w) == (stage, 4, 4)
    assert model.swap(*clips(2, 20)).shape == (20, 64, 64, 3)


def test_best_is_the_checkpoint_of_the_best_validation(trained):
    newest = trained / "checkpoints" / "3_VDSM_seq.pth"
    state = torch.load(newest, weights_only=True)
    state["place"]["best"] = (1, -5.0)
    torch.save(state, newest)
    assert load(trained, select="best").path.name == "1_VDSM_seq.pth"
    assert load(trained).path == load(trained, select="last").path == newest
    newest.with_name("1_VDSM_seq.pth").unlink()
    with pytest.raises(UserError, match="1_VDSM_seq.pth is not there"):
        load(trained, select="best")
    state["place"]["best"] = None
    torch.save(state, newest)
    with pytest.raises(UserError, match="has a validation ELBO: give --select last"):
        load(trained, select="best")
    with pytest.raises(UserError, match="expected 'last' or 'best'"):
        load(trained, select="newest")


def test_what_is_no_model(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    for place, words in (
        ("absent", "found no absent"),
        ("empty", "found no checkpoint in empty"),
        ("text.pth", "text.pth is truncated or not a checkpoint"),
        ("other.pth", "other.pth is not a checkpoint of this program"),
        (trained / "config.json", "truncated or not a checkpoint"),
    ):
        with pytest.raises(UserError, match=words):
            load(place)
    with pytest.raises(UserError, match="found no checkpoint of stage 3 in"):
        load(trained, stage=3)
    path = trained / "checkpoints" / "3_VDSM_seq.pth"
    state = torch.load(path, weights_only=True)
    del state["model"]["combiner.z_0"]
    torch.save(state, path)
    with pytest.raises(Damaged, match="it has no tensor 'combiner.z_0'"):
        load(path)
    for settings in ({"model": "vae"}, {"model": ["vae"]}, 3, {"model": "dsa"}):
        torch.save({**state, "settings": settings}, path)
        with pytest.raises(Damaged, match="an unknown model|no checkpoint of this program"):
            load(path)


def test_loading_changes_nothing_for_the_user(trained_once):
    before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    model = load(trained_once / "runs" / "demo")
    model.sample(2, seed=3)
    model.encode(clips(1, 16))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_default_dtype(), torch.get_num_threads()) == before[1:]


# --- what it does ---


@pytest.mark.parametrize("model, stage", [("vdsm", 0), ("vdsm", 1), ("dsa", 0), ("unordered", 0)])
def test_every_model_encodes_decodes_swaps_and_samples(monkeypatch, model, stage):
    model, x = fresh(model, stage), clips(2)
    x[1] //= 4  # another kind of clip
    codes = model.encode(x)
    assert not any(np.allclose(*code, atol=0.01) for code in codes)
    for i in range(2):
        assert all(map(close, model.encode(x[i]), (code[i] for code in codes)))
    assert all(map(close, model.encode(x / np.float32(255)), codes))
    made, seen = model.decode(*codes), []
    assert made.shape == x.shape and made.dtype == np.uint8
    doubles = (code[0].astype(float) for code in codes)
    assert alike(model.decode(*doubles, 3), made[0, :3])
    decode = model.view.decode_uint8
    monkeypatch.setattr(model.view, "decode_uint8", lambda *a: (seen.append(a), decode(*a))[1])
    for motion, identity, rows in (
        (x[0], x[1], [(1, 0)]),
        (x, x[1], [(1, 0), (1, 1)]),
        (x[0], x, [(0, 0), (1, 0)]),
        (x, x[::-1], [(1, 0), (0, 1)]),
    ):
        model.swap(motion, identity)
        static, dynamic, frames = seen[-1]
        who, what = (list(part) for part in zip(*rows))
        assert frames == 5 and close(static, codes.static[who])
        assert close(dynamic, codes.dynamic[what])
    assert model.sample(3, 7, seed=1).shape == (3, 7, 64, 64, 3)
    assert np.array_equal(model.sample(seed=1), model.sample(seed=1))
    if model.continues:
        longer = model.continue_(x[0], 9)
        assert len(longer) == 9 and alike(longer[:5], made[0])
    else:
        with pytest.raises(UserError, match="cannot continue a clip, ask for at most 5"):
            model.continue_(x[0], 9)
    tiles = model.traverse(x[0])
    assert all(t.shape[1] == 9 and t.shape[2] in (1, 5) for t in tiles.values())
    assert set(tiles) == {"vdsm": {"s", "z", *"d" * stage}}.get(model.settings.model, {"f", "z"})


def test_a_copy_by_pickle_gives_the_same(demo):
    codes, model = pickle.loads(pickle.dumps((demo.encode(clips(1, 16)[0]), demo)))
    assert np.array_equal(model.decode(*codes), demo.decode(*codes))
    assert repr(model) == repr(demo)


def test_samples_are_drawn_from_what_the_run_drew_from(trained):
    """The preset demo draws from fitted densities, which lie beside its checkpoints."""
    model, seen = load(trained), []
    for draw_from in (None, "prior", "fitted"):
        model.sample(draw_from=draw_from)
        seen.append(model.view.draw_from)
    RunFolder.densities(model.path).unlink()
    model = load(trained)
    model.sample()
    assert [*seen, model.view.draw_from] == ["fitted", "prior", "fitted", "prior"]
    with pytest.raises(UserError, match="3_VDSM_seq.fitted.npz is not there"):
        model.sample(draw_from="fitted")


# --- clips ---


def test_clips_of_all_kinds_are_read_as_a_folder_of_videos_is(tmp_path, demo):
    x = clips(1, 20)[0]
    np.save(tmp_path / "x.npy", x)
    save_gif(tmp_path / "x.gif", x, 10)
    wide = np.zeros((20, 64, 100, 3), np.uint8)
    wide[:, :, 18:82] = x
    for clip in (x, torch.from_numpy(x), tmp_path / "x.npy", str(tmp_path / "x.npy"), wide):
        assert np.array_equal(demo.read(clip), x[:16])
    assert demo.read([x, tmp_path / "x.npy"]).shape == (2, 16, 64, 64, 3)
    assert demo.read(tmp_path / "x.gif", 3).shape == (3, 64, 64, 3)
    assert np.array_equal(demo.read(wide / np.float32(255)), x[:16])


def test_a_stage_of_single_frames_takes_a_short_clip():
    x = clips(1, 2)[0]
    assert fresh("vdsm", 0).swap(x, x[:1]).shape == (2, 64, 64, 3)
    with pytest.raises(UserError, match="the clip has 2 frames, expected 5 or more"):
        fresh("vdsm").encode(x)


@pytest.mark.parametrize(
    "clip, words",
    [
        ("absent.mp4", "found no absent.mp4"),
        ("notes.txt", "notes.txt is no clip: give a video"),
        ("broken.mp4", "broken.mp4 cannot be read"),
        ("broken.npy", "cannot read broken.npy"),
        (".", ". holds no pictures"),
        (np.zeros((20, 64, 64), np.uint8), r"the clip is uint8 \[20, 64, 64\], expected uint8"),
        (np.zeros((20, 3, 64, 64), np.uint8), r"is uint8 \[20, 3, 64, 64\], expected"),
        (np.zeros((20, 64, 64, 3), int), r"is int64 \[20, 64, 64, 3\], expected"),
        (np.full((20, 64, 64, 3), 2.0), "has values from 2.0 to 2.0"),
        (np.full((20, 64, 64, 3), np.nan), "has values from nan to nan"),
        (np.zeros((0, 64, 64, 3), np.uint8), r"is uint8 \[0, 64, 64, 3\], expected"),
        (np.broadcast_to(np.uint8(0), (20, 10**4, 10**4, 3)), "expected pictures of at most"),
        ([clips(1, 20)[0], clips(1, 20)[0] / 255], "give clips of one type and length"),
    ],
)
def test_what_is_no_clip(tmp_path, monkeypatch, demo, clip, words):
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "broken.mp4", "broken.npy"):
        (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match=words):
        demo.encode(clip)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda model: model.encode(clips(1)[0], -1), "frames is -1, expected a whole number"),
        (lambda model: model.encode(clips(1)[0], 3.5), "frames is 3.5, expected a whole number"),
        (lambda model: model.sample(0), "clips is 0, expected a whole number of at least 1"),
        (lambda model: model.sample(1, 0), "frames is 0, expected a whole number of at least 1"),
        (lambda model: model.sample(1, draw_from="fit"), "draw_from is 'fit', expected 'prior'"),
        (lambda model: model.continue_(clips(1, 16)[0], 0), "frames is 0, expected a whole"),
        (lambda model: model.traverse(clips(2, 16)), "found 2 clips: give one"),
        (lambda model: load(model.path, device="gpu"), "device is 'gpu', expected 'auto'"),
        (lambda model: load(model.path, device=None), "device is None, expected 'auto'"),
        (lambda _: load(None), "place is None, expected the name of the folder of a run"),
        (lambda _: load(5), "place is 5, expected the name of"),
        (lambda model: model.sample(seed="x"), "seed is 'x', expected a whole number"),
        (lambda model: model.sample(seed=1.5), "seed is 1.5, expected a whole number"),
        (lambda model: model.sample(seed=2**64), "expected a whole number of 64 bits"),
        (lambda model: model.continue_(model.encode(clips(1, 16)), 20), "found codes, expected cl"),
        (lambda model: model.swap(model.encode(clips(1, 16)), clips(1, 16)), "found codes, expect"),
        (lambda model: model.decode("a", "b"), "found 'a', expected an array of numbers"),
    ],
)
def test_what_a_model_cannot_do(demo, call, words):
    with pytest.raises(UserError, match=words):
        call(demo)


@pytest.mark.parametrize("model, stage", [("vdsm", 0), ("vdsm", 1), ("dsa", 0), ("unordered", 0)])
def test_codes_of_other_shapes(model, stage):
    model = fresh(model, stage)
    static, dynamic = model.encode(clips(2))
    ten = (np.repeat(code, 5, 0) for code in (static, dynamic))
    assert len(model.decode(*ten)) == 10
    assert alike(model.decode(*map(torch.tensor, (static, dynamic))), model.decode(static, dynamic))
    for wrong in (
        (static[:, :-1], dynamic),
        (static, dynamic[..., :1]),
        (dynamic, static),
        (static[0], dynamic),
        (static, dynamic[0]),
        (static[:1], dynamic),
        (np.repeat(static, 5, 0), np.repeat(dynamic, 4, 0)),  # eight would be decoded
        (static[:0], dynamic[:0]),
        (static[None], dynamic[None]),
        (None, dynamic),
    ):
        with pytest.raises(
            UserError, match=rf"found static and dynamic .*, expected \[{len(static[0])}"
        ):
            model.decode(*wrong)


def test_tensors_that_numpy_does_not_take(demo):
    x = torch.rand(16, 64, 64, 3)
    for like in (x.clone().requires_grad_(), x.bfloat16()):
        assert close(demo.encode(like).static, demo.encode(like.detach().float()).static)
