"""Tables and diagrams of the papers' networks."""

import json
import sys
from io import StringIO

import pytest
from rich.console import Console

from search.cli import main
from search.cli.networks import Summary, find_preset, layer_table, show_networks, summary_table
from search.config.errors import UserError
from search.costs.layers import Layer, layers
from search.costs.macs import params_and_macs
from search.data.phantom import write_phantom
from space.architecture import Architecture
from space.canonical import Context
from space.presets import PRESETS


def drawn(table, width=160):
    console = Console(width=width, record=True, file=StringIO())
    console.print(table)
    return console.export_text()


def rows_of(name):
    return layers(PRESETS[name].architecture, PRESETS[name].context)


@pytest.mark.parametrize("name", ["sau_net", "csam_unet", "unetrpp_lung", "meunet_cascade"])
def test_layers_count_every_parameter_and_mac_once(name):
    preset = PRESETS[name]
    found = layers(preset.architecture, preset.context)
    assert (sum(row.params for row in found), sum(row.macs for row in found)) == params_and_macs(
        preset.architecture, preset.context
    )
    assert {row.place: row.attention for row in found if row.attention}.keys() == {
        str(place) for place in preset.architecture.attention()
    }


def test_layers_are_listed_in_data_order_with_their_outputs():
    found = rows_of("unetrpp_acdc")
    assert [row.place for row in found if row.attention] == [
        "encoder1",
        "encoder2",
        "encoder3",
        "bottleneck",
        "decoder3",
        "decoder2",
        "decoder1",
    ]
    assert found[0] == Layer("", "encoder", 0, "UnetResBlock", False, (16, 16, 160, 160), 7_360, 3_014_656_000)
    assert found[2].block == "EPABlock x3" and found[2].output == (32, 16, 40, 40)
    assert found[2].macs == pytest.approx(3 * 3.211e9, rel=0.001)
    bottleneck = [row for row in found if row.place == "bottleneck"]
    assert [(row.block, row.output) for row in bottleneck] == [
        ("PatchDown", (256, 2, 5, 5)),
        ("EPABlock x3", (256, 2, 5, 5)),
    ]


def test_training_only_heads_have_no_output():
    heads = [row for row in rows_of("meunet") if row.place.startswith("head")]
    assert [(row.output, row.params) for row in heads] == [((3, 160, 160, 160), 1_299), ((), 1_299)]
    text = drawn(layer_table(PRESETS["meunet"], heads))
    assert "training only" in text and "3 x 160 x 160 x 160" in text and "2,598" in text


def test_a_plain_network_of_the_space_can_be_listed_too():
    architecture = Architecture.of(
        {
            "encoder": "plain",
            "channels": (4, 8),
            "kernels": ((3, 3, 3),) * 2,
            "repeats": 1,
            "pooling": ((2, 2, 2),),
            "norm": "instance",
            "activation": "relu",
            "dropout": 0.0,
            "skip": "concat",
            "downsampling": "max",
            "upsampling": "nearest",
            "deep_supervision": False,
            "attention@skip0": "isa",
            "isa.shared@skip0": True,
        }
    )
    found = layers(architecture, Context((4, 8, 8), (1.0, 1.0, 1.0), 1, 2))
    assert [(row.place, row.block, row.output) for row in found] == [
        ("encoder0", "PlainUnit", (4, 4, 8, 8)),
        ("bottleneck", "MaxPool3d, PlainUnit", (8, 2, 4, 4)),
        ("skip0", "ISA", (4, 4, 8, 8)),
        ("decoder0", "upsampling (nearest)", (4, 4, 8, 8)),
        ("decoder0", "PlainUnit", (4, 4, 8, 8)),
        ("head0", "Conv3d", (2, 4, 8, 8)),
    ]


def test_the_diagram_shows_paper_patch_totals_and_attention():
    preset = PRESETS["unetrpp_acdc"]
    rows = [
        Layer("", "encoder", 1, "PatchDown", False, (32, 16, 40, 40), 576, 13_107_200),
        Layer("", "encoder", 1, "EPABlock x3", True, (32, 16, 40, 40), 12_639_864, 9_632_000_000),
    ]
    text = " ".join(drawn(layer_table(preset, rows)).split())  # a title breaks at the table's width
    for part in (
        "unetrpp_acdc: Shaker et al., UNETR++",
        "1 x 16x160x160 to 4 classes",
        "* EPABlock x3",
        "32 x 16 x 40 x 40",
        "12,640,440",
        "9.65 G",
    ):
        assert part in text, part


def test_an_nnunet_is_shown_as_planned_for_a_data_folder(tmp_path, capsys):
    write_phantom(tmp_path / "task", cases=2, shape=(30, 24, 9), spacing=(1.0, 1.0, 4.0))
    show_networks("nnunet", every=False, json=True, data=tmp_path / "task")
    shown = json.loads(capsys.readouterr().out)
    plan, strides = shown["plan"], shown["architecture"]["pooling"]
    assert plan["batch"] == 2 and plan["topology"]["strides"] == strides
    assert [row["output"][1:] for row in shown["layers"] if row["side"] == "head"][0] == list(plan["patch"])
    show_networks("nnunet", every=False, json=False, data=tmp_path / "task")
    assert "Planned by nnU-Net's rules for task: spacing" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "every", "message"),
    [
        ("csam_unet", False, "--data: csam_unet is a fixed network; only nnU-Net's depend on the data"),
        (None, True, "--data: name the network to plan for this data"),
    ],
)
def test_a_plan_needs_a_network_that_depends_on_the_data(name, every, message, tmp_path):
    with pytest.raises(UserError, match=message):
        show_networks(name, every=every, json=False, data=tmp_path)


def test_the_summary_has_one_line_each():
    text = drawn(summary_table([Summary(preset, 1_234_567, 47_450_000_000) for preset in PRESETS.values()]))
    lines = [line for line in text.splitlines() if any(f" {name} " in line for name in PRESETS)]
    assert len(lines) == len(PRESETS)
    assert "1,234,567" in lines[0] and "47.45 G" in lines[0] and "12 x 512 x 512" in lines[0]


def test_an_unknown_name_is_reported_with_the_nearest_and_all_names():
    with pytest.raises(UserError, match="'unetr_acdc'; did you mean 'unetrpp_acdc'.*sau_net, csam_unet"):
        find_preset("unetr_acdc")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "voxnas: show: name one network, or list them with --all"),
        (["show", "meunet", "--all"], "voxnas: show: name one network, or list them with --all"),
        (["show", "menet"], "voxnas: no network is called 'menet'; did you mean 'meunet'"),
    ],
)
def test_an_invalid_call_explains_the_usage_and_exits_with_2(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["voxnas", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(message)


def test_the_command_prints_the_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["voxnas", "show", "meunet_cascade"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert "7,564,623" in printed and "second encoder0" in printed


def test_internal_errors_are_not_reported_as_user_mistakes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["voxnas", "show", "meunet"])
    monkeypatch.setattr("search.cli.networks.layers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()
