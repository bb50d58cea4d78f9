"""Quick rules for operators on `meta` tensors, compared with the kernels of a CPU."""

from itertools import product

import pytest
import torch

from search.costs.quick_meta import META, QUICK

LAST = torch.channels_last_3d
ATEN = torch.ops.aten
FORMS = {
    "row-major": torch.zeros(2, 4, 3, 5, 6),
    "channels last": torch.zeros(2, 4, 3, 5, 6).contiguous(memory_format=LAST),
    "permuted": torch.zeros(2, 5, 3, 4, 6).transpose(1, 3),
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
ELEMENTWISE = [func for func in QUICK if "norm" not in str(func) and func is not ATEN.bmm.default]
ROW, WEIGHT = FORMS["row-major"], torch.ones(6)
OTHERS = {
    "bmm": (ATEN.bmm.default, (torch.zeros(2, 3, 4), torch.zeros(2, 5, 4).transpose(1, 2))),
    "norm": (ATEN.linalg_vector_norm.default, (ROW, 2.0)),
    "layer norm": (ATEN.native_layer_norm.default, (ROW, [6], WEIGHT, WEIGHT, 1e-5)),
    "layer norm of planes": (ATEN.native_layer_norm.default, (ROW, [5, 6], None, None, 1e-5)),
    "layer norm's gradients": (
        ATEN.native_layer_norm_backward.default,
        (ROW, ROW, [6], torch.zeros(2, 4, 3, 5, 1), torch.ones(2, 4, 3, 5, 1), WEIGHT, WEIGHT, [True, False, True]),
    ),
    "group norm": (ATEN.native_group_norm.default, (ROW, None, None, 2, 4, 90, 2, 1e-5)),
}


def traits(result):
    if isinstance(result, torch.Tensor):
        return tuple(result.shape), result.stride(), result.dtype
    return None if result is None else [traits(each) for each in result]


def on_meta(value):
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)


def operands(func):
    """Return all pairs of forms, forms with a number, or single forms, as the operator takes them."""
    numbers = (2.5, 2) if "Tensor" in func._overloadname or "Scalar" in func._overloadname else ()
    tensors = () if "Scalar" in func._overloadname else FORMS.values()
    if numbers or "backward" in func.name():
        options, others = OPTIONS.get(func.overloadpacket.__name__, ()), [*tensors, *numbers]
        return [(*pair, *options) for pair in product(FORMS.values(), others)]
    return [(each,) for each in FORMS.values()]


@pytest.mark.parametrize("func", ELEMENTWISE, ids=str)
def test_elementwise_results_have_the_layout_and_dtype_of_a_cpu_kernel(func):
    applied = 0
    for args in operands(func):
        quick = QUICK[func](*map(on_meta, args))
        if quick is not None:
            assert traits(quick) == traits(func(*args)), [traits(each) for each in args if each is not None]
            applied += 1
    assert applied >= 6


@pytest.mark.parametrize("name", OTHERS)
def test_norms_and_products_have_the_layout_and_dtype_of_a_cpu_kernel(name):
    func, args = OTHERS[name]
    quick = QUICK[func](*map(on_meta, args))
    assert traits(quick) == traits(func(*args))


@pytest.mark.parametrize("form", ["channels last", "bfloat16"])
def test_a_norm_of_another_layout_or_dtype_is_left_to_torch(form):
    assert QUICK[ATEN.native_layer_norm.default](on_meta(FORMS[form]), [6], None, None, 1e-5) is None
