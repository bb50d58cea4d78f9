"""The section `space` of a study: how the full space of networks is narrowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from search.config.augment import STRICT
from search.config.keys import Key
from space.canonical import Context
from space.narrow import Narrowing
from space.presets import PRESETS
from space.specs.registry import BUILT_IN
from space.specs.spec import BlockSpec

PresetName = Literal[
    "sau_net",
    "csam_unet",
    "joint_denseunet",
    "unetrpp_synapse",
    "unetrpp_acdc",
    "unetrpp_lung",
    "unetrpp_tumor",
    "meunet",
    "meunet_cascade",
    "nnunet",
    "nnunet_resenc_m",
]


@dataclass(frozen=True)
class Forbidden:
    """A combination of choices that a study excludes, with the reason to show to readers."""

    __pydantic_config__ = STRICT
    when: Annotated[dict[str, Any], Key("Axes and the values that don't go together.", {"width": 32, "levels": 6})]
    why: Annotated[str, Key("The reason, shown to readers of the study.", "too large for the GPU")]


@dataclass(frozen=True)
class SpaceSection:
    """Restrictions of the full space, or the axes to vary on a published network; see `space.narrow`."""

    __pydantic_config__ = STRICT
    placement: Annotated[
        Literal["each", "tied"], Key("Whether each place chooses its own attention, or all share one choice.", "tied")
    ] = "each"
    fix: Annotated[
        dict[str, Any], Key("Axes with one value. `voxnas space` lists the axes.", {"levels": 5, "norm": "instance"})
    ] = field(default_factory=dict)
    choices: Annotated[
        dict[str, list[Any]],
        Key("Axes with fewer choices; axes that aren't named keep all.", {"width": [8, 16]}),
    ] = field(default_factory=dict)
    forbid: Annotated[
        tuple[Forbidden, ...],
        Key(
            "Combinations to leave out, each with a reason.", [{"when": {"width": 32, "levels": 6}, "why": "too large"}]
        ),
    ] = ()
    base: Annotated[
        PresetName | None,
        Key("A published network, whose axes under `open` are searched. Without it, the full space.", "csam_unet"),
    ] = None
    open: Annotated[
        tuple[str, ...], Key("Axes of `base` to search; `voxnas space` lists them.", ["attention@skips"])
    ] = ()

    def narrowing(self, context: Context, blocks: Sequence[BlockSpec] = BUILT_IN) -> Narrowing:
        """Convert the section to a `Narrowing` of the space, in which places may hold any of `blocks`."""
        base = PRESETS[self.base].at(context) if self.base else None
        forbid = [(each.when, each.why) for each in self.forbid]
        return Narrowing(self.placement, self.fix, self.choices, forbid, base, self.open, blocks)
