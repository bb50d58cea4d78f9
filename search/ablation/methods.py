"""The methods paragraph of an ablation, from what was run: data, folds, seeds, training, hardware, versions, tests."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from statistics import fmean

from search.ablation.metrics import CASE_METRICS, use_surfaces
from search.ablation.plan import AblationPlan
from search.ablation.results import Result
from search.ablation.summary import Summary
from search.config.units import counted, show_seconds
from search.runner.plan import Plan

CORRECTIONS = {
    "holm": "corrected by Holm's method over the arms",
    "bonferroni": "corrected by Bonferroni's method over the arms",
    "fdr_bh": "with the false discovery rate controlled by Benjamini and Hochberg's method over the arms",
    "none": "not corrected for the number of arms",
}


def methods(plan: AblationPlan, summary: Summary, results: Sequence[Result]) -> str:
    """Return the paragraph; it states only what the results show was done."""
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
    patients = f" of {counted(groups, 'patient')}" if groups < len(facts.cases) else ""
    cases = counted(len(facts.cases), "volume") + patients
    folds = sorted({each.fold for each in results})
    scored = {case.case for each in results for case in each.record.measurement.cases}
    split = "by patient" if groups < len(facts.cases) else "by volume"
    spacing = " x ".join(f"{step:g}" for step in plan.context.spacing)
    return (
        f"Data: {plan.dataset.name}, {cases}, resampled to {spacing} mm (D x H x W) and split {split} into "
        f"{len(plan.folds)} folds, numbered from 0; validation on {_listed('fold', folds)} "
        f"({counted(len(scored), 'volume')})."
    )


def _training(plan: Plan) -> str:
    training = plan.training
    patch = " x ".join(str(size) for size in plan.context.patch)
    return (
        f"Every network was trained by voxnas with recipe {training.recipe} for {counted(training.epochs, 'epoch')} "
        f"of {counted(training.steps_per_epoch, 'step')} with batch size {training.batch} on patches of {patch} voxels "
        f"with {_optimiser(training.optimiser)} (learning rate {training.learning_rate:g}, {training.schedule} "
        "schedule) and the sum of soft Dice loss and cross-entropy. It was scored after the last epoch on whole "
        "volumes, segmented in overlapping windows."
    )


def _optimiser(name: str) -> str:
    return {"adamw": "AdamW", "sgd": "SGD"}[name]


def _settings(plan: AblationPlan) -> list[str]:
    changed = [arm for arm in plan.distinct if arm.plan]
    return [f"Arm {arm.name!r} was trained with {plan.loaded.settings[arm.plan].name}." for arm in changed]


def _runs(plan: AblationPlan, summary: Summary, results: Sequence[Result]) -> str:
    seeds = sorted({each.seed for each in results})
    arms = "1 distinct arm was" if len(plan.distinct) == 1 else f"{len(plan.distinct)} distinct arms were"
    text = f"{arms} trained with {_listed('seed', seeds)}: {counted(len(results), 'training')}"
    reused = sorted({each.source for each in results if each.source})
    if reused:
        count = sum(bool(each.source) for each in results)
        text += f", {count} of them reused from {', '.join(reused)}"
    seconds = fmean(each.record.measurement.seconds for each in results) if results else 0.0
    text += f", {show_seconds(seconds)} each on average."
    if summary.missing:
        missing = "1 training is" if len(summary.missing) == 1 else f"{len(summary.missing)} trainings are"
        text += f" {missing} missing; arms are compared on the cases, seeds and folds that both have."
    return text


def _scores(plan: AblationPlan, summary: Summary) -> str:
    metrics = summary.design.case_metrics
    text = f"Scores: {', '.join(CASE_METRICS[metric].title for metric in metrics)} per case and foreground class"
    if use_surfaces(metrics):
        text += (
            f", distances in mm, surface Dice at a tolerance of {plan.loaded.ablation.surface_tolerance:g} mm; if a "
            "class is present in only one of prediction and reference, hd95 is the volume's diagonal"
        )
    return text + "; a class absent from both label and mask is left out, and classes are averaged within a case."


def _tests(summary: Summary) -> str:
    design = summary.design
    versions = ", ".join(f"{name} {importlib.metadata.version(name.lower())}" for name in ("SciPy", "statsmodels"))
    mixed = any(effect.mixed for line in summary.lines for effect in line.effects.values())
    checked = (
        "a linear mixed model with the unit and the training (seed and fold) as random effects tested whether a "
        "difference holds for another seed (t-test with trainings minus arms degrees of freedom, same correction)"
        if mixed
        else "each arm was trained once, so no mixed model could separate an arm's effect from training noise"
    )
    power = "the smallest difference detectable with a power of 0.8 was computed by simulation from the differences"
    return (
        f"Scores were averaged over seeds, then over a patient's volumes, and paired with {design.baseline!r}; mean "
        "differences have bias-corrected and accelerated bootstrap 95 % intervals; Wilcoxon signed-rank tests were "
        f"{CORRECTIONS[design.correction]} at a level of {design.alpha:g}, separately for each metric, with "
        f"{CASE_METRICS[summary.primary].title} as the primary one; {checked}; {power} ({versions})."
    )


def _hardware(results: Sequence[Result]) -> str:
    costs = [each.record.measurement.costs for each in results]
    latencies = [each.latency for each in costs if each and each.latency]
    devices = {f"{each.device} (threads: {each.threads}, {each.precision})" for each in latencies}
    versions = {f"{name} {version}" for each in results for name, version in each.record.measurement.versions}
    unsettled = sum(not each.settled for each in latencies)
    text = f"Hardware: {'; '.join(sorted(devices))}. Versions: {', '.join(sorted(versions))}."
    if unsettled:
        text += f" {unsettled} of {len(latencies)} latencies are uncertain by over 5 %; repeat on an idle machine."
    return text


def _listed(word: str, numbers: Iterable[int]) -> str:
    shown = [str(number) for number in numbers]
    if not shown:
        return f"no {word}"
    return f"{word} {shown[0]}" if len(shown) == 1 else f"{word}s {', '.join(shown[:-1])} and {shown[-1]}"
