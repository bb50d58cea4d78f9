"""nnU-Net's planning rules against the plans that nnunetv2 itself wrote (tests/nnunet_golden.py)."""

import json
from pathlib import Path

import pytest
import torch

from blocks.resenc import ResidualStage
from search.costs.abstract import AbstractTensors
from search.data.check import check_folder
from search.data.fingerprint import fingerprint_of
from space.build import Refused, build
from space.canonical import Context
from space.narrow import Narrowing, narrow_space
from space.nnunet.planner import PLAIN, RESENC_M, Fingerprint, make_plan
from space.nnunet.topology import topology
from space.place import Place
from space.presets import PRESETS

GOLDEN = json.loads((Path(__file__).parent / "nnunet_golden.json").read_text())
FAMILIES = {family.name: family for family in (PLAIN, RESENC_M)}
each_plan = pytest.mark.parametrize(("name", "family"), [(name, each) for name in GOLDEN for each in FAMILIES])


def frozen(values):
    return tuple(frozen(each) if isinstance(each, list) else each for each in values)


def in_3d(values, *, missing):
    """Write a triple for each pair of a 2D plan."""
    return tuple(each if len(each) == 3 else (missing, *each) for each in frozen(values))


def fingerprint(name):
    values = GOLDEN[name]["fingerprint"]
    shapes, spacings = frozen(values["shapes"]), frozen(values["spacings"])
    return Fingerprint(shapes, spacings, values["channels"], values["classes"])


def planned(name, family):
    plan, found = make_plan(fingerprint(name), FAMILIES[family]), fingerprint(name)
    return plan, Context(plan.patch, plan.spacing, found.channels, found.classes)


@each_plan
def test_the_plan_is_the_one_that_nnunetv2_writes(name, family):
    theirs, (ours, _) = GOLDEN[name]["plans"][family], planned(name, family)
    (patch,) = in_3d([theirs["patch"]], missing=1)
    assert ours.patch == patch
    assert ours.batch == theirs["batch"]
    assert ours.spacing[-len(theirs["spacing"]) :] == pytest.approx(theirs["spacing"])
    assert ((1, 1, 1), *ours.topology.strides) == in_3d(theirs["strides"], missing=1)
    assert ours.topology.kernels == in_3d(theirs["kernels"], missing=1)


@each_plan
def test_the_preset_at_the_planned_patch_is_the_network_of_the_plan(name, family):
    theirs, (plan, context) = GOLDEN[name]["plans"][family], planned(name, family)
    architecture = PRESETS[family].at(context)
    assert architecture["pooling"] == plan.topology.strides and architecture["kernels"] == plan.topology.kernels
    assert architecture["channels"] == tuple(theirs["features"])
    assert set(theirs["decoder_units"]) == {architecture["repeats"]}
    units = architecture.get("residual_blocks", (architecture["repeats"],) * architecture.levels)
    assert units == tuple(theirs["units"])
    with AbstractTensors():
        network = build(architecture, context)
        assert sum(parameter.numel() for parameter in network.parameters()) == theirs["parameters"]
        logits = network.supervised(torch.zeros(2, context.in_channels, *context.patch))
    assert [tuple(each.shape[2:]) for each in logits] == list(plan.topology.map_sizes(plan.patch)[:-1])


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("Task")])
def test_the_fingerprint_of_real_volumes_is_the_one_that_nnunetv2_extracts(name, shared_data):
    found, golden = fingerprint_of(*check_folder(shared_data / name, group=None)), fingerprint(name)
    assert (found.channels, found.classes) == (golden.channels, golden.classes)
    assert sorted(found.shapes) == sorted(golden.shapes)
    for ours, theirs in zip(sorted(found.spacings), sorted(golden.spacings), strict=True):
        assert ours == pytest.approx(theirs)
    for family in FAMILIES.values():
        ours, theirs = make_plan(found, family), make_plan(golden, family)
        assert (ours.patch, ours.batch, ours.topology) == (theirs.patch, theirs.batch, theirs.topology)


