"""Operations of VDSM's networks whose gradients are written by hand, for speed and for memory."""

import torch
import torch.nn.functional as F

from models.convolution import to_blocks
from utils.threads import by_threads


class Blurred(torch.autograd.Function):
    """The output of a BlurPool for x [B, C, H, W], whose gradient needs neither x nor its padding.

    Autograd would keep the padded x, for the gradient of a filter that does not train.
    """

    @staticmethod
    def forward(ctx, x, blur):
        padded = blur.pad(x)
        ctx.blur, ctx.shapes = blur, [(part.shape, part.stride()) for part in (x, padded)]
        return F.conv2d(padded, blur.filt, stride=blur.stride, groups=blur.channels)

    @staticmethod
    def backward(ctx, *grads):
        (grad,), blur = grads, ctx.blur
        # Only the shapes and the layouts of these two matter.
        x, padded = (grad.new_empty_strided(*shape) for shape in ctx.shapes)
        shape = [blur.stride] * 2, [0, 0], [1, 1], False, [0, 0], blur.channels
        grad, _, _ = torch.ops.aten.convolution_backward(
            grad, padded, blur.filt, None, *shape, (True, False, False)
        )
        return torch.ops.aten.reflection_pad2d_backward(grad, x, blur.pad.padding), None


def upsample(x, layers):
    """LeakyReLU and a transposed convolution per (kernel, bias): x [B, c_in, 4, 4] to 64 pixels."""
    for i, (kernel, bias) in enumerate(layers):
        # In place: the gradient of a convolution does not need its output.
        x = F.leaky_relu(x, inplace=i > 0)
        x = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    return x


def _decode(x, layers):
    """`upsample` without gradients, where oneDNN convolves faster in other forms."""
    x = upsample(x.contiguous(memory_format=torch.channels_last), layers[:-1])
    # A convolution to 3 channels takes as long as one to 8: see models/convolution.py.
    return to_blocks(F.leaky_relu_(x), *layers[-1], stride=2, padding=1)


class ClipByClip(torch.autograd.Function):
    """`upsample` of every clip by its own layers: x [N, T, c_in, 4, 4] -> [N, T, 3, 64, 64].

    layers: kernel [N, c_in, c_out, 4, 4] and bias [N, c_out] of each layer in turn. The gradients
    of each clip go to their places in the gradients of the batch. Autograd would first collect
    those of all clips and then join them, which takes more memory and leaves the heap in pieces.
    """

    @staticmethod
    def forward(ctx, x, *layers):
        inputs = x, *layers

        def decode(n):
            parts = [whole[n].detach() for whole in inputs]
            wanted = [p.requires_grad_() for p, wants in zip(parts, ctx.needs_input_grad) if wants]
            layers = list(zip(parts[1::2], parts[2::2]))
            if not wanted:
                return _decode(parts[0], layers), wanted
            with torch.enable_grad():
                return upsample(parts[0], layers), wanted

        ctx.clips = by_threads(decode, range(len(x)))
        return torch.stack([picture.detach().contiguous() for picture, _ in ctx.clips])

    @staticmethod
    def backward(ctx, *grads):
        (grad,), clips = grads, len(ctx.clips)
        joined = [part.new_empty(clips, *part.shape) for part in ctx.clips[0][1]]

        def differentiate(n):
            # Taking a clip off the list frees its activations.
            clip, ctx.clips[n] = ctx.clips[n], None
            for whole, part in zip(joined, torch.autograd.grad(*clip, grad[n])):
                whole[n] = part

        by_threads(differentiate, reversed(range(clips)))
        found = iter(joined)
        return tuple(next(found) if wants else None for wants in ctx.needs_input_grad)


class Blend(torch.autograd.Function):
    """W(n) = sum_k w_k(n) W_k: w [N, K], bank [K, c_in, ...] -> [N, c_in, ...].

    One small product per input channel is three times as fast in MKL as one product of [N, K] and
    [K, millions].
    """

    @staticmethod
    def forward(ctx, w, bank):
        ctx.save_for_backward(w, bank)
        blended = bank.new_empty(len(w), *bank.shape[1:])
        _mix_by_channel(w, bank, blended)
        return blended

    @staticmethod
    def backward(ctx, *grads):
        (grad,), (w, bank) = grads, ctx.saved_tensors
        grad_w = grad_bank = None
        if ctx.needs_input_grad[0]:
            rows, columns = grad.flatten(2).transpose(0, 1), bank.flatten(2).permute(1, 2, 0)
            grad_w = torch.bmm(rows, columns).sum(0)
        if ctx.needs_input_grad[1]:
            grad_bank = bank.new_empty(bank.shape)
            _mix_by_channel(w.t(), grad, grad_bank)
        return grad_w, grad_bank


def _mix_by_channel(weights, parts, out):
    """out[i] = sum_j weights[i, j] parts[j], for parts [J, c_in, ...] and out [I, c_in, ...]."""
    weights, parts = weights.expand(parts.shape[1], -1, -1), parts.flatten(2).transpose(0, 1)
    torch.bmm(weights, parts, out=out.flatten(2).transpose(0, 1))
