"""The page of one trial: its results, costs, network, learning curve and scores, and how to export it."""

from __future__ import annotations

import shlex

from search.analysis.class_dice import BOTH_EMPTY
from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.config.objectives import OBJECTIVES, show
from search.config.units import show_bytes, show_count, show_seconds
from search.trials.records import Measurement, Record
from search.visualization.components import Cell, Command, Component, Facts, Note, Table
from search.visualization.figures.trial import boxes, draw_cases, draw_learning, draw_network
from search.visualization.pages.lasso import filtered
from search.visualization.pages.page import Page, Request
from search.visualization.pages.slices import slice_components
from search.visualization.slow_tasks import layers_of


def trial_page(snapshot: Snapshot, request: Request) -> Page:
    """Return the page of the trial that the address names, or else of the front's first trial."""
    shown, notes = filtered(snapshot, request)
    numbers = request.numbers("trial") or _first(shown) or _first(snapshot)
    record = snapshot.record(numbers[0]) if numbers else None
    if record is None:
        text = f"There is no trial {numbers[0]} in this study." if numbers else "This study has no trials yet."
        return Page("Trial", (), (Note(text),))
    listed = [int(number) for number in shown.numbers[shown.on_front]]
    options = sorted({*listed, record.number})
    control = request.control(
        "trial",
        "trial",
        [(str(each), f"trial {each}" + (" (front)" if each in listed else "")) for each in options],
        str(record.number),
    )
    components: list[Component] = [*notes, Facts(tuple(_facts(snapshot, record)))]
    if record.measurement.reason:
        components.append(Note(f"{record.state}: {record.measurement.reason}"))
    components += [Note(f"An attempt was lost: {attempt}") for attempt in record.attempts]
    if record.state == "trained":
        components.append(
            Command("Export the network as a folder that runs without voxnas:", export_command(snapshot, record.number))
        )
    components += _network(snapshot, record, request)
    components += _scores(snapshot, record)
    components += slice_components(snapshot, record, request)
    return Page("Trial", (control,), tuple(components))


def _first(snapshot: Snapshot) -> list[int]:
    if len(snapshot.front_rows):
        return [int(snapshot.numbers[snapshot.front_rows[0]])]
    return [int(snapshot.numbers[0])] if len(snapshot.numbers) else []


def _facts(snapshot: Snapshot, record: Record) -> list[tuple[str, str]]:
    measurement = record.measurement
    row = snapshot.row_of(record.number)
    state = "on the front" if row is not None and snapshot.on_front[row] else _open_or_ended(snapshot, record)
    found = [("trial", str(record.number)), ("state", state), ("network", record.architecture.describe())]
    latency = measurement.latency
    for name in OBJECTIVES:
        value = measurement.value(name)
        if value is None:
            continue
        spread = ""
        if name == "dice" and measurement.dice_sd is not None:
            spread = (
                f" ± {show('dice', measurement.dice_sd)} (standard deviation of {len(measurement.members)} trainings)"
            )
        if name == "latency" and latency:
            spread = f" ± {show('latency', latency.iqr_s / 2)} (half the interquartile range of {latency.repeats})"
            spread += "" if latency.settled else ", uncertain by over 5 %: repeat on an idle machine"
        found.append((OBJECTIVES[name].heading, show(name, value) + spread))
    if latency:
        found.append(("latency on", latency.setting))
    if measurement.measured_memory:
        found.append(("memory measured", show_bytes(measurement.measured_memory.allocated_bytes)))
    found += [("seed, fold", f"{record.seed}, {record.fold}"), ("duration", show_seconds(measurement.spent_s))]
    found += [
        ("started (UTC)", record.started.replace("T", " ")[:16]),
        ("fingerprint", record.architecture.fingerprint),
    ]
    return found


def _open_or_ended(snapshot: Snapshot, record: Record) -> str:
    return shown_state(record, interrupted_trials(snapshot) if record.state == "running" else ())


def export_command(snapshot: Snapshot, number: int) -> str:
    """Return the command line that exports a trial."""
    words = [
        "voxnas",
        "export",
        str(snapshot.folder),
        "--pick",
        str(number),
        "--out",
        f"{snapshot.study.name}-{number}",
        *(["--allow-code"] if snapshot.study.blocks else []),
    ]
    return f"{shlex.join(words)} --data FOLDER"


def _network(snapshot: Snapshot, record: Record, request: Request) -> list[Component]:
    if snapshot.context is None:
        return [Note("An older version wrote this study without patch and channels, so its networks can't be drawn.")]
    layers = request.work(layers_of, record.architecture, snapshot.context)
    if layers is None:
        return [Note("The network is being drawn; it appears here in a moment.")]
    if not layers:
        return [Note("This network can't be built, so there is nothing to draw.")]
    places = boxes(layers)
    networks = list(dict.fromkeys(each.network for each in places))
    figures = [draw_network([each for each in places if each.network == name], name=name) for name in networks]
    rows: list[list[Cell]] = [
        [
            f"{each.network} {each.place}".strip(),
            ", ".join(each.blocks),
            " × ".join(map(str, each.output)),
            (each.params, f"{each.params:,}{each.uncounted}"),
            (each.macs, f"{show_count(each.macs)}{each.uncounted}"),
            (each.outputs_bytes, show_bytes(each.outputs_bytes)),
        ]
        for each in places
    ]
    headings = ("place", "blocks", "output (C × D × H × W)", "parameters", "MACs", "outputs")
    return [*figures, Table("places", "Places of the network", headings, rows)]


def _scores(snapshot: Snapshot, record: Record) -> list[Component]:
    measurement, components = record.measurement, list[Component]()
    if measurement.epochs:
        components.append(draw_learning(measurement.epochs))
    if not measurement.cases:
        return components
    classes = len(measurement.cases[0].dice)
    named = (
        snapshot.labels[1:]
        if len(snapshot.labels) == classes + 1
        else [f"class {each}" for each in range(1, classes + 1)]
    )
    rows: list[list[Cell]] = []
    for case in measurement.cases:
        mean = case.mean
        cells: list[Cell] = [(dice, "both empty" if dice is None else f"{dice:.4f}") for dice in case.dice]
        rows.append([case.case, (mean, "" if mean is None else f"{mean:.4f}"), *cells])
    headings = ("case", "mean", *named)
    components += [
        draw_cases(measurement.cases, named),
        Table("dice", "Dice by case", headings, rows),
        Note(BOTH_EMPTY),
    ]
    return [*components, *_trainings(measurement)]


def _trainings(measurement: Measurement) -> list[Component]:
    """List the trainings of a trial that has several, and which weights are kept for export."""
    if not measurement.members:
        return []
    rows: list[list[Cell]] = [
        [
            (number, str(number)),
            (member.fold, str(member.fold)),
            (member.seed, str(member.seed)),
            (member.dice, f"{member.dice:.4f}"),
            "" if number else "exported, tested and drawn",
        ]
        for number, member in enumerate(measurement.members)
    ]
    headings = ("training", "fold", "seed", "Dice", "weights")
    return [Table("trainings", f"{len(rows)} trainings; the trial's Dice is their mean", headings, rows)]
