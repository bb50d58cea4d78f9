"""The finished trainings of each arm: the ablation's own records, and matching records of other studies.

A record of another study in the same runs folder (or database) is reused if architecture, data, fold, seed and training
agree, if it has the scores that this ablation needs, and if device, threads and precision are the same: latencies
depend on them, and arms should not differ in hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.ablation.plan import AblationPlan
from search.config import UserError
from search.runner.plan import Plan
from search.storage import read_records, read_studies
from search.storage.address import sqlite_url
from search.storage.identity import CONTENT, plain
from search.storage.price_cache import Device
from search.trials.records import Latency, Record, TrainingRequest

FREE_TRAINING = ("validate_every", "deadline")  # they don't affect the trained weights
FREE_DATA = ("fold",)  # each record has its own


@dataclass(frozen=True)
class Result:
    """One training of an arm; `source` names the study that it is reused from, empty for the ablation itself."""

    arm: str
    seed: int
    fold: int
    record: Record
    source: str = ""


@dataclass(frozen=True)
class Missing:
    """A training of an arm without a result, and the reason."""

    arm: str
    seed: int
    fold: int
    why: str


def results_of(plan: AblationPlan, device: Device) -> tuple[list[Result], list[Missing]]:
    """Return the results of each distinct arm, in the order of the arms, and the missing trainings with reasons."""
    results: list[Result] = []
    missing: list[Missing] = []
    studies = foreign_studies(plan)
    known = [(own_records(each), foreign_records(each, studies, device)) for each in plan.plans]
    for arm in plan.distinct:
        own, foreign = known[arm.plan]
        for request in plan.requests(arm):
            found = trained(request, own)
            record = found or trained(request, [record for _, record in foreign])
            if record is None:
                missing.append(Missing(arm.name, request.seed, request.fold, _why(request, own)))
                continue
            source = "" if found else next(name for name, each in foreign if each is record)
            results.append(Result(arm.name, request.seed, request.fold, record, source))
    return results, missing


def open_requests(plan: AblationPlan, number: int, records: Iterable[Record]) -> list[TrainingRequest]:
    """List one setting's trainings that have no record yet: all arms with the first seed and fold, then the next."""
    done = {record.identity for record in records if record.state == "trained"}
    arms = [plan.requests(arm) for arm in plan.distinct if arm.plan == number]
    return [each for together in zip(*arms, strict=True) for each in together if each.identity not in done]


def open_requests_by_plan(plan: AblationPlan, device: Device) -> list[list[TrainingRequest]]:
    """List the trainings that are still missing, per setting."""
    studies = foreign_studies(plan)
    found = []
    for number, each in enumerate(plan.plans):
        foreign = [record for _, record in foreign_records(each, studies, device)]
        found.append(open_requests(plan, number, [*own_records(each), *foreign]))
    return found


def trained(request: TrainingRequest, records: Iterable[Record]) -> Record | None:
    """Return the first record of this training that was trained; None without one."""
    return next((each for each in records if each.state == "trained" and each.identity == request.identity), None)


def _why(request: TrainingRequest, records: Sequence[Record]) -> str:
    tries = [each for each in records if each.identity == request.identity]
    if not tries:
        return "not run yet"
    times = "once" if len(tries) == 1 else f"{len(tries)} times"
    return f"{tries[-1].state} ({times}): {tries[-1].measurement.reason}" if tries[-1].ended else "not finished"


@dataclass(frozen=True)
class ForeignStudy:
    """A study in a database whose results an ablation may reuse, and the values that they depend on."""

    url: str
    name: str
    values: dict[str, Any]


def foreign_studies(ablation: AblationPlan) -> list[ForeignStudy]:
    """List the studies in the ablation's database and runs folder, including its own settings."""
    return [
        ForeignStudy(url, name, values) for url in _databases(ablation) for name, values in read_studies(url).items()
    ]


def own_records(plan: Plan) -> list[Record]:
    """Read a setting's own records; empty before its first run."""
    try:
        return read_records(plan.url, plan.study.name)
    except UserError:
        return []


def foreign_records(plan: Plan, studies: Iterable[ForeignStudy], device: Device) -> list[tuple[str, Record]]:
    """Return (study, record) of other studies with the same data and training as a setting, on the same device."""
    ours, tolerance = _comparable(plan.identity()), plan.study.surface_tolerance
    found: list[tuple[str, Record]] = []
    for each in studies:
        if (each.url, each.name) == (plan.url, plan.study.name) or _comparable(each.values) != ours:
            continue
        if tolerance is not None and each.values.get("surface_tolerance") != tolerance:
            continue
        records = read_records(each.url, each.name)
        found += [(each.name, record) for record in records if _is_reusable(record, plan, device)]
    return found


def _databases(plan: AblationPlan) -> list[str]:
    files = sorted(plan.plans[0].runs.glob("*/study.db"))
    return list(dict.fromkeys([plan.plans[0].url, *(sqlite_url(file) for file in files)]))


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a study that determine its trainings."""
    data = {key: value for key, value in values["data"].items() if key not in FREE_DATA and value is not None}
    training = {key: value for key, value in values["training"].items() if key not in FREE_TRAINING}
    return plain({"data": data, "training": training, CONTENT: values.get(CONTENT)})


def _is_reusable(record: Record, plan: Plan, device: Device) -> bool:
    latency = record.measurement.latency
    if record.state != "trained" or latency is None or record.fold >= len(plan.folds):
        return False
    cases = {case.case for case in record.measurement.cases}
    return _device(latency) == asdict(device) and cases == set(plan.folds[record.fold].validation)


def _device(latency: Latency) -> dict[str, Any]:
    return {"name": latency.device, "threads": latency.threads, "precision": latency.precision}
