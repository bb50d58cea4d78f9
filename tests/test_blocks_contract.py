"""Every attention block fulfils the contract, and each check of the contract can fail."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.export import Dim

from blocks import BLOCKS
from search.export.block_contract import CHECKS, Broken, Subject, check_spec, subjects
from search.export.block_contract.checks import ONCE, exports_to_onnx, exports_to_pt2
from search.export.block_contract.subject import BUILT, SIZES
from space.place import Place
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec, Option, Site

CHANNELS = 16
SITE = Site(CHANNELS, BUILT, Place("skip", 0))
SPECS = {spec.name: spec for spec in BUILT_IN}
FIRST = {
    "isa": {},
    "csam": {},
    "joint": {},
    "epa": {"projection": 7, "heads": 4},
}
VARIANTS = [
    ("isa", {"shared": False}),
    ("csam", {"uncertainty": True, "rank": 2}),
    ("csam", {"semantic": False}),
    ("csam", {"positional": False, "slice": False}),
    ("joint", {"mode": "pointwise"}),
    ("joint", {"mode": "self", "axes": "volume", "reduction": 3}),
    ("epa", {"projection": 7, "heads": 4, "projections": "raw"}),
    ("epa", {"projection": 7, "heads": 2, "projections": "separate", "residual_units": 2}),
    ("epa", {"projection": 7, "heads": 4, "order": "corrected"}),
]
EXPORTED = (0, 1, 5, 7)  # of VARIANTS, in `make test`: the most different of each block


def subject(name: str, **options) -> Subject:
    return Subject(SPECS[name], tuple((options or FIRST[name]).items()), SITE)


each_block = pytest.mark.parametrize("made", [subject(name) for name in FIRST], ids=lambda made: made.spec.name)
each_variant = pytest.mark.parametrize(
    "made",
    [subject(name) for name in FIRST] + [subject(name, **options) for name, options in VARIANTS],
    ids=lambda made: f"{made.spec.name}, {made}",
)


def test_every_block_has_a_spec_and_is_checked_here():
    assert SPECS.keys() == FIRST.keys() == BLOCKS.keys()
    assert {name: spec.load() for name, spec in SPECS.items()} == BLOCKS


@each_variant
@pytest.mark.parametrize(
    "check", [each for each in CHECKS.values() if each not in ONCE], ids=lambda each: each.__name__
)
@pytest.mark.filterwarnings("ignore")
def test_the_contract_is_kept(made, check):
    assert check(made)


@each_block
@pytest.mark.filterwarnings("ignore")
def test_the_contract_of_exports_is_kept(made):
    assert exports_to_pt2(made).startswith("any batch size, any volume size")
    assert "differs by" in exports_to_onnx(made)


@each_block
def test_bfloat16_weights_run(made):
    block, x = made.build().bfloat16(), made.volumes().bfloat16().requires_grad_()
    y = block(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad.isfinite().all()


def check_compiled(made: Subject, *, backend: str) -> None:
    block, x = made.build().double(), made.volumes().double()
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
def test_compiles_with_aot_eager(made):
    check_compiled(made, backend="aot_eager")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_csam_compiles_with_inductor():
    check_compiled(subject("csam"), backend="inductor")


RELOAD = """
import json, sys
sys.modules["blocks"] = None  # importing it raises
import torch
errors = {}
for name in sys.argv[1:]:
    run = torch.export.load(f"{name}.pt2").module()
    for key, (x, y) in torch.load(f"{name}.pt").items():
        errors[f"{name} {key}"] = float((run(x) - y).abs().max().detach() / y.abs().max().detach())
