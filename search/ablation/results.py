"""What is known of each arm's trainings: the ablation's own records, and those of studies that trained the same.

A record of another study of the same runs folder (or database) counts where architecture, data, fold, seed and
training agree, where it was scored by what this ablation asks for, and where its device, threads and precision are
those of the ablation: a latency belongs to them, and arms should not differ by their hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from search.ablation.plan import AblationPlan
from search.config import UserError
from search.runner.plan import Plan
from search.storage import read_records, read_studies
from search.storage.identity import CONTENT, plain
from search.storage.price_cache import Device
from search.trials.records import Latency, Record, Wanted

FREE_TRAINING = ("validate_every", "deadline")  # say when to look and when to give up, not what is learnt
FREE_DATA = ("fold",)  # a record says its own


@dataclass(frozen=True)
class Result:
    """One training of an arm; `source` names the study that it is taken over from, empty for the ablation's own."""

    arm: str
    seed: int
    fold: int
    record: Record
    source: str = ""


@dataclass(frozen=True)
class Missing:
    """One training of an arm that there is no result of, and why."""

    arm: str
    seed: int
    fold: int
    why: str


def results_of(plan: AblationPlan, device: Device) -> tuple[list[Result], list[Missing]]:
    """Return each distinct arm's trainings, in the order of the arms, and what is missing with its last reason."""
    results: list[Result] = []
    missing: list[Missing] = []
    known = [_known(each, plan, device) for each in plan.plans]
    for arm in plan.distinct:
        own, shared = known[arm.plan]
        for wanted in plan.wanted(arm):
            found = trained(wanted, own)
            taken = found or trained(wanted, [record for _, record in shared])
            if taken is None:
                missing.append(Missing(arm.name, wanted.seed, wanted.fold, _why(wanted, own)))
                continue
            source = "" if found else next(name for name, record in shared if record is taken)
            results.append(Result(arm.name, wanted.seed, wanted.fold, taken, source))
    return results, missing


def still_wanted(plan: AblationPlan, number: int, device: Device) -> list[Wanted]:
    """List the trainings of one setting that there is no result of: all arms of a seed before the next seed's."""
    own, shared = _known(plan.plans[number], plan, device)
    records = [*own, *(record for _, record in shared)]
    arms = [plan.wanted(arm) for arm in plan.distinct if arm.plan == number]
    return [each for together in zip(*arms, strict=True) for each in together if trained(each, records) is None]


def trained(wanted: Wanted, records: Iterable[Record]) -> Record | None:
    """Return the first record that is this training, finished."""
    return next((each for each in records if each.state == "trained" and each.identity == wanted.identity), None)


def _why(wanted: Wanted, records: Sequence[Record]) -> str:
    tries = [each for each in records if each.identity == wanted.identity]
    if not tries:
        return "not run yet"
    times = "once" if len(tries) == 1 else f"{len(tries)} times"
    return f"{tries[-1].state} ({times}): {tries[-1].measurement.reason}" if tries[-1].ended else "not finished"


def _known(plan: Plan, ablation: AblationPlan, device: Device) -> tuple[list[Record], list[tuple[str, Record]]]:
    """Return a setting's own records, and (study, record) of others that trained the same."""
    try:
        own = read_records(plan.url, plan.study.name)
    except UserError:
        own = []
    ours, tolerance = _comparable(plan.identity()), plan.study.surface_tolerance
    shared = []
    for url in _databases(ablation):
        for name, values in read_studies(url).items():
            if (url, name) == (plan.url, plan.study.name) or _comparable(values) != ours:
                continue
            if tolerance is not None and values.get("surface_tolerance") != tolerance:
                continue
            shared += [(name, each) for each in read_records(url, name) if _as_here(each, plan, device)]
    return own, shared


def _databases(plan: AblationPlan) -> list[str]:
    files = sorted(plan.plans[0].runs.glob("*/study.db"))
    return list(dict.fromkeys([plan.plans[0].url, *(f"sqlite:///{file}" for file in files)]))


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a study that its trainings depend on."""
    data = {key: value for key, value in values["data"].items() if key not in FREE_DATA and value is not None}
    training = {key: value for key, value in values["training"].items() if key not in FREE_TRAINING}
    return plain({"data": data, "training": training, CONTENT: values.get(CONTENT)})


def _as_here(record: Record, plan: Plan, device: Device) -> bool:
    latency = record.measurement.costs.latency if record.measurement.costs else None
    if record.state != "trained" or latency is None or record.fold >= len(plan.folds):
        return False
    cases = {case.case for case in record.measurement.cases}
    return _device(latency) == asdict(device) and cases == set(plan.folds[record.fold].validation)


def _device(latency: Latency) -> dict[str, Any]:
    return {"name": latency.device, "threads": latency.threads, "precision": latency.precision}
