"""Opens the driver of a study: its database, its folder and its data, under a lock that admits one driver."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from search.config.yaml_source import is_damaged
from search.files import copy_file, write_text
from search.runner.driver import Driver, Executor
from search.runner.plan import Plan, prepared_data, require_unchanged
from search.runner.retime import require_same_setting
from search.runner.view import View
from search.storage import Store
from search.storage.begun import require_complete_retiming
from search.storage.database import retry_outages
from search.storage.failures import explained
from search.storage.lock import hold_lock
from search.storage.ownership import claim_folder
from search.tracking.recorder import Recorder
from search.tracking.tracker import TrackedStudy
from space.plugins import block_files

LOGGER = logging.getLogger("voxnas.driver")


def open_driver(plan: Plan, view: View, executor: Executor, *, any_setting: bool = False) -> Driver:
    """Open the study's database, which refuses a changed study, then prepare the data.

    Unless `any_setting`, raises UserError if latencies measured now could not be compared with the study's.
    """
    retry_outages(lambda: require_unchanged(plan), url=plan.url, starting=True)
    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    claim_folder(plan.folder, study=plan.study.name, study_id=store.study_id, url=plan.url)
    prepared = prepared_data(plan, progress=partial(view.on_stage, "preparing volumes"))
    keep_study_file(plan, begun=store.begun)
    found = {
        "labels": plan.dataset.labels,
        "prepared": Path(prepared.folder).name,
        "kind": executor.device.split(":")[0],
    }
    store.write_context({**asdict(plan.context), **found})
    pricer = executor.pricer(plan)
    if not any_setting:
        require_complete_retiming(plan.url, plan.study.name)
        require_same_setting(plan, store.records(), lambda: pricer.table.device)
    recorder = Recorder(plan.study.track, TrackedStudy(plan.study.name, store.study_id, plan.folder, plan.runs))
    driver = Driver(plan, store, prepared, executor, view, pricer, recorder)
    alive = {name for name in {each.driver for each in store.records()} if store.heartbeat.is_alive(name)}
    recorder.show([each for each in store.records() if each.state != "running" and each.driver not in alive])
    driver.update_front()
    driver.remove_left_checkpoints()
    return driver


def keep_study_file(plan: Plan, *, begun: bool) -> None:
    """Copy the study's file and its blocks to the run's folder; once the study has begun, the copy changes no more."""
    kept = plan.folder / "study.yaml"
    if kept.exists() and is_damaged(kept):
        LOGGER.warning("%s is damaged: it is written again", kept)
    elif kept.exists() and (begun or kept.samefile(plan.loaded.file)):
        return
    copy_file(plan.loaded.file, kept, ours=True)
    for name, text in block_files(plan.loaded.blocks).items():
        write_text(plan.folder / name, text, ours=True)


@contextmanager
def driver_lock(plan: Plan) -> Iterator[None]:
    """Hold the study's lock, so that only one driver runs it; an error of its database is raised as a sentence."""
    with explained(plan.url), hold_lock(plan.url, plan.folder, plan.study.name):
        yield
