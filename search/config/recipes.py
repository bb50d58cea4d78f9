"""Training recipes by versioned name: what a study's `training` section doesn't say is taken from one of them.

`light-1` is the light augmentation and AdamW that voxnas began with, `nnunet-2.8` is nnU-Net 2.8.1's recipe
(batchgeneratorsv2 >= 0.3.5, whose low-resolution transform works). A name never changes its meaning: results are kept
under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

RecipeName = Literal["auto", "light", "light-1", "nnunet-2.8"]

ON, OFF = ("on", True), ("off", False)
LIGHT: Final = "light-1"
NNUNET: Final = "nnunet-2.8"
RECIPES: dict[str, dict[str, Any]] = {
    LIGHT: {"augment": {"noise": {"p": 0.5, "std": 0.05}}},  # and the defaults of Training and Augment
    NNUNET: {
        "optimiser": "sgd",
        "learning_rate": 1e-2,
        "weight_decay": 3e-5,
        "schedule": "poly",
        "clip_gradient": 12.0,
        "foreground": 0.33,
        "foreground_at": "centre",
        "lowest_head": False,
        "batch_dice": False,
        "mirror": ["D", "H", "W"],
        "augment": {
            "flip": ["D", "H", "W"],
            "scale_intensity": 0.0,
            "shift_intensity": 0.0,
            "noise": {"p": 0.1, "std": 0.1},
            "rotation": {"p": 0.2},
            "scaling": {"p": 0.2},
            "blur": {"p": 0.2},
            "brightness": {"p": 0.15},
            "contrast": {"p": 0.15},
            "low_resolution": {"p": 0.25},
            "gamma_inverted": {"p": 0.1},
            "gamma": {"p": 0.3},
        },
    },
}
# `auto` changes from light-1 to nnunet-2.8 at this many optimiser steps. What it rests on: studies/notes/recipes.md.
AUTO_STEPS = 50_000
DEFAULT_STEPS = {"epochs": 50, "steps_per_epoch": 250}


def recipe_of(values: Mapping[str, Any]) -> str:
    """Return the versioned name of the recipe that a training's values ask for; an unknown name as it is."""
    name = values.get("recipe", "auto")
    if name == "light":
        return LIGHT
    if name != "auto":
        return str(name)
    epochs, steps = (values.get(key, usual) for key, usual in DEFAULT_STEPS.items())
    counted = isinstance(epochs, int) and isinstance(steps, int)
    return NNUNET if counted and epochs * steps >= AUTO_STEPS else LIGHT


def with_recipe(values: Any) -> Any:
    """Lay a training's values over those of its recipe; what is no mapping passes, for the schema to refuse."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        return values
    name = recipe_of(values)
    recipe, said = RECIPES.get(name, {}), values.get("augment", {})
    merged = {**recipe, **values, "recipe": name}
    if isinstance(said, Mapping):
        own = recipe.get("augment", {})
        merged["augment"] = {**own, **{part: _transform(part, value, own) for part, value in said.items()}}
    return merged


def _transform(part: str, value: Any, own: Mapping[str, Any]) -> Any:
    """Complete what is said of one transform from the recipe, and from nnU-Net's where the recipe doesn't use it."""
    usual = own.get(part) or RECIPES[NNUNET]["augment"].get(part)
    if not isinstance(usual, Mapping):
        return value
    if part == "noise" and isinstance(value, int | float) and not isinstance(value, bool):
        return {**usual, "std": value}
    if value in OFF:
        return {**usual, "p": 0.0}
    if value in ON:
        return usual
    return {**usual, **value} if isinstance(value, Mapping) else value
