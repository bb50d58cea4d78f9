"""model.py: the source of a network, compared with the network itself."""

from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from bench_presets import SMALL, narrowed
from torch import nn

from search.export.source import NotWritable, write_source
from search.export.trained import Ensemble, untrained_network
from search.runner.sampling import sample_buildable
from search.training.checkpoint import save_tensors
from space.architecture import Architecture
from space.canonical import Context
from space.narrow import narrow
from space.presets import PRESETS

CONTEXT = Context((5, 32, 24), (3.0, 1.0, 1.0), 2, 3)
TOLERANCE = 1e-4
FAST, POINTS = 8, 20  # random networks in `make test` and in `make test-all`


def lively(network: nn.Module) -> nn.Module:
    """Give the network weights and statistics other than 0 and 1: a missing one then changes the result."""
    torch.manual_seed(0)
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            with torch.no_grad():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
                elif value.dim() < 2 or value.numel() < 32 or "pos_embed" in name:
                    value.normal_(0.2, 0.4)
    return network.eval()


def written(architecture: Architecture, context: Context, folder: Path, *, count: int = 1, sizes=()):
    """Return a network, its model.py as a module, and the network loaded from it; assert one source for all sizes."""
    network = lively(untrained_network(architecture, context, count=count))
    done = write_source(
        lambda: untrained_network(architecture, context, count=count),
        folder / "model.py",
        in_channels=context.in_channels,
        sizes=sizes or [context.patch],
        title="A network.",
    )
    assert done.sizes == "any"
    save_tensors(network, folder / "weights.safetensors")
    spec = importlib.util.spec_from_file_location("written_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return network, module, module.load_network(folder / "weights.safetensors")


def apart(one: nn.Module, other: nn.Module, shape: tuple[int, ...]) -> float:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = other(x)
        return float((one(x) - expected).abs().max() / expected.abs().max().clamp_min(1.0))


def check(architecture: Architecture, context: Context, folder: Path, *, sizes: list[tuple[int, ...]]) -> str:
    """Compare at the patch size and other sizes; return the source."""
    network, _, loaded = written(architecture, context, folder, sizes=[context.patch, *sizes])
    for size in [context.patch, *sizes]:
        assert apart(loaded, network, (1, context.in_channels, *size)) < TOLERANCE, architecture.describe()
    return (folder / "model.py").read_text()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "unetrpp_lung"])  # same blocks as acdc
def test_the_source_of_every_papers_network_computes_the_same(name, tmp_path):
    preset = PRESETS[name]
    patch = SMALL.get(name.partition("_")[0], (6, 32, 32))
    source = check(narrowed(preset.architecture), replace(preset.context, patch=patch), tmp_path, sizes=[])
    assert "registry" not in source and "Architecture" not in source.split('"""', 2)[2]


SPACE = narrow(CONTEXT, placement="each", fix={"width": 16, "width_cap": 32}, choices={})


@pytest.mark.parametrize(
    "point", [*range(FAST), *(pytest.param(n, marks=pytest.mark.long) for n in range(FAST, POINTS))]
)
def test_the_source_of_random_networks_computes_the_same_at_any_size(point, tmp_path):
    architecture = SPACE.architecture(sample_buildable(SPACE, Random(point)))
    check(architecture, CONTEXT, tmp_path, sizes=[(7, 27, 35)])


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_the_source_of_a_timm_encoder_needs_only_torch(name, tmp_path):
    fix = {
        "encoder": f"timm:{name}",
        "levels": 3,
        "width": 8,
        "growth": 1.5,
        "pretrained": False,
        "stages": "single",
        "repeats": 1,
        "attention@bottleneck": "isa",
    }
    space = narrow(CONTEXT, placement="tied", fix=fix, choices={})
    check(space.architecture(space.complete({})), CONTEXT, tmp_path, sizes=[(3, 41, 70)])


PLAIN = Architecture.of(
    {
        "encoder": "residual",
        "channels": (16, 24),
        "pooling": ((1, 2, 2),),
        "kernels": ((1, 3, 3),) * 2,
        "repeats": 2,
        "norm": "instance",
        "activation": "leakyrelu",
        "dropout": 0.2,
        "downsampling": "strided",
        "upsampling": "linear",
        "skip": "add",
        "deep_supervision": True,
        "attention@skip0": "csam",
        "csam.semantic@skip0": False,
        "csam.positional@skip0": True,
        "csam.slice@skip0": True,
        "csam.uncertainty@skip0": False,
    }
)


