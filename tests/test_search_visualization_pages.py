"""The numbers behind the dashboard's figures, without a browser and where possible without Plotly."""

import base64
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import LABELS, synthetic_records, synthetic_study, write_synthetic_study

from search.analysis.importance import ped_anova
from search.analysis.main_effects import main_effects
from search.analysis.runs import compare_json, compare_runs, compare_table
from search.analysis.snapshot_reader import SnapshotReader
from search.analysis.statistics.pairs import compare_pairs
from search.config.schema import Search
from search.trials.pareto import best, hypervolume, knee, pareto_front
from search.trials.records import CaseDice, Costs, Latency, Measurement
from search.visualization.components import Command, Figure, Note, Table
from search.visualization.figures.compare import paired
from search.visualization.figures.front import draw_front
from search.visualization.figures.front_data import front_figure_data
from search.visualization.figures.progress import hypervolume_steps, random_band
from search.visualization.figures.style import PALETTE, block_color, tint
from search.visualization.figures.trial import boxes
from search.visualization.pages.compare import compare_page
from search.visualization.pages.elements import Element, to_html
from search.visualization.pages.front import front_page
from search.visualization.pages.lasso import filtered, read_lasso
from search.visualization.pages.page import Request
from search.visualization.pages.slices import ranked_cases
from search.visualization.pages.studies import studies_page
from search.visualization.pages.trial import export_command, trial_page
from search.visualization.report import render
from search.visualization.slice_images import outline, png
from search.visualization.slow_tasks import layers_of, preset_costs


def snapshot_of(folder, records, *, study=None):
    study = study or synthetic_study("made")
    file = write_synthetic_study(folder, study.name, records, study=study)
    return SnapshotReader(study, folder / study.name, f"sqlite:///{file}").read()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return snapshot_of(tmp_path_factory.mktemp("runs"), synthetic_records(150))


def test_a_snapshot_has_the_front_and_the_hypervolume_that_records_have(made):
    records, expected = made.records(), made.expected
    believed = [
        replace(record, measurement=replace(record.measurement, dice=expected[record.number]))
        for record in records
        if record.state == "trained" and record.number in expected
    ]
    front = pareto_front(believed, made.study.directions)
    numbers = [each.number for each in front]
    assert [each.number for each in made.front()] == numbers == made.numbers[made.front_rows].tolist()
    assert sorted(made.numbers[made.on_front]) == sorted(numbers)
    assert made.best().number == best(front, made.study.directions).number
    assert made.knee().number == knee(front, made.study.directions).number
    assert made.pick("knee").record == made.knee()
    rows, hours, volumes = made.progress
    by_number = {each.number: each for each in believed}
    ended = [by_number.get(records[row].number, records[row]) for row in rows]
    for count in (1, 20, len(rows)):
        reached = hypervolume(ended[:count], made.study.directions, made.reference)
        assert volumes[count - 1] == pytest.approx(reached)
    assert made.hypervolume == volumes[-1]
    assert made.volume_title == "hypervolume of expected Dice"
    assert hours[-1] == pytest.approx(sum(trial.spent_s for trial in made.trials) / 3600)
    steps = hypervolume_steps(made)
    assert steps.volumes[-1] == volumes[-1] and len(steps.trials) < len(rows)


def test_a_comparison_of_runs_says_whether_its_dice_is_expected_or_measured(made, tmp_path):
    few = snapshot_of(tmp_path, made.records()[:5])
    title, headings = [], []
    for runs in ([made, made], [few, few], [made, few]):
        reference, compared = compare_runs(runs)
        table = compare_table(reference, compared)
        title.append(str(table.title).split("; reference point")[0])
        headings.append([str(column.header) for column in table.columns if "best" in str(column.header)])
    assert title[:2] == ["hypervolume of expected Dice", "hypervolume"]
    assert title[2] == "hypervolume (of expected Dice where enough networks are trained)"
    assert headings == [["best expected Dice"], ["best Dice"], ["best Dice"]]
    reference, compared = compare_runs([made, few])
    one, other = json.loads(compare_json(reference, compared))["runs"]
    assert (one["hypervolume_dice"], other["hypervolume_dice"]) == ("expected", "measured")
    assert one["hypervolume"] == pytest.approx(made.hypervolume)
    assert all("expected_dice" in point for point in one["front"])
    assert not any("expected_dice" in point for point in other["front"])


def test_untrained_trials_are_shown_separately_and_stopped_ones_with_their_dice_so_far(made):
    front_data = front_figure_data(made, ("memory", "dice"))
    for state, rows in front_data.untrained.items():
        assert {made.trials[row].state for row in rows} <= {state} and not front_data.front[rows].any()
    row = front_data.untrained["stopped"][0]
    assert front_data.points[row, 1] == pytest.approx(made.trials[row].epochs.curve[-1][1])
    assert np.isnan(front_data.points[front_data.untrained["over budget"], 1]).all()
    assert front_data.budgets == {"memory": 1600.0}


