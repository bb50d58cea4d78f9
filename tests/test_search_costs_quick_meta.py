"""Quick rules for operators on `meta` tensors, compared with the kernels of a CPU."""

import inspect
from itertools import product

import pytest
import torch
from torch._prims_common import suggest_memory_format

from search.costs.quick_layouts import META, suggested_format
from search.costs.quick_meta import COMPARISONS, QUICK

LAST = torch.channels_last_3d
ATEN = torch.ops.aten
FORMS = {
    "row-major": torch.zeros(2, 4, 3, 5, 6),
    "channels last": torch.zeros(2, 4, 3, 5, 6).contiguous(memory_format=LAST),
    "permuted": torch.zeros(2, 5, 3, 4, 6).transpose(1, 3),
    "a slice of channels last": torch.zeros(2, 12, 3, 5, 6).contiguous(memory_format=LAST)[:, :4],
    "sparse": torch.zeros(2, 4, 3, 5, 12)[..., ::2],
    "expanded": torch.zeros(1, 4, 1, 1, 1).expand(2, 4, 3, 5, 6),
    "per channel": torch.zeros(1, 4, 1, 1, 1),
    "a plane": torch.zeros(5, 6),
    "a scalar": torch.zeros(()),
    "bfloat16": torch.zeros(2, 4, 3, 5, 6, dtype=torch.bfloat16),
    "one channel": torch.zeros(2, 1, 3, 5, 6).contiguous(memory_format=LAST),
    "one slice": torch.zeros(2, 4, 1, 5, 6).contiguous(memory_format=LAST),
    "thin": torch.zeros(2, 6, 1, 1, 4).permute(0, 4, 2, 3, 1),
}
OPTIONS = {"threshold_backward": (0.0,), "leaky_relu_backward": (0.1, False)}
ROW, LAST_ROW, WEIGHT = FORMS["row-major"], FORMS["channels last"], torch.ones(6)
MATRIX, CHANNELS = torch.zeros(3, 6).t(), torch.ones(4)
OTHERS = {
    "bmm": (ATEN.bmm.default, (torch.zeros(2, 3, 4), torch.zeros(2, 5, 4).transpose(1, 2))),
    "norm": (ATEN.linalg_vector_norm.default, (ROW, 2.0)),
    "layer norm": (ATEN.native_layer_norm.default, (ROW, [6], WEIGHT, WEIGHT, 1e-5)),
    "layer norm of planes": (ATEN.native_layer_norm.default, (ROW, [5, 6], None, None, 1e-5)),
    "layer norm of channels last": (ATEN.native_layer_norm.default, (LAST_ROW, [6], WEIGHT, WEIGHT, 1e-5)),
    "gradient of a norm without weights": (
        ATEN.native_layer_norm_backward.default,
        (ROW, ROW, [6], torch.zeros(2, 4, 3, 5, 1), torch.ones(2, 4, 3, 5, 1), None, None, [True, False, False]),
    ),
    "baddbmm": (ATEN.baddbmm.default, (torch.zeros(4), torch.zeros(2, 3, 5), torch.zeros(2, 4, 5).transpose(1, 2))),
    "positions": (ATEN.argmax.default, (LAST_ROW, 1, True)),
    "scatter": (
        ATEN.scatter_add.default,
        (torch.zeros(2, 4), 1, torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9)),
    ),
    "safe softmax": (ATEN._safe_softmax.default, (LAST_ROW, -1)),
    "a tensor and a product": (ATEN.addcmul.default, (LAST_ROW, LAST_ROW, torch.ones(6))),
    "a weighted tensor and a bias": (
        ATEN.addcmul.default,
        (torch.ones(4, 1, 1, 1), LAST_ROW, torch.ones(4, 1, 1, 1)),
    ),
    "a tensor or a number": (ATEN.where.self, (LAST_ROW > 0, LAST_ROW, torch.zeros(()))),
    "whole numbers": (ATEN.add.Tensor, (torch.zeros(3, 4, dtype=torch.int64).t(), torch.zeros(3, dtype=torch.int64))),
    "layer norm's gradients": (
        ATEN.native_layer_norm_backward.default,
        (ROW, ROW, [6], torch.zeros(2, 4, 3, 5, 1), torch.ones(2, 4, 3, 5, 1), WEIGHT, WEIGHT, [True, False, True]),
    ),
    "group norm": (ATEN.native_group_norm.default, (ROW, None, None, 2, 4, 90, 2, 1e-5)),
    "batch norm": (ATEN.native_batch_norm.default, (LAST_ROW, CHANNELS, CHANNELS, CHANNELS, CHANNELS, True, 0.1, 1e-5)),
    "batch norm's gradients": (
        ATEN.native_batch_norm_backward.default,
        (ROW, ROW, CHANNELS, CHANNELS, CHANNELS, CHANNELS, CHANNELS, True, 1e-5, [True, True, True]),
    ),
    "mm": (ATEN.mm.default, (MATRIX, torch.zeros(3, 5))),
    "addmm": (ATEN.addmm.default, (torch.zeros(5), MATRIX[:1], torch.zeros(5, 3).t())),
    "sum": (ATEN.sum.dim_IntList, (LAST_ROW, [0, -1], True)),
    "sum of whole numbers": (ATEN.sum.dim_IntList, (ROW > 0, [2])),
    "maximum": (ATEN.amax.default, (LAST_ROW, [2])),
    "mean": (ATEN.mean.default, (ROW,)),
    "stack": (ATEN.stack.default, ([torch.zeros(3, 4)] * 2, 1)),
    "stack of volumes": (ATEN.stack.default, ([torch.zeros(1, 3, 4, 5) > 0] * 2, 1)),
    "ends of a transposed matrix": (ATEN.constant_pad_nd.default, (MATRIX, [0, 0, 0, -4])),
    "ends of a volume": (ATEN.constant_pad_nd.default, (ROW, [-1, -2, 0, -1])),
    "ends of channels last": (ATEN.constant_pad_nd.default, (LAST_ROW, [0, 0, -2, -1, 0, 0, -1, -1])),
    "gather": (ATEN.gather.default, (LAST_ROW, 1, torch.zeros(2, 1, 3, 5, 6, dtype=torch.int64))),
    "gradient of a slice": (ATEN.slice_backward.default, (LAST_ROW, [2, 8, 3, 5, 6], 1, 0, 4, 1)),
    "gradient of an element": (ATEN.select_backward.default, (LAST_ROW, [2, 4, 3, 5, 6, 2], 5, 0)),
    "concatenation": (ATEN.cat.default, ([ROW, ROW], 1)),
    "concatenation of channels last": (ATEN.cat.default, ([LAST_ROW, LAST_ROW], 1)),
    "concatenation of two layouts": (ATEN.cat.default, ([LAST_ROW, ROW], -3)),
    "convolution": (
        ATEN.convolution.default,
        (ROW, torch.zeros(6, 2, 3, 1, 3), None, [2, 1, 1], [1, 0, 2], [1, 1, 2], False, [0, 0, 0], 2),
    ),
    "transposed convolution": (
        ATEN.convolution.default,
        (ROW, torch.zeros(4, 3, 1, 2, 2), None, [1, 2, 2], [0, 1, 0], [1, 1, 1], True, [0, 1, 0], 1),
    ),
    "gradients of a convolution": (
        ATEN.convolution_backward.default,
        (ROW, ROW, torch.zeros(4, 4, 3, 3, 3), [4], [1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1, [True, True, True]),
    ),
    "pooling": (ATEN.max_pool3d_with_indices.default, (LAST_ROW, [1, 2, 2], [1, 2, 2], [0] * 3, [1] * 3, True)),
    "padded pooling": (
        ATEN.max_pool3d_with_indices.default,
        (ROW, [3, 2, 3], [2, 3, 4], [1, 1, 1], [1, 2, 1], True),
    ),
    "attention": (ATEN._scaled_dot_product_flash_attention_for_cpu.default, (torch.zeros(2, 3, 5, 4),) * 3),
    "nearest": (ATEN.upsample_nearest3d.default, (LAST_ROW, [3, 7, 9])),
    "linear": (ATEN.upsample_trilinear3d.default, (LAST_ROW, [3, 7, 9], False)),
    "softmax": (ATEN._softmax.default, (LAST_ROW, 1, False)),
    "softmax's gradient": (ATEN._softmax_backward_data.default, (LAST_ROW, LAST_ROW, 1, torch.float32)),
    "cross-entropy": (
        ATEN.nll_loss2d_forward.default,
        (torch.zeros(2, 4, 3, 5), torch.zeros(2, 3, 5, dtype=torch.int64), None, 0, -100),
    ),
}
ELEMENTWISE_OPTIONS = {"rsub": (1.0,), "clamp": (0.0,), "clamp_min": (0.0,)}
BACKWARD = (
    ATEN.nll_loss2d_backward.default,
    ATEN._log_softmax_backward_data.default,
    ATEN.max_pool3d_with_indices_backward.default,
)
OTHER_FUNCS = {func.overloadpacket for func, _ in OTHERS.values() if func is not ATEN.add.Tensor}
ELEMENTWISE = [
    func
    for func in QUICK
    if func.overloadpacket not in OTHER_FUNCS
    and func not in BACKWARD
    and not any(word in str(func) for word in ("norm", ".out", "softmax", "upsample"))
]