def test_the_source_needs_only_torch_and_has_no_unused_options(tmp_path):
    source = check(PLAIN, CONTEXT, tmp_path, sizes=[(1, 5, 9)])
    tree = ast.parse(source)
    named = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {alias.name for node in named if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in named if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) == {"torch"}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"UNet", "CSAM", "PositionalGate", "SliceGate", "ResidualUnit"} <= classes.keys()
    assert "SemanticGate" not in source and "uncertainty" not in source.split("class CSAM")[1]
    assert not [node for each in classes.values() for node in ast.walk(each) if isinstance(node, (ast.If, ast.For))]
    assert all(ast.get_docstring(each) for each in classes.values())
    assert max(len(line) for line in source.splitlines()) <= 130


def test_the_source_keeps_the_names_and_comments_of_the_blocks(tmp_path):
    written(PLAIN, CONTEXT, tmp_path)
    source = (tmp_path / "model.py").read_text()
    assert "shortcut = self.norm3(self.conv3(x))" in source
    assert "x = self.activation(self.norm1(self.conv1(x)))" in source
    assert "descriptors = torch.stack([maximum, mean], dim=1)  # (B, 2, D)" in source
    assert 'skip = self.attention["skip0"](down0)' in source
    assert "size=skip.shape[2:]" in source and "Source: CSAM (WACV 2024)" in source


def test_weights_load_strictly(tmp_path):
    from safetensors.torch import load_file, save_file

    _, module, _ = written(PLAIN, CONTEXT, tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    missing = dict(list(tensors.items())[1:])
    save_file(missing, tmp_path / "missing.safetensors")
    save_file({**tensors, "more": torch.zeros(1)}, tmp_path / "more.safetensors")
    for name, message in (("missing", "Missing key"), ("more", "Unexpected key")):
        with pytest.raises(RuntimeError, match=message):
            module.load_network(tmp_path / f"{name}.safetensors")
    whole = (tmp_path / "weights.safetensors").read_bytes()
    for end in (4, 300, len(whole) - 8):
        (tmp_path / "cut.safetensors").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="cut.safetensors: is not a complete safetensors file"):
            module.load_network(tmp_path / "cut.safetensors")
    read = module.read_safetensors(tmp_path / "weights.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_an_ensemble_averages_its_networks(tmp_path):
    network, module, loaded = written(PLAIN, CONTEXT, tmp_path, count=3)
    assert isinstance(network, Ensemble) and type(loaded).__name__ == "Ensemble"
    assert len({id(each) for each in network.networks}) == 3
    x = torch.randn(1, 2, *CONTEXT.patch)
    with torch.inference_mode():
        mean = torch.stack([each(x) for each in network.networks]).mean(dim=0)
        assert torch.allclose(loaded(x), mean, atol=1e-5)


def test_half_precision_keeps_its_float32_parts(tmp_path):
    values = {
        **dict(PLAIN.entries),
        "attention@skip0": "epa",
        "epa.projection@skip0": 8,
        "epa.heads@skip0": 2,
        "epa.projections@skip0": "shared",
        "epa.order@skip0": "corrected",
        "epa.residual_units@skip0": 1,
        "epa.dropout@skip0": 0.0,
        "epa.blocks@skip0": 1,
    }
    values = {name: value for name, value in values.items() if not name.startswith("csam.")}
    network, _, loaded = written(Architecture.of(values), CONTEXT, tmp_path)
    x = torch.randn(1, 2, *CONTEXT.patch)
    with torch.inference_mode():
        assert loaded(x).dtype == torch.float32
        low = loaded.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert (low.float() - network(x)).abs().mean() < 0.05


def test_a_network_that_cannot_be_written_is_refused_with_the_reason(tmp_path):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.ones(3), persistent=False)
            self.conv = nn.Conv3d(1, 3, 1)

        def forward(self, x):
            return self.conv(x) * self.table[:, None, None, None]

    with pytest.raises(NotWritable, match="Hidden uses the buffer 'table', which is not part of its weights"):
        write_source(Hidden, tmp_path / "model.py", in_channels=1, sizes=[(2, 2, 2)], title="A network.")
    assert not (tmp_path / "model.py").exists()


def test_the_source_of_a_network_that_branches_on_the_size_is_for_its_patch_only(tmp_path):
    class Branching(nn.Module):
        def forward(self, x):
            return x * 2 if x.shape[2] > 3 else x + 1

    for sizes, valid in (([(5, 4, 4), (7, 4, 4)], "any"), ([(5, 4, 4), (2, 4, 4)], "patch")):
        done = write_source(Branching, tmp_path / "model.py", in_channels=1, sizes=sizes, title="A network.")
        assert (done.network, done.sizes) == ("Branching", valid)
        assert "return x * 2" in (tmp_path / "model.py").read_text()
