"""Where the training recipes cross: the same plain network by each recipe at several numbers of steps.

Run: make bench-recipes, or python tests/bench_recipes.py --steps 2500 5000 --seeds 0 1 --keep FOLDER. Each training
resumes from its last epoch, and a row that is in FOLDER/recipes.csv is not trained again.
"""

import argparse
import csv
import os
from pathlib import Path

from bench_training import PLAIN
from pydantic import TypeAdapter

from search.config.training_section import TrainingField
from search.data.check import check_folder
from search.data.folds import make_folds
from search.data.prepare import prepare
from search.runner.evaluate import evaluate
from search.trials.job import Job, Task
from space.canonical import Context
from space.narrow import narrow

STEPS_PER_EPOCH = 50
NETWORK = PLAIN | {"deep_supervision": True}
COLUMNS = ("recipe", "steps", "seed", "dice", "seconds", "cases")


def training_of(recipe: str, steps: int, patch: list[int]):
    """Return the training of a recipe; the light one flips along all axes too, as nnU-Net mirrors."""
    values = {
        "recipe": recipe,
        "patch": patch,
        "batch": 2,
        "epochs": max(1, steps // STEPS_PER_EPOCH),
        "steps_per_epoch": min(steps, STEPS_PER_EPOCH),
        "validate_every": max(1, steps // STEPS_PER_EPOCH),
        "precision": "float32",
    }
    if recipe == "light":
        values["augment"] = {"flip": ["D", "H", "W"]}
    return TypeAdapter(TrainingField).validate_python(values)


def main() -> None:
    """Do the missing trainings, and print all rows."""
    shared = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("VOXNAS_DATA", shared)))
    parser.add_argument("--set", dest="dataset", default="Task04_Hippocampus")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 48, 32])
    parser.add_argument("--steps", type=int, nargs="+", default=[2500, 5000, 20000])
    parser.add_argument("--recipes", nargs="+", default=["light", "nnunet-2.8"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--keep", type=Path, default=Path("runs/bench-recipes"))
    options = parser.parse_args()
    group = r"patient\d+" if "ACDC" in options.dataset else None
    dataset, facts = check_folder(options.data / options.dataset, group=group, cache_dir=options.keep / "cache")
    prepared = prepare(dataset, facts, spacing="median", normalisation="auto", cache_dir=options.keep / "cache")
    fold = make_folds(facts.groups, folds=5, seed=0)[0]
    spacing = prepared.preprocessing.spacing
    context = Context(tuple(options.patch), spacing, len(dataset.channels), len(prepared.labels))
    space = narrow(context, placement="each", fix=NETWORK, choices={})
    architecture = space.architecture(space.complete({}))
    task = Task(prepared.folder, context.in_channels, prepared.labels, spacing, fold.train, fold.validation)
    table = options.keep / f"{options.dataset}.csv"
    rows = list(csv.reader(table.open())) if table.exists() else [list(COLUMNS)]
    for steps in options.steps:
        for seed in options.seeds:
            for recipe in options.recipes:
                if any(row[:3] == [recipe, str(steps), str(seed)] for row in rows):
                    continue
                folder = options.keep / options.dataset / f"{recipe}-{steps}-{seed}"
                training = training_of(recipe, steps, options.patch)
                found = evaluate(Job(architecture, task, training, (), seed, 0, "cpu", 1, str(folder)))
                dice = f"{found.dice:.4f}" if found.dice is not None else found.reason
                rows.append([recipe, str(steps), str(seed), dice, str(round(found.seconds)), str(len(found.cases))])
                with table.open("w", newline="") as file:
                    csv.writer(file).writerows(rows)
                print("  ".join(rows[-1]), flush=True)
    print("\n".join("  ".join(row) for row in rows))


if __name__ == "__main__":
    main()
