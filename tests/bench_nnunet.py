"""nnunetv2 itself against the preset `nnunet`, on one fold, for equal wall time on the same cores.

Run: make bench-nnunet, or python tests/bench_nnunet.py --minutes 20 --seeds 0 1 --keep FOLDER. Needs the optional
dependencies `bench-nnunet`. Each side first measures its speed, then trains as many steps as fit the time by nnU-Net's
recipe, with its learning rate decayed over these steps; nnunetv2's pseudo validation is left out. Both segment the
same held-out cases, mirrored along all axes, and the same function scores the masks. A training that was interrupted
resumes; one with a file of results in FOLDER is not repeated.
"""

import argparse
import json
import os
import random
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median

import nibabel
import numpy as np
import torch
from nnunet_golden import PREPROCESSED, RAW, RESULTS, link_dataset
from pydantic import TypeAdapter

from search.analysis.statistics.pairs import compare_pairs
from search.config.training_section import TrainingField
from search.data.check import check_folder
from search.data.fingerprint import fingerprint_of
from search.data.folds import make_folds
from search.data.prepare import prepare
from search.data.prepared import Prepared, open_truth
from search.runner.evaluate import evaluate
from search.training.validation import case_dice
from search.trials.job import Job, Task
from search.trials.records import CaseDice
from space.canonical import Context
from space.nnunet.planner import Plan, make_plan
from space.presets import PRESETS

SIDES = ("nnunetv2", "voxnas")
WORKERS = "nnUNet_n_proc_DA"  # 0: augment in the training process, on the same core
NUMBER = 501  # of the data set, for nnunetv2
CALIBRATION = 2  # epochs, of which the faster counts


@dataclass(frozen=True)
class Setting:
    """What both sides train on: the prepared data, nnU-Net's plan for it, and the cases of the fold."""

    keep: Path
    source: Path
    prepared: Prepared
    plan: Plan
    folds: tuple
    held_out: tuple[str, ...]
    channels: int
    classes: int
    epoch_steps: int

    @property
    def fold(self):
        return self.folds[0]


def read_setting(source: Path, keep: Path, *, epoch_steps: int, most_cases: int | None) -> Setting:
    dataset, facts = check_folder(source, group=None, cache_dir=keep / "cache")
    plan = make_plan(fingerprint_of(dataset, facts))
    prepared = prepare(dataset, facts, spacing=plan.spacing, normalisation="auto", cache_dir=keep / "cache")
    folds = make_folds(facts.groups, folds=5, seed=0)
    classes = dataset.labelling.outputs
    held_out = folds[0].validation[:most_cases]
    return Setting(keep, source, prepared, plan, folds, held_out, len(dataset.channels), classes, epoch_steps)


# voxnas


def train_voxnas(setting: Setting, folder: Path, *, seed: int, epochs: int, calibrates: bool = False):
    """Train the preset; return the seconds of each epoch and the scored cases, one if it calibrates.

    The last epoch is left out: its seconds include the validation.
    """
    plan, fold = setting.plan, setting.fold
    scored = setting.held_out[:1] if calibrates else setting.held_out
    values = {
        "recipe": "nnunet-2.8",
        "patch": list(plan.patch),
        "batch": plan.batch,
        "epochs": epochs,
        "steps_per_epoch": setting.epoch_steps,
        "validate_every": epochs,
        "precision": "float32",
        "mirror": "none" if calibrates else ["D", "H", "W"],
    }
    training = TypeAdapter(TrainingField).validate_python(values)
    context = Context(plan.patch, plan.spacing, setting.channels, setting.classes)
    prepared = setting.prepared
    task = Task(prepared.folder, context.in_channels, prepared.labels, plan.spacing, fold.train, scored)
    job = Job(PRESETS["nnunet"].at(context), task, training, (), seed, 0, "cpu", 1, str(folder))
    found = evaluate(job)
    if found.state != "trained":
        raise SystemExit(f"voxnas: {found.reason}")
    return [epoch.seconds for epoch in found.epochs if epoch.dice is None], found.cases


# nnunetv2