print(json.dumps(errors))
"""


def exported(made: Subject):
    """Export a block with every size dynamic; return the program, and inputs of many sizes with their outputs."""
    block = made.build().eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    program = torch.export.export(block, (made.volumes((6, 8, 10)),), dynamic_shapes=(dynamic,))
    sizes = [(2, *size) for size in SIZES] + [(1, *BUILT), (3, 2, 4, 3)]
    return program, {str(size): (x := made.volumes(size[1:], batch=size[0]), block(x).detach()) for size in sizes}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(subject(name, **options), marks=() if number in EXPORTED else pytest.mark.long)
        for number, (name, options) in enumerate(VARIANTS)
    ],
    ids=lambda made: f"{made.spec.name}, {made}",
)
@pytest.mark.filterwarnings("ignore")
def test_exports_with_every_size_dynamic(made):
    program, wanted = exported(made)
    errors = {key: float((program.module()(x) - y).detach().abs().max()) for key, (x, y) in wanted.items()}
    assert len(errors) == len(SIZES) + 2 and max(errors.values()) < 1e-4, errors


@pytest.mark.filterwarnings("ignore")
def test_exported_blocks_take_every_size_in_a_process_without_our_packages(tmp_path):
    for name in FIRST:
        program, wanted = exported(subject(name))
        torch.export.save(program, tmp_path / f"{name}.pt2")
        torch.save(wanted, tmp_path / f"{name}.pt")
    command = [sys.executable, "-c", RELOAD, *FIRST]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    errors = json.loads(out)
    assert len(errors) == len(FIRST) * (len(SIZES) + 2) and max(errors.values()) < 1e-4, errors


@each_block
@pytest.mark.filterwarnings("ignore")
def test_exports_at_one_slice(made):
    block = made.build().eval()
    dynamic = {0: Dim.DYNAMIC, 3: Dim.DYNAMIC, 4: Dim.DYNAMIC}
    program = torch.export.export(block, (made.volumes((1, 8, 10)),), dynamic_shapes=(dynamic,))
    for x in (made.volumes((1, 5, 7), batch=1), made.volumes((1, 2, 1), batch=3)):
        torch.testing.assert_close(program.module()(x), block(x), rtol=1e-4, atol=1e-4)


@each_block
@pytest.mark.parametrize("shape", [(2, CHANNELS + 1, 4, 6, 5), (2, CHANNELS, 6, 5)], ids=str)
def test_a_wrong_input_is_named(made, shape):
    with pytest.raises(ValueError, match=rf"expects \(B, {CHANNELS}, D, H, W\), got \({shape[0]}, {shape[1]},"):
        made.build()(torch.zeros(shape))


class Bad(nn.Module):
    """A block whose every fault can be switched on."""

    def __init__(self, channels: int, *, fault: str = "none") -> None:
        super().__init__()
        self.fault, self.calls = fault, 0.0
        self.weight = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.unused = nn.Parameter(torch.ones(3)) if fault == "unused" else None
        self.dead = nn.Parameter(torch.ones(1)) if fault == "dead" else None
        self.hidden = torch.randn(1) if fault == "hidden state" else 0.0

    def forward(self, x):
        y = x * self.weight
        match self.fault:
            case "shape":
                y = y[:, :, :1] if x.shape[2] > 4 else y
            case "dead":
                y = y + 0 * self.dead
            case "detached":
                y = x.detach() * self.weight
            case "batch":
                y = y + x.mean(dim=0, keepdim=True)
            case "random":
                y = y + torch.rand_like(y)
            case "hidden state":
                y = y + self.hidden
            case "overflow":
                y = y * (torch.inf if torch.is_autocast_enabled("cpu") else 1)
            case "size in Python":
                y = y * (2 if x.shape[3] == 6 else 1)
            case "false gradient":
                y = y + (x - x.detach())
            case "memory":
                y = y.detach().numpy() is not None and y
            case "layout":
                y = y * (2 if not x.is_contiguous() else 1)
        return y


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("shape", "keeps the shape at any size", r"\(2, 16, 9, 2, 3\) becomes \(2, 16, 1, 2, 3\)"),
        ("unused", "gradients reach input and parameters", "unused has no gradient at 4x6x5"),
        ("dead", "gradients reach input and parameters", "the gradient of dead is zero, so it never learns"),
        ("detached", "gradients reach input and parameters", "no finite gradient reaches the input at 4x6x5"),
        ("false gradient", "gradient matches finite differences", "gradient and finite differences differ by"),
        ("batch", "volumes of a batch are independent", "a single volume and the same in a batch of 3 differ by"),
        ("random", "eval is deterministic", "two runs in eval mode differ"),
        ("layout", "any memory layout", "channels last values differ by"),
        ("hidden state", "state-dict round trip", "another block with the same state dict has a different output"),
        ("overflow", "trains in bfloat16", "no finite gradient of weight under autocast"),
        ("memory", "memory matches the prediction", "its memory can't be predicted"),
        ("size in Python", "exports to .pt2", "the training patch size 4 x 6 x 5 only"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_block_with_a_fault_fails_its_check(fault, check, message):
    made = Subject(BlockSpec("bad", Bad), (("fault", fault),), SITE)
    with pytest.raises(Broken, match=message):
        CHECKS[check](made)


@pytest.mark.filterwarnings("ignore")
def test_results_say_with_which_options_a_check_failed():
    spec = BlockSpec("bad", Bad, options=(Option("fault", ("none", "random", "dead"), "what is wrong"),))
    results = {each.check: each for each in check_spec(spec)}
    assert results["eval is deterministic"].result == "failed"
    assert results["eval is deterministic"].detail == "with fault=random: two runs in eval mode differ"
    assert results["gradients reach input and parameters"].detail.startswith("with fault=dead: the gradient of dead")
    assert results["exports to .pt2"].result == "passed"  # at the first choices
    assert results["memory matches the prediction"].detail.endswith("(3 sets of options)")


def test_each_choice_is_checked_once_and_what_cannot_be_built_is_left_out():
    def why_not(options, site):
        return "is too deep" if options["depth"] == 3 or site.channels < 32 else None

    options = (
        Option("depth", (1, 2, 3), "blocks"),
        Option("gate", ("soft", "hard"), "the gate", when=(("depth", (2,)),)),
    )
    spec = BlockSpec("own", "torch.nn:Identity", options=options, why_not=why_not)
    made = list(subjects(spec))
    assert [str(each) for each in made] == ["depth=1", "depth=2, gate=soft"]
    assert {each.site.channels for each in made} == {32}
    never = BlockSpec("own", "torch.nn:Identity", why_not=lambda options, site: "needs a prime number of channels")
    with pytest.raises(ValueError, match="'own' accepts none of 16, 32, 64, 48, 8 channels at 4x6x5: needs a prime"):
        list(subjects(never))
