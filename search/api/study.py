"""`Study`: run a study, read its results as DataFrames, draw them, build and export its networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from search.api.find import Overrides, as_lines
from search.api.running import own_cluster
from search.config import LoadedStudy, UserError, load_study
from search.config import Study as Settings
from search.config.load import with_code
from search.trials.files import run_folder, trial_folder

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    import plotly.graph_objects as go
    from torch import nn

    from search.analysis.choose import Choice
    from search.analysis.snapshot import Snapshot
    from search.api.spaces import SearchSpace
    from search.export import Exported
    from search.export.held_out import HeldOutResult
    from search.runner.driver import Executor
    from search.runner.plan import Plan
    from search.runner.run import Outcome
    from search.runner.tabulate import Tabulated, Training
    from search.runner.view import View
    from search.trials.records import Costs, Record
    from space.architecture import Architecture

LOADING = "loading PyTorch"  # takes seconds, before anything else can be shown


@dataclass(frozen=True)
class Network:
    """A trained network of a study: its trial, architecture, Dice and costs, and the reason for choosing it.

    `alternatives` describes its neighbours on the front.
    """

    trial: int
    architecture: Architecture
    dice: float | None
    costs: Costs | None
    why: str
    alternatives: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.why, *self.alternatives])


class Study:
    """A study. Results are read from its database at every call, also while another process runs it.

    Every method raises `UserError` for what the user can fix, with all mistakes in its message.
    """

    def __init__(self, loaded: LoadedStudy, *, runs: Path) -> None:
        self.loaded, self.runs = loaded, runs
        self._plan: Plan | None = None

    @classmethod
    def from_yaml(
        cls,
        file: str | Path,
        *,
        overrides: Overrides = (),
        data: str | Path | None = None,
        runs: str | Path = "runs",
        need_data: bool = False,
        allow_code: bool = False,
    ) -> Study:
        """Read a study file. `overrides` are `{"training.epochs": 3}` or `["training.epochs=3"]`.

        `data` is the folder that contains the data folder named in the file; the variable VOXNAS_DATA may name it
        too. Without it a study's results can be read, but nothing can be run; `need_data` reports that at once.
        `allow_code` runs the Python files that the study names under `blocks`: read them first.
        """
        root = None if data is None else Path(data)
        loaded = load_study(
            Path(file), overrides=as_lines(overrides), data_root=root, need_data=need_data, allow_code=allow_code
        )
        return cls(loaded, runs=Path(runs))

    def __repr__(self) -> str:
        return f"Study({self.name!r}, folder={str(self.folder)!r})"

    @property
    def settings(self) -> Settings:
        """The settings of the study file, checked and with defaults filled in."""
        return self.loaded.study

    @property
    def name(self) -> str:
        """The study's name."""
        return self.settings.name

    @property
    def folder(self) -> Path:
        """The folder of the study's database, weights and reports."""
        return run_folder(self.runs, self.settings)

    def is_searched(self, record: Record) -> bool:
        """Return whether a record is a trial of the search, also a repeat; no confirmation, no reference network."""
        from search.trials.records import search_records

        search = self.settings.search
        return record.repeat or bool(search_records([record], seed=search.seed, fold=self.settings.data.fold))

    @property
    def plan(self) -> Plan:
        """The study on its data, checked: folds, patch, space, budgets."""
        return self.make_plan()

    def make_plan(self, view: View | None = None) -> Plan:
        """Return the plan; `view` shows how far the check of the data is."""
        from search.runner.plan import make_plan

        if self._plan is not None:
            return self._plan
        if self.loaded.data_folder is None:
            path = self.settings.data.path
            raise UserError([f"{self.name}: the data folder {path!r} was not found; pass data= or set VOXNAS_DATA"])
        progress = None if view is None else partial(view.on_stage, "checking volumes")
        self._plan = make_plan(self.loaded, runs=self.runs, progress=progress)
        return self._plan

    @cached_property
    def space(self) -> SearchSpace:
        """The study's search space, on its data, or as its run has met it."""
        from search.api.spaces import SearchSpace
        from space.narrow import narrow_space

        try:
            context = self.snapshot().context
        except UserError:  # nothing has run yet
            context = None
        if context is None:
            return SearchSpace(self.plan.space)
        return SearchSpace(narrow_space(context, self.settings.space.narrowing(context, with_code(self.loaded).specs)))

    # Running

    @own_cluster()
    def run(
        self,
        *,
        trials: int | None = None,
        retime: bool = False,
        view: View | None = None,
        executor: Executor | None = None,
    ) -> Outcome:
        """Run or resume the study until it has `trials` trainings, including those already done.

        `trials` is by default that of the file; `retime` first measures the latency of finished trials again, on this
        machine; `view` receives the progress (printed by default).
        """
        from search.api.progress import showing
        from search.api.running import make_executor

        planned = trials or self.settings.search.trials
        with showing(view, name=self.name, trials=planned, counts=self.is_searched) as shown:
            plan = self.make_plan(shown)
            shown.on_stage(LOADING)
            from search.runner.run import run_study

            return run_study(
                plan,
                trials=planned,
                view=shown,
                executor=executor or make_executor(plan),
                measure_again=retime,
            )

    @own_cluster()
    def extend(self, more: int, *, view: View | None = None, executor: Executor | None = None) -> tuple[Study, Outcome]:
        """Train the networks on and near the front `more` epochs longer, in a study of its own; return it.

        `why_from_start` in `search.runner.extend` says when trainings continue. The same call resumes it.
        """
        from search.api.progress import showing
        from search.api.running import make_executor
        from search.runner.extend import extend_study, to_extend, write_longer
        from search.storage import read_records

        with showing(view, name=self.name, trials=0) as shown:
            source = self.make_plan(shown)
            to_extend(source, read_records(source.url, self.name))  # before a file is written
            longer = Study(write_longer(self.loaded, more, runs=self.runs), runs=self.runs)
            plan = longer.make_plan(shown)
            shown.on_stage(LOADING)
            return longer, extend_study(plan, source, view=shown, executor=executor or make_executor(plan))

    @own_cluster()
    def confirm(
        self,
        *,
        top: int | None = None,
        seeds: int = 1,
        folds: int | None = None,
        view: View | None = None,
        executor: Executor | None = None,
    ) -> int:
        """Retrain the front, or its best `top` networks, over seeds and folds; return how many trainings were done."""
        from search.api.progress import showing
        from search.api.running import make_executor

        with showing(view, name=f"confirm {self.name}", trials=0) as shown:
            plan = self.make_plan(shown)
            shown.on_stage(LOADING)
            from search.runner.confirm import confirm_study

            return confirm_study(
                plan,
                top=top,
                seeds=seeds,
                folds=folds or len(plan.folds),
                view=shown,
                executor=executor or make_executor(plan),
            )

    @own_cluster()
    def tabulate(
        self,
        *,
        networks: int | None = None,
        seeds: int = 1,
        known: Collection[Training] = (),
        view: View | None = None,
        executor: Executor | None = None,
    ) -> Tabulated:
        """Train a random sample of the space's networks (by default all of them), each with several seeds.

        `known` are trainings, by fingerprint and seed, that a table already holds. Latency is measured if it is among
        the study's objectives. `voxnas tabulate` writes the result as a table.
        """
        from search.api.progress import showing
        from search.api.running import make_executor
        from search.config.objectives import per_device

        timed = per_device(self.settings.objectives.goals)
        with showing(view, name=f"tabulate {self.name}", trials=(networks or 0) * seeds) as shown:
            plan = self.make_plan(shown)
            shown.on_stage(LOADING)
            from search.runner.tabulate import tabulate_study

            return tabulate_study(
                plan,
                networks=networks,
                seeds=seeds,
                known=known,
                view=shown,
                executor=executor or make_executor(plan, timed=timed),
            )

    # Results

    def snapshot(self) -> Snapshot:
        """Return the current state of the study's trials, as compact columns; the other methods are based on it."""
        from search.analysis.snapshot_reader import read_snapshot

        return read_snapshot(self.settings, self.folder)

    def front(self, *, axes: bool = False) -> pd.DataFrame:
        """Return the Pareto front, a row per network, the best in the first objective first.

        With `axes`, a column per open axis of the space holds each network's choice.
        """
        from search.api.frames import as_frame, front_rows

        return as_frame(front_rows(self.snapshot(), axes=axes))

    def trials(self, *, axes: bool = False) -> pd.DataFrame:
        """Return every trial of the search, a row each: state, objectives, costs, times, network, reason."""
        from search.api.frames import as_frame, trial_rows

        return as_frame(trial_rows(self.snapshot(), axes=axes))

    def pick(self, rule: str | int) -> Network:
        """Return the network that a rule names: knee, best, cheapest:dice>=0.85, under:memory=4GiB, or a trial."""
        chosen = self._choose(rule)
        measurement = chosen.record.measurement
        return Network(
            trial=chosen.record.number,
            architecture=chosen.record.architecture,
            dice=measurement.dice,
            costs=measurement.costs,
            why=chosen.why,
            alternatives=chosen.neighbours,
        )

    def best(self) -> Network:
        """Return the front's network with the highest Dice."""
        return self.pick("best")

    def knee(self) -> Network:
        """Return the front's network nearest to the best of all objectives at once."""
        return self.pick("knee")

    def require_trial(self, rule: str | int) -> None:
        """Raise UserError if a rule matches no trained network; confirmations are matched by number."""
        from search.analysis.choose import choose

        snapshot, number = self.snapshot(), str(rule)
        records = snapshot.fetch(None) if number.isdecimal() else snapshot.records()
        choose(number, records, self.settings.directions)

    def _choose(self, rule: str | int) -> Choice:
        return self.snapshot().pick(str(rule))

    def test(self, rule: str | int, *, again: bool = False, view: View | None = None) -> HeldOutResult:
        """Score a trial's weights on the test cases, once, and record it. Needs the study's data.

        Weights that were scored before are not scored again; another network only with `again`.
        """
        from search.api.progress import showing
        from search.export.held_out import score_held_out

        with showing(view, name=f"test {self.name}", trials=0) as shown:
            return score_held_out(self.make_plan(shown), str(rule), again=again, view=shown)

    # Figures

    def plot_front(
        self, *, x: str | None = None, y: str | None = None, z: str | None = None, color: str = ""
    ) -> go.Figure:
        """Draw the front on two objectives, or three with `z`; `color` is the axis of the space that gives colours."""
        from search.config.objectives import cost_axis, primary
        from search.visualization.figures.front import draw_front
        from search.visualization.figures.front_data import front_figure_data
        from search.visualization.html import as_plotly

        snapshot = self.snapshot()
        axes = [x or cost_axis(snapshot.objectives), y or primary(snapshot.objectives), *([z] if z else [])]
        return as_plotly(draw_front(front_figure_data(snapshot, axes, by=color)))

    def plot_importance(self) -> go.Figure:
        """Draw each axis's share of each objective's variance among good trials (PED-ANOVA)."""
        import numpy as np

        from search.visualization.figures.importance import draw_importances
        from search.visualization.html import as_plotly
        from search.visualization.slow_tasks import importance_inputs, importances

        snapshot = self.snapshot()
        shares = importances(*importance_inputs(snapshot, np.flatnonzero(snapshot.comparable)))
        if not any(shares.values()):
            raise UserError(
                ["too few trials for importances: PED-ANOVA needs ten, and an axis that all of them decide"]
            )
        return as_plotly(draw_importances(shares))

    # Networks

    def build(self, rule: str | int, *, weights: bool = True) -> nn.Module:
        """Build a trial's network, in eval mode, with its trained weights or fresh ones; input (B, C, D, H, W)."""
        from search.export.trained import Trained, trained_network
        from space.build import build

        record, context = self._choose(rule).record, self.space.context
        if not weights:
            return build(record.architecture, context).eval()
        folder = trial_folder(self.folder, record.number)
        return trained_network(record, Trained((folder,), (record.measurement.weights_sha256,), "", ()), context)

    @own_cluster()
    def export(
        self,
        rule: str | int,
        out: str | Path,
        *,
        packing: Literal["trial", "full", "folds"] = "trial",
        contact: str = "",
        force: bool = False,
        view: View | None = None,
    ) -> Exported:
        """Write a network as a folder that runs without voxnas, and verify it. Needs the study's data.

        `packing` exports the trial's own weights, a training on all cases (`full`), or one network per fold (`folds`).
        What is missing is trained with the study's executor.
        `contact` is written into the model card. With `force`, an earlier export in the folder is replaced.
        """
        from search.api.progress import showing
        from search.api.running import make_executor

        self.require_trial(rule)  # before the data is checked and PyTorch loaded

        with showing(view, name=f"export {self.name}", trials=0) as shown:
            plan = self.make_plan(shown)
            shown.on_stage(LOADING)
            from search.export import export

            return export(
                plan,
                str(rule),
                Path(out),
                packing=packing,
                contact=contact,
                force=force,
                view=shown,
                make_executor=make_executor,
            )