def preprocess(setting: Setting) -> None:
    """Plan and preprocess as `nnUNetv2_plan_and_preprocess` does, and write our folds."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    name = f"Dataset{NUMBER}_{setting.source.name}"
    target = Path(os.environ[PREPROCESSED]) / name
    if not (target / "done").exists():
        if not (Path(os.environ[RAW]) / name).exists():
            link_dataset(setting.source, Path(os.environ[RAW]) / name)
        os.environ[WORKERS] = "1"  # planning refuses 0
        api.extract_fingerprints([NUMBER], num_processes=1)
        api.plan_experiments([NUMBER])
        api.preprocess([NUMBER], configurations=("3d_fullres",), num_processes=(1,))
        os.environ[WORKERS] = "0"
        (target / "done").touch()
    splits = [{"train": list(fold.train), "val": list(fold.validation)} for fold in setting.folds]
    splits[0]["val"] = list(setting.held_out)
    (target / "splits_final.json").write_text(json.dumps(splits))


def train_nnunetv2(setting: Setting, folder: Path, *, seed: int, epochs: int, calibrates: bool = False):
    """Train nnunetv2's own trainer; return the seconds of each epoch's training and the scored cases."""
    from nnunetv2.run.run_training import get_trainer_from_args

    preprocess(setting)
    os.environ[RESULTS] = str(folder)
    for seeded in (random.seed, np.random.seed, torch.manual_seed):
        seeded(seed)
    trainer = get_trainer_from_args(str(NUMBER), "3d_fullres", 0, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, setting.epoch_steps
    trainer.num_val_iterations_per_epoch = 1
    trainer.save_every = 5
    trainer.initialize()
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    clock = folder / "seconds.json"
    seconds = json.loads(clock.read_text())[: trainer.current_epoch] if clock.exists() else []
    begun, ended = trainer.on_train_epoch_start, trainer.on_train_epoch_end

    def begin():
        begun()
        seconds.append(-time.perf_counter())

    def end(outputs):
        ended(outputs)
        seconds[-1] += time.perf_counter()
        clock.write_text(json.dumps(seconds))

    trainer.on_train_epoch_start, trainer.on_train_epoch_end = begin, end
    trainer.run_training()
    if calibrates:
        return seconds, ()
    trainer.perform_actual_validation(save_probabilities=False)
    masks = Path(trainer.output_folder) / "validation"
    return seconds, tuple(scored(setting, case, masks / f"{case}.nii.gz") for case in setting.held_out)


def scored(setting: Setting, case: str, file: Path) -> CaseDice:
    """Score a mask by voxnas's own function, on the grid of the original file."""
    truth, _ = open_truth(setting.prepared, case)
    mask = np.asarray(nibabel.load(file).dataobj)
    return CaseDice(case, case_dice(mask, truth, members=setting.prepared.labelling.members))


# Both


def planned_epochs(train, setting: Setting, folder: Path, *, seconds: float) -> int:
    """Return how many epochs fit the time; measured once for a folder."""
    note = folder / "epochs.json"
    if not note.exists():
        spent, _ = train(setting, folder / "calibration", seed=0, epochs=CALIBRATION, calibrates=True)
        note.write_text(json.dumps(max(CALIBRATION, round(seconds / min(spent)))))
    return json.loads(note.read_text())


def run(side: str, setting: Setting, *, seed: int, minutes: float) -> dict:
    train = {"voxnas": train_voxnas, "nnunetv2": train_nnunetv2}[side]
    folder = setting.keep / f"{side}-{minutes:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    epochs = planned_epochs(train, setting, folder, seconds=60 * minutes)
    seconds, cases = train(setting, folder / "training", seed=seed, epochs=epochs)
    return {
        "side": side,
        "seed": seed,
        "minutes": minutes,
        "steps": epochs * setting.epoch_steps,
        "seconds": round(sum(seconds), 1),
        "steps_per_s": round(setting.epoch_steps / median(seconds), 3),
        "cases": {case.case: case.mean for case in cases},
    }


def report(rows: list[dict]) -> str:
    """Return each training, and the paired difference per length over cases, averaged over seeds."""
    lines = [
        f"{row['side']:>8}  {row['minutes']:g} min, seed {row['seed']}: Dice {fmean(row['cases'].values()):.4f}, "
        f"{row['steps']} steps in {row['seconds']:.0f} s, {row['steps_per_s']:.2f} steps/s"
        for row in sorted(rows, key=lambda row: (row["minutes"], row["seed"], row["side"]))
    ]
    for minutes in sorted({row["minutes"] for row in rows}):
        by = {(row["side"], row["seed"]): row["cases"] for row in rows if row["minutes"] == minutes}
        seeds = sorted(seed for side, seed in by if side == "voxnas" and ("nnunetv2", seed) in by)
        if not seeds:
            continue
        cases = by["voxnas", seeds[0]]
        differences = [fmean(by["voxnas", s][case] - by["nnunetv2", s][case] for s in seeds) for case in cases]
        pairs = compare_pairs(differences)
        lines.append(
            f"{minutes:g} min, {len(seeds)} seed(s): voxnas minus nnunetv2 {pairs.difference:+.4f} "
            f"(95 % {pairs.low:+.4f} to {pairs.high:+.4f}, {pairs.units} cases)"
        )
    return "\n".join(lines)


def main() -> None:
    shared = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VOXNAS_DATA", shared)))
    parser.add_argument("--set", dest="dataset", default="Task04_Hippocampus")
    parser.add_argument("--minutes", type=float, nargs="+", default=[20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--epoch-steps", type=int, default=25)
    parser.add_argument("--cases", type=int, help="score only so many held-out cases, for a short try")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("runs/bench-nnunet"))
    options = parser.parse_args()
    keep = options.keep.resolve()
    settings = {WORKERS: "0", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    os.environ.update(settings | {name: str(keep / name) for name in (RAW, PREPROCESSED, RESULTS)})
    torch.set_num_threads(options.threads)
    setting = read_setting(
        options.data / options.dataset, keep, epoch_steps=options.epoch_steps, most_cases=options.cases
    )
    for minutes, seed, side in product(options.minutes, options.seeds, options.sides):
        file = keep / f"{side}-{minutes:g}-{seed}.json"
        if not file.exists():
            row = run(side, setting, seed=seed, minutes=minutes)
            file.write_text(json.dumps(row))
    rows = [json.loads(file.read_text()) for side in SIDES for file in sorted(keep.glob(f"{side}-*.json"))]
    print(report(rows))


if __name__ == "__main__":
    sys.exit(main())
