"""--encoder: image networks of torchvision under the heads of the frame encoder."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import nn

from metrics.fid import ResNeXt3D
from models.vdsm import image_networks
from models.vdsm.encdec import EncDec
from models.vdsm.image_networks import ImageEncoder
from models.vdsm.seq import Seq
from models.vdsm.settings import ENCODERS, VDSMSettings
from models.vdsm.stages import EncDecStage
from tests import bf16
from tests.small_network import small_network
from tests.tiny import STAGE_1, STAGE_2, TEST, TINY
from utils.checkpoints import read_checkpoint
from utils.errors import UserError
from utils.step import Stepper

SIZES = {"z_dim": 4, "n_e_w": 3, "dec_widths": (4, 4, 4, 4), "dynamics_dim": 3, "rnn_dim": 4}
WIDTHS = {"resnet18": 512, "resnet50": 2048, "resnext50_32x4d": 2048, "inception_v3": 2048}
SMALL = [*TINY, "--encoder", "resnet18", "--epochs", 2]


@pytest.fixture
def small(monkeypatch):
    """A convolution and a batch norm in place of every network of torchvision."""
    monkeypatch.setattr(image_networks, "build", small_network)


def settings(**given):
    return VDSMSettings(encoder="resnet18", **SIZES, **given)


def frames(seed=0):
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def statistics(network):
    """The running statistics of its batch norms."""
    return {n: v.clone() for n, v in network.named_buffers() if "running" in n or "batches" in n}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# --- the networks ---


@pytest.mark.parametrize("name", ENCODERS[1:])
def test_all_of_torchvision_s_network_but_its_last_layer(name):
    with torch.device("meta"):
        encoder = ImageEncoder(4, 3, name)
        theirs = (
            torchvision.models.get_model(name, init_weights=False)
            if (inception := name == "inception_v3")
            else torchvision.models.get_model(name)
        )
    last = ("fc.", "AuxLogits.") if inception else "fc."
    shapes = {n: v.shape for n, v in theirs.state_dict().items() if not n.startswith(last)}
    assert {n: v.shape for n, v in encoder.trunk.state_dict().items()} == shapes
    assert encoder.pose.in_features == encoder.identity_hidden.in_features == WIDTHS[name]


def test_the_features_are_those_of_torchvision_s_network():
    encoder, theirs = ImageEncoder(4, 3, "resnet18").eval(), torchvision.models.resnet18().eval()
    theirs.fc = nn.Identity()
    encoder.trunk.load_state_dict(theirs.state_dict())
    x = frames()[0]
    normal = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(x), theirs(normal(x)), rtol=1e-4, atol=1e-4)
        assert [code.shape for code in encoder(x)] == [(3, 4), (3, 4), (3, 3), (3, 3)]


def test_inception_sees_pictures_in_which_four_places_are_left(monkeypatch):
    with torch.device("meta"):
        encoder, seen = ImageEncoder(4, 3, "inception_v3").train(), []
        encoder.trunk.avgpool.register_forward_hook(lambda _, x, y: seen.append(x[0].shape))
        codes = encoder(torch.rand(1, 3, 64, 64))
    assert seen == [(1, 2048, 2, 2)] and codes[0].shape == (1, 4)


# --- batch norms ---


def test_running_statistics_move_in_training_alone(small):
    network = EncDec(settings()).train()
    start = statistics(network)
    network.encoder(frames()[0])
    moved = statistics(network)
    assert not same(start, moved) and moved["encoder.trunk.bn1.num_batches_tracked"] == 1
    network.eval()
    # Outside training, the codes of a frame do not depend on the frames beside it.
    alone, together = network.encoder(frames()[0][:1]), network.encoder(frames()[0])
    torch.testing.assert_close(alone[0], together[0][:1])
    assert same(statistics(network), moved)


@pytest.mark.parametrize("frozen", ["frozen", "stage 2", "stage 2, release"])
def test_a_frozen_network_stays_as_it_is(small, frozen):
    release = {"fidelity": "release"} if "release" in frozen else {}
    network = EncDec(settings(encoder_frozen=frozen == "frozen", **release))
    whole = network if frozen == "frozen" else Seq(settings(), network)
    start = {n: v.clone() for n, v in network.encoder.trunk.state_dict().items()}
    for _ in range(2):  # before and after the loop's call of train()
        outputs = network.encoder(frames()[0])
        assert outputs[0].requires_grad == (frozen == "frozen")  # the heads train
        whole.train()
    if frozen == "frozen":
        sum(output.sum() for output in outputs).backward()
    assert all(p.grad is None for p in network.encoder.trunk.parameters())
    assert same(start, network.encoder.trunk.state_dict())
    assert not network.encoder.trunk.training and network.encoder.trunk.bn1.training is False


def test_a_frozen_network_is_not_the_optimiser_s(small):
    stage = EncDecStage(settings(encoder_frozen=True))
    stepper = Stepper(stage.trainable())
    names = stepper.names(stage.network)
    assert "encoder.pose.weight" in names and not any("trunk" in name for name in names)


# --- --precision bf16 ---


@pytest.mark.parametrize("frozen, products", [(False, 1), (True, 0)])
def test_a_convolution_that_trains_computes_in_bfloat16(small, monkeypatch, frozen, products):
    bf16.emulate(monkeypatch.setattr)
    network, dtypes = EncDec(settings(precision="bf16", encoder_frozen=frozen)).train(), []
    convolve = torch.nn.functional.conv2d

    def note(x, *rest):
        dtypes.append(x.dtype)
        return convolve(x, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", note)
    codes = network.encoder(frames()[0])
    assert dtypes == [torch.bfloat16 if products else torch.float32]
    assert {code.dtype for code in codes} == {torch.float32}
    assert network.encoder.trunk.conv1.weight.dtype == torch.float32


def test_every_convolution_of_a_network_has_a_precision():
    with torch.device("meta"):
        network = EncDec(settings(precision="bf16")).encoder.trunk
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 20
    assert all(layer.compute_dtype == torch.bfloat16 for layer in convolutions)


# --- weights of others ---


@pytest.fixture
def file(tmp_path):
    """A file of weights of the small network, as people wrap them; and what is in it."""
    tensors = small_network("resnet18")[0].state_dict()
    tensors = {name: torch.full_like(value, 2) for name, value in tensors.items()}
    path = tmp_path / "weights.pth"
    wrapped = {f"module.{name}": value for name, value in tensors.items()}
    torch.save({"state_dict": wrapped | {"module.fc.weight": torch.zeros(10, 8)}}, path)
    return path, tensors


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_a_file(small, file, frozen):
    encoder, (path, tensors) = ImageEncoder(4, 3, "resnet18", frozen).train(), file
    encoder.read(str(path))
    assert same(tensors, encoder.trunk.state_dict())
    assert encoder.trains is encoder.trunk.training is not frozen


def test_weights_of_other_networks_are_refused(small, tmp_path):
    encoder, path = ImageEncoder(4, 3, "resnet18"), tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(8, 3, 7, 7)}, path)
    with pytest.raises(UserError, match=r"found \[8, 3, 7, 7\] as 'conv1.weight', expected"):
        encoder.read(path)
    torch.save({"state_dict": ResNeXt3D((1, 1, 1, 1)).state_dict()}, path)
    with pytest.raises(UserError, match="other.pth holds a 3D network.* give it to --fid_weights"):
        encoder.read(path)


def test_torchvision_s_weights_are_fetched_once(small, file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def fetch(url, path, digits, progress):
        asked.append((url, digits))
        file[0].rename(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        encoder = ImageEncoder(4, 3, "resnet18")
        encoder.read("download")
        assert same(file[1], encoder.trunk.state_dict())
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]


def test_no_network_is_one_line(small, refused, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    line = refused(*SMALL, "--encoder_weights", "download")
    assert "resnet18-f37072fd.pth" in line and "--encoder_weights FILE" in line
    assert not (tmp_path / "runs").exists()


def test_a_damaged_file_is_told_before_anything_is_written(small, refused, command, tmp_path, file):
    file[0].write_bytes(file[0].read_bytes()[:-100])
    flags = [*SMALL, *STAGE_1, "--encoder_weights", file[0]]
    assert "is truncated or not a file of torch weights" in refused(*flags)
    assert not (tmp_path / "runs").exists()


# --- runs ---


def checkpoint(name="1_VDSM_EncDec.pth", folder="runs/demo"):
    return read_checkpoint(f"{folder}/checkpoints/{name}")


def test_a_killed_run_resumes_bit_for_bit(small, command, no_pictures, file, kill_at):
    flags = [*SMALL, *STAGE_1, "--encoder_weights", file[0], "--save_every_steps", 1]
    assert command(*flags, "--runs_dir", "whole").code == 0
    kill_at("EncDec", 3)
    assert command(*flags).code == 130
    file[0].unlink()  # a run that is resumed does not need it
    assert command(*flags).code == 0
    ours, whole = checkpoint(), checkpoint(folder="whole/demo")
    assert same(ours["model"], whole["model"])
    # Those of the file; eight blocks of frames, twice, which --start data looks at; four steps.
    assert ours["model"]["encoder.trunk.bn1.num_batches_tracked"] == 2 + 2 * 8 + 4


def test_stage_2_and_test_take_the_encoder_of_stage_1(small, command, no_pictures, file):
    assert command(*SMALL, "--encoder_weights", file[0], "--encoder_frozen", "True").code == 0
    first, second = checkpoint()["model"], checkpoint("1_VDSM_seq.pth")["model"]
    trunk = {name: value for name, value in first.items() if name.startswith("encoder.trunk.")}
    assert {value.unique().item() for value in trunk.values()} == {2}
    assert same({f"encdec.{name}": value for name, value in trunk.items()}, second)
    file[0].unlink()
    assert command(*SMALL, *TEST).code == 0


def test_a_dry_run_fetches_nothing(small, command, monkeypatch):
    monkeypatch.setattr(ImageEncoder, "read", lambda *_: pytest.fail("it reads weights"))
    said = command(*SMALL, "--encoder_weights", "download", "--dry_run", "--start", "torch")
    assert said.code == 0 and "encoder 2" in said.out, said


def test_wrong_flags_are_one_line(small, refused, command, no_pictures, tmp_path):
    image, missing = ["--encoder", "resnet18"], ["--encoder_weights", "no.pth"]
    assert "no such file" in refused(*TINY, *image, *missing)
    assert not (tmp_path / "runs").exists()
    for flags in (missing, ["--encoder_frozen", "True"]):
        assert f"{flags[0]} {flags[1]} is not for --encoder conv" in refused(*TINY, *flags)
    for model in ("dsa", "unordered"):
        line = refused("--model", model, "--train", "True", *image)
        assert "(a flag of --model vdsm)" in line
    assert command(*TINY, *STAGE_1, "--epochs", 1).code == 0
    assert "--encoder was conv and is resnet18" in refused(*TINY, *STAGE_1, *image, "--epochs", 1)
    assert "--encoder is resnet18 here and conv there" in refused(*TINY, *STAGE_2, *image)


def test_the_release_has_no_such_encoder(small, refused, command, no_pictures):
    flags = [*SMALL, *STAGE_1, "--fidelity", "release", "--rnn_layers", 1]
    assert command(*flags).code == 0
    path = "runs/demo/checkpoints/1_VDSM_EncDec.pth"
    line = refused("--convert", path, "--to", "release")
    assert "--encoder resnet18, which the release has not" in line


def test_a_checkpoint_of_before_has_the_encoder_of_the_paper(trained, command, no_pictures):
    path = trained / "checkpoints" / "3_VDSM_EncDec.pth"
    state = torch.load(path, weights_only=True)
    for name in ("encoder", "encoder_weights", "encoder_frozen"):
        del state["settings"][name]
    torch.save(state, path)
    assert command(*TINY, *STAGE_1, *STAGE_2).code == 0


def test_tensors_of_the_default_encoder_keep_their_names():
    names = OrderedDict.fromkeys(
        name.split(".")[0] for name in EncDec(VDSMSettings(**SIZES)).encoder.state_dict()
    )
    assert list(names) == ["convs", "blurs", "pose", "identity_hidden", "identity"]
