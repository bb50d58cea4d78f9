"""Plug-in blocks: loading, refusals, and the code digest in architectures."""

from pathlib import Path

import pytest
import torch

from search.costs.macs import params_and_macs
from space import plugins
from space.architecture import Architecture
from space.axes import DecisionError
from space.build import build
from space.canonical import Context
from space.narrow import Narrowing, narrow_space
from space.place import Place
from space.plugins import BlockCode, PluginError, find_code, load_blocks, load_specs, read_file
from space.specs.registry import BUILT_IN, UnknownBlock
from space.specs.spec import BlockSpec, Option

EXAMPLE = Path(__file__).parents[1] / "studies" / "examples" / "own_block"
CONTEXT = Context((5, 24, 20), (5.0, 1.0, 1.0), 1, 2)
HEAD = "import torch\nfrom torch import nn\nfrom space.specs import BlockSpec, Option\n"
SCALE = HEAD + (
    "class Scale(nn.Module):\n"
    "    def __init__(self, channels):\n"
    "        super().__init__()\n"
    "        self.weight = nn.Parameter(torch.ones(channels, 1, 1, 1))\n"
    "    def forward(self, x):\n"
    "        return x * self.weight\n"
)


def write(folder: Path, text: str, name: str = "own.py") -> BlockCode:
    (folder / name).write_text(text)
    return read_file(f"./{name}", folder)


def own_space(*codes: BlockCode, **narrowing):
    fix = {"levels": 3, "width": 8, "encoder": "plain"}
    return narrow_space(CONTEXT, Narrowing(fix=fix, blocks=load_blocks(codes), **narrowing))


def test_a_files_block_is_a_choice_at_every_place_with_its_options():
    code = read_file("slice_se.py", EXAMPLE)
    space = own_space(code)
    assert space.by_name["attention@skip0"].choices == ("none", "isa", "csam", "joint", "epa", "slice_se")
    assert space.by_name["slice_se.reduction@skip0"].when[-1] == ("attention@skip0", ("slice_se",))
    decisions = space.complete({"attention@skip0": "slice_se", "slice_se.reduction@skip0": 8})
    architecture = space.architecture(decisions)
    assert architecture.options(Place("skip", 0)) == {"reduction": 8}
    assert architecture["code.slice_se"] == code.version and len(code.version) == 12
    network = build(architecture, CONTEXT)
    assert network(torch.zeros(1, 1, 5, 24, 20)).shape == (1, 2, 5, 24, 20)
    assert network.state_dict()["attention.skip0.squeeze.weight"].shape == (1, 8)


def test_a_study_without_plug_ins_has_the_papers_blocks_alone():
    assert own_space().by_name["attention@skip0"].choices == ("none", "isa", "csam", "joint", "epa")
    assert "code.isa" not in dict(own_space().architecture(own_space().complete({"attention@skip0": "isa"})).entries)


def test_costs_of_a_block_without_rules_are_those_that_torch_counts():
    space = own_space(read_file("slice_se.py", EXAMPLE))
    with_block, without = (
        space.architecture(space.complete({"attention@skip0": block})) for block in ("slice_se", "none")
    )
    params, macs = (
        a - b for a, b in zip(*(params_and_macs(each, CONTEXT) for each in (with_block, without)), strict=True)
    )
    assert params == 2 * 8 * 2 + 2 + 8
    assert macs == 5 * 2 * 8 * 2  # two linear maps of each of five slices


def test_changed_code_is_another_architecture(tmp_path):
    texts = SCALE + 'BLOCK = BlockSpec("own", Scale)\n', SCALE + '# other\nBLOCK = BlockSpec("own", Scale)\n'
    codes = [write(tmp_path, text) for text in texts]
    one, other = (own_space(code).architecture(own_space(code).complete({"attention@skip0": "own"})) for code in codes)
    assert one["code.own"] != other["code.own"] and one.fingerprint != other.fingerprint
    assert build(one, CONTEXT).state_dict().keys() == build(other, CONTEXT).state_dict().keys()
    with pytest.raises(
        DecisionError, match=r"base: the code of the block 'own' has changed since training \(\w+, now \w+\)"
    ):
        own_space(codes[1], base=one, open=["upsampling"])
    with pytest.raises(DecisionError, match="base: contains the block 'own'; add its file or package under `blocks`"):
        own_space(base=one, open=["upsampling"])


def test_a_block_that_is_not_loaded_is_named():
    architecture = own_space().architecture(own_space().complete({}))
    entries = {**dict(architecture.entries), "attention@skip0": "gone", "code.gone": "0123"}
    with pytest.raises(UnknownBlock, match=r"the block 'gone' \(code 0123\) is not loaded"):
        build(Architecture.of(entries), CONTEXT)


