"""Shapes, initial weights and ranges of VDSM's networks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from models.vdsm import networks
from models.vdsm.encdec import EncDec, mixing_weights
from models.vdsm.networks import (
    DECODER_WIDTHS,
    ENCODER_WIDTHS,
    FAINT,
    Blurred,
    ClipByClip,
    Combiner,
    DynamicsPosterior,
    FrameEncoder,
    GatedTransition,
    IdentityPosterior,
    MixtureOfExpertsDecoder,
    PoseContext,
    SingleDecoder,
)
from models.vdsm.seq import Seq
from models.vdsm.settings import VDSMSettings
from models.vdsm.stages import EncDecStage

N, T, K, POSE, DYNAMICS, RNN = 2, 3, 4, 5, 6, 7
SMALL = {"enc_widths": (4, 5, 3, 6, 7), "dec_widths": (8, 6, 5, 4)}


def settings(**changes):
    sizes = {
        "z_dim": POSE,
        "n_e_w": K,
        "dynamics_dim": DYNAMICS,
        "rnn_dim": RNN,
        "rnn_layers": 2,
        "trans_dim": 9,
    }
    return VDSMSettings(**{**sizes, **SMALL, **changes})


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_encoder_shapes_and_sizes_of_its_feature_maps():
    encoder = FrameEncoder(POSE, K)
    sizes = []
    for conv in encoder.convs:
        conv.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape[1:])))
    z_loc, z_scale, s_loc, s_scale = encoder(torch.rand(N, 3, 64, 64))
    assert sizes == [(3, 64, 64), (32, 32, 32), (32, 16, 16), (64, 8, 8), (64, 4, 4)]
    assert z_loc.shape == z_scale.shape == (N, POSE) and s_loc.shape == s_scale.shape == (N, K)
    assert ENCODER_WIDTHS == (32, 32, 64, 64, 256)


def test_every_encoder_blur_is_a_buffer_of_the_released_name_and_shape():
    state = FrameEncoder(POSE, K).state_dict()
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for i, width in enumerate(ENCODER_WIDTHS[:4]):
        blur = torch.outer(row, row).expand(width, 1, 4, 4)
        torch.testing.assert_close(state[f"blurs.{i}.filt"], blur)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blurred_gives_the_bits_of_autograd(layout):
    blur, results = FrameEncoder(POSE, K).blurs[0], []
    for function in (blur, lambda x: Blurred.apply(x, blur)):
        torch.manual_seed(0)
        x = torch.randn(N, 32, 63, 63).contiguous(memory_format=layout).requires_grad_()
        out = function(x)
        (out**2).sum().backward()
        results.append((out, x.grad))
    assert all(torch.equal(expected, found) for expected, found in zip(*results))


@pytest.mark.parametrize("fidelity, slope", [("paper", 0.01), ("release", 1.0)])
def test_slope_of_the_encoder(fidelity, slope):
    encoder = EncDec(settings(fidelity=fidelity)).double().encoder
    assert encoder.slope == slope
    a, b = torch.rand(2, 1, 3, 64, 64, dtype=torch.float64) * 10
    middle = (encoder(a)[0] + encoder(b)[0]) / 2
    affine = torch.allclose(encoder((a + b) / 2)[0], middle, rtol=1e-9, atol=1e-12)
    assert affine == (fidelity == "release")


def test_initial_weights_of_the_decoder_give_grey():
    decoder = MixtureOfExpertsDecoder(30, 3)
    channels = (33, *DECODER_WIDTHS, 3)
    assert DECODER_WIDTHS == (512, 256, 128, 64)
    for c_in, c_out, bank, biases in zip(channels, channels[1:], decoder.kernels, decoder.biases):
        assert bank.shape == (3, c_in, c_out, 4, 4) and biases.shape == (3, c_out)
        bound = 1 / math.sqrt(c_in * c_out * 16)
        assert 0.98 * bound < bank.abs().max() <= bound
        assert biases.abs().max() == 0
    pictures = torch.sigmoid(decoder(torch.randn(N, T, 30), torch.full((N, 3), 1 / 3)))
    assert pictures.shape == (N, T, 3, 64, 64)
    assert (pictures - 0.5).abs().max() < 1e-3


def test_decoder_starts_at_a_colour():
    decoder = MixtureOfExpertsDecoder(POSE, K, SMALL["dec_widths"])
    colour = torch.tensor([0.1, 0.5, 0.8])
    decoder.start_at(colour)
    w = torch.softmax(torch.randn(N, K), -1)
    pictures = torch.sigmoid(decoder(torch.randn(N, T, POSE), w))
    expected = colour[:, None, None].expand_as(pictures)
    torch.testing.assert_close(pictures, expected, atol=0.03, rtol=0)


def test_experts_start_near_one_decoder_that_passes_what_it_reads():
    torch.manual_seed(0)
    decoder = MixtureOfExpertsDecoder(20, 12, (64, 48, 32, 24))
    z, w = torch.randn(8, T, 20), torch.full((8, 12), 1 / 12)
    logits = {}
    for start in ("torch", "all"):
        if start == "all":
            decoder.start_together()
        decoder.start_at(torch.tensor([0.2, 0.5, 0.7]))
        logits[start] = decoder(z, w) - decoder.biases[-1][0, :, None, None]
    assert logits["torch"].std() < 1e-3
    assert FAINT / 2 < logits["all"].std() < 2 * FAINT
    # the poses are seen, and the experts differ by about as much as they share
    assert logits["all"].var(0).mean() > 0.01 * logits["all"].var()
    each = torch.stack([decoder(z[:1], torch.eye(12)[[k]])[0, 0] for k in range(12)])
    assert 0.1 < each.mean(0).var() / each.var(0).mean() < 1


def test_the_rate_of_the_layers_of_s():
    def shares(**flags):
        groups = EncDecStage.build(settings(**flags)).trainable()
        return {share: sum(p.numel() for p in group) for share, group in groups.items()}

    network = EncDec(settings())
    last = sum(p.numel() for p in network.identity.parameters())
    of_s = last + sum(
        p.numel() for n, p in network.encoder.named_parameters() if n.startswith("identity")
    )
    rest = sum(p.numel() for p in network.parameters()) - of_s
    assert shares() == {1.0: rest + of_s}
    assert shares(lr_identity=0.1) == {1.0: rest, 0.1: of_s}
    assert shares(lr_identity_last=0.02) == {1.0: rest + of_s - last, 0.02: last}
    assert shares(lr_identity=0.5, lr_identity_last=0.1) == {1.0: rest, 0.5: of_s - last, 0.1: last}


def test_a_clip_with_one_expert_is_decoded_by_that_expert():
    decoder = MixtureOfExpertsDecoder(POSE, K, SMALL["dec_widths"])
    expert_2 = MixtureOfExpertsDecoder(POSE, K, SMALL["dec_widths"])
    with torch.no_grad():
        for only, bank in zip(expert_2.parameters(), decoder.parameters()):
            only.copy_(bank[2].expand_as(bank))
    w, z = torch.eye(K)[[2]], torch.randn(1, T, POSE)
    torch.testing.assert_close(decoder(z, w), expert_2(z, w))
    assert not torch.allclose(decoder(z, torch.eye(K)[[1]]), decoder(z, w), atol=1e-6)


def test_the_single_decoder_reads_the_weights_as_a_code_and_blends_nothing():
    single = EncDec(settings(single_decoder=True)).decoder.double()
    assert isinstance(single, SingleDecoder)
    assert {len(bank) for bank in single.parameters()} == {1}
    equal_experts = MixtureOfExpertsDecoder(POSE, K, SMALL["dec_widths"]).double()
    with torch.no_grad():
        for bank, only in zip(equal_experts.parameters(), single.parameters()):
            bank.copy_(only.expand_as(bank))
    z, w = torch.randn(N, T, POSE).double(), torch.softmax(torch.randn(N, K), -1).double()
    torch.testing.assert_close(single(z, w), equal_experts(z, w))
    assert (single(z, w) - single(z, w.flip(1))).abs().max() > 1e-6


@pytest.mark.parametrize("clips, frames", [(1, 1), (1, T), (N, 1)])
def test_decoder_of_single_clips_and_frames(clips, frames):
    decoder = MixtureOfExpertsDecoder(POSE, K, SMALL["dec_widths"]).double()
    z, w = torch.randn(N, T, POSE).double(), torch.softmax(torch.randn(N, K), -1).double()
    torch.testing.assert_close(
        decoder(z[:clips, :frames], w[:clips]), decoder(z, w)[:clips, :frames]
    )


@pytest.mark.parametrize("wanted", ["all", "x alone", "kernels alone"])
def test_clip_by_clip_gives_the_bits_of_autograd(wanted):
    channels = 8, 6, 5
    layers = [
        part
        for c_in, c_out in zip(channels, channels[1:])
        for part in (torch.randn(N, c_in, c_out, 4, 4), torch.randn(N, c_out))
    ]
    tensors = [torch.randn(N, T, channels[0], 4, 4), *layers]
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(wanted == "all" or (wanted == "x alone") == (i == 0))

    def clip(n):
        x = tensors[0][n]
        for kernel, bias in zip(tensors[1::2], tensors[2::2]):
            x = F.conv_transpose2d(F.leaky_relu(x), kernel[n], bias[n], stride=2, padding=1)
        return x

    results = []
    for pictures in (torch.stack([clip(n) for n in range(N)]), ClipByClip.apply(*tensors)):
        (pictures**2).sum().backward()
        results.append([pictures, *(t.grad for t in tensors)])
        for tensor in tensors:
            tensor.grad = None
    for expected, found in zip(*results):
        assert (expected is None and found is None) or torch.equal(expected, found)
    with torch.no_grad():
        without_gradients = ClipByClip.apply(*tensors)
    torch.testing.assert_close(without_gradients, pictures)
    assert without_gradients.is_contiguous() and not without_gradients.requires_grad


def test_identity_is_pooled_after_its_layers():
    layers = IdentityPosterior(K)
    frame_loc, frame_scale = torch.randn(N, T, K), torch.rand(N, T, K)
    loc, scale = layers(frame_loc, frame_scale)
    each = [layers(frame_loc[:, t : t + 1], frame_scale[:, t : t + 1]) for t in range(T)]
    torch.testing.assert_close(loc, torch.stack([a for a, _ in each]).mean(0))
    torch.testing.assert_close(scale, torch.stack([b for _, b in each]).mean(0))
    layers.start_scale_at(0.0625)
    torch.testing.assert_close(layers(frame_loc, frame_scale)[1], torch.full((N, K), 0.0625))


def test_initial_posterior_scales_of_stage_2():
    seq = Seq(settings(), EncDec(settings()))
    seq.start_scales_at(d=0.03, z=0.05)
    d_loc, d_scale = seq.dynamics(torch.randn(N, T, POSE))
    torch.testing.assert_close(d_scale, torch.full((N, DYNAMICS), 0.03))
    assert d_loc.std() > 0.01
    _, z_scale = seq.combiner(torch.randn(N, POSE), torch.randn(N, RNN))
    torch.testing.assert_close(z_scale, torch.full((N, POSE), 0.05))


def test_start_from_data_gives_every_layer_unit_variance():
    encdec = EncDec(settings())
    x = torch.rand(8, T, 3, 64, 64)
    encdec.start_from(x, 0.125)
    outputs = []
    for conv in encdec.encoder.convs:
        conv.register_forward_hook(lambda _, args, out: outputs.append(out.clone()))
    _, _, frame_loc, frame_scale = encdec.frame_codes(x)
    assert len(outputs) == 5
    for out in outputs:
        mean, std = out.mean((0, 2, 3)), out.std((0, 2, 3))
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-2, rtol=0)
    # The loc before its LeakyReLU.
    loc = encdec.identity.loc(frame_loc.mean(1))
    torch.testing.assert_close(loc.std(0), torch.full((K,), 0.125), atol=1e-3, rtol=0)


def test_an_exploding_transition_stays_finite():
    torch.manual_seed(0)
    transition = GatedTransition(3, 2, 5)
    with torch.no_grad():
        for p in transition.parameters():
            p.mul_(1e4)
    z, d = torch.randn(4, 3), torch.randn(4, 2)
    for _ in range(40):
        z, scale = transition(z, d)
        assert torch.isfinite(z).all() and torch.isfinite(scale).all() and (scale > 0).all()
    q = Normal(torch.randn(4, 3), torch.ones(4, 3))
    kl_divergence(q, Normal(*transition(z.detach(), d))).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in transition.parameters())


def test_mixing_weights_do_not_overflow():
    # exp(80 * 50) is infinite in floating point.
    s = torch.tensor([[50.0, 0.0, -50.0]], requires_grad=True)
    w = mixing_weights(s, 80.0)
    assert torch.equal(w, torch.tensor([[1.0, 0.0, 0.0]]))
    w[0, 0].backward()
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("level", [-30.0, -1e4, -1e30])
def test_scales_stay_positive(level):
    """The softplus of a very negative number is 0 in floating point; no scale may be 0."""

    def lower(layer, rows=slice(None)):
        with torch.no_grad():
            layer.bias[rows] = level

    encoder, identity = FrameEncoder(POSE, K, SMALL["enc_widths"]), IdentityPosterior(K)
    dynamics, combiner = DynamicsPosterior(POSE, DYNAMICS, RNN, 1), Combiner(POSE, DYNAMICS, RNN)
    transition = GatedTransition(POSE, DYNAMICS, RNN)
    lower(encoder.pose, slice(POSE, None))
    lower(encoder.identity, slice(K, None))
    lower(dynamics.code, slice(DYNAMICS, None))
    for layer in (identity.scale, combiner.scale, transition.scale):
        lower(layer)
    d, poses = torch.randn(N, DYNAMICS), torch.randn(N, T, POSE)
    scales = [
        *encoder(torch.rand(N, 3, 64, 64))[1::2],
        identity(torch.randn(N, T, K), torch.rand(N, T, K))[1],
        dynamics(poses)[1],
        combiner(poses[:, 0], combiner.context(torch.randn(N, 1, RNN), d)[:, 0])[1],
        transition(poses[:, 0], d)[1],
    ]
    for scale in scales:
        assert (
            (scale > 0).all() and scale.log().isfinite().all() and (1 / scale**2).isfinite().all()
        )


def test_dynamics_posterior():
    net = DynamicsPosterior(POSE, DYNAMICS, RNN, 3)
    loc, scale = net(torch.randn(N, T, POSE))
    assert loc.shape == scale.shape == (N, DYNAMICS)
    assert net.h_0.abs().max() == net.c_0.abs().max() == 0 and net.code.in_features == 2 * 3 * RNN


@pytest.mark.parametrize("layers", [1, 3])
def test_pose_context_continues_for_any_number_of_frames(layers):
    net = PoseContext(DYNAMICS, RNN, layers)
    d = torch.randn(N, DYNAMICS)
    short, long = net(d, T), net(d, 10 * T)
    assert net.first.abs().max() == 0
    assert short.shape == (N, T, RNN) and long.shape == (N, 10 * T, RNN)
    torch.testing.assert_close(long[:, :T], short)
    # The input of each step is the output of the step before.
    inputs = torch.cat([net.first.expand(N, 1, -1), long[:, :-1]], 1)
    state = tuple(
        to(d).view(N, layers, RNN).transpose(0, 1).contiguous() for to in (net.to_h, net.to_c)
    )
    torch.testing.assert_close(net.rnn(inputs, state)[0], long)


def test_combiner_and_transition_take_one_step_or_all():
    combiner, transition = Combiner(POSE, DYNAMICS, RNN), GatedTransition(POSE, DYNAMICS, RNN)
    z, h, d = torch.randn(N, T, POSE), torch.randn(N, T, RNN), torch.randn(N, DYNAMICS)
    u = combiner.context(h, d)
    assert u.shape == (N, T, RNN) and combiner.z_0.abs().max() == 0
    together = combiner(z, u), transition(z, d[:, None].expand(-1, T, -1))
    for t in range(T):
        for step, whole in zip((combiner(z[:, t], u[:, t]), transition(z[:, t], d)), together):
            for one, many in zip(step, whole):
                assert one.shape == (N, POSE)
                torch.testing.assert_close(one, many[:, t])


def test_transition_per_fidelity():
    encdec = EncDec(settings())
    paper = Seq(settings(fidelity="paper"), encdec).transition
    trans_dim = settings().trans_dim
    assert paper.gate_hidden.out_features == paper.proposal_hidden.out_features == trans_dim
    assert torch.equal(paper.linear.weight, torch.eye(POSE)) and paper.linear.bias.abs().max() == 0
    assert paper.gate.bias.abs().max() > 0
    torch.manual_seed(0)
    release = Seq(settings(fidelity="release", rnn_dim=400), encdec).transition
    assert release.gate_hidden.out_features == 400
    for layer in release.children():
        assert layer.bias.abs().max() == 0
        if layer.weight.numel() > 1000:
            kaiming = math.sqrt(2 / layer.in_features)
            assert layer.weight.std().item() == pytest.approx(kaiming, rel=0.1)


@pytest.mark.parametrize("frames", [1, 2, 20])
def test_sequence_network_generates_any_length(frames):
    seq = Seq(settings(), EncDec(settings())).eval()
    with torch.no_grad():
        w, d = seq.encode(torch.rand(N, T, 3, 64, 64), 2.0)
        assert w.shape == (N, K) and d.shape == (N, DYNAMICS)
        torch.testing.assert_close(w.sum(-1), torch.ones(N))
        poses = seq.poses(d, frames)
        assert poses.shape == (N, frames, POSE)
        torch.testing.assert_close(seq.poses(d, 30)[:, :frames], poses)
        w, z = seq.sample(N, frames, 2.0)
        pictures = seq.decode(z, w)
    assert w.shape == (N, K) and pictures.shape == (N, frames, 3, 64, 64)
    assert 0 < pictures.min() and pictures.max() < 1


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_single_layer_reads_its_last_output_in_every_step(frames):
    torch.manual_seed(0)
    net, d = networks.PoseContext(3, 5, 1).double(), torch.randn(2, 3, dtype=torch.float64)
    weights = [getattr(net.rnn, f"{name}_l0") for name in networks.LSTM_WEIGHTS]
    outputs = [net.first.expand(2, -1)]
    state = net.to_h(d), net.to_c(d)
    for _ in range(frames):
        state = torch.lstm_cell(outputs[-1], state, *weights)
        outputs.append(state[0])
    expected = torch.stack(outputs[1:], 1)
    torch.testing.assert_close(net(d, frames), expected)
    parameters = list(net.parameters())
    gradients = torch.autograd.grad((net(d, frames) ** 2).sum(), parameters)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected**2).sum(), parameters))