def traits(result):
    if isinstance(result, torch.Tensor):
        return tuple(result.shape), result.stride(), result.dtype
    return None if result is None else [traits(each) for each in result]


def on_meta(value):
    if isinstance(value, list):
        return [on_meta(each) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)


def operands(func):
    """Return all pairs of forms, forms with a number, or single forms, as the operator takes them."""
    pairs = func._overloadname in ("Tensor", "Scalar") and func.overloadpacket is not ATEN.rsub
    numbers = (2.5, 2) if pairs and not (func._overloadname == "Tensor" and func.overloadpacket in COMPARISONS) else ()
    tensors = () if "Scalar" in func._overloadname else FORMS.values()
    if pairs or "backward" in func.name():
        options, others = OPTIONS.get(func.overloadpacket.__name__, ()), [*tensors, *numbers]
        return [(*pair, *options) for pair in product(FORMS.values(), others)]
    return [(each, *ELEMENTWISE_OPTIONS.get(func.overloadpacket.__name__, ())) for each in FORMS.values()]


@pytest.mark.parametrize("func", ELEMENTWISE, ids=str)
def test_elementwise_results_have_the_layout_and_dtype_of_a_cpu_kernel(func):
    applied = 0
    for args in operands(func):
        quick = QUICK[func](*map(on_meta, args))
        if quick is not None:
            assert traits(quick) == traits(func(*args)), [traits(each) for each in args if each is not None]
            applied += 1
    assert applied >= 6


