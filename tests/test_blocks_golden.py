"""The blocks compared with recorded inputs, weights, outputs and gradients of the released code.

The vectors are in ../shared/golden next to the repository, or in the folder of VOXNAS_GOLDEN; all files of the same
format there are tested.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocks.conv import UnetResBlock
from blocks.csam import CSAM, PositionalGate, SemanticGate, SliceGate
from blocks.csam_level import CSAMLevel, from_released, to_released
from blocks.epa import EPA, EPABlock

FOLDER = Path(os.environ.get("VOXNAS_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))
NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
FORMS = {"synapse": "shared", "acdc": "separate", "lung": "separate", "tumor": "raw"}


def named(pattern: str) -> pytest.MarkDecorator:
    """Return one case per golden file whose constructor call matches, or a skipped case with the reason."""
    names = [name for name in NAMES if re.search(pattern, meta(name))]
    reason = f"no golden vectors of {pattern} in {FOLDER}"
    return pytest.mark.parametrize("name", names or [pytest.param("", marks=pytest.mark.skip(reason=reason))])


def meta(name: str) -> str:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return str(arrays["meta"])


def load(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "meta"}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in values.items()}


def argument(name: str, key: str) -> int:
    return int(re.search(rf"\b{key}=(\d+)", meta(name))[1])


def close(ours: Tensor, golden: Tensor, label: str) -> None:
    error = float((ours.detach() - golden).abs().max() / golden.abs().max().clamp_min(1e-300))
    assert error < TOLERANCE[ours.dtype], f"{label}: relative error {error:.2e}"


def weights_into(module: nn.Module, golden: dict[str, Tensor]) -> nn.Module:
    """Load strictly, by the released names."""
    module.load_state_dict({key[2:]: value for key, value in golden.items() if key.startswith("w:")}, strict=True)
    return module


def close_weight_gradients(module: nn.Module, golden: dict[str, Tensor]) -> None:
    wanted = {key[3:]: value for key, value in golden.items() if key.startswith("gw:")}
    gradients = {key: parameter.grad for key, parameter in module.named_parameters(remove_duplicate=False)}
    for key, value in wanted.items():
        close(gradients[key], value, f"gradient of {key}")


both_precisions = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
train_or_eval = pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
each_order = pytest.mark.parametrize("order", ["released", "corrected"])


def volume(slices: Tensor) -> Tensor:
    """Convert the released (S, C, H, W) to ours, (1, C, S, H, W)."""
    return slices.movedim(0, 1)[None]


def csam_module(name: str) -> nn.Module:
    call = meta(name)
    if call.startswith("SemanticAttention"):
        return SemanticGate(argument(name, "in_features"))
    if call.startswith("Positional"):
        return PositionalGate()
    uncertainty = "uncertainty=True" in call
    rank = argument(name, "rank") if "rank=" in call else 5
    if call.startswith("SliceAttention"):
        return SliceGate(argument(name, "in_features"), uncertainty=uncertainty, rank=rank)
    flags = {key: f"{key}=False" not in call for key in ("semantic", "positional", "slice")}
    slices, channels = argument(name, "num_slices"), argument(name, "num_channels")
    return CSAM(channels, slices=slices, uncertainty=uncertainty, rank=rank, **flags)


@both_precisions
@named(r"^(Semantic|Positional|Slice)AttentionModule|^CSAM\(")
def test_csam(name, dtype):
    golden = load(name, dtype)
    module = weights_into(csam_module(name).to(dtype), golden)
    x = volume(golden["x"]).requires_grad_()
    noise = {"noise": (golden["eps_W"], golden["eps_D"])} if "eps_W" in golden else {}
    y = module(x, **noise)
    y.backward(volume(golden["g"]))
    close(y, volume(golden["y"]), "y")
    close(x.grad, volume(golden.get("gx_rsample", golden["gx"])), "gx")
    close_weight_gradients(module, golden)
    if noise:
        assert all(parameter.grad.abs().max() > 0 for parameter in module.parameters())


@both_precisions
@named(r"^EncoderCSAM")
def test_csam_levels_through_the_name_table(name, dtype):
    golden = load(name, dtype)
    depth, base, slices = (argument(name, key) for key in ("num_layers", "base_num", "batch_size"))
    released = {key[2:]: value for key, value in golden.items() if key.startswith("w:")}
    x = volume(golden["x"]).requires_grad_()
    features, outputs, back = x, [], {}
    for index in range(depth):
        ins = argument(name, "input_channels") if index == 0 else base * 2 ** (index - 1)
        level = CSAMLevel(ins, base * 2**index, slices=slices, uncertainty="uncertainty=True" in meta(name)).to(dtype)
        level.load_state_dict(from_released(released, level=index), strict=True)
        back |= to_released(level.state_dict(), level=index)
        skip, features = level(features)
        features = nn.functional.max_pool3d(features, (1, 2, 2))
        outputs.append(skip)
    assert back.keys() == released.keys()
    assert all(torch.equal(back[key], released[key]) for key in released)
    *skips, bottom = outputs
    pairs = [(bottom, "")] + [(skip, f"skip{number}") for number, skip in enumerate(reversed(skips))]
    cotangents = [volume(golden[f"g_{key}" if key else "g"]) for _, key in pairs]
    torch.autograd.backward([out for out, _ in pairs], cotangents)
    for out, key in pairs:
        close(out, volume(golden[key or "y"]), key or "y")
    close(x.grad, volume(golden["gx"]), "gx")


def epa_options(name: str, order: str) -> dict[str, object]:
    projections = FORMS[meta(name).split()[0]]
    return {
        "projection": argument(name, "proj_size"),
        "heads": argument(name, "num_heads"),
        "projections": projections,
        "order": order,
    }


@both_precisions
@each_order
@named(r"\bEPA\(")
def test_epa(name, order, dtype):
    golden = load(name, dtype)
    suffix = "" if order == "released" else "_fixed"
    module = EPA(argument(name, "hidden_size"), tokens=argument(name, "input_size"), **epa_options(name, order))
    weights_into(module.to(dtype), golden)
    x = golden["x"].requires_grad_()
    y = module(x)
    y.backward(golden["g"])
    close(y, golden["y" + suffix], "y" + suffix)
    close(x.grad, golden["gx" + suffix], "gx" + suffix)
    if order == "released":
        close_weight_gradients(module, golden)


def block_of(name: str, order: str) -> EPABlock:
    grid = tuple(int(size) for size in re.search(r"H,W,D=(\d+),(\d+),(\d+)", meta(name)).groups())
    options = epa_options(name, order)
    units = 2 if options["projections"] == "separate" else 1
    return EPABlock(argument(name, "hidden_size"), grid=grid, residual_units=units, **options)


@both_precisions
@train_or_eval
@named(r"\bTransformerBlock\(")
def test_epa_block(name, train, dtype):
    golden = load(name, dtype)
    module = weights_into(block_of(name, "released").to(dtype), golden).train(train)
    x = golden["x"].requires_grad_()
    y = module(x)
    y.backward(golden["g"])
    suffix = "_train" if train else ""
    close(y, golden["y" + suffix], "y" + suffix)
    close(x.grad, golden["gx" + suffix], "gx" + suffix)
    state = module.state_dict()
    for key in [key for key in golden if train and key.startswith("after:")]:
        close(state[key.removeprefix("after:")], golden[key], key)


@both_precisions
@named(r"\bTransformerBlock\(")
def test_epa_block_with_the_corrected_order(name, dtype):
    golden = load(name, dtype)
    module = weights_into(block_of(name, "corrected").to(dtype), golden).eval()
    close(module(golden["x"]), golden["y_fixed"], "y_fixed")


@both_precisions
@train_or_eval
@named(r"^UnetResBlock")
def test_unet_res_block(name, train, dtype):
    golden = load(name, dtype)
    channels = (argument(name, "in"), argument(name, "out"))
    size, stride = argument(name, "kernel_size"), argument(name, "stride")
    norm = re.search(r"norm_name='(\w+)'", meta(name))[1]
    module = UnetResBlock(*channels, kernel=(size,) * 3, stride=(stride,) * 3, norm=norm).to(dtype).train(train)
    weights_into(module, golden)
    x = golden["x"].requires_grad_()
    y = module(x)
    y.backward(golden["g"])
    suffix = "_train" if train else ""
    close(y, golden["y" + suffix], "y" + suffix)
    close(x.grad, golden["gx" + suffix], "gx" + suffix)
    if not train:
        close_weight_gradients(module, golden)


def test_every_golden_file_has_a_test():
    if not NAMES:
        pytest.skip(f"no golden vectors in {FOLDER}")
    known = r"AttentionModule|CSAM\(|EPA\(|TransformerBlock\(|^UnetResBlock"
    assert [name for name in NAMES if not re.search(known, meta(name))] == []
