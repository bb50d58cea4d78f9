"""`voxnas run --extend-epochs`: the networks on and near a study's front in a second study of longer trainings.

A Dice depends on the length of its training, so records of two lengths never share a study or a front. With a constant
learning rate, a longer training begins exactly as a shorter one: it continues from the checkpoint and ends where a
training of the full length ends. With a schedule that decays, the steps so far have been taken at learning rates of the
shorter schedule, down to zero. The longer training then starts from its first epoch: raising the rate again would be a
third kind of training, comparable neither with the study nor with one of the full length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from search.config import LoadedStudy, Study, UserError, load_study
from search.config.clone import clone_text
from search.config.units import counted
from search.files import write_text
from search.runner.answers import Ask, Done, Train
from search.runner.driver import Driver, Executor, keep_margin
from search.runner.opening import driver_lock, open_driver
from search.runner.plan import Plan
from search.runner.run import Outcome
from search.runner.view import View
from search.storage import REFERENCE, STUDY_ID, read_records, read_study_attribute
from search.training.checkpoint import continue_longer
from search.trials.files import trial_folder
from search.trials.pareto import near_front
from search.trials.records import Record, TrainingRequest, search_records


def longer_name(study: Study, more: int) -> str:
    """Return the name of the study whose trainings are `more` epochs longer."""
    return f"{study.name}-{study.training.epochs + more}-epochs"


def write_longer(loaded: LoadedStudy, more: int, *, runs: Path) -> LoadedStudy:
    """Write the file of the study of longer trainings to its run's folder, unless it is there; return that study.

    It keeps the recipe, which `auto` would choose by the length, and stops no trial early.
    """
    study, name = loaded.study, longer_name(loaded.study, more)
    epochs = study.training.epochs + more
    folder, kept = runs / name, runs / name / "study.yaml"
    if not kept.exists():
        changes = [f"training.epochs={epochs}", f"training.recipe={study.training.recipe}", "search.references=none"]
        halving = ["search.halving=off"] if study.search.halving else []
        text = clone_text(loaded.file, [*changes, *halving], new=folder / f"{name}.yaml")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(kept, text)
    return replace(load_study(kept, need_data=False), data_folder=loaded.data_folder, blocks=loaded.blocks)


def why_from_start(study: Study) -> str:
    """Return why longer trainings start from their first epoch, as a sentence; empty if they continue."""
    if study.training.schedule != "constant":
        rate = f"training.schedule: {study.training.schedule} has lowered the learning rate to zero"
        return f"{rate} after {counted(study.training.epochs, 'epoch')}, so the networks are trained from the start"
    if study.search.trainings > 1:
        return "the trainings of a trial over folds or seeds keep no checkpoint, so they are trained from the start"
    return ""


def to_extend(plan: Plan, records: Sequence[Record]) -> list[Record]:
    """Return the records on the front, those near it that noise may hide, and the trained references.

    Raises UserError if there are none.
    """
    own = search_records(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
    chosen = near_front(own, plan.directions, margin=keep_margin(plan.study))
    if not chosen:
        raise UserError(["there is nothing to extend: no trial was trained to its end within the budgets"])
    known = {each.architecture for each in chosen}
    references = [each for each in records if each.is_outside and each.state == "trained"]
    return [*chosen, *(each for each in references if each.architecture not in known)]


def extend_study(plan: Plan, source: Plan, *, view: View, executor: Executor) -> Outcome:
    """Train what is missing of the networks that `to_extend` names in `source`, in the longer study `plan`.

    The hypervolume of both studies has the same reference point. Raises UserError if nothing has run.
    """
    chosen = to_extend(source, read_records(source.url, source.study.name))
    requests = [
        TrainingRequest(each.architecture, each.seed, each.fold, each.decisions, reference=each.reference)
        for each in chosen
    ]
    with driver_lock(plan):
        driver = open_driver(plan, view, executor)
        with closing(driver), driver.store.heartbeat:
            point = read_study_attribute(source.url, source.study.name, REFERENCE)
            if driver.store.reference is None and isinstance(point, Mapping):
                driver.store.write_sources([])
                driver.store.write_default_references(())
                driver.store.write_reference(point)
            study_id = read_study_attribute(source.url, source.study.name, STUDY_ID)
            numbers = {each.identity: each.number for each in chosen}
            driver.before_training = partial(_continue, driver, source, study_id, numbers)
            view.on_resume(driver.search_records())
            driver.store.write_goal(sum(not each.reference for each in requests))
            why = executor.run(driver, _ask(requests))
            driver.store.write_goal(sum(not each.reference for each in requests), ended=why)
            return Outcome(tuple(driver.store.records()), why)


def _ask(requests: Sequence[TrainingRequest]) -> Ask:
    """Return an ask for each training that has no record yet, in order."""

    def ask(records: Sequence[Record]) -> Train | Done:
        known = {record.identity for record in records}
        missing = next((each for each in requests if each.identity not in known), None)
        return Train(missing) if missing else Done(f"{counted(len(requests), 'network')} are trained longer")

    return ask


def _continue(
    driver: Driver, source: Plan, study_id: str, numbers: Mapping[tuple[str, int, int], int], record: Record
) -> None:
    """Give a new trial the checkpoint of its shorter training, if it can continue from there."""
    if (
        why_from_start(source.study) or record.architecture.get("stages") == "cascade"
    ):  # whose networks share the epochs
        return
    job = driver.job(record)
    folder = trial_folder(source.folder, numbers[record.identity])
    continue_longer(replace(job, training=source.training, study_id=study_id, folder=str(folder)), job)