def test_a_worker_runs_the_text_that_travelled_whatever_lies_on_its_disk(tmp_path):
    code = write(tmp_path, SCALE + 'BLOCK = BlockSpec("own", Scale)\n')
    (tmp_path / "own.py").unlink()
    assert [spec.name for spec in load_specs(code)] == ["own"]
    assert load_specs(code) is load_specs(code)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SCALE, r'\./own\.py defines no BlockSpec; add e.g. BLOCK = BlockSpec\("my_block", MyBlock\)'),
        ("import nothing_like_it\n", r"\./own\.py:1: ModuleNotFoundError: .*can import installed packages only"),
        (HEAD + "class A(nn.Module:\n", r"\./own\.py:4: SyntaxError"),
        (HEAD + "raise SystemExit(3)\n", r"\./own\.py:4: SystemExit: 3"),
        (SCALE + 'B = BlockSpec("isa", Scale)\n', r"defines a block 'isa', as does voxnas itself; rename one of them"),
        (
            SCALE + 'B = BlockSpec("My.Block", Scale)\n',
            r"'My\.Block' is not a valid block name: use lower-case letters",
        ),
        (SCALE + 'B = BlockSpec("none", Scale)\n', "'none' is not a valid block name"),
        (SCALE + "B = BlockSpec(3, Scale)\n", "3 is not a valid block name"),
        (SCALE + 'B = BlockSpec("own", print)\n', "block 'own' needs a subclass of nn.Module, not <built-in"),
        (SCALE + 'B = BlockSpec("own", "torch.nn:Nothing")\n', "'torch.nn:Nothing' can't be imported"),
        (SCALE + 'B = BlockSpec("own", Scale, options=["a"])\n', "block 'own': each option must be an Option, not 'a'"),
        (SCALE + 'B = BlockSpec("own", Scale, macs=7)\n', "block 'own': macs must be a function, not 7"),
        (SCALE + 'B = BlockSpec("own", Scale, options=(Option("a", (), "x"),))\n', "option 'a' has no choices"),
        (
            SCALE + 'B = BlockSpec("own", Scale, options=(Option("a", (1,), "x", (("b", (2,)),)),))\n',
            r"option 'a' depends on b=\[2\], which no earlier option offers",
        ),
        (SCALE + 'B = BlockSpec("own", Scale, repeated="n")\n', "`repeated` names 'n', which is not an option"),
        (
            SCALE.replace("x * self.weight", "(x * self.weight)[:, :, ::2]") + 'B = BlockSpec("own", Scale)\n',
            r"must keep the shape \(2, 16, 3, 6, 5\), but returns \(2, 16, 2, 6, 5\)",
        ),
        (
            SCALE.replace("x * self.weight", "[x * self.weight]") + 'B = BlockSpec("own", Scale)\n',
            "must return a single tensor, not list",
        ),
        (
            SCALE.replace("self, channels", "self, channels, heads") + 'B = BlockSpec("own", Scale)\n',
            r"block 'own' fails on \(2, C, 3, 6, 5\): TypeError: .*heads",
        ),
    ],
)
def test_each_mistake_in_a_block_file_has_its_message(tmp_path, text, message):
    code = write(tmp_path, text)
    with pytest.raises(PluginError, match=message):
        load_blocks((code,))


@pytest.mark.parametrize("name", ["../own.py", "/own.py", "sub/own.txt", "a.b/c"])
def test_a_file_lies_beside_the_study(tmp_path, name):
    with pytest.raises(PluginError, match="must be a Python file beside the study"):
        read_file(name, tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(PluginError, match=r"\./gone\.py can't be read: No such file"):
        read_file("./gone.py", tmp_path)
    (tmp_path / "latin.py").write_bytes(b"# \xe9")
    with pytest.raises(PluginError, match=r"\./latin\.py is not UTF-8 text"):
        read_file("./latin.py", tmp_path)


def test_two_files_may_not_share_a_name(tmp_path):
    text = SCALE + 'BLOCK = BlockSpec("own", Scale)\n'
    codes = write(tmp_path, text, "one.py"), write(tmp_path, "#\n" + text, "two.py")
    with pytest.raises(PluginError, match=r"\./two\.py defines a block 'own', as does \./one\.py; rename one of them"):
        load_blocks(codes)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `own-blocks` whose entry point `own` is a module with one block."""
    (tmp_path / "own_blocks.py").write_text(SCALE + 'BLOCK = BlockSpec("own_scale", Scale)\n')
    info = tmp_path / "own_blocks-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-blocks\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[voxnas.blocks]\nown = own_blocks\n")
    monkeypatch.syspath_prepend(tmp_path)
    return info


def test_an_installed_packages_block_is_found_by_its_entry_point(package):
    code = find_code("own", Path())
    assert (code.version, code.text) == ("own-blocks 1.2", "")
    space = own_space(code)
    architecture = space.architecture(space.complete({"attention@bottleneck": "own_scale"}))
    assert architecture["code.own_scale"] == "own-blocks 1.2"
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-blocks\nVersion: 1.3\n")
    plugins._loaded.clear()
    with pytest.raises(PluginError, match="need own-blocks 1.2, but own-blocks 1.3 is installed here"):
        load_specs(code)


def test_an_unknown_entry_point_names_those_there_are(package):
    with pytest.raises(PluginError, match=r"blocks named 'onw' \(entry points .*: own\); for a local file, write"):
        find_code("onw", Path())


def test_a_package_that_fails_to_import_is_named(package):
    (package / "entry_points.txt").write_text("[voxnas.blocks]\nown = own_blocks_gone\n")
    with pytest.raises(PluginError, match="own can't be imported: ModuleNotFoundError"):
        load_specs(find_code("own", Path()))


def test_every_spec_describes_itself():
    for spec in BUILT_IN:
        assert spec.label and spec.source and spec.load() and spec.citation.startswith(spec.label)
    assert BlockSpec("own", "torch.nn:Identity").citation == "own: no source given"
    assert Option("a", (1,), "x").limits is None
