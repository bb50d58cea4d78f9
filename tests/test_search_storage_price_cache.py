"""Prices in the study's database: reused in the same circumstances, and only then."""

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from search.config.training_section import Training
from search.data.labelling import Labelling
from search.storage.price_cache import Device, PriceTable
from search.trials.records import Costs, Latency
from space.canonical import Context
from space.narrow import narrow

CONTEXT = Context((5, 33, 28), (8.0, 1.5, 1.5), 2, 3)
TRAINING = Training(patch=CONTEXT.patch)
CPU = Device("a processor", 2, "float32")
COSTS = Costs(params=10, macs=20, memory_bytes=30, inference_memory_bytes=40)
MEASURED = replace(COSTS, latency=Latency(0.1, 0.01, 20, True, CPU.name, CPU.threads, CPU.precision))
SPACE = narrow(CONTEXT, placement="tied", fix={}, choices={})
ONE, OTHER = (SPACE.architecture(SPACE.complete({"width": width})) for width in (8, 16))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def table(url, *, context=CONTEXT, training=TRAINING, device=CPU, kind="cpu", labelling=None):
    return PriceTable(url, context=context, training=training, device=device, kind=kind, labelling=labelling)


def test_a_cached_price_is_found_by_another_process(url):
    table(url).keep(ONE, MEASURED)
    assert table(url).find(ONE) == MEASURED
    assert table(url).find(OTHER) is None
    table(url).keep(ONE, COSTS)  # prices without a latency don't forget it
    assert table(url).find(ONE) == MEASURED


@pytest.mark.parametrize("which", ["costs", "latency"])
@pytest.mark.parametrize("harm", ["1 digit", "cut", "empty", "a list", "null"])
def test_a_damaged_price_is_named_and_replaced(which, harm, url, caplog):
    table(url).keep(ONE, MEASURED)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        rows = connection.execute("SELECT key, value FROM voxnas_prices").fetchall()
        key, text = next(row for row in rows if ("median_s" in row[1]) == (which == "latency"))
        flipped = text.replace("20", "21")
        harmed = {"1 digit": flipped, "cut": text[:9], "empty": "", "a list": "[]", "null": "null"}[harm]
        connection.execute("UPDATE voxnas_prices SET value = ? WHERE key = ?", (harmed, key))
    assert table(url).find(ONE) == (None if which == "costs" else COSTS)
    assert re.search(r"study.db: a cached price is damaged \(.*\): finding it again", caplog.text)
    caplog.clear()
    table(url).keep(ONE, MEASURED)
    assert table(url).find(ONE) == MEASURED and not caplog.text


def test_a_price_of_an_early_version_has_no_digest(url):
    table(url).keep(ONE, MEASURED)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        for key, text in connection.execute("SELECT key, value FROM voxnas_prices").fetchall():
            early = json.dumps({name: each for name, each in json.loads(text).items() if name != "digest"})
            connection.execute("UPDATE voxnas_prices SET value = ? WHERE key = ?", (early, key))
    assert table(url).find(ONE) == MEASURED


def test_latencies_belong_to_a_device_and_other_costs_to_none(url):
    table(url).keep(ONE, MEASURED)
    for other in (Device("another", 2, "float32"), Device(CPU.name, 1, "float32"), Device(CPU.name, 2, "bfloat16")):
        assert table(url, device=other).find(ONE) == COSTS


@pytest.mark.parametrize(
    "changed",
    [
        {"context": replace(CONTEXT, patch=(5, 33, 29))},
        {"context": replace(CONTEXT, classes=4)},
        {"training": replace(TRAINING, batch=3)},
        {"training": replace(TRAINING, optimiser="sgd")},
        {"training": replace(TRAINING, precision="bfloat16")},
        {"kind": "cuda"},
        {"labelling": Labelling(("background", "a"), (0, 1), ((1,),), (1,))},
        {"labelling": Labelling(("background", "a"), (0, 1), ignore=2)},
    ],
)
def test_the_key_contains_everything_that_costs_depend_on(url, changed):
    table(url).keep(ONE, MEASURED)
    assert table(url, **changed).find(ONE) is None
    assert table(url, training=replace(TRAINING, epochs=7, learning_rate=0.5)).find(ONE) == MEASURED
    assert table(url, labelling=Labelling(("background", "a"), (0, 1))).find(ONE) == MEASURED


def test_a_run_prices_a_network_once(tiny_run, monkeypatch):
    """A proposer of a later run reuses the prices of a finished study."""
    from search.config import load_study
    from search.runner.plan import make_plan
    from search.runner.pricer import Pricer, price_table
    from search.storage import read_records

    plan = make_plan(load_study(tiny_run.file), runs=tiny_run.runs)
    (record, *_) = read_records(plan.url, "tiny")
    monkeypatch.setattr("search.runner.pricer.predict_costs", lambda *_, **__: pytest.fail("priced again"))
    pricer = Pricer(plan, "cpu", price_table(plan, device="cpu", threads=1))
    assert pricer(record.architecture) == record.measurement.costs
    assert pricer.timed(record.architecture).latency == record.measurement.costs.latency
