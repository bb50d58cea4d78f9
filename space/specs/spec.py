"""BlockSpec: the complete description of one attention block."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from space.architecture import Value
from space.place import ATTENTION, Place
from space.pooling import Triple

if TYPE_CHECKING:
    from torch import nn

NAME = re.compile(r"[a-z][a-z0-9_]*")
NONE = "none"
RESERVED = (NONE, ATTENTION, "base", "code", "cascade")  # names of axes and entries
Options = Mapping[str, Value]
Conditions = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class Site:
    """The site of a block: channels and size (D, H, W) of its input map, and its place in the U."""

    channels: int
    size: Triple
    place: Place


@dataclass(frozen=True)
class Option:
    """One option of a block: its choices (the first is the default) and its meaning.

    `when` lists the values of other options under which this option exists. With `limits`, a study can choose any
    number between them. A value equal to `unwritten` is omitted from architectures, so that adding an option later
    does not change existing fingerprints.
    """

    name: str
    choices: tuple[Value, ...]
    meaning: str
    when: Conditions = ()
    limits: tuple[float, float] | None = None
    unwritten: Value | None = None


@dataclass(frozen=True)
class FormulaCost:
    """A block's costs by formula, per patch at batch 1, for synthetic tables.

    `written` is the number of values that its operators write, `kept` the share of them kept for the backward pass,
    `calls` the number of operators.
    """

    params: int
    macs: int
    written: int
    kept: float = 1.0
    calls: int = 1


def no_objection(options: Options, site: Site) -> str | None:
    """Accept every site."""
    return None


def as_chosen(options: Options, size: Triple) -> Options | None:
    """Return the options unchanged."""
    return options


def no_arguments(site: Site) -> Mapping[str, Any]:
    """Return no additional constructor arguments."""
    return {}


@dataclass(frozen=True)
class BlockSpec:
    """An attention block: an `nn.Module` that keeps the shape (B, C, D, H, W), with its options, rules and costs.

    Only a name and a module are required:

        BLOCK = BlockSpec("slice_se", SliceSE)

    `module` is the class, or `package.module:Class` to import it lazily. It is built as `module(channels, **arguments,
    **options)`; `arguments(site)` returns the arguments that depend on the place, such as `{"slices": site.size[0]}`.

    Optional functions:

    * `why_not(options, site)` returns why the block can't be built at a site, as the end of a sentence ("needs 16
      channels or more, has 8"), or None.
    * `settle(options, size)` returns the options that have an effect at a map of this size; None if the block has none.
    * `macs(module, shape)` returns the multiply-adds of a built block for an input (B, C, D, H, W); by default torch
      counts them.
    * `formula(options, site)` returns the block's costs in synthetic tables.

    `repeated` names the option that sets the number of blocks in sequence. `idle_parameters` names parameters without a
    gradient by construction, such as a bias that softmax cancels. `label`, `source` and `licence` appear in model cards
    and tables. `code` is the digest of a plug-in's code, set when it is loaded.
    """

    name: str
    module: type[nn.Module] | str
    label: str = ""
    options: tuple[Option, ...] = ()
    source: str = ""
    licence: str = ""
    why_not: Callable[[Options, Site], str | None] = no_objection
    settle: Callable[[Options, Triple], Options | None] = as_chosen
    arguments: Callable[[Site], Mapping[str, Any]] = no_arguments
    macs: Callable[[Any, Sequence[int]], int] | None = None
    formula: Callable[[Options, Site], FormulaCost] | None = None
    repeated: str = ""
    idle_parameters: tuple[str, ...] = ()
    code: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name) or self.name in RESERVED:
            raise ValueError(
                f"{self.name!r} is not a valid block name: use lower-case letters, digits and '_', starting with a "
                f"letter, but none of {', '.join(RESERVED)}"
            )
        for name in ("why_not", "settle", "arguments", *(each for each in ("macs", "formula") if getattr(self, each))):
            if not callable(getattr(self, name)):
                raise ValueError(f"block {self.name!r}: {name} must be a function, not {getattr(self, name)!r}")
        self._check_options()

    def _check_options(self) -> None:
        known: dict[str, Option] = {}
        for option in self.options:
            if not isinstance(option, Option):
                raise ValueError(f"block {self.name!r}: each option must be an Option, not {option!r}")
            if not option.name.isidentifier() or option.name in known:
                raise ValueError(f"block {self.name!r}: the option name {option.name!r} is invalid or duplicate")
            if not option.choices or len(set(option.choices)) < len(option.choices):
                raise ValueError(f"block {self.name!r}: option {option.name!r} has no choices or duplicate ones")
            for other, allowed in option.when:
                if other not in known or not set(allowed) & set(known[other].choices):
                    raise ValueError(
                        f"block {self.name!r}: option {option.name!r} depends on {other}={list(allowed)}, "
                        "which no earlier option offers"
                    )
            known[option.name] = option
        if self.repeated and self.repeated not in known:
            raise ValueError(f"block {self.name!r}: `repeated` names {self.repeated!r}, which is not an option")

    def option(self, name: str) -> Option | None:
        """Return the option with this name; None if there is none."""
        return next((option for option in self.options if option.name == name), None)

    def written(self, options: Options, size: Triple) -> Options | None:
        """Return the options that an architecture contains; None if the block has no effect at such a map."""
        settled = self.settle(options, size)
        if settled is None:
            return None
        omitted = {option.name: option.unwritten for option in self.options if option.unwritten is not None}
        return {name: value for name, value in settled.items() if name not in omitted or omitted[name] != value}

    def load(self) -> type[nn.Module]:
        """Return the module's class; this imports torch."""
        if not isinstance(self.module, str):
            return self.module
        module, _, name = self.module.partition(":")
        found: type[nn.Module] = getattr(import_module(module), name)
        return found

    @property
    def citation(self) -> str:
        """The block's line in a model card; the licences of plug-ins are listed separately there."""
        licence = f" (released code: {self.licence})" if self.licence and not self.code else ""
        return f"{self.label or self.name}: {self.source or 'no source given'}{licence}"


def show_size(size: Sequence[int]) -> str:
    """Format a size: `4x8x8`."""
    return "x".join(str(length) for length in size)