@pytest.mark.parametrize("func", QUICK, ids=str)
def test_a_rule_takes_all_arguments_or_only_those_without_a_default(func):
    rule, arguments = inspect.signature(QUICK[func]), func._schema.arguments
    for given in (arguments, [each for each in arguments if not each.has_default_value()]):
        named = {each.name: None for each in given if each.kwarg_only}
        rule.bind(*[None for each in given if not each.kwarg_only], **named)


@pytest.mark.parametrize("name", OTHERS)
def test_norms_and_products_have_the_layout_and_dtype_of_a_cpu_kernel(name):
    func, args = OTHERS[name]
    quick = QUICK[func](*map(on_meta, args))
    assert traits(quick) == traits(func(*args))


def test_gradients_of_two_layouts_without_weights_are_left_to_torch():
    statistics = (torch.zeros(2, 4, 3, 5, 1),) * 2
    arguments = map(on_meta, (LAST_ROW, ROW, [6], *statistics, None, None, [True, False, False]))
    assert QUICK[ATEN.native_layer_norm_backward.default](*arguments) is None


def test_a_norm_in_half_precision_is_left_to_torch():
    assert QUICK[ATEN.native_layer_norm.default](on_meta(FORMS["bfloat16"]), [6], None, None, 1e-5) is None


@pytest.mark.parametrize("form", FORMS)
def test_the_suggested_format_is_torchs(form):
    image = FORMS[form]
    assert suggested_format(image) == suggest_memory_format(image)
    assert suggested_format(image.unsqueeze(0)[..., 0]) == suggest_memory_format(image.unsqueeze(0)[..., 0])


def test_results_go_into_the_given_tensor_only_if_it_fits():
    image, other = on_meta(ROW), on_meta(FORMS["per channel"])
    out = torch.empty_like(image)
    assert QUICK[ATEN.mul.out](image, other, out=out) is out
    assert QUICK[ATEN.mul.out](image, other, out=out.double()) is None
    assert QUICK[ATEN.mul.out](image, other, out=out[:1]) is None


def test_a_convolution_larger_than_its_image_is_left_to_torch():
    how = ([1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1)
    assert QUICK[ATEN.convolution.default](on_meta(ROW), on_meta(torch.zeros(4, 4, 5, 1, 1)), None, *how) is None
