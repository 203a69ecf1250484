"""--precision bf16: near float32 in losses and gradients, float32 in all that is kept."""

import pytest
import torch
import torch.nn.functional as F

from models import precision
from models.annealing import Annealed
from models.dsa import DSA
from models.settings import DSASettings, UnorderedSettings
from models.unordered import Unordered
from models.vdsm.encdec import EncDec
from models.vdsm.seq import Seq, Sequences
from models.vdsm.settings import VDSMSettings
from tests import bf16
from utils.step import Stepper

N, T = 3, 4
# Bfloat16 rounds by at most 2^-9 of a value. A path from a weight to the loss and back has about
# ten layers with three roundings each, which add up to sqrt(30) 2^-9, one hundredth. Losses are
# sums over thousands of pixels, in which most of that cancels.
LOSS, GRADIENT = 2**-9, 0.04
VDSM = {
    "z_dim": 6, "n_e_w": 4, "enc_widths": (8, 8, 8, 8, 16), "dec_widths": (24, 16, 12, 8),
    "dynamics_dim": 5, "rnn_dim": 8, "rnn_layers": 2,
}  # fmt: skip
ANNEALED = Annealed({"s": 0.5, "d": 0.5, "z": 1.0, "f": 1.0}, temperature=5.0)
CASES = {
    "stage 1": (VDSMSettings, VDSM),
    "stage 1, one decoder": (VDSMSettings, {**VDSM, "single_decoder": True}),
    "stage 2": (VDSMSettings, VDSM),
    "stage 2, release": (VDSMSettings, {**VDSM, "fidelity": "release"}),
    "DSA": (DSASettings, {"width": 8, "hidden": 16, "conv_dim": 16, "rnn_dim": 8, "f_dim": 6}),
    "Unordered": (UnorderedSettings, {"width": 8, "hidden": 16, "f_dim": 6}),
}
# Products in bfloat16 of a forward pass: convolutions, transposed convolutions, large dense layers.
PRODUCTS = {
    "stage 1": 5 + 4 * N,
    "stage 1, one decoder": 5 + 4,
    # The frozen encoder of stage 2 computes without gradients.
    "stage 2": 4 * N,
    "stage 2, release": 4 * N,
    "DSA": 4 + 4 + 4,
    "Unordered": 4 + 2 + 4,
}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def emulated(monkeypatch):
    """Processors without bfloat16 compute its products in float32, on rounded operands."""
    bf16.emulate(monkeypatch.setattr)


def network_of(name, chosen):
    """The network of a case with --precision `chosen`; its weights depend on the case alone."""
    settings_class, sizes = CASES[name]
    settings = settings_class(**sizes, precision=chosen)
    torch.manual_seed(0)
    if settings_class is not VDSMSettings:
        network = (DSA if name == "DSA" else Unordered)(settings)
    else:
        network = EncDec(settings)
        with torch.no_grad():  # at its start the decoder gives grey, whatever it reads
            for bank in network.decoder.kernels:
                bank.mul_(4)
        if name.startswith("stage 2"):
            network = Seq(settings, network)
    return network.train()


