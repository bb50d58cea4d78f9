"""A GPU's memory, predicted without a GPU: operators that behave differently on CUDA."""

import pytest
import torch
import torch.nn.functional as F

from blocks.norm import make_norm
from search.config.training_section import Training
from search.costs.abstract import AbstractTensors
from search.costs.memory import CPU, inference_memory_bytes, training_memory_bytes
from space.presets import PRESETS

CUDA = torch.device("cuda")
LAST = torch.channels_last_3d


def on_cuda():
    return AbstractTensors(cuda=True)


@pytest.mark.parametrize(
    ("precision", "measured_mib"), [("float32", 1601.2335205078125), ("bfloat16", 1379.5)], ids=["float32", "bfloat16"]
)
def test_live_bytes_are_those_of_a_step_on_a_gpu(precision, measured_mib):
    """UNETR++ at its patch on an H100, torch 2.11: the live bytes of tensors, workspaces not counted."""
    preset = PRESETS["unetrpp_acdc"]
    training = Training(patch=preset.context.patch, batch=1, precision=precision)
    predicted = training_memory_bytes(preset.architecture, preset.context, training, device=CUDA)
    assert predicted / 2**20 == pytest.approx(measured_mib, rel=0.05)


def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu():
    preset = PRESETS["unetrpp_acdc"]

    def predicted(function, precision, device):
        training = Training(patch=preset.context.patch, batch=1, precision=precision)
        return function(preset.architecture, preset.context, training, device=device)

    for function in (training_memory_bytes, inference_memory_bytes):
        assert predicted(function, "auto", CUDA) == predicted(function, "bfloat16", CUDA)
        assert predicted(function, "auto", CPU) == predicted(function, "float32", CPU)
        assert predicted(function, "auto", CUDA) != predicted(function, "float32", CUDA)
    assert predicted(training_memory_bytes, "auto", CUDA) < predicted(training_memory_bytes, "float32", CUDA)


@pytest.mark.parametrize(
    ("run", "on_gpu", "on_cpu"),
    [
        (lambda x: F.layer_norm(x, x.shape[-1:]), torch.float32, torch.bfloat16),
        (lambda x: x.softmax(dim=1), torch.float32, torch.bfloat16),
        (lambda x: F.max_pool3d(x, 2), torch.bfloat16, torch.float32),
        (lambda x: F.interpolate(x, scale_factor=2.0, mode="trilinear"), torch.float32, torch.bfloat16),
        (lambda x: F.conv3d(x, torch.zeros(4, 4, 1, 1, 1)), torch.bfloat16, torch.bfloat16),
    ],
    ids=["layer_norm", "softmax", "max_pool", "interpolate", "convolution"],
)
def test_autocast_casts_as_the_device_does(run, on_gpu, on_cpu):
    for cuda, wanted in ((True, on_gpu), (False, on_cpu)):
        with AbstractTensors(cuda=cuda):
            x = torch.zeros(1, 4, 4, 4, 4, dtype=torch.bfloat16)
            with torch.autocast("cpu", torch.bfloat16):
                assert run(x).dtype == wanted
            assert run(x.float()).dtype == torch.float32


def test_dropout_keeps_a_mask_of_bytes_on_a_gpu_and_one_of_floats_on_a_cpu():
    peaks = {}
    for cuda in (True, False):
        with AbstractTensors(cuda=cuda) as tensors:
            x = torch.zeros(1000, requires_grad=True)
            kept = F.dropout(x, 0.5)
            peaks[cuda] = tensors.count.live_bytes
            del kept
    assert peaks[True] == 4000 + 4000 + 1000 and peaks[False] == 4000 + 4000 + 4000


@pytest.mark.parametrize(("dtype", "width", "fused"), [
    (torch.float32, 4, True), (torch.float32, 5, False), (torch.bfloat16, 5, True), (torch.bfloat16, 256, True),
])  # fmt: skip
def test_attention_makes_the_square_matrix_only_where_no_fused_kernel_fits(dtype, width, fused):
    with on_cuda() as tensors:
        query, key, value = (torch.zeros(1, 1, 4096, width, dtype=dtype, requires_grad=True) for _ in range(3))
        F.scaled_dot_product_attention(query, key, value, scale=1.0).sum().backward()
    square = 4096 * 4096 * dtype.itemsize
    assert (tensors.peak_bytes < square) == fused


def test_convolutions_are_channels_last_on_a_gpu_where_image_or_weight_is():
    with on_cuda():
        image, weight = torch.zeros(1, 4, 5, 6, 7), torch.zeros(8, 4, 3, 3, 3)
        last = weight.contiguous(memory_format=LAST)
        assert F.conv3d(image, weight).is_contiguous()
        assert F.conv3d(image, last).is_contiguous(memory_format=LAST)
        assert F.conv3d(image.contiguous(memory_format=LAST), weight).is_contiguous(memory_format=LAST)


def test_a_copy_that_a_kernel_makes_counts_while_it_runs():
    with on_cuda() as tensors:
        image = torch.zeros(1, 4, 8, 8, 8)
        weight = torch.zeros(4, 4, 1, 3, 3).contiguous(memory_format=LAST)
        before = tensors.count.live_bytes
        out = F.conv3d(image, weight, padding=(0, 1, 1))
        assert tensors.count.live_bytes == before + out.numel() * 4
        assert tensors.peak_bytes == before + out.numel() * 4 + image.numel() * 4


@pytest.mark.parametrize("name", ["instance", "batch", "group", "layer", "slice"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_norms_keep_type_and_layout_on_a_gpu(name, dtype):
    with on_cuda(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        norm = make_norm(name, 8)
        x = torch.zeros(2, 8, 3, 5, 6, dtype=dtype).contiguous(memory_format=LAST).requires_grad_()
        out = norm(x)
        assert out.dtype == dtype
        assert name == "slice" or out.is_contiguous(memory_format=LAST)
        out.float().sum().backward()
        assert x.grad.shape == x.shape


def test_the_cpu_is_predicted_as_before_a_gpu_was():
    preset = PRESETS["unetrpp_acdc"]
    training = Training(patch=(16, 128, 128), batch=1)
    context = preset.context.__class__((16, 128, 128), preset.context.spacing, 1, 4)
    before = training_memory_bytes(preset.architecture, context, training)
    training_memory_bytes(preset.architecture, context, training, device=CUDA)
    assert training_memory_bytes(preset.architecture, context, training) == before
    with torch.autocast("cpu", torch.bfloat16):
        assert F.layer_norm(torch.zeros(2, 4, dtype=torch.bfloat16), (4,)).dtype == torch.bfloat16


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_by_the_batch_norms_kernel_is_instance_norm(batch, affine):
    from blocks.norm import _NormaliseChannels

    norm = make_norm("instance", 6, affine=affine).double()
    if affine:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x = torch.randn(batch, 6, 3, 5, 4, dtype=torch.float64).contiguous(memory_format=LAST)
    grad = torch.randn_like(x)
    results = []
    for run in (norm, lambda x: _NormaliseChannels.apply(x, norm.weight, norm.bias, (None, None), 0.0, norm.eps, True)):
        leaf = x.clone().requires_grad_()
        out = run(leaf)
        parameters = [norm.weight, norm.bias] if affine else []
        results.append((out, *torch.autograd.grad(out, [leaf, *parameters], grad)))
    assert results[1][0].is_contiguous(memory_format=LAST)
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
