"""share.py: models that travel in one file."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import share
from metrics.card import as_markdown, compared
from models import load
from pictures.files import save_gif, save_mp4
from tests.runs import tree
from tests.test_api import clips
from tests.test_docs import commands
from utils import hub, weights_file
from utils.errors import UserError

RUN = "--RUN", "demo", "--device", "cpu", "--threads", "1"


@pytest.fixture
def altered(exported, tmp_path):
    """altered(change): the path of a file after change(tensors, card), with its digest renewed."""

    def write(change):
        tensors, card = weights_file.load(exported / "whole.safetensors")
        change(tensors, card)
        weights_file.save(tmp_path / "altered.safetensors", tensors, card)
        return tmp_path / "altered.safetensors"

    return write


# --- export and reading ---


def test_the_file_is_the_model_of_the_run(exported, trained_once):
    model, there = load(exported / "whole.safetensors"), load(trained_once / "runs" / "demo")
    x = clips(2, 16)
    assert np.array_equal(model.swap(*x), there.swap(*x))
    assert np.array_equal(model.sample(3, seed=1), there.sample(3, seed=1))
    assert (model.epochs, model.info, model.seq_len) == (there.epochs, there.info, there.seq_len)
    codes = model.clips
    assert codes.static.shape == (8, 3) and len(codes.dynamic) == 8


def test_half_precision_is_stored_and_full_precision_computes(exported):
    whole, half = (load(exported / f"{name}.safetensors") for name in ("whole", "half"))
    sizes = [model.path.stat().st_size for model in (whole, half)]
    assert sizes[1] < 0.7 * sizes[0]
    for name, tensor in half.view.network.state_dict().items():
        expected = whole.view.network.state_dict()[name]
        assert tensor.dtype == expected.dtype
        kept = ".whiten." in name
        assert torch.equal(tensor, expected if kept else expected.half().float()), name


def test_statistics_of_a_whitening_stay_in_float32():
    weights = {name: torch.tensor([7e4 / 3]) for name in ("a.weight", "identity.whiten.covariance")}
    stored = share._rounded(weights, True, "x.pth")
    assert [tensor.dtype for tensor in stored.values()] == [torch.float16, torch.float32]
    with pytest.raises(UserError, match="'a.weight' is out of range"):
        share._rounded({"a.weight": torch.tensor([7e4])}, True, "x.pth")


def test_the_card_says_what_the_model_is(exported, trained_once):
    card, page = load(exported / "half.safetensors").card, (exported / "half.md").read_text()
    state = torch.load(trained_once / "runs/demo/checkpoints/3_VDSM_seq.pth", weights_only=True)
    assert card["data"]["fingerprint"] == state["data"]
    assert card["data"]["clips"] == {"train": 16, "val": 8, "test": 8}
    assert "MIT" in card["data"]["licence"] and card["precision"] == "half"
    assert [" --train_VDSMEncDec True" in line for line in card["trained with"]] == [True, False]
    assert page == as_markdown(card)
    for text in (json.dumps(card), page):
        assert str(trained_once) not in text and "data_dir" not in text and "runs_dir" not in text


def test_the_same_export_is_the_same_file(exported, trained, command, tmp_path):
    assert command(*RUN, "--export_weights", "a.safetensors").code == 0
    again = (tmp_path / "a.safetensors").read_bytes()
    assert again == (exported / "whole.safetensors").read_bytes()


def test_figures_are_measured_with_the_stored_weights(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("metrics.evaluate.Evaluation.wanted", ())  # the reconstructions alone
    before = tree(trained)
    said = command(*RUN, "--export_weights", "a.safetensors", "--half", "--evaluate", "dci")
    assert said.code == 0 and not said.err, said
    figures = load(tmp_path / "a.safetensors").card["figures"]["reconstruction"]
    assert figures["seq_reconstruction_psnr"]["value"] > 0
    assert figures["seq_reconstruction_ssim"]["standard error"] > 0
    assert "weights" not in load(tmp_path / "a.safetensors").card["measured"]
    assert tree(trained) == before
    said = command("--weights", "a.safetensors", "--evaluate", "dci", *RUN[2:])
    assert said.code == 0 and said.out.endswith("the figures of the card, but for roundings\n")
    model = load(tmp_path / "a.safetensors")
    tensors, card = weights_file.load(tmp_path / "a.safetensors")
    for name, tensor in tensors.items():
        if "decoder" in name:
            tensor += 0.5
    weights_file.save(tmp_path / "b.safetensors", tensors, card)
    said = command("--weights", "b.safetensors", "--evaluate", "dci", *RUN[2:])
    assert f" and {figures['seq_reconstruction_psnr']['value']} in the card" in said.out
    assert model.card["measured"]["n"] == 8


def test_figures_of_the_run_go_into_the_card(command, trained, tmp_path):
    notes = {
        "data": "pendulum", "split": "test", "n": 8, "epoch": 3, "spread": {"psnr": 0.5},
        "figures": ["psnr"],
        "protocols": {"dci": {"figures": ["psnr"], "seed spread": {}, "is": "", "warnings": []}},
    }  # fmt: skip
    text = json.dumps({"psnr": 20.5, "details": {"Seq": notes}})
    (trained / "metrics.json").write_text(text)
    said = command(*RUN, "--export_weights", "a.safetensors", "--half")
    card = load(tmp_path / "a.safetensors").card
    expected = {"value": 20.5, "standard error": 0.5, "over seeds": None}
    assert card["figures"] == {"dci": {"psnr": expected}} and not said.err
    assert "before they were rounded" in card["measured"]["weights"]
    assert "| psnr | 20.5 | 0.5 | – |" in (tmp_path / "a.md").read_text()
    # those of another epoch do not
    (trained / "metrics.json").write_text(text.replace('"epoch": 3', '"epoch": 2'))
    said = command(*RUN, "--export_weights", "b.safetensors")
    assert "has no figures of this checkpoint" in said.err
    assert "None were measured." in (tmp_path / "b.md").read_text()


def test_figures_are_compared_with_those_of_the_same_clips_alone():
    figure = {"psnr": {"value": 20.0}}
    card = {"figures": {"dci": figure}, "measured": {"n": 8, "split": "test"}}
    assert compared(card, {"dci": figure}, "test")[0].startswith("the figures of the card")
    both = compared(card, {"dci": {"psnr": {"value": 30.0}}, "swap": {}}, "test")
    assert both == ["psnr is 30.0 here and 20.0 in the card", "not in the card: swap"]
    nothing = "the card has no figures of"
    assert compared(card, {"dci": figure}, "val")[0].startswith(nothing)
    assert compared(card, {"swap": {}}, "test")[0].startswith(nothing)
    # as of an export of a run that was not measured
    empty = {"figures": {}, "measured": {}}
    assert compared(empty, {"dci": figure}, "test")[0].startswith(nothing)


def test_stage_1_alone_and_other_models(command, trained, tmp_path, no_pictures):
    for path in (trained / "checkpoints").glob("*_seq*"):
        path.unlink()
    small = "--width 4 --hidden 8 --f_dim 4 --seq_len 6 --bs 2 --bs_per_epoch 1 --epochs 1".split()
    train = "--model unordered --dataset_name pendulum --train True --tboard_log False".split()
    assert command("--RUN", "other", *train, *small, *RUN[2:], "--num_test_ids", 2).code == 0
    for run, stage, frames in (("demo", "EncDec", 16), ("other", "Unordered", 6)):
        given = "--RUN", run, "--export_weights", f"{run}.safetensors", *RUN[2:]
        assert command(*given).code == 0
        model = load(tmp_path / f"{run}.safetensors")
        assert (model.info.name, model.sample(1, seed=0).shape[1]) == (stage, frames)
        assert np.array_equal(model.sample(1, seed=0), load(model.path).sample(1, seed=0))
        said = command("--show", "--weights", f"{run}.safetensors", *RUN[2:])
        assert said.code == 0 and f"trained on {frames}" not in said.out, said


def test_commands_on_files_take_it(command, refused, exported, tmp_path):
    # --export_weights takes a suffix in capitals too
    file = shutil.copy(exported / "whole.safetensors", tmp_path / "WHOLE.SAFETENSORS")
    given = "--weights", file, *RUN[2:], "--out", "o.npz"
    assert command(*given, "--generate", 2, "--seed", 1).code == 0
    with np.load(tmp_path / "o.npz") as made:
        assert np.array_equal(made["frames"], load(file).sample(2, seed=1))
    assert "found no such file" in refused("--weights", "no", "--generate", 2, "--out", "p.gif")


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--export_weights a.pth", "expected a name that ends in .safetensors"),
        ("--export_weights old.safetensors", "old.safetensors is already there"),
        ("--export_weights page.safetensors", "page.md is already there"),
        ("--export_weights no/a.safetensors", "found no folder no"),
        ("--export_weights a.safetensors --RUN other", "found no checkpoint in runs/other"),
        ("--export_weights a.safetensors --weights b", "found --weights and --export_weights"),
        ("--export_weights a.safetensors --generate 3", "found --generate and --export_weights"),
        ("--export_weights a.safetensors --push_to me", "found 'me', expected hf://USER/NAME"),
        ("--push_to me/model", "--push_to needs a file"),
        ("--show --export_weights a.safetensors", "found --show beside --export_weights"),
        ("--show --out a.gif", "--out is not for --show"),
        ("--weights old.safetensors --select best --show", "--select best chooses a checkpoint"),
        ("--weights old.safetensors", "needs a task"),
        ("--weights old.safetensors --show", "old.safetensors is truncated, damaged or no weights"),
        ("--weights absent.safetensors --show", "found no such file"),
        ("--weights runs/demo/checkpoints/3_VDSM_seq.pth --show", "is no .safetensors file"),
        ("--weights runs/demo/checkpoints/3_VDSM_seq.pth --evaluate dci", "is no .safetensors"),
        ("--half", "--half True is for --export_weights FILE"),
        ("--export_weights a.safetensors --stage2.half", "this flag is of the whole run"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(refused, trained, tmp_path, flags, words):
    for name in ("old.safetensors", "page.md"):
        (tmp_path / name).write_text("text")
    before = tree(tmp_path)
    assert words in refused(*RUN, *flags.split())
    assert tree(tmp_path) == before


def test_other_data_are_refused(refused, trained, monkeypatch):
    from data import pendulum
    from tests.conftest import few

    monkeypatch.setattr(pendulum, "make", lambda *given, **more: few(seed=1))
    assert "was trained on other data" in refused(*RUN, "--export_weights", "a.safetensors")


# --- damaged and hostile files ---


def test_every_flipped_byte_and_every_cut_is_noticed(exported, tmp_path):
    content, path = (exported / "half.safetensors").read_bytes(), tmp_path / "bad.safetensors"
    rng = np.random.default_rng(0)
    header = int.from_bytes(content[:8], "little")
    places = [*range(8), *rng.integers(8, 8 + header, 30), *rng.integers(header, len(content), 8)]
    for place in places:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :]
        )
        with pytest.raises(UserError, match="bad.safetensors"):
            load(path)
    for length in (0, 5, 8, 100, header, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="is truncated, damaged or no weights file"):
            load(path)


def setting(name, value):
    return lambda tensors, card: card["settings"].update({name: value})


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t, c: c.update(format="other 2"), "is of another version .'other 2'"),
        (lambda t, c: c.pop("settings"), "holds no model of this program .'settings'"),
        (lambda t, c: c.update(stage="none"), "holds no model of this program"),
        (lambda t, c: c.update(epochs="many"), "holds no model of this program"),
        (lambda t, c: c.update(data=[]), "holds no model of this program"),
        (lambda t, c: c.update(figures={"a": {"b": {"value": "x"}}}), "holds no model"),
        (lambda t, c: c.update(figures={"a": {"b": {"value": 1}}}), "holds no model"),  # of no n
        (lambda t, c: c.update(measured="text"), "holds no model of this program"),
        (lambda t, c: c.pop("precision"), "holds no model of this program .'precision'"),
        (setting("model", "vae"), "holds no model of this program .'vae'"),
        (setting("model", []), "holds no model of this program"),
        (setting("dataset_name", "none"), "invalid choice: 'none'"),
        (setting("data_dir", "/etc"), "setting 'data_dir' is of another version"),
        (setting("z_dim", "large"), "--z_dim: found 'large', expected an integer"),
        (setting("z_dim", 10**9), "--z_dim: found '1000000000', expected a number"),
        (setting("rnn_layers", 10**5), "--rnn_layers: found '100000', expected a number"),
        (setting("rnn_dim", 10**6), "expected .1, 1, 1000000."),
        (setting("seq_len", 10**5), "--seq_len is 100000, expected at most 10000"),
        (setting("dec_widths", [4, 4]), "--dec_widths 4,4: expected 4 integers"),
        (setting("n_e_w", 9), "is .3, .*, expected .9, "),
        (lambda t, c: c["clips"].pop(), "it names 7 clips"),
        (lambda t, c: t.update(more=torch.zeros(1)), "it has a tensor 'more'"),
        (lambda t, c: t.update({"a/b": torch.zeros(1)}), "it has a tensor 'a/b'"),
        (lambda t, c: t.pop("combiner.z_0"), "it has no tensor 'combiner.z_0'"),
        (lambda t, c: t["combiner.z_0"].fill_(np.nan), "'combiner.z_0' that is not finite"),
        (lambda t, c: t.pop("clips/static"), "'clips/static'"),
        (lambda t, c: t.update({"clips/static": torch.zeros(8, 5)}), "codes that do not fit"),
        (lambda t, c: t.pop("density/s.means"), "'s.means'"),
        (lambda t, c: t.update({"density/s.means": torch.zeros(1, 9)}), "has other shapes"),
    ],
)
def test_hostile_files_are_refused_in_one_line(altered, change, words):
    with pytest.raises(UserError, match=words) as refusal:
        load(altered(change))
    assert "altered.safetensors" in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_no_weights_file(tmp_path, exported, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    for write in (
        lambda: torch.save({"a": torch.zeros(1)}, path),
        lambda: save_file({"a": torch.zeros(1)}, path),
        lambda: save_file({"a": torch.zeros(1)}, path, {"card": "[" * 10**5}),
        lambda: save_file({"a": torch.zeros(1)}, path, {"card": "3"}),
        lambda: path.write_bytes(b"\xff" * 100),
    ):
        write()
        with pytest.raises(UserError, match="is truncated, damaged or no weights file"):
            load(path)
    monkeypatch.setattr(weights_file, "memory", lambda: (1000, "test"))
    with pytest.raises(UserError, match="expected at most 250"):
        load(exported / "whole.safetensors")
    import os

    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(UserError, match="is a pipe"):
        load(tmp_path / "pipe.safetensors")


# --- the Hub ---


@pytest.fixture
def folder_as_hub(tmp_path, monkeypatch):
    """The Hub as a folder, behind the calls of huggingface_hub as it declares them."""
    from unittest.mock import create_autospec

    import huggingface_hub

    place = tmp_path / "hub"

    def create_commit(name, operations, **_):
        for operation in operations:
            with operation.as_file() as file:
                (place / name / operation.path_in_repo).write_bytes(file.read())

    instance = create_autospec(huggingface_hub.HfApi, instance=True)
    instance.create_repo.side_effect = lambda name, **_: (place / name).mkdir(
        parents=True, exist_ok=True
    )
    instance.create_commit.side_effect = create_commit
    download = create_autospec(huggingface_hub.hf_hub_download)
    download.side_effect = lambda name, file: str((place / name / file).resolve(strict=True))
    fake = SimpleNamespace(
        HfApi=lambda: instance,
        hf_hub_download=download,
        CommitOperationAdd=huggingface_hub.CommitOperationAdd,
    )
    monkeypatch.setattr(hub, "package", lambda: fake)
    return place


def test_push_and_pull(command, refused, trained, tmp_path, exported, folder_as_hub):
    said = command(*RUN, "--export_weights", "a.safetensors", "--push_to", "me/model")
    assert said.code == 0 and "uploaded a.safetensors: hf://me/model" in said.out
    uploaded = folder_as_hub / "me" / "model"
    assert (uploaded / "README.md").read_text() == (tmp_path / "a.md").read_text()
    x = clips(2, 16)
    pulled = load("hf://me/model")
    assert np.array_equal(pulled.swap(*x), load(tmp_path / "a.safetensors").swap(*x))
    assert command("--weights", "hf://me/model", "--generate", 1, "--out", "o.gif").code == 0
    assert command("--weights", "a.safetensors", "--push_to", "me/other").code == 0
    line = refused("--weights", "hf://me/absent", "--show")
    assert "hf://me/absent: FileNotFoundError" in line and "check the name, the network" in line
    for name in ("hf://model", "hf://../x", "hf://a/b/c"):
        with pytest.raises(UserError, match="expected hf://USER/NAME"):
            load(name)


def test_the_commands_of_the_page(command, trained, tmp_path, exported, folder_as_hub, monkeypatch):
    (tmp_path / "weights").mkdir()
    shutil.copy(exported / "half.safetensors", tmp_path / "weights" / "pendulum.safetensors")
    monkeypatch.setattr("share.ALL_MODELS", tmp_path / "weights")
    monkeypatch.setattr("metrics.evaluate.Evaluation.wanted", ())
    save_gif(tmp_path / "b.gif", clips(1, 16)[0], 10)
    save_mp4(tmp_path / "a.mp4", clips(1, 16)[0], 10)
    page = Path(share.__file__).with_name("docs") / "WEIGHTS.md"
    lines = [line for line in commands(page.read_text()) if line.startswith("python main.py")]
    assert len(lines) == 9
    for line in lines:
        said = command(*shlex.split(line.split(" #")[0])[2:], *RUN[2:])
        assert said.code == 0, (line, said)


def test_without_the_package_or_the_network(refused, trained, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        line = refused("--weights", "hf://me/model", "--show")
        assert "hf://me/model: LocalEntryNotFoundError: " in line and "check the name" in line
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for flags in (
        ("--export_weights", "a.safetensors", "--push_to", "me/model", *RUN),
        ("--weights", "hf://me/model", "--show"),
    ):
        assert 'pip install -e ".[hub]"' in refused(*flags)
    assert not (tmp_path / "a.safetensors").exists()
