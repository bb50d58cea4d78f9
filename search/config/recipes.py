"""Training recipes by versioned name; a recipe supplies the settings that a study's `training` section omits.

`light-1` is the original voxnas recipe: light augmentation and AdamW. `nnunet-2.8` is the recipe of nnU-Net 2.8.1
(batchgeneratorsv2 >= 0.3.5, whose low-resolution transform works). The settings behind a name never
change, because stored results refer to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

RecipeName = Literal["auto", "light", "light-1", "nnunet-2.8"]

ON, OFF = ("on", True), ("off", False)
LIGHT: Final = "light-1"
NNUNET: Final = "nnunet-2.8"
RECIPES: dict[str, dict[str, Any]] = {
    LIGHT: {"augment": {"noise": {"p": 0.5, "std": 0.05}}},  # the rest: defaults of Training and Augment
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
# `auto` selects nnunet-2.8 from this many optimiser steps, light-1 below. Evidence: studies/notes/recipes.md.
AUTO_STEPS = 50_000
DEFAULT_STEPS = {"epochs": 50, "steps_per_epoch": 250}


def recipe_of(values: Mapping[str, Any]) -> str:
    """Resolve the recipe of a `training` section to a versioned name; an unknown name is returned unchanged."""
    name = values.get("recipe", "auto")
    if name == "light":
        return LIGHT
    if name != "auto":
        return str(name)
    epochs, steps = (values.get(key, default) for key, default in DEFAULT_STEPS.items())
    valid = isinstance(epochs, int) and isinstance(steps, int)
    return NNUNET if valid and epochs * steps >= AUTO_STEPS else LIGHT


def with_recipe(values: Any) -> Any:
    """Merge a `training` section into its recipe; a value that is not a mapping is left for the schema to reject."""
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        return values
    name = recipe_of(values)
    recipe, augment = RECIPES.get(name, {}), values.get("augment", {})
    merged = {**recipe, **values, "recipe": name}
    if isinstance(augment, Mapping):
        own = recipe.get("augment", {})
        merged["augment"] = {**own, **{part: _transform(part, value, own) for part, value in augment.items()}}
    return merged


def _transform(part: str, value: Any, own: Mapping[str, Any]) -> Any:
    """Complete the settings of a transform from the recipe, or from nnU-Net's if the recipe doesn't use it."""
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
