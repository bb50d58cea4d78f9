"""The section `training` of a study file: recipe, patch, length, optimiser, augmentation, validation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from search.config.augment import STRICT, Augment, Share
from search.config.keys import Key
from search.config.numbers import Positive, Whole
from search.config.recipes import LIGHT, RecipeName, with_recipe
from search.config.units import IN_SECONDS, Seconds


@dataclass(frozen=True)
class Training:
    """Training settings: a patch is (D, H, W) voxels, an epoch `steps_per_epoch` optimiser steps.

    The defaults are those of the recipe `light-1`; `with_recipe` fills in those of other recipes.
    `foreground_at: anywhere` samples each patch around foreground with probability `foreground`, `centre` the last
    patches of each batch.
    """

    __pydantic_config__ = STRICT
    recipe: Annotated[
        RecipeName,
        Key(
            "Versioned set of defaults for this section; `auto` chooses by the total number of optimiser steps.",
            "light",
        ),
    ] = LIGHT
    patch: Annotated[
        Literal["auto", "nnunet"] | tuple[Whole, Whole, Whole],
        Key(
            "Size (D, H, W) of a training patch; `auto` follows the median volume, `nnunet` is nnU-Net's plan.",
            [6, 128, 128],
            "voxels",
        ),
    ] = "auto"
    batch: Annotated[
        Literal["nnunet"] | Whole, Key("Patches per optimiser step; `nnunet` is nnU-Net's plan for the patch.", 4)
    ] = 2
    epochs: Annotated[Whole, Key("Length of one training.", 200, "epochs")] = 50
    steps_per_epoch: Annotated[Whole, Key("Optimiser steps in an epoch.", 100, "steps")] = 250
    optimiser: Annotated[Literal["adamw", "sgd"], Key("Optimiser; `sgd` has Nesterov momentum.", "sgd")] = "adamw"
    learning_rate: Annotated[Positive, Key("Initial learning rate.", 1e-3)] = 3e-3
    weight_decay: Annotated[
        Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)], Key("Weight decay.", 3e-5)
    ] = 1e-5
    schedule: Annotated[
        Literal["poly", "cosine", "constant"],
        Key("Decay of the learning rate over all steps; `poly` has power 0.9.", "cosine"),
    ] = "poly"
    clip_gradient: Annotated[Positive, Key("Maximum norm of the gradient; larger gradients are scaled down.", 1.0)] = (
        12.0
    )
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Key(
            "Number format of training and validation; `auto` depends on the device. `float16` scales the loss.",
            "float32",
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        Key("Whether torch.compile compiles networks for training; `auto` does where that is known to pay.", "on"),
    ] = "auto"
    foreground: Annotated[Share, Key("Share of patches that are sampled around foreground.", 0.33)] = 0.5
    foreground_at: Annotated[
        Literal["anywhere", "centre"], Key("Position of the foreground voxel in such a patch.", "centre")
    ] = "anywhere"
    lowest_head: Annotated[bool, Key("Whether the coarsest supervised level counts in the loss.", False)] = True
    batch_dice: Annotated[bool, Key("Whether soft Dice is computed over the whole batch or per sample.", False)] = True
    augment: Annotated[
        Augment,
        Key("Random changes of patches. `on` uses nnU-Net's probability.", {"gamma": "off", "flip": ["W"]}),
    ] = field(default_factory=Augment)
    mirror: Annotated[
        tuple[Literal["D", "H", "W"], ...],
        BeforeValidator(lambda value: () if value == "none" else value),
        Key("Axes to mirror windows along at inference; logits are averaged.", ["H", "W"], also=({"const": "none"},)),
    ] = ()
    overlap: Annotated[
        Annotated[float, Field(ge=0, lt=1, strict=True)],
        Key("Overlap of validation's windows, as a share of their size.", 0.25),
    ] = 0.5
    validate_every: Annotated[
        Whole, Key("Epochs between validations; the last epoch always has one.", 10, "epochs")
    ] = 1
    deadline: Annotated[
        Seconds | None,
        Key("Maximum time of one training; a longer one fails. Without it, there is no limit.", "6 h", IN_SECONDS),
    ] = None
    init: Annotated[
        str | None,
        Key("Weights to start from, written by `voxnas import`. Without it, they are random.", "start.safetensors"),
    ] = None

    @property
    def steps(self) -> int:
        """Total number of optimiser steps."""
        return self.epochs * self.steps_per_epoch

    @property
    def size(self) -> tuple[int, int, int]:
        """The patch (D, H, W) in voxels. Raises ValueError before a plan has derived it from the data."""
        if isinstance(self.patch, str):
            raise ValueError(f"the patch must be spelled out, not {self.patch!r}")
        return self.patch

    @property
    def compiles(self) -> bool:
        """Whether networks are compiled: not with `auto`, as no device is known yet on which that pays."""
        return self.compile == "on"

    @property
    def samples(self) -> int:
        """Patches per optimiser step. Raises ValueError before a plan has derived them from the data."""
        if isinstance(self.batch, str):
            raise ValueError(f"the batch must be a number, not {self.batch!r}")
        return self.batch


TrainingField = Annotated[
    Training,
    BeforeValidator(with_recipe),
    Key("How each network is trained.", {"patch": [6, 128, 128], "epochs": 20}, also=({"type": "null"},)),
]
