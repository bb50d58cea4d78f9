"""Abstract tensors compared with real ones: sizes, strides, dtypes and storages of operators' results on a CPU."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search.config.training_section import Training
from search.costs.abstract import AbstractTensors
from search.costs.abstract_optimiser import AbstractOptimiser
from search.costs.abstract_tensor import AbstractTensor
from search.costs.live_bytes import LiveBytes
from search.costs.memory import _used_optimiser
from search.costs.quick_meta import QUICK

LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last_3d}


def volume(layout, *, channels=6, size=(3, 9, 7), requires_grad=True):
    made = torch.zeros(2, channels, *size).contiguous(memory_format=LAYOUTS[layout])
    return made.requires_grad_(requires_grad)


def traits(tensor):
    return None if tensor is None else (tuple(tensor.shape), tensor.stride(), tensor.dtype)


MADE = {
    "thin convolution": lambda x: nn.Conv3d(6, 5, (1, 3, 3), padding=(0, 1, 1))(x),
    "strided convolution": lambda x: nn.Conv3d(6, 4, 3, stride=(1, 2, 2), padding=1, bias=False)(x),
    "grouped convolution": lambda x: nn.Conv3d(6, 6, 3, groups=6)(x),
    "transposed convolution": lambda x: nn.ConvTranspose3d(6, 3, (1, 2, 2), stride=(1, 2, 2))(x),
    "convolution of slices": lambda x: nn.Conv2d(6, 4, 3)(x.transpose(1, 2).flatten(0, 1)),
    "convolution along slices": lambda x: nn.Conv1d(6, 4, 3, padding=1)(x.mean((3, 4))),
    "group norm": lambda x: nn.GroupNorm(3, 6)(x),
    "instance norm": lambda x: nn.InstanceNorm3d(6, affine=True)(x),
    "batch norm": lambda x: nn.BatchNorm3d(6)(x),
    "layer norm": lambda x: nn.LayerNorm(6)(x.permute(0, 2, 3, 4, 1)),
    "linear upsampling": lambda x: F.interpolate(x, size=(4, 12, 9), mode="trilinear"),
    "nearest upsampling": lambda x: F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"),
    "upsampled descriptors": lambda x: F.interpolate(x.mean((3, 4)), size=5, mode="linear"),
    "pooling": lambda x: F.max_pool3d(x, (1, 2, 2)),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)[:, None]] * 3),
    "attention with a mask": lambda x: F.scaled_dot_product_attention(
        *[x.flatten(2).transpose(1, 2)[:, None]] * 3, attn_mask=torch.zeros(189, 189)
    ),
    "a product with a number": lambda x: x * 2 + (x > 0).to(x.dtype) / 3,
    "type promotion by a fraction": lambda x: (x > 0).long() * 0.5 + x,
    "swish": lambda x: F.silu(x),
    "softmax": lambda x: x.softmax(1),
    "parts": lambda x: torch.cat([each.relu() for each in x.split(2, dim=1)], dim=2),
    "a tensor of known values": lambda x: x * torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(3, 9, 7),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MADE)
def test_abstract_results_and_gradients_have_the_real_layouts_and_bytes(name, layout):
    def run(mode):
        with mode:
            x = volume(layout)
            out = MADE[name](x)
            out.sum().backward()
            return traits(out), traits(x.grad), mode.peak_bytes

    *made, peak_bytes = run(AbstractTensors())
    *wanted, real_bytes = run(LiveBytes())
    assert made == wanted
    assert peak_bytes == pytest.approx(real_bytes, abs=16)  # a tensor of known values isn't counted


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast_reaches_abstract_tensors(layout):
    with AbstractTensors(), torch.autocast("cpu", torch.bfloat16):
        assert nn.Conv3d(6, 5, 3)(volume(layout)).dtype == torch.bfloat16


def test_a_view_shares_its_storage_and_a_copy_has_its_own():
    with AbstractTensors() as tensors:
        one = torch.zeros(1000)
        view = one[:10]
        two = one + 1
        assert tensors.count.live_bytes == 8000
        del one, two
        assert tensors.count.live_bytes == 4000  # the view holds it
        del view
    assert (tensors.count.live_bytes, tensors.peak_bytes) == (0, 8000)


def test_assigning_data_replaces_size_strides_and_storage():
    with AbstractTensors() as tensors:
        parameter = nn.Parameter(torch.zeros(2, 3, 1, 4, 5))
        parameter.data = torch.zeros(2, 3, 2, 4, 5).contiguous(memory_format=torch.channels_last_3d)
        assert tensors.count.live_bytes == 2 * 3 * 2 * 4 * 5 * 4
        assert (parameter * 1).stride() == parameter.data.stride() == (120, 1, 60, 15, 3)


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_an_abstract_optimiser_holds_the_bytes_of_the_real_one(optimiser):
    training, bytes_of = Training(patch=(3, 9, 7), optimiser=optimiser), []
    for prepare in (_used_optimiser, AbstractOptimiser):
        with AbstractTensors() as tensors:
            network = nn.Sequential(nn.Conv3d(2, 3, (1, 3, 3)), nn.BatchNorm3d(3))
            network.known = nn.Parameter(torch.tensor([1.0, 2.0]))
            prepared = prepare(network, training)
            with_gradients = tensors.count.live_bytes
            prepared.zero_grad(set_to_none=True)
            bytes_of.append((with_gradients, tensors.count.live_bytes, tensors.peak_bytes))
    assert bytes_of[0] == bytes_of[1]


def test_modules_imported_by_an_operator_hold_no_tensors(monkeypatch):
    """Frames of an import stay in reference cycles; those would hold the tensors of all callers."""

    def rule(image):
        monkeypatch.setitem(sys.modules, "imported_by_an_operator", sys)
        try:
            raise ImportError
        except ImportError as error:
            kept = error  # a cycle: the frame holds the error, its traceback the frame
        return None if kept is None else image

    def inner():
        inside = torch.zeros(1000)
        return inside.erfc()

    monkeypatch.setitem(QUICK, torch.ops.aten.erfc.default, rule)
    with AbstractTensors() as tensors:
        out = inner()
        assert tensors.count.live_bytes == 4000
        del out


def test_changing_a_size_in_place_is_refused():
    with AbstractTensors(), pytest.raises(ValueError, match=r"unsqueeze_.* changes a tensor's size in place"):
        torch.zeros(3).unsqueeze_(0)


def test_abstract_tensors_stay_within_their_mode():
    with AbstractTensors():
        tensor = torch.zeros(3)
    assert isinstance(tensor, AbstractTensor) and "AbstractTensor((3,), torch.float32)" in repr(tensor)
    with pytest.raises(ValueError, match=r"aten.add.Tensor ran on abstract tensors outside of AbstractTensors"):
        tensor + 1