def loss_of(network):
    """The terms of the loss of a batch, with noise that does not depend on the network."""
    x = torch.rand(N, T, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    if isinstance(network, Seq):
        return network.loss(Sequences(network.frame_codes(x), x), ANNEALED)
    return network.loss(x, ANNEALED)


def gradients_of(network):
    """{parameter: gradient} of the weighted loss."""
    sum(term.weighted for term in loss_of(network).values()).backward()
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


@every_case
def test_losses_and_gradients_are_near_those_of_float32(name):
    plain, rounded = network_of(name, "fp32"), network_of(name, "bf16")
    terms = {term: value.raw.item() for term, value in loss_of(plain).items()}
    for term, value in loss_of(rounded).items():
        # The small terms are differences of larger numbers.
        assert value.raw.item() == pytest.approx(terms[term], rel=GRADIENT, abs=0.01), term
    total = sum(value.raw.item() for value in loss_of(rounded).values())
    assert total == pytest.approx(sum(terms.values()), rel=LOSS)
    expected, found = gradients_of(plain), gradients_of(rounded)
    assert expected.keys() == found.keys()
    whole = torch.cat([g.flatten() for g in expected.values()])
    error = torch.cat([(found[n] - expected[n]).flatten() for n in expected])
    assert 0 < error.norm() < GRADIENT * whole.norm()


@every_case
def test_weights_gradients_moments_and_outputs_are_float32(name):
    network = network_of(name, "bf16")
    names = network_of(name, "fp32").state_dict().keys()
    stepper = Stepper({1.0: [p for p in network.parameters() if p.requires_grad]})
    terms = loss_of(network)
    stepper(sum(term.weighted for term in terms.values()), 1e-3)
    kept = [*network.parameters(), *stepper.parameters, *(p.grad for p in stepper.parameters)]
    kept += [value for state in stepper.adam.state.values() for value in state.values()]
    kept += [value for term in terms.values() for value in term]
    assert {value.dtype for value in kept} == {torch.float32}
    assert network.state_dict().keys() == names
    frames = torch.rand(N, T, 3, 64, 64)
    with torch.no_grad():
        if isinstance(network, (EncDec, Seq)):
            static, dynamic = network.encode(frames, 1.0)
            z = network.poses(dynamic, T) if isinstance(network, Seq) else dynamic
            outputs = static, dynamic, network.decode(z, static)
        else:
            static, dynamic = network.encode(frames)
            outputs = static, dynamic, network.decode(static, dynamic, T)
    assert {output.dtype for output in outputs} == {torch.float32}


@every_case
def test_convolutions_and_large_products_compute_in_bfloat16(name, monkeypatch):
    network, products = network_of(name, "bf16"), []

    def counting(function):
        def product(*args, **kwargs):
            out = function(*args, **kwargs)
            groups = kwargs.get("groups", 1)
            assert out.dtype == torch.float32 or groups == 1, "a blur in bfloat16"
            if out.dtype == torch.bfloat16:
                products.append(out.shape)
            return out

        return product

    for place, function in bf16.PRODUCTS[:-1]:  # the last one is the gradient of a convolution
        monkeypatch.setattr(place, function, counting(getattr(place, function)))
    loss_of(network)
    assert len(products) == PRODUCTS[name]


@pytest.mark.parametrize("chosen", ["fp32", "tf32"])
@every_case
def test_other_precisions_change_no_dtype(name, chosen, monkeypatch):
    def refuse(*_):
        raise AssertionError("a product in bfloat16")

    expected = gradients_of(network_of(name, "fp32"))
    monkeypatch.setattr(torch.Tensor, "bfloat16", refuse)
    found = gradients_of(network_of(name, chosen))
    assert all(torch.equal(found[n], expected[n]) for n in expected)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (lambda room: room.Conv2d(3, 4, 4, 2, 1), (2, 3, 8, 8)),
        (lambda room: room.ConvTranspose2d(3, 4, 5, 2, 2, 1), (2, 3, 8, 8)),
        (lambda room: room.Linear(3, 4), (2, 3)),
    ],
)
def test_layers_are_torch_s_and_round_their_operands(layer, shape):
    torch.manual_seed(0)
    ours = layer(precision)
    torch.manual_seed(0)
    theirs, x = layer(torch.nn), torch.randn(shape)
    assert (
        torch.equal(ours(x), theirs(x)) and ours.state_dict().keys() == theirs.state_dict().keys()
    )
    precision.compute_in(ours, "bf16")
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(weight.bfloat16())
    assert torch.equal(ours(x), theirs(x.bfloat16().float()).bfloat16().float())
    assert ours(x.bfloat16()).dtype == torch.bfloat16


def test_the_emulation_computes_what_the_kernels_of_bfloat16_do(monkeypatch):
    x, weight = torch.randn(2, 3, 8, 8).bfloat16(), torch.randn(4, 3, 4, 4).bfloat16()
    emulated = F.conv2d(x, weight, None, 2, 1)
    monkeypatch.undo()
    plain = F.conv2d(x, weight, None, 2, 1)
    # The order of the sum may differ, hence one rounding.
    torch.testing.assert_close(emulated, plain, rtol=2**-7, atol=1e-2)