def test_a_larger_memory_target_gives_a_larger_patch():
    small, usual, large = (make_plan(fingerprint("ct"), memory_gb=gigabytes) for gigabytes in (4, 8, 24))
    voxels = [torch.Size(plan.patch).numel() for plan in (small, usual, large)]
    assert voxels == sorted(set(voxels)) and usual == make_plan(fingerprint("ct"))


@each_plan
def test_the_planned_spacing_or_patch_given_as_ones_own_leads_to_the_same_plan(name, family):
    plan, _ = planned(name, family)
    assert make_plan(fingerprint(name), FAMILIES[family], spacing=plan.spacing) == plan
    assert make_plan(fingerprint(name), FAMILIES[family], spacing=plan.spacing, patch=plan.patch) == plan


def test_no_patch_or_an_empty_fingerprint_is_an_error():
    with pytest.raises(ValueError, match="no patch fits the memory target: the smallest, .*, is still too large"):
        make_plan(fingerprint("ct"), memory_gb=1e-6)
    with pytest.raises(ValueError, match="a shape and a spacing for each case, got 0 shapes and 0 spacings"):
        make_plan(Fingerprint((), (), 1, 2))


def test_a_single_axis_is_pooled_only_from_twelve_voxels_on():
    def strides(*size):
        return topology(size, spacing=(1.0, 1.0, 1.0)).strides

    assert strides(4, 4, 11) == ()
    assert strides(4, 4, 12) == ((1, 1, 2),)
    assert strides(8, 8, 8) == ((2, 2, 2),)
    assert strides(7.5, 8, 8.5) == ((1, 2, 2),)


def test_a_patch_that_no_axis_of_can_be_pooled_is_refused():
    context = Context((4, 7, 5), (1.0, 1.0, 1.0), 1, 2)
    with pytest.raises(Refused, match="a patch of 4x7x5 is too small for a U: nnU-Net's rules pool no axis"):
        build(PRESETS["nnunet"].at(context), context)


@pytest.mark.parametrize("family", FAMILIES)
def test_convolutions_start_with_hes_distribution_and_residual_blocks_as_their_shortcut(family):
    torch.manual_seed(0)
    context = Context((8, 16, 16), (1.0, 1.0, 1.0), 1, 2)
    network = build(PRESETS[family].at(context), context)
    weight = network.up[0][0].conv.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
    assert not any(parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))
    stages = [module for module in network.modules() if isinstance(module, ResidualStage)]
    x = torch.randn(1, 32, 5, 9, 7)
    for block in stages[1] if stages else ():
        torch.testing.assert_close(block(x), torch.nn.functional.leaky_relu(block.shortcut(x)))
        x = block(x)
    assert len(stages) == (network.levels if family == "nnunet_resenc_m" else 0)


@pytest.mark.parametrize("patch", [(9, 20, 22), (1, 24, 40), (3, 33, 18)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_trains_at_odd_and_thin_patches(family, patch):
    torch.manual_seed(0)
    context = Context(patch, (3.0, 1.0, 1.0), 2, 3)
    network = build(PRESETS[family].at(context), context)
    outputs = network.supervised(torch.randn(2, 2, *patch))
    sum(output.square().mean() for output in outputs).backward()
    assert outputs[0].shape == (2, 3, *patch) and len(outputs) == network.levels - 1
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_deep_nnunet_can_be_a_base_at_all_its_levels():
    _, context = planned("few_slices", "nnunet")
    base = PRESETS["nnunet"].at(context)
    space = narrow_space(context, Narrowing(base=base, open=("attention@skips", "deep_supervision")))
    assert base.levels == 8 and "attention@skip6" in space.by_name
    changed = space.architecture(space.complete({"attention@skip6": "isa", "deep_supervision": False}))
    assert changed.attention() == {Place("skip", 6): "isa"} and changed.get("supervised_levels") is None


def test_a_level_needs_a_block():
    with pytest.raises(ValueError, match="a residual level needs at least 1 block, got blocks=0"):
        ResidualStage(4, 4, blocks=0)