def test_colours_follow_the_choices_of_an_axis_and_rare_choices_share_one(made):
    front_data = front_figure_data(made, ("memory", "dice"), by="attention@skip0")
    assert [group.name for group in front_data.groups] == ["csam", "isa", "none"]
    assert sum(len(group.rows) for group in front_data.groups) == (made.states == "trained").sum()
    trials = [replace(trial, decisions={**trial.decisions, "many": at % 12}) for at, trial in enumerate(made.trials)]
    groups = front_figure_data(replace(made, trials=tuple(trials)), ("memory", "dice"), by="many").groups
    assert len(groups) == 8 and groups[-1].name == "others"


def test_papers_networks_are_drawn_at_their_costs(made):
    costs = preset_costs(made.context, made.study.training, made.kind)
    assert "unetrpp_acdc" in costs and all(isinstance(each, Costs) for each in costs.values())
    front_data = front_figure_data(made, ("memory", "dice"), presets=costs)
    assert front_data.presets["unetrpp_acdc"][0] == pytest.approx(costs["unetrpp_acdc"].memory_bytes / 2**20)
    assert math.isnan(front_data.presets["unetrpp_acdc"][1])


def test_a_lasso_selects_the_trials_inside_it_on_its_own_axes(made):
    lasso = read_lasso("memory,dice:400,0.7;1000,0.7;1000,1;400,1")
    inside = lasso.inside(made)
    drawn = front_figure_data(made, ("memory", "dice")).points
    assert inside.tolist() == [400 < memory < 1000 and 0.7 < dice < 1.0 for memory, dice in drawn]
    shown, notes = filtered(made, Request({"lasso": "memory,dice:400,0.7;1000,0.7;1000,1;400,1"}))
    assert len(shown.trials) == inside.sum() and f"Only the {inside.sum()} of 150 trials" in notes[0].text
    assert lasso.path("memory", "dice").startswith("M400,0.7L") and lasso.path("latency", "dice") == ""
    for nonsense in (
        "",
        "memory,dice:",
        "memory,dice:1,2",
        "memory,x:1,2;3,4;5,6",
        "memory,dice:1,inf;2,3;4,5",
        "memory,dice:a,b;c,d;e,f",
    ):
        assert read_lasso(nonsense) is None


def test_a_lasso_leaves_its_own_front_to_choose_a_trial_and_trials_to_compare(made):
    text = "memory,dice:400,0.7;1000,0.7;1000,1;400,1"
    shown, _ = filtered(made, Request({"lasso": text}))
    offered = {str(number) for number in shown.numbers[shown.on_front]}
    for page in (compare_page(made, Request({"lasso": text})), trial_page(made, Request({"lasso": text}))):
        assert "trials inside the lasso" in page.components[0].text
        for control in page.controls:
            assert {value for value, _ in control.options} - {""} == offered and control.value in {*offered, ""}
    empty = Request({"lasso": "memory,dice:1,0.1;2,0.1;2,0.2"})
    assert "too few" in compare_page(made, empty).components[1].text
    assert trial_page(made, empty).components[0].text.startswith("Only the 0 of 150 trials")


def test_in_three_dimensions_trials_without_dice_are_drawn_at_the_minimum(made):
    costs = {"cheap": Costs(1000, 1000, 500 * 2**20, 10 * 2**20), "dear": Costs(1000, 1000, 2**45, 10 * 2**20)}
    front_data = front_figure_data(made, ("memory", "params", "dice"), presets=costs)
    traces = {trace["name"]: trace for trace in json.loads(draw_front(front_data).drawing)["data"]}
    least = np.nanmin(front_data.points[np.isfinite(front_data.points).all(axis=1), 2])
    for state in ("over budget", "stopped", "failed"):
        rows = [row for row in front_data.untrained[state] if np.isfinite(front_data.points[row]).any()]
        found = column(traces[state]["customdata"]) if state in traces else ()
        assert [*found] == [*front_data.numbers[rows]]
    assert np.allclose(column(traces["over budget"]["z"]), least)
    assert traces["papers"]["text"] == ["cheap"] and column(traces["papers"]["z"])[0] == pytest.approx(least)


