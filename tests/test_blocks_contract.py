"""The contract that every attention block fulfils, whatever it computes."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from blocks import BLOCKS
from search.costs.abstract import AbstractTensors
from search.costs.live_bytes import LiveBytes

CHANNELS = 16
BUILT = (4, 6, 5)
OPTIONS = {
    "isa": {},
    "csam": {"slices": BUILT[0]},
    "joint": {},
    "epa": {"grid": BUILT, "projection": 7, "heads": 4},
}
# At the built size, odd, thin, one slice, one row, deep; H differs from W in all.
SIZES = [BUILT, (3, 7, 5), (1, 6, 5), (4, 1, 9), (9, 2, 3), (1, 1, 2)]
VARIANTS = [
    ("isa", {"shared": False}),
    ("csam", {"slices": 4, "uncertainty": True, "rank": 2}),
    ("csam", {"slices": 4, "semantic": False}),
    ("csam", {"slices": 4, "positional": False, "slice": False}),
    ("joint", {"mode": "pointwise"}),
    ("joint", {"mode": "self", "axes": "volume", "reduction": 3}),
    ("epa", {"grid": BUILT, "projection": 7, "heads": 4, "projections": "raw"}),
    ("epa", {"grid": BUILT, "projection": 7, "heads": 2, "projections": "separate", "residual_units": 2}),
    ("epa", {"grid": BUILT, "projection": 7, "heads": 4, "order": "corrected"}),
]
each_block = pytest.mark.parametrize("name", BLOCKS)
each_variant = pytest.mark.parametrize(
    ("name", "options"), [(name, OPTIONS[name]) for name in BLOCKS] + VARIANTS, ids=lambda value: str(value)
)


def build(name: str, **options) -> nn.Module:
    """Return a block with `CHANNELS` channels and random weights: initially some are zero and would hide mistakes.

    Biases are around 1: with smaller ones a narrow hidden layer could be dead behind its ReLU.
    """
    torch.manual_seed(0)
    block = BLOCKS[name](CHANNELS, **(options or OPTIONS[name]))
    for key, parameter in block.named_parameters():
        nn.init.normal_(parameter, mean=float(key.endswith("bias")), std=0.3)
    return block


def volumes(*size: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def test_the_options_of_these_tests_cover_every_block():
    assert OPTIONS.keys() == BLOCKS.keys()


@each_variant
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_shape_is_kept_and_every_weight_has_a_gradient(name, options, size):
    block = build(name, **options)
    x = volumes(*size).requires_grad_()
    y = block(x)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    for key, parameter in block.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # One slice has no neighbours; softmax over one position and over a key's shift is constant.
        exempt = (name == "isa" and size[0] == 1) or key == "key.bias"
        assert exempt or parameter.grad.abs().max() > 0 or size != BUILT, key


@each_variant
def test_volumes_of_a_batch_are_independent(name, options):
    block = build(name, **options).eval().double()
    x = volumes(*BUILT, batch=3).double()
    together = block(x)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], block(x[index : index + 1]), rtol=1e-10, atol=1e-11)


@each_variant
def test_the_gradient_equals_the_numerical_gradient(name, options):
    block = build(name, **options).double().eval()
    x = volumes(2, 3, 2, batch=1).double().requires_grad_()
    direction = volumes(2, 3, 2, batch=1, seed=2).double()
    (gradient,) = torch.autograd.grad(block(x).square().sum(), x)
    step = 1e-6
    with torch.no_grad():
        difference = block(x + step * direction).square().sum() - block(x - step * direction).square().sum()
    torch.testing.assert_close((gradient * direction).sum(), difference / (2 * step), rtol=1e-6, atol=1e-6)


@each_block
def test_eval_is_deterministic(name):
    block = build(name).eval()
    x = volumes(*BUILT)
    assert torch.equal(block(x), block(x))


@each_variant
@pytest.mark.parametrize("layout", ["channels last", "strided"])
def test_any_layout_gives_the_same_values_and_gradients(name, options, layout):
    block = build(name, **options).double().eval()
    x = volumes(6, 4, 5).double().transpose(2, 3)
    results = []
    for part in (x.contiguous(), x if layout == "strided" else x.contiguous(memory_format=torch.channels_last_3d)):
        leaf = part.detach().requires_grad_()
        y = block(leaf)
        results.append((y, *torch.autograd.grad(y.square().sum(), leaf)))
        for parameter in block.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-9, atol=1e-9)


@each_variant
def test_the_state_dict_survives_a_round_trip(name, options):
    block, other = build(name, **options).eval(), BLOCKS[name](CHANNELS, **options).eval()
    other.load_state_dict(block.state_dict(), strict=True)
    x = volumes(*BUILT)
    assert torch.equal(block(x), other(x))
    assert torch.equal(block(x), copy.deepcopy(block)(x))


@each_block
def test_bfloat16_autocast_trains(name):
    block = build(name)
    x = volumes(*BUILT).requires_grad_()
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x)
        y.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()


@each_block
def test_bfloat16_weights_run(name):
    block = build(name).bfloat16()
    x = volumes(*BUILT).bfloat16().requires_grad_()
    y = block(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.isfinite().all()


def check_compiled(block: nn.Module, *, backend: str) -> None:
    block = block.double()
    x = volumes(*BUILT).double()
    results = []
    for run in (block, torch.compile(copy.deepcopy(block), backend=backend, fullgraph=True)):
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        y.square().sum().backward()
        results.append((y, leaf.grad))
    torch.compiler.reset()
    for ours, compiled in zip(*results, strict=True):
        torch.testing.assert_close(ours, compiled, rtol=1e-9, atol=1e-9)


@each_block
def test_compiles_with_aot_eager(name):
    check_compiled(build(name), backend="aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_csam_compiles_with_inductor():
    check_compiled(build("csam"), backend="inductor")


RELOAD = """
import json, sys
sys.modules["blocks"] = None  # importing it raises
import torch
run = torch.export.load(sys.argv[1]).module()
errors = {}
for key, (x, y) in torch.load(sys.argv[2]).items():
    errors[key] = float((run(x) - y).abs().max().detach() / y.abs().max().detach())
