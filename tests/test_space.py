"""The space: decisions, architectures, networks."""

import pickle
import subprocess
import sys
from random import Random

import pytest

from space.axes import DecisionError
from space.build import Refused, build
from space.canonical import Context
from space.feasible import why_not
from space.narrow import Narrowing, narrow, narrow_space
from space.place import BOTTLENECK, AxisName, Place, down_place, places
from space.pooling import kernels_from_spacing, level_sizes, pooling_from_spacing
from space.presets import PRESETS

THICK = Context(patch=(5, 33, 28), spacing=(8.0, 1.5, 1.5), in_channels=2, classes=3)
CUBIC = Context(patch=(16, 16, 16), spacing=(1.0, 1.0, 1.0), in_channels=1, classes=4)
FULL = narrow(THICK, placement="each", fix={}, choices={})
SETTLED = {
    name: FULL.by_name[name].choices[0]
    for name in (
        "width",
        "growth",
        "kernels",
        "norm",
        "activation",
        "dropout",
        "downsampling",
        "upsampling",
        "skip",
        "deep_supervision",
        "repeats",
        "stages",
        "stem_stride",
    )
} | {"attention@encoders": "none", "attention@decoders": "none", "csam.positional": True, "csam.semantic": True}
FEW = {
    "levels": [3, 4],
    "encoder": ["plain", "residual"],
    "attention@skips": ["none", "isa", "csam"],
    "attention@bottleneck": ["none", "joint"],
}


def test_an_architecture_has_the_same_hash_in_another_process():
    architecture = FULL.architecture(FULL.sample(Random(0)))
    hash(architecture)
    code = (
        "import pickle, sys; a = pickle.load(sys.stdin.buffer); from space.architecture import Architecture as A; "
        "assert a in {A.from_json(a.to_json())}"
    )
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(architecture), check=True)


@pytest.mark.parametrize("placement", ["each", "tied"])
def test_the_size_is_counted_without_enumerating(placement):
    space = narrow(THICK, placement=placement, fix=SETTLED, choices=FEW)
    listed = [tuple(decisions.items()) for decisions in space.enumerate()]
    assert space.size == len(listed) == len(set(listed)) > 100


FORBID = [
    ({"encoder": "residual", "attention@skips": ["isa", "csam"]}, "one"),
    ({"levels": 4, "attention@bottleneck": "joint", "joint.mode@bottleneck": ["self", "pointwise"]}, "two"),
    ({"csam.uncertainty": True}, "three"),
]


@pytest.mark.parametrize("placement", ["each", "tied"])
def test_forbidden_combinations_are_never_sampled_listed_or_counted(placement):
    space = narrow_space(THICK, Narrowing(placement, SETTLED, FEW, FORBID))
    whole = narrow(THICK, placement=placement, fix=SETTLED, choices=FEW)
    listed = [tuple(decisions.items()) for decisions in space.enumerate()]
    allowed = [tuple(each.items()) for each in whole.enumerate() if not space.forbidden(each)]
    assert listed == allowed and space.size == len(listed) < whole.size
    assert {space.forbidden(each) for each in whole.enumerate()} == {"", "one", "two", "three"}
    rng = Random(0)
    for _ in range(50):
        one = space.sample(rng)
        assert not any(map(space.forbidden, (one, *space.neighbours(one))))
    with pytest.raises(DecisionError, match="forbid: one"):
        space.complete({"encoder": "residual", "attention@skip0" if placement == "each" else "attention@skips": "isa"})


@pytest.mark.parametrize(
    ("forbid", "message"),
    [
        ([({"encodr": "plain"}, "")], "forbid.0.when.encodr: no axis is called 'encodr'; did you mean 'encoder'"),
        ([({}, "why")], "forbid.0.when: an empty condition would forbid all networks"),
        ([({"encoder": ["plain", "vgg"]}, "")], "forbid.0.when.encoder: 'vgg' is not a choice here .choices: plain"),
        ([({"encoder": ["plain", "residual"]}, "")], "forbid: the rules exclude all networks of the space"),
    ],
)
def test_an_impossible_rule_is_refused(forbid, message):
    with pytest.raises(DecisionError, match=message):
        narrow_space(THICK, Narrowing("each", SETTLED, FEW, forbid))


@pytest.mark.parametrize("name", PRESETS)
def test_a_base_without_changes_is_the_papers_network(name):
    preset = PRESETS[name]
    opened = ["attention@skips", "upsampling", "deep_supervision"]
    space = narrow_space(preset.context, Narrowing(base=preset.architecture, open=opened))
    assert space.architecture(space.complete({})) == preset.architecture
    changed = space.architecture(space.complete({"attention@skip1": "isa", "upsampling": "linear"}))
    assert changed.attention() == {**preset.architecture.attention(), Place("skip", 1): "isa"}
    assert changed["upsampling"] == "linear" and changed["channels"] == preset.architecture["channels"]


