"""An earlier study in a runs folder, written without training."""

from search.config import load_study
from search.proposers.observations import FEWEST
from search.runner.plan import make_plan
from search.storage import Store
from search.storage.address import sqlite_url
from search.trials.records import Costs, Measurement, Record

COSTS = Costs(1000, 10_000, 100_000, 50_000)


def write_earlier(made, name="earlier", *, count=FEWEST, ended="8 trials are done", rises=0.01, beat=None):
    """Write a study with trained networks of the space of `made`, without training."""
    plan, folder = make_plan(load_study(made.file), runs=made.runs), made.runs / name
    url = sqlite_url(folder / "study.db")
    store = Store.open(url, name, directions=plan.directions, values={**plan.identity(), "name": name})
    choices = {axis: each.choices for axis, each in plan.space.by_name.items()}
    for number, decisions in enumerate(list(plan.space.enumerate())[:count]):
        record = Record(
            0,
            plan.space.architecture(decisions),
            tuple(decisions.items()),
            0,
            0,
            Measurement("running", costs=COSTS),
            "2026-01-02",
        )
        record = store.write_new(record, choices=choices)
        measurement = Measurement("trained", costs=COSTS, dice=0.5 + rises * number)
        store.write_finished(record.finished(measurement, ended="2026-01-02"), objectives=[], budgets={})
    store.write_goal(count, ended=ended)
    if beat is not None:
        with store.heartbeat:
            beat()
    store.close()
    return folder
