"""Training by two processes is that of one: gradients, weights, files, stops and restarts."""

import shlex
import socket
from functools import partial

import numpy as np
import pytest
import torch

import main
import train_test
from data import batches
from data.base import Clips
from data.batches import Batches
from models.settings import DSASettings, UnorderedSettings
from models.vdsm import image_networks
from models.vdsm.settings import VDSMSettings
from tests.small_network import small_network
from tests.together import together
from utils import batch_norm, distributed
from utils.step import Stepper

SIZES = {
    "seq_len": 4, "bs": 4, "z_dim": 3, "n_e_w": 4, "dynamics_dim": 2, "rnn_dim": 6, "rnn_layers": 2,
    "trans_dim": 5, "enc_widths": (4, 4, 4, 4, 8), "dec_widths": (8, 4, 4, 4),
}  # fmt: skip
SMALL = {"seq_len": 4, "bs": 4, "width": 4, "hidden": 8, "f_dim": 4, "z_dim": 3}
DSA = {**SMALL, "conv_dim": 8, "rnn_dim": 4}
CASES = {  # stage, its settings
    "EncDec": ("EncDec", VDSMSettings(**SIZES)),
    "EncDec, some frames": ("EncDec", VDSMSettings(**SIZES, frames_per_clip=2, lr_identity=0.5)),
    "EncDec, whitened": ("EncDec", VDSMSettings(**SIZES, whiten_identity=True)),
    "EncDec, image network": ("EncDec", VDSMSettings(**SIZES, encoder="resnet18")),
    "Seq": (
        "Seq",
        VDSMSettings(
            **SIZES, frames_per_clip=2, with_first_frame=True, foresight=1.0, rnn_dropout=0.3
        ),
    ),
    "Seq, released": ("Seq", VDSMSettings(**SIZES, fidelity="release", kl="mc", clip_grad=50.0)),
    "DSA": ("DSA", DSASettings(**DSA)),
    "DSA, released": ("DSA", DSASettings(**DSA, fidelity="release", posterior="full")),
    "Unordered": ("Unordered", UnorderedSettings(**SMALL)),
}


class Trainer:
    """As much of train_test.Training as `take_step` reads, over clips of coloured blocks."""

    def __init__(self, name, settings):
        torch.manual_seed(0)
        self.stage = settings.info(name).stage().build(settings)
        self.stage.network.train()
        blocks = np.random.default_rng(0).integers(0, 256, (8 * 6, 4, 4, 3), np.uint8)
        frames = blocks.repeat(16, 1).repeat(16, 2)
        split = Clips(frames, np.full(8, 6), {}, np.arange(8))
        self.batches = Batches(split, torch.device("cpu"), settings.seq_len, settings.bs)
        groups = self.stage.trainable()
        self.stepper = Stepper(groups, settings.clip_grad, settings.shard_optimizer)
        self.terms = distributed.share(self.stage.network, partial(self.stage.terms, self.batches))
        self.schedules = self.stage.schedules()

    def steps(self, count):
        """Take `count` steps; the losses of the last."""
        for step in range(count):
            self.stepper.begin_step(1e-3)
            inputs = self.stage.inputs(self.batches, step)
            _, losses = train_test.take_step(self, inputs, self.schedules.at(0))
        return losses


def trained(case, steps, dtype, _):
    """Write losses, gradients, weights, buffers and Adam's state after `steps` steps."""
    distributed.join("cpu", 30)
    torch.set_default_dtype(dtype)
    image_networks.build = small_network  # resnet18 would take seconds
    batches.as_float = lambda frames: frames.movedim(-1, -3).to(dtype) / 255
    trainer = Trainer(*CASES[case])
    left = {"losses": trainer.steps(steps), **trainer.stage.network.state_dict()}
    for name, parameter in trainer.stage.network.named_parameters():
        left["gradient of " + name] = parameter.grad
    for number, state in trainer.stepper.adam.state_dict()["state"].items():
        left |= {f"{name} {number}": value for name, value in state.items()}
    left["random state"] = torch.get_rng_state()
    torch.save(left, f"left{distributed.rank()}.pt")


def trained_with_the_norm_of_many(*given):
    """As `trained`; a single process has the batch norm of several, whose sums are in float64."""
    if distributed.processes() == 1:
        batch_norm.sharing, share = (lambda: True), distributed.share

        def share_alone(network, function):
            batch_norm.over_processes(network)
            return share(network, function)

        distributed.share = share_alone
    trained(*given)


def left_by(case, folder, count, steps=1, dtype=torch.float32, train=trained):
    """What each of `count` processes has after `steps` steps."""
    codes, errors = together(partial(train, case, steps, dtype), folder, count)
    assert codes == [0] * count and errors == [""] * count, errors
    return [torch.load(folder / f"left{rank}.pt") for rank in range(count)]


def assert_near(mine, other, tolerance):
    """Equal to `tolerance` of each tensor's largest entry."""
    assert mine.keys() == other.keys()
    for name, value in other.items():
        if value is None:
            assert mine[name] is None, name
            continue
        scale = max(1.0, value.abs().max().item())
        assert (mine[name] - value).abs().max() <= tolerance * scale, name