def test_options_of_a_bases_own_blocks_can_be_opened():
    preset = PRESETS["unetrpp_acdc"]
    space = narrow_space(preset.context, Narrowing(base=preset.architecture, open=["epa.projections", "width"]))
    assert {AxisName.parse(axis.name).head for axis in space.axes} == {"epa.projections", "width"}
    assert "epa.projections@skip0" not in space.by_name  # nothing stands there
    decisions = space.complete({"epa.projections@encoder1": "raw", "width": 8})
    changed = space.architecture(decisions)
    assert changed.options(Place("encoder", 1))["projections"] == "raw"
    assert changed.options(Place("encoder", 2)) == preset.architecture.options(Place("encoder", 2))
    assert changed["channels"] == (8, 16, 32, 64, 128) and why_not(changed, preset.context) is None


def test_a_bases_block_can_be_removed_or_replaced():
    preset = PRESETS["csam_unet"]
    space = narrow_space(preset.context, Narrowing(base=preset.architecture, open=["attention"]))
    bare = space.complete({axis.name: "none" for axis in space.axes if AxisName.parse(axis.name).is_attention})
    assert space.architecture(bare).attention() == {}
    joint = space.complete({"attention@skip2": "joint", "joint.mode@skip2": "pointwise"})
    assert space.architecture(joint).options(Place("skip", 2)) == {"mode": "pointwise"}
    assert "csam.semantic@skip2" not in joint and "csam.semantic@skip1" in joint
    off = space.complete({f"csam.{gate}@skip1": False for gate in ("semantic", "positional", "slice")})
    assert Place("skip", 1) not in space.architecture(off).attention()


@pytest.mark.parametrize(
    ("base", "opened", "message"),
    [
        ("meunet", ["norm"], "open.0: 'norm' can't be opened: the units of 'me' have a fixed form"),
        ("meunet", ["width"], "open.0: 'width' can't be opened: this base sets the widths of its decoder"),
        ("unetrpp_acdc", ["skip"], "open.0: 'skip' can't be opened: UNETR.. always adds its skips"),
        (
            "sau_net",
            ["attention", "levels"],
            "open.1: 'levels' can't be opened on a base: it defines a different network",
        ),
        ("sau_net", ["atention@skips"], "open.0: no axis is called 'atention@skips'; did you mean 'attention@skips'"),
        (None, ["norm"], "open: needs a base network, set with `base`"),
    ],
)
def test_axes_that_cannot_be_opened_are_refused(base, opened, message):
    architecture = PRESETS[base].architecture if base else None
    with pytest.raises(DecisionError, match=message):
        narrow_space(CUBIC, Narrowing(base=architecture, open=opened))


def test_unused_options_are_not_part_of_an_architecture():
    space = narrow(CUBIC, placement="each", fix={}, choices={})
    partial = {
        "levels": 3,
        "attention@skip0": "csam",
        "csam.semantic@skip0": False,
        "csam.positional@skip0": False,
        "csam.slice@skip0": False,
    }
    without = space.architecture(space.complete(partial))
    assert without == space.architecture(space.complete({"levels": 3}))
    explicit = space.architecture(space.complete({"levels": 3, "kernels": "3d"}))
    assert explicit.fingerprint == space.architecture(space.complete({"levels": 3, "kernels": "auto"})).fingerprint
    capped = narrow(CUBIC, placement="each", fix={"width_cap": 16, "levels": 3}, choices={"growth": [2, 4]})
    widths = {
        capped.architecture(d)["channels"] for d in (capped.complete({"width": 16, "growth": g}) for g in (2.0, 4.0))
    }
    assert widths == {(16, 16, 16)}


def test_tied_places_hold_one_block_and_each_level_is_written():
    space = narrow(CUBIC, placement="tied", fix={"levels": 4, "width": 16}, choices={})
    architecture = space.architecture(space.complete({"attention@skips": "csam"}))
    assert architecture.attention() == {Place("skip", level): "csam" for level in range(3)}
    assert architecture.options(Place("skip", 1)) == {
        "semantic": True,
        "positional": True,
        "slice": True,
        "uncertainty": False,
    }


def test_thick_slices_are_not_pooled_until_voxels_are_near_isotropic():
    pooling = pooling_from_spacing((12, 128, 128), spacing=(10.0, 1.5625, 1.5625), levels=5)
    assert pooling == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))
    kernels = kernels_from_spacing((10.0, 1.5625, 1.5625), pooling=pooling)
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert level_sizes((7, 33, 1), ((1, 2, 2), (2, 2, 1))) == ((7, 33, 1), (7, 17, 1), (4, 9, 1))


def test_places_are_named_in_data_order():
    names = ["encoder0", "encoder1", "bottleneck", "skip1", "skip0", "decoder1", "decoder0"]
    assert [str(place) for place in places(3)] == names
    assert tuple(map(Place.parse, names)) == places(3)
    assert [place.level_of(3) for place in places(3)] == [0, 1, 2, 1, 0, 1, 0]
    assert [down_place(level, 3) for level in range(3)] == [*places(3)[:2], BOTTLENECK]