print(json.dumps(errors))
"""


@each_variant
@pytest.mark.filterwarnings("ignore")
def test_exports_with_every_size_dynamic_and_runs_without_our_packages(name, options, tmp_path):
    block = build(name, **options).eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    program = torch.export.export(block, (volumes(6, 8, 10),), dynamic_shapes=(dynamic,))
    sizes = [(2, *size) for size in SIZES] + [(1, *BUILT), (3, 2, 4, 3)]
    wanted = {str(size): (x := volumes(*size[1:], batch=size[0]), block(x).detach()) for size in sizes}
    if (name, options) not in [(key, OPTIONS[key]) for key in BLOCKS]:
        errors = {key: float((program.module()(x) - y).detach().abs().max()) for key, (x, y) in wanted.items()}
    else:
        torch.export.save(program, tmp_path / "block.pt2")
        torch.save(wanted, tmp_path / "wanted.pt")
        command = [sys.executable, "-c", RELOAD, "block.pt2", "wanted.pt"]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        errors = json.loads(out)
    assert len(errors) == len(sizes) and max(errors.values()) < 1e-4, errors


@each_block
@pytest.mark.filterwarnings("ignore")
def test_exports_at_one_slice(name):
    block = build(name).eval()
    dynamic = {0: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    program = torch.export.export(block, (volumes(1, 8, 10),), dynamic_shapes=(dynamic,))
    for x in (volumes(1, 5, 7, batch=1), volumes(1, 2, 1, batch=3)):
        torch.testing.assert_close(program.module()(x), block(x), rtol=1e-4, atol=1e-4)


@each_block
@pytest.mark.parametrize("shape", [(2, CHANNELS + 1, 4, 6, 5), (2, CHANNELS, 6, 5)], ids=str)
def test_an_invalid_input_is_refused_with_its_shape(name, shape):
    with pytest.raises(ValueError, match=rf"expects \(B, {CHANNELS}, D, H, W\), got \({shape[0]}, {shape[1]},"):
        build(name)(torch.zeros(shape))


@each_variant
def test_a_step_on_abstract_tensors_has_the_real_peak_memory(name, options):
    def peak_bytes(counter) -> int:
        with counter:
            block = BLOCKS[name](CHANNELS, **options)
            x = torch.zeros(2, CHANNELS, 5, 8, 6, requires_grad=True)
            block(x).sum().backward()
        return counter.peak_bytes

    assert peak_bytes(AbstractTensors()) == pytest.approx(peak_bytes(LiveBytes()), rel=0.001)