def test_torchrun_reads_the_command_that_resumes(monkeypatch):
    """Without the two dashes it took --start for --start-method, and stopped."""
    from torch.distributed.run import get_args_parser

    monkeypatch.setenv("WORLD_SIZE", "2")
    flags = ["--start", "data", "--log_dir", "here"]
    program, *given = shlex.split(distributed.command(flags))
    read = get_args_parser().parse_args(given)
    assert (program, read.nproc_per_node, read.training_script) == ("torchrun", "2", "main.py")
    assert read.training_script_args == flags and read.log_dir is None


@pytest.mark.parametrize(
    "case, dtype, tolerance",
    [
        ("EncDec", torch.float32, 1e-5),
        ("EncDec, whitened", torch.float64, 1e-9),
        # in float32, torch's own batch norm is further from the exact statistics than 1e-5
        ("DSA, released", torch.float64, 1e-9),
        ("EncDec, image network", torch.float64, 1e-9),
    ],
)
def test_gradients_of_two_processes_are_those_of_one(tmp_path, case, dtype, tolerance):
    """So are losses and statistics. Both processes have the same weights, bit for bit."""
    (one,), two = (left_by(case, tmp_path / str(count), count, 1, dtype) for count in (1, 2))
    kinds = "losses", "gradient", "running", "whiten"
    compared = {name for name in one if any(kind in name for kind in kinds)}
    assert_near(*({name: left[name] for name in compared} for left in (two[0], one)), tolerance)
    assert_near(two[1], two[0], 0)
    assert torch.equal(one["random state"], two[1]["random state"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["DSA", "DSA, released"])
def test_gradients_of_dsa_in_float32(tmp_path, case):
    """To 1e-5 of the norm of the gradient, if one process sums its batch norms as exactly.

    Torch's batch norm rounds more than that by itself: docs/SCALING.md.
    """
    train = trained_with_the_norm_of_many
    (one,), (two, _) = (
        left_by(case, tmp_path / str(count), count, train=train) for count in (1, 2)
    )
    names = [n for n, value in one.items() if n.startswith("gradient") and value is not None]
    gradient, other = (torch.cat([left[n].flatten() for n in names]) for left in (one, two))
    assert (other - gradient).norm() < 1e-5 * gradient.norm()


def without_idle(left):
    """What a process left, without the biases that the batch norm behind them takes out again.

    Their gradient is rounding alone, which Adam makes steps of. Running means contain them.
    """
    biases = {n for n in left if n.endswith("bias")}
    gradients = {n: left.get(f"gradient of {n}") for n in biases}  # None: does not train
    idle = {n for n, g in gradients.items() if g is not None and g.abs().max() < 1e-8}
    means = {n for n in left if idle and "running_mean" in n}
    return {name: value for name, value in left.items() if name not in idle | means}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_weights_after_50_steps_are_those_of_one_process(tmp_path, case):
    """In float64, to 1e-9. Gradients, which amplify rounding, are compared after one step above."""
    gradients = "gradient", "exp_avg"
    given = 50, torch.float64
    (one,), two = (left_by(case, tmp_path / str(count), count, *given) for count in (1, 2))
    one = {n: v for n, v in without_idle(one).items() if not n.startswith(gradients)}
    assert_near({name: two[0][name] for name in one}, one, 1e-9)
    assert_near(two[1], two[0], 0)


@pytest.mark.slow
def test_a_sharded_optimizer_makes_the_same_weights(tmp_path, monkeypatch):
    """Bit for bit; the first process has the whole state, and one process can go on with it."""
    monkeypatch.setattr("utils.adam.LARGE", 100)  # so that tensors of the tiny network are cut
    settings = VDSMSettings(**SIZES, shard_optimizer=True)
    monkeypatch.setitem(CASES, "sharded", ("EncDec", settings))
    whole, sharded = (
        left_by("EncDec", tmp_path / "1", 2, 3),
        left_by("sharded", tmp_path / "2", 2, 3),
    )
    assert_near(sharded[0], whole[0] | {"losses": sharded[0]["losses"]}, 0)
    assert not any(name.startswith("exp_avg") for name in sharded[1])


@pytest.mark.parametrize("rank, local, lines", [(0, 0, 1), (1, 1, 0), (2, 0, 1)])
def test_an_unknown_first_machine_is_told_once_per_machine(monkeypatch, capsys, rank, local, lines):
    def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    given = {"WORLD_SIZE": 4, "RANK": rank, "LOCAL_RANK": local, "MASTER_ADDR": "no.such"}
    for name, value in given.items():
        monkeypatch.setenv(name, str(value))
    assert main.main(["--preset", "demo"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == lines and ("MASTER_ADDR='no.such': give" in said) == bool(lines)


@pytest.mark.parametrize("values", ["two", "", "0", "-1", "2 x", "2 2", "2 -1", "2 0 x"])
def test_wrong_variables_of_torchrun_are_told_in_one_line(monkeypatch, capsys, values):
    for name, value in zip(("WORLD_SIZE", "RANK", "LOCAL_RANK"), values.split(" ")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="^2$"):
        distributed.quieten()
    said = capsys.readouterr().err
    assert said.startswith("main.py: found WORLD_SIZE='") and said.count("\n") == 1
    assert "unset them" in said
