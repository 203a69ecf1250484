"""Judges of others: made weights under the published names, and files that do not fit."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metrics.published_judges import NETWORKS, FamilyJudge, PublishedJudge
from models.vdsm.settings import VDSMSettings
from utils.errors import UserError

CLASSES = {name: {f: v for f, (_, v) in net.HEADS.items()} for name, net in NETWORKS.items()}
# MUG-FED has six actions, and two people here, whom the files number 3 and 51.
CLASSES["MUG-FED"]["action"] = 6
# Tensors of the family's file, and of the notebooks', as their code builds them.
FAMILY = {
    "encoder.c1.main.0.weight": (64, 3, 4, 4),
    "encoder.c4.main.1.running_var": (512,),
    "encoder.c5.0.weight": (128, 512, 4, 4),
    "encoder.c5.1.bias": (128,),
    "bilstm.weight_ih_l0_reverse": (1024, 128),
    "cls_action.2.weight": (9, 256),
    "cls_skin.0.weight": (256, 512),
    "cls_pant.2.bias": (6,),
    "cls_top.2.bias": (6,),
    "cls_hair.2.bias": (6,),
}
NOTEBOOK = {
    "encoding_conv.0.0.weight": (64, 3, 5, 5),
    "encoding_conv.1.0.weight": (128, 64, 5, 5),
    "encoding_conv.1.1.weight": (128,),
    "encoding_fc.0.weight": (1024, 2048),
    "encoding_fc.1.running_mean": (1024,),
    "classifier_lstm.weight_hh_l0": (2048, 512),
}
NAMES = {
    "sprites-li": FAMILY,
    "sprites": NOTEBOOK | {"hairstyles.3.weight": (6, 256), "pants.1.weight": (256,)},
    "MUG-FED": NOTEBOOK | {"id.3.weight": (52, 256), "action.3.bias": (9,)},
}


def dataset(name):
    classes = {f: tuple(map(str, range(count))) for f, count in CLASSES.get(name, {}).items()}
    if "identity" in classes:
        classes["identity"] = ("3", "51")
    return SimpleNamespace(name=name, classes=classes, static=(), dynamic=tuple(classes))


@pytest.fixture
def made(tmp_path):
    """made(name): path of a file of made weights of the judge of a data set, and its network."""

    def make(name):
        torch.manual_seed(0)
        network = NETWORKS[name]().eval()
        path = tmp_path / f"{name}.tar"
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
        return path, network

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_of_made_weights(name, made):
    path, network = made(name)
    tensors = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert NAMES[name].items() <= tensors.items()
    judge = PublishedJudge(path, dataset(name))
    clips = np.random.default_rng(0).integers(0, 256, (3, 8, 64, 64, 3), dtype=np.uint8)
    shares = judge.probabilities(clips, batch=2)
    with torch.no_grad():
        logits = network(torch.from_numpy(clips).permute(0, 1, 4, 2, 3) / 255)
    for factor, values in shares.items():
        expected = logits[factor].double()
        if name == "MUG-FED":
            expected = expected[:, [3, 51] if factor == "identity" else slice(6)]
        assert values.shape == (3, len(dataset(name).classes[factor]))
        assert np.allclose(values, expected.softmax(-1), atol=1e-5)


def test_the_familys_summary_is_both_ends_of_the_lstm():
    """The last frame changes the forward half, the first frame the backward half."""
    torch.manual_seed(0)
    judge, seen = FamilyJudge().eval(), []
    judge.cls_hair.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    clip = torch.rand(1, 4, 3, 64, 64)
    with torch.no_grad():
        judge(clip)
        x = clip[0]
        for name in ("c1", "c2", "c3", "c4"):
            x = judge.encoder[name]["main"](x)
        states = judge.bilstm(judge.encoder["c5"](x).flatten(1)[None])[1][0]
    # The final states of both directions, [2, 1, 256].
    assert torch.allclose(seen[0], torch.cat([states[0], states[1]], 1), atol=1e-6)


def test_files_that_do_not_fit_are_refused_in_one_line(made, tmp_path):
    path, network = made("sprites-li")
    with pytest.raises(UserError, match="found nothing as 'encoding_conv.0.0.weight'"):
        PublishedJudge(path, dataset("sprites"))
    with pytest.raises(UserError, match="no published judge of pendulum is known"):
        PublishedJudge(path, dataset("pendulum"))
    tensors = network.state_dict() | {"cls_hair.2.bias": torch.zeros(7)}
    torch.save({"state_dict": tensors}, path)
    with pytest.raises(UserError, match=r"found \[7\] as 'cls_hair.2.bias', expected \[6\]"):
        PublishedJudge(path, dataset("sprites-li"))
    # An object that a plain unpickler would run.
    torch.save({"state_dict": SimpleNamespace()}, path)
    with pytest.raises(UserError, match="not a file of torch weights") as error:
        PublishedJudge(path, dataset("sprites-li"))
    assert "\n" not in str(error.value)
    mug, _ = made("MUG-FED")
    people = dataset("MUG-FED")
    people.classes["identity"] = ("3", "52")
    with pytest.raises(UserError, match="knows the people 0 to 51, found '52'"):
        PublishedJudge(mug, people)
    absent = VDSMSettings(judge=str(tmp_path / "absent.tar"))
    with pytest.raises(UserError, match="--judge .*found no such file"):
        absent.check()
