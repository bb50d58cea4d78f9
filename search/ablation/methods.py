"""The methods paragraph, from what was really run: data, folds, seeds, training, hardware, versions, tests."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from statistics import fmean

from search.ablation.metrics import CASE_METRICS, use_surfaces
from search.ablation.plan import AblationPlan
from search.ablation.results import Result
from search.ablation.summary import Summary
from search.config.units import show_seconds
from search.runner.plan import Plan

CORRECTIONS = {
    "holm": "corrected by Holm's method over the arms",
    "bonferroni": "corrected by Bonferroni's method over the arms",
    "fdr_bh": "with the false discovery rate held by Benjamini and Hochberg's method over the arms",
    "none": "not corrected for the number of arms",
}


def methods(plan: AblationPlan, summary: Summary, results: Sequence[Result]) -> str:
    """Return the paragraph; says only what the results show was done."""
    first = plan.plans[0]
    parts = [
        _data(first, results),
        _training(first),
        *_settings(plan),
        _runs(plan, summary, results),
        _scores(plan, summary),
        _tests(summary),
        _hardware(results),
    ]
    return " ".join(parts) + "\n"


def _data(plan: Plan, results: Sequence[Result]) -> str:
    facts, groups = plan.facts, len(set(plan.facts.groups.values()))
    cases = f"{len(facts.cases)} volumes" + (f" of {groups} patients" if groups < len(facts.cases) else "")
    folds = sorted({each.fold for each in results})
    scored = {case.case for each in results for case in each.record.measurement.cases}
    split = "by patient" if groups < len(facts.cases) else "by volume"
    spacing = " x ".join(f"{step:g}" for step in plan.context.spacing)
    return (
        f"Data: {plan.dataset.name}, {cases}, brought to {spacing} mm (D x H x W) and split {split} into "
        f"{len(plan.folds)} folds; {_listed('fold', folds)} validated, {len(scored)} volumes in all."
    )


def _training(plan: Plan) -> str:
    training = plan.training
    patch = " x ".join(str(size) for size in plan.context.patch)
    return (
        f"Every network was trained by the recipe {training.recipe} of voxnas for {training.epochs} epochs of "
        f"{training.steps_per_epoch} steps with batch size "
        f"{training.batch} on patches of {patch} voxels by {_optimiser(training.optimiser)} (learning rate "
        f"{training.learning_rate:g}, {training.schedule} schedule) on the sum of soft Dice and cross-entropy, and "
        "scored after the last epoch, on whole volumes segmented in overlapping windows."
    )


def _optimiser(name: str) -> str:
    return {"adamw": "AdamW", "sgd": "SGD"}[name]


def _settings(plan: AblationPlan) -> list[str]:
    changed = [arm for arm in plan.distinct if arm.plan]
    return [f"Arm {arm.name!r} was trained under {plan.loaded.settings[arm.plan].name}." for arm in changed]


def _runs(plan: AblationPlan, summary: Summary, results: Sequence[Result]) -> str:
    seeds = sorted({each.seed for each in results})
    said = f"{len(plan.distinct)} distinct arms were trained from {_listed('seed', seeds)}: {len(results)} trainings"
    taken = sorted({each.source for each in results if each.source})
    if taken:
        count = sum(bool(each.source) for each in results)
        said += f", {count} of them taken over from {', '.join(taken)}"
    seconds = fmean(each.record.measurement.seconds for each in results) if results else 0.0
    said += f", {show_seconds(seconds)} each on average."
    if summary.missing:
        said += f" {len(summary.missing)} trainings are missing; pairs are formed over what both arms have."
    return said


def _scores(plan: AblationPlan, summary: Summary) -> str:
    metrics = summary.design.case_metrics
    said = f"Scores: {', '.join(CASE_METRICS[metric].title for metric in metrics)} per case and foreground class"
    if use_surfaces(metrics):
        said += (
            f", distances in mm, surfaces at a tolerance of {plan.loaded.ablation.surface_tolerance:g} mm; where a "
            "class was missed or made up, hd95 counts as the volume's diagonal"
        )
    return said + "; a class absent from both masks is left out, and classes are averaged within a case."


def _tests(summary: Summary) -> str:
    design = summary.design
    versions = ", ".join(f"{name} {importlib.metadata.version(name.lower())}" for name in ("SciPy", "statsmodels"))
    mixed = any(effect.mixed for line in summary.lines for effect in line.effects.values())
    checked = (
        "a linear mixed model with the unit and the training (seed on fold) as random effects checked whether a "
        "difference outlasts another seed (t on trainings less arms, corrected alike)"
        if mixed
        else "each arm was trained once, so that no mixed model could tell an arm from the luck of its training"
    )
    power = "the smallest difference found with a power of 0.8 was computed by simulation from the differences seen"
    return (
        f"Scores were averaged over seeds, then over a patient's volumes, and paired with {design.baseline!r}; mean "
        "differences have bias-corrected and accelerated bootstrap 95 % intervals; Wilcoxon signed-rank tests were "
        f"{CORRECTIONS[design.correction]} at {design.alpha:g}, each metric a family of its own and "
        f"{CASE_METRICS[summary.primary].title} the primary one; {checked}; {power} ({versions})."
    )


def _hardware(results: Sequence[Result]) -> str:
    costs = [each.record.measurement.costs for each in results]
    latencies = [each.latency for each in costs if each and each.latency]
    devices = {f"{each.device} (threads: {each.threads}, {each.precision})" for each in latencies}
    versions = {f"{name} {version}" for each in results for name, version in each.record.measurement.versions}
    loose = sum(not each.settled for each in latencies)
    said = f"Hardware: {'; '.join(sorted(devices))}. Versions: {', '.join(sorted(versions))}."
    if loose:
        said += f" {loose} of {len(latencies)} latencies spread too widely to be trusted; repeat on an idle machine."
    return said


def _listed(word: str, numbers: Iterable[int]) -> str:
    shown = [str(number) for number in numbers]
    if not shown:
        return f"no {word}"
    return f"{word} {shown[0]}" if len(shown) == 1 else f"{word}s {', '.join(shown[:-1])} and {shown[-1]}"