def column(values):
    """Read an array of Plotly's JSON, binary or not."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values)


def test_main_effects_find_a_planted_effect(made):
    trials = [
        replace(trial, state="trained", values=(0.5 + 0.2 * (trial.decisions["width"] == 32), *trial.values[1:]))
        for trial in made.trials
    ]
    effects = {(each.axis, each.choice): each for each in main_effects(replace(made, trials=tuple(trials)), "dice")}
    wide = effects["width", "32"]
    assert wide.against == "16" and wide.mean == pytest.approx(0.2, abs=1e-6)
    assert effects["repeats", "2"].mean == pytest.approx(0.0, abs=1e-6)
    assert effects["attention@skip0", "csam"].against == "none"
    noisy = {(each.axis, each.choice): each for each in main_effects(made, "dice")}
    assert all(each.low < each.mean < each.high for each in noisy.values())


def test_importance_of_a_maximised_objective_is_computed_for_its_best_values():
    rng = np.random.default_rng(0)
    decisions = [{"a": str(rng.integers(3)), "b": str(rng.integers(3))} for _ in range(200)]
    # b distinguishes the best values, a the worst
    dice = [
        0.9 + rng.normal(0, 0.001) if each["b"] == "0" else 0.5 + 0.3 * (each["a"] == "0") * rng.random()
        for each in decisions
    ]
    best, worst = ped_anova(decisions, dice, negate=True), ped_anova(decisions, dice, negate=False)
    assert best["b"] > 0.9 and worst["a"] > best["a"]
    assert ped_anova(decisions[:5], dice[:5], negate=True) == {} and ped_anova([], [], negate=True) == {}


def test_the_random_band_uses_only_repeats_of_the_same_study(made, tmp_path):
    def other(name, **changes):
        study = replace(synthetic_study(name), search=Search(proposer="random"), **changes)
        return snapshot_of(tmp_path, synthetic_records(30, seed=len(name)), study=study)

    repeats = [other("random-1"), other("random-22")]
    longer = other("longer", training=replace(made.study.training, epochs=99))
    band = random_band(made, [made, *repeats, longer], hours=False)
    assert band.repeats == 2 and (band.low <= band.middle).all() and (band.middle <= band.high).all()
    assert band.at[-1] == 30 and band.high[-1] <= 1.0
    assert random_band(made, [made, longer], hours=True) is None


def test_paired_differences_use_the_cases_that_both_trials_have(made):
    one, other = made.fetch([0, 1])
    shifted = replace(
        one,
        number=7,
        measurement=replace(
            one.measurement,
            cases=tuple(
                CaseDice(case.case, tuple(dice - 0.1 for dice in case.dice)) for case in one.measurement.cases[:5]
            ),
        ),
    )
    pair = paired(one, shifted)
    assert [*pair.differences] == [case.case for case in one.measurement.cases[:5]]
    assert pair.pairs.difference == pytest.approx(-0.1) and pair.pairs.p == pytest.approx(2 / 2**5)
    again = paired(one, replace(other, number=8))
    assert again.pairs == compare_pairs([*again.differences.values()])  # as in an ablation
    page = compare_page(made, Request({"a": "0", "b": "1"}))
    (table,) = [item for item in page.components if getattr(item, "name", "") == "pairs"]
    assert table.rows[0][2] == (again.pairs.low, f"{again.pairs.low:+.4f} to {again.pairs.high:+.4f}")
    assert paired(one, replace(other, measurement=Measurement("failed"))) is None


def test_the_diagram_shows_every_layer_of_the_network_at_its_place(made):
    record = made.fetch([int(made.numbers[made.on_front][0])])[0]
    layers = layers_of(record.architecture, made.context)
    places = boxes(layers)
    assert sum(each.params for each in places) == record.measurement.costs.params
    assert {each.side for each in places} >= {"encoder", "bottleneck", "decoder", "head"}
    attended = {
        each.side if each.side == "bottleneck" else f"{each.side}{each.level}" for each in places if each.attention
    }
    assert attended == {str(place) for place in record.architecture.attention()}
    first = next(each for each in places if (each.side, each.level) == ("encoder", 0))
    assert first.output[1:] == made.context.patch


def test_a_trial_page_shows_its_export_command_reason_and_spread(made):
    trained = next(trial.number for trial in made.trials if trial.state == "trained")
    components = trial_page(made, Request({"trial": str(trained)})).components
    assert export_command(made, trained) in [item.line for item in components if isinstance(item, Command)]
    facts = dict(components[0].pairs)
    assert "half the interquartile range of 30" in facts["latency"] and facts["latency on"].startswith("a device")
    table = next(item for item in components if isinstance(item, Table) and item.name == "dice")
    assert table.headings == ("case", "mean", *LABELS[1:])
    refused = next(trial for trial in made.trials if trial.state == "over budget")
    notes = [
        item.text
        for item in trial_page(made, Request({"trial": str(refused.number)})).components
        if isinstance(item, Note)
    ]
    assert f"over budget: {refused.reason}" in notes
    assert "no trial 99999" in trial_page(made, Request({"trial": "99999"})).components[0].text


def test_the_worst_the_median_and_the_best_case_are_named_once_each(made):
    record = made.fetch([0])[0]
    cases = [CaseDice(name, (dice,)) for name, dice in (("b", 0.5), ("a", 0.2), ("c", 0.9), ("empty", None))]
    ranked = ranked_cases(replace(record, measurement=replace(record.measurement, cases=tuple(cases))))
    assert ranked == {"worst": "a", "median": "b", "best": "c"}
    assert ranked_cases(replace(record, measurement=replace(record.measurement, cases=tuple(cases[:1])))) == {
        "worst": "b"
    }


def test_a_slice_shows_both_outlines_and_what_they_share_in_white():
    labels = np.zeros((9, 11), np.uint8)
    labels[2:6, 3:8] = 1
    assert outline(labels).sum() == 14 and not outline(labels)[3:5, 4:7].any()
    import io

    from PIL import Image

    image = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
    drawn = np.asarray(Image.open(io.BytesIO(png(image, labels, labels))))
    assert drawn.shape[0] >= 297 and (drawn == 255).all(axis=2).any()


def test_latencies_of_two_devices_are_refused_with_the_reason(made, tmp_path):
    def moved(record):
        costs = record.measurement.costs
        latency = costs and Latency(**{**vars(costs.latency), "device": "another"})
        return replace(record, measurement=replace(record.measurement, costs=costs and replace(costs, latency=latency)))

    elsewhere = [moved(record) for record in synthetic_records(30)]
    far = snapshot_of(tmp_path, elsewhere, study=synthetic_study("far"))
    refused = studies_page([made, far], [], Request({"x": "latency"})).components
    assert any(
        isinstance(item, Note)
        and "Latencies of different devices can't be compared" in item.text
        and "another" in item.text
        for item in refused
    )
    assert not any(isinstance(item, Figure) for item in refused)
    assert any(isinstance(item, Figure) for item in studies_page([made, far], [], Request({"x": "memory"})).components)
    mixed = snapshot_of(
        tmp_path,
        [*synthetic_records(20), *[replace(each, number=each.number + 20) for each in elsewhere[:20]]],
        study=synthetic_study("mixed"),
    )
    assert mixed.is_mixed and {each.measurement.costs.latency.device for each in mixed.front()} == {"another"}
    notes = [part.text for part in front_page(mixed, Request()).components if isinstance(part, Note)]
    assert any("not on another, " in text and "left out: latency was measured on" in text for text in notes)


def test_attributes_and_texts_are_escaped():
    element = Element("p", {"title": '"><script>'}, ["<b>", Element("br")])
    assert to_html(element) == '<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;<br></p>'


def test_a_report_is_small_has_every_section_and_contains_no_patient_data(made):
    text = render(made)
    assert len(text) < 8 * 2**20
    for title in ("Pareto front", "Progress", "Importance", "Compare"):
        assert f">{title}</h2>" in text
    assert "data:image/png" not in text and "http" not in text.split("<script>")[0]


def test_a_block_has_its_own_colour_everywhere_and_a_plug_in_keeps_one_too(made):
    assert len({block_color(name) for name in ("none", "isa", "csam", "joint", "epa")}) == 5
    assert block_color("my_block") == block_color("my_block") and block_color("my_block") in PALETTE
    groups = front_figure_data(made, ("memory", "dice"), by="attention@skip0").groups
    assert len(groups) > 1 and all(group.color == block_color(group.name) for group in groups)
    others = front_figure_data(made, ("memory", "dice"), by="attention@skip1").groups
    shared = {group.name: group.color for group in groups}.items() & {each.name: each.color for each in others}.items()
    assert len(shared) == len(groups)
    widths = front_figure_data(made, ("memory", "dice"), by="width").groups
    assert [group.color for group in widths] == list(PALETTE[: len(widths)])
    assert tint("#0072B2", 0.25) == "rgba(0,114,178,0.25)"


@pytest.mark.parametrize(("limit", "near"), [(1.4, True), (40.0, False)])
@pytest.mark.parametrize("axes", [("memory", "dice"), ("latency", "memory"), ("memory", "latency", "dice")])
def test_a_budget_far_beyond_the_points_is_an_arrow_and_the_axis_follows_the_points(made, axes, limit, near):
    data = front_figure_data(made, axes)
    highest = np.nanmax(data.points[:, data.axes.index("memory")])
    figure = json.loads(draw_front(replace(data, budgets={"memory": limit * float(highest)})).drawing)
    if len(axes) == 3:
        assert any(trace.get("name", "").startswith("budget of") for trace in figure["data"]) is near
        return
    shapes = [each for each in figure["layout"].get("shapes", ()) if each["line"]["dash"] == "dash"]
    texts = [each["text"] for each in figure["layout"]["annotations"] if "budget" in each["text"]]
    assert len(shapes) == near and (texts == ["budget"] if near else texts[0].endswith(("→", "↑")))
