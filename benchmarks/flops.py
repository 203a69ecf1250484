"""The arithmetic that a step of VDSM cannot do without, and how fast the machine can do it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from benchmarks.cases import Case, timed
from models.vdsm.networks import IDENTITY_HIDDEN, KERNEL
from models.vdsm.settings import VDSMSettings

# Multiply-adds of a forward product; whether its inputs and whether its weights need a gradient.
# Each of the two gradients takes as many multiply-adds again.
Product = tuple[int, bool, bool]


def gflop(case: Case, encoder: bool = True) -> float:
    """GFLOP of the matrix products and convolutions of one optimiser step, forward and backward.

    A multiply-add counts as 2. Blurs, LeakyReLUs, densities and Adam are left out, because memory
    bounds them. encoder: whether the frame encoder runs in the step.

    At the release's Sprites size stage 1 takes 277, and stage 2 of fidelity 'release' with encoder
    142. The default stage 2 saves the cached encoder (10) and, because s's posterior is frozen, the
    gradients of the blended kernels (33) and of the mixing weights (5).
    """
    settings, frames = case.settings, case.clips * case.frames
    encdec_trains = case.stage_name == "EncDec"
    products = list(_decoder(settings, case.clips, frames, encdec_trains))
    # The layers of the identity.
    to_s = _trains_behind_s(settings, encdec_trains)
    products.append((frames * 2 * settings.n_e_w**2, encdec_trains, to_s))
    if encoder:
        products += _encoder(settings, frames, encdec_trains)
    if case.stage_name == "Seq":
        products += _dynamics(settings, case.clips, frames)
    return sum(2 * count * (1 + inputs + weights) for count, inputs, weights in products) / 1e9


def generation_gflop(case: Case) -> float:
    """GFLOP of decoding one batch of the case, forward alone."""
    products = _decoder(case.settings, case.clips, case.clips * case.frames, trains=False)
    return sum(2 * count for count, *_ in products) / 1e9


def _encoder(settings: VDSMSettings, frames: int, trains: bool) -> Iterator[Product]:
    channels, side = (3, *settings.enc_widths), 64
    for layer, (c_in, c_out) in enumerate(zip(channels, channels[1:])):
        out = side - 1 if layer < 4 else 1
        yield frames * c_in * c_out * KERNEL**2 * out**2, trains and layer > 0, trains
        side //= 2
    heads = settings.enc_widths[4] * (2 * settings.z_dim + IDENTITY_HIDDEN)
    yield frames * (heads + IDENTITY_HIDDEN * 2 * settings.n_e_w), trains, trains


def _trains_behind_s(settings: VDSMSettings, encdec_trains: bool) -> bool:
    """Whether a trained parameter lies behind s, and so behind w and the blended kernels."""
    return encdec_trains or settings.fidelity == "release"


def _decoder(settings: VDSMSettings, clips: int, frames: int, trains: bool) -> Iterator[Product]:
    """The blending of the experts' kernels and the decoder."""
    experts = settings.n_e_w
    channels, side = (settings.z_dim + experts, *settings.dec_widths, 3), 1
    to_s = _trains_behind_s(settings, trains)
    for layer, (c_in, c_out) in enumerate(zip(channels, channels[1:])):
        kernel = c_in * c_out * KERNEL**2
        yield frames * kernel * side**2, True, to_s
        yield clips * experts * kernel, to_s, trains
        side = 4 if layer == 0 else 2 * side


def _dynamics(settings: VDSMSettings, clips: int, frames: int) -> Iterator[Product]:
    """The networks that stage 2 adds."""
    r, d, z = settings.rnn_dim, settings.dynamics_dim, settings.z_dim
    for layer in range(settings.rnn_layers):
        # The bidirectional LSTM over the poses. Its first input comes from the frozen encoder.
        yield frames * 2 * 4 * r * (z if layer == 0 else 2 * r), layer > 0, True
        yield frames * 2 * 4 * r * r, True, True
        # The LSTM that unrolls d. The two products of a single layer are one after its first step.
        products = frames + clips if settings.rnn_layers == 1 else 2 * frames
        yield products * 4 * r * r, True, True
    # To d, and from d to the second LSTM's h_0 and c_0.
    yield clips * 2 * settings.rnn_layers * r * (2 * d + d), True, True
    # The combiner.
    yield frames * ((r + d) * r + 3 * z * r), True, True
    # The gated transition.
    hidden = r if settings.fidelity == "release" else settings.trans_dim
    yield (frames - clips) * (2 * (z + d) * hidden + 2 * hidden * z + 2 * z * z), True, True


def best_convolution(case: Case) -> tuple[float, str]:
    """GFLOP/s and name of the fastest of VDSM's own convolutions, forward.

    case: stage 1, whose batch and widths the convolutions have.
    """
    best = 0.0, ""
    with torch.no_grad():
        for name, products, function, inputs in _convolutions(case):
            calls = min(20, max(1, int(4e9 // (2 * products))))

            def several(function=function, inputs=inputs, calls=calls):
                for _ in range(calls):
                    function(*inputs)

            seconds = min(seconds for seconds, _ in timed(several, case, repeats=5, warm_up=1))
            best = max(best, (2 * products * calls / seconds / 1e9, name))
    return best


def _convolutions(case):
    """(name, multiply-adds, function, its arguments) of the encoder's and decoder's convolutions.

    Each transposed convolution is followed by the strided convolution that is its gradient.
    """
    frames = case.frames

    def tensor(*shape):
        return torch.randn(shape, device=case.device())

    widths, side = case.settings.enc_widths, 64
    for c_in, c_out in zip(widths[:3], widths[1:4]):
        side //= 2
        x = tensor(case.clips * frames, c_in, side, side)
        x = x.contiguous(memory_format=torch.channels_last)
        products = len(x) * c_in * c_out * KERNEL**2 * (side - 1) ** 2
        inputs = x, tensor(c_out, c_in, KERNEL, KERNEL), None, 1, 1
        yield f"conv2d {c_in} to {c_out} at {side} px", products, F.conv2d, inputs
    widths, side = case.settings.dec_widths, 4
    for c_in, c_out in zip(widths, widths[1:]):
        kernel = tensor(c_in, c_out, KERNEL, KERNEL)
        products = frames * c_in * c_out * KERNEL**2 * side**2
        inputs = tensor(frames, c_in, side, side), kernel, None, 2, 1
        name = f"conv_transpose2d {c_in} to {c_out} at {side} px"
        yield name, products, F.conv_transpose2d, inputs
        side *= 2
        inputs = tensor(frames, c_out, side, side), kernel, None, 2, 1
        yield f"conv2d stride 2, {c_out} to {c_in} at {side} px", products, F.conv2d, inputs