def test_a_group_stands_for_the_places_of_its_kind():
    assert str(Place("skip")) == "skips" and Place.parse("skips") == Place("skip", 4).group
    assert str(BOTTLENECK.group) == "bottleneck" and not BOTTLENECK.is_group
    assert AxisName.parse("csam.slice@skips").covers(AxisName.parse("csam.slice@skip3"))
    assert not AxisName.parse("csam.slice@skips").covers(AxisName.parse("csam.slice@decoder3"))
    with pytest.raises(ValueError, match="skips are at several levels"):
        Place("skip").level_of(3)


@pytest.mark.parametrize("text", ["skip", "bottleneck0", "skip-1", "skip²", "", "encoder1s", "upward0"])
def test_an_unknown_place_is_refused(text):
    with pytest.raises(ValueError, match="no place of a U is called"):
        Place.parse(text)
    assert AxisName.parse(f"attention@{text}") == AxisName(f"attention@{text}")


def test_a_network_that_cannot_be_built_is_refused_with_the_reason():
    space = narrow(CUBIC, placement="each", fix={"width": 8, "levels": 3}, choices={})
    with pytest.raises(Refused, match="csam at skip0 has 8 channels: its semantic gate needs 16 or more"):
        build(space.architecture(space.complete({"attention@skip0": "csam"})), CUBIC)
    tiny = Context((4, 8, 8), (1.0, 1.0, 1.0), 1, 2)
    space = narrow(tiny, placement="each", fix={"levels": 4}, choices={})
    with pytest.raises(Refused, match="a patch of 4x8x8 is too small for 4 levels: level 2 pools no axis"):
        build(space.architecture(space.complete({})), tiny)


@pytest.mark.parametrize(
    ("fix", "choices", "message"),
    [
        ({"encodr": "plain"}, {}, "no axis is called 'encodr'; did you mean 'encoder'"),
        ({"encoder": "plian"}, {}, "'plian' is not a choice; did you mean 'plain'"),
        ({"width": 0}, {}, "0 is not an integer from 1 to 1024"),
        ({"dropout": True}, {}, "True is not a number from 0 to 0.9"),
        ({}, {"attention@skips": []}, "the list of choices is empty"),
        ({"width": 8}, {"width": [8, 16]}, "'width' is already set under `fix`"),
        ({"deep_supervision": 1}, {}, "1 is not a choice"),
    ],
)
def test_an_invalid_narrowing_is_refused(fix, choices, message):
    with pytest.raises(DecisionError, match=message.replace("(", r"\(")):
        narrow(CUBIC, placement="each", fix=fix, choices=choices)


def test_the_more_specific_name_wins():
    space = narrow(
        CUBIC,
        placement="each",
        fix={"attention": "none", "attention@skip1": "isa"},
        choices={"attention@skips": ["none", "csam"]},
    )
    assert space.by_name["attention@encoder0"].choices == ("none",)
    assert space.by_name["attention@skip0"].choices == ("none", "csam")
    assert space.by_name["attention@skip1"].choices == ("isa",)
    assert "csam.slice@skip1" not in space.by_name and "csam.slice@skip0" in space.by_name


def test_completing_reports_every_unknown_axis_and_value():
    with pytest.raises(DecisionError) as error:
        FULL.complete({"depth": 3, "encoder": "vgg"})
    assert [name for name, _ in error.value.problems] == ["depth", "encoder"]


def test_an_architecture_is_described_in_one_line():
    space = narrow(CUBIC, placement="each", fix={"levels": 3, "width": 16, "repeats": 2}, choices={})
    partial = {"attention@skip0": "csam", "csam.positional@skip0": False, "attention@bottleneck": "isa"}
    described = space.architecture(space.complete(partial)).describe()
    assert described == "plain x2 16-32-64; isa(shared) at bottleneck; csam(semantic+slice) at skip0"
    assert space.architecture(space.complete({})).describe() == "plain x2 16-32-64; no attention"


def test_a_single_branch_of_epa_is_written_and_the_default_is_not():
    fix = {"attention@bottleneck": "epa", "levels": 3, "width": 8, "epa.projection": 16, "epa.heads": 2}
    made = {}
    for branches in ("both", "spatial", "channel"):
        space = narrow(CUBIC, fix={**fix, "epa.branches": branches}, choices={})
        made[branches] = space.architecture(space.complete({}))
    assert made["both"].get("epa.branches@bottleneck") is None
    assert made["spatial"]["epa.branches@bottleneck"] == "spatial"
    assert made["channel"].get("epa.projection@bottleneck") is None
    sizes = [sum(value.numel() for value in build(each, CUBIC).parameters()) for each in made.values()]
    assert sizes[2] < sizes[1] < sizes[0]


def test_units_of_a_papers_network_can_be_others_of_the_same_form():
    base = PRESETS["sau_net"].architecture
    space = narrow_space(CUBIC, Narrowing(fix={"encoder": "plain"}, base=base, open=("encoder",)))
    plain = space.architecture(space.complete({}))
    assert {name for name, value in plain.entries if base.get(name) != value} == {"encoder"}
    with pytest.raises(DecisionError, match="the units of 'csam' have a fixed form"):
        narrow_space(CUBIC, Narrowing(base=PRESETS["csam_unet"].architecture, open=("encoder",)))
