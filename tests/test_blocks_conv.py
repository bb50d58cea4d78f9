"""Conv units, norms and activations: sizes, forms, names, export, messages."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from blocks.conv import (
    ACTIVATIONS,
    NORMS,
    DenseUnit,
    PlainUnit,
    ResidualUnit,
    UnetResBlock,
    make_activation,
    make_norm,
)

UNITS = (PlainUnit, ResidualUnit, DenseUnit)
each_unit = pytest.mark.parametrize("unit", UNITS)
each_norm = pytest.mark.parametrize("norm", NORMS)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@each_unit
@each_norm
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 3)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5)])
def test_sizes_are_divided_rounding_up_and_every_weight_has_a_gradient(unit, norm, stride, kernel):
    module = randomised(unit(3, 6, kernel=kernel, stride=stride, norm=norm))
    for size in [(5, 7, 6), (1, 3, 8), (3, 2, 5)]:
        x = torch.randn(2, 3, *size, requires_grad=True)
        y = module(x)
        assert y.shape == (2, 6, *(-(-length // step) for length, step in zip(size, stride, strict=True)))
        y.square().sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())


@each_unit
@each_norm
def test_one_voxel_works_in_eval_and_volumes_of_a_batch_are_independent(unit, norm):
    module = randomised(unit(3, 4, norm=norm)).eval().double()
    assert module(torch.randn(1, 3, 1, 1, 1).double()).isfinite().all()
    x = torch.randn(3, 3, 4, 3, 5).double()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-9, atol=1e-9)


@each_unit
@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "batch"])
def test_one_voxel_trains(unit, norm):
    x = torch.randn(1, 3, 1, 1, 1, requires_grad=True)
    unit(3, 4, norm=norm)(x).sum().backward()
    assert x.grad.isfinite().all()


@each_unit
def test_batch_norm_explains_why_it_cannot_train_on_one_value(unit):
    with pytest.raises(ValueError, match=r"more than 1 value per channel, got the shape \(1, 4, 1, 1, 1\)"):
        unit(3, 4, norm="batch")(torch.randn(1, 3, 1, 1, 1))


def test_norms_equal_torchs():
    x = torch.randn(2, 8, 3, 5, 4).double()
    slices = x.transpose(1, 2).flatten(0, 1)

    def check(name: str, reference: nn.Module, expected) -> None:
        norm = randomised(make_norm(name, 8).double())
        reference.double().load_state_dict(norm.state_dict())
        torch.testing.assert_close(norm(x), expected(reference), rtol=1e-10, atol=1e-10)

    check("instance", nn.InstanceNorm3d(8, affine=True), lambda norm: norm(x))
    check("batch", nn.BatchNorm3d(8), lambda norm: norm(x))
    check("group", nn.GroupNorm(8, 8), lambda norm: norm(x))
    check("layer", nn.LayerNorm(8), lambda norm: norm(x.movedim(1, -1)).movedim(-1, 1))
    check("slice", nn.InstanceNorm2d(8, affine=True), lambda norm: norm(slices).unflatten(0, (2, 3)).transpose(1, 2))


@each_norm
def test_norms_keep_half_precision_under_autocast(norm):
    x = torch.randn(2, 8, 3, 5, 4).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = make_norm(norm, 8)(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 or norm == "layer"


@each_norm
@each_unit
def test_channels_last_layout_is_kept_with_the_same_values(unit, norm):
    module = randomised(unit(8, 8, norm=norm))
    x = torch.randn(2, 8, 3, 5, 4)
    expected = module(x)
    module.to(memory_format=torch.channels_last_3d)
    y = module(x.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)
    assert y.is_contiguous(memory_format=torch.channels_last_3d) or norm == "slice"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_torchs(name):
    x = torch.randn(50)
    references = {"leakyrelu": nn.LeakyReLU(0.01), "relu": nn.ReLU(), "gelu": nn.GELU(), "silu": nn.SiLU()}
    torch.testing.assert_close(make_activation(name)(x.clone()), references[name](x))


def test_a_plain_unit_repeats_conv_norm_and_activation():
    unit = PlainUnit(2, 5, stride=(1, 2, 2), repeats=3)
    kinds = [type(module) for module in unit.modules() if not list(module.children())]
    assert [kind.__name__ for kind in kinds] == ["Conv3d", "InstanceNorm", "LeakyReLU", "Identity"] * 3
    assert [step.conv.stride for step in unit] == [(1, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert all(step.conv.bias is None for step in unit)


def test_a_residual_unit_has_the_released_names_and_form():
    unit = randomised(ResidualUnit(3, 4, stride=(1, 2, 2))).double()
    assert [name for name in unit.state_dict() if "conv" in name] == [
        f"conv{number}.conv.weight" for number in (1, 2, 3)
    ]
    x = torch.randn(2, 3, 3, 4, 5).double()
    inner = nn.functional.leaky_relu(unit.norm1(unit.conv1(x)))
    expected = nn.functional.leaky_relu(unit.norm2(unit.conv2(inner)) + unit.norm3(unit.conv3(x)))
    torch.testing.assert_close(unit(x), expected)
    assert not any("3" in name for name in ResidualUnit(4, 4).state_dict())
    assert "conv4.conv.weight" in ResidualUnit(3, 4, repeats=3).state_dict()


def test_unet_res_block_has_no_parameters_in_its_instance_norm():
    assert set(UnetResBlock(1, 16).state_dict()) == {f"conv{number}.conv.weight" for number in (1, 2, 3)}
    assert "norm1.weight" in UnetResBlock(1, 16, norm="batch").state_dict()


def test_a_dense_unit_gives_its_input_to_every_later_convolution():
    unit = randomised(DenseUnit(3, 4, repeats=3)).double()
    assert [step.conv.in_channels for step in unit.steps] == [3, 7, 7]
    x = torch.randn(2, 3, 3, 4, 5).double()
    first = unit.steps[0](x)
    second = unit.steps[1](torch.cat([first, x], dim=1))
    torch.testing.assert_close(unit(x), unit.steps[2](torch.cat([second, x], dim=1)))


def test_dropout_is_active_only_in_training_and_adds_no_state():
    for unit in UNITS:
        module = unit(3, 4, dropout=0.5)
        assert module.state_dict().keys() == unit(3, 4).state_dict().keys()
        x = torch.randn(2, 3, 4, 4, 4)
        assert not torch.equal(module(x), module(x))
        module.eval()
        assert torch.equal(module(x), module(x))


@pytest.mark.filterwarnings("ignore")
@each_unit
@pytest.mark.parametrize(("norm", "stride"), [(norm, (1, 1, 1)) for norm in NORMS] + [("instance", (1, 2, 2))])
def test_exports_with_every_size_dynamic(unit, norm, stride):
    module = randomised(unit(3, 4, norm=norm, stride=stride)).eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    program = torch.export.export(module, (torch.randn(2, 3, 6, 8, 10),), dynamic_shapes=(dynamic,))
    # torch bakes "H and W aren't 1" in where a stride makes them: an exported file refuses such a size by name.
    thin = [(3, 3, 9, 3, 4)] if stride != (1, 1, 1) else [(3, 3, 9, 1, 4), (2, 3, 1, 1, 2)]
    for shape in [(1, 3, 1, 3, 7), (1, 3, 5, 7, 3), *thin]:
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": (2, 3, 3)}, r"kernel sizes are odd and strides at least 1, got \(2, 3, 3\)"),
        ({"stride": (0, 1, 1)}, r"strides at least 1, got \(3, 3, 3\) and \(0, 1, 1\)"),
        ({"kernel": (3, 3)}, r"3 sizes \(D, H, W\), got \(3, 3\)"),
        ({"norm": "spectral"}, "unknown norm 'spectral'; choose from instance, batch, group, layer, slice"),
        ({"activation": "mish"}, "unknown activation 'mish'; choose from leakyrelu, relu, gelu, silu"),
        ({"repeats": 0}, "at least 1 convolution, got repeats=0"),
        ({"dropout": 1.0}, "dropout is a probability below 1, got 1.0"),
    ],
)
@each_unit
def test_invalid_options_are_refused_with_the_reason(unit, options, message):
    with pytest.raises(ValueError, match=message):
        unit(3, 4, **options)


def test_zero_channels_are_refused():
    with pytest.raises(ValueError, match="at least 1 channel on each side, got 0 -> 4"):
        PlainUnit(0, 4)
    with pytest.raises(ValueError, match="norm needs at least 1 channel, got 0"):
        make_norm("instance", 0)
