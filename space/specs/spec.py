"""BlockSpec: everything the product knows about one attention block, in one object."""

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
RESERVED = (NONE, ATTENTION, "base", "code", "cascade")  # words that axes and entries use themselves
Options = Mapping[str, Value]
Conditions = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class Site:
    """Where a block is built: channels and size (D, H, W) of the map that it receives, and its place in the U."""

    channels: int
    size: Triple
    place: Place


@dataclass(frozen=True)
class Option:
    """One option of a block: its choices, the first being the default, and what it means.

    `when` names the block's other options, and the values of theirs, under which this one exists. `limits` let a
    study choose any number between them. A value equal to `unwritten` is left out of an architecture, so that an
    option added later leaves older fingerprints as they are.
    """

    name: str
    choices: tuple[Value, ...]
    meaning: str
    when: Conditions = ()
    limits: tuple[float, float] | None = None
    unwritten: Value | None = None


@dataclass(frozen=True)
class FormulaCost:
    """A block's costs by hand formula, per patch at batch 1, for tables of synthetic results.

    `written` counts the values that its operators write, `kept` is the share of them kept for backward, `calls` the
    operators that it runs.
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
    """Write the options as they were chosen."""
    return options


def no_arguments(site: Site) -> Mapping[str, Any]:
    """Pass nothing but channels and options to the constructor."""
    return {}


@dataclass(frozen=True)
class BlockSpec:
    """One attention block: an `nn.Module` that maps (B, C, D, H, W) to the same shape, and what is known about it.

    Only a name and a module are needed:

        BLOCK = BlockSpec("slice_se", SliceSE)

    `module` is the class, or `package.module:Class` to load it late. It is built as `module(channels, **arguments,
    **options)`, where `arguments(site)` returns what depends on the place, as `{"slices": site.size[0]}`.

    The functions say the rest: `why_not(options, site)` why the block can't be built there, as the end of a sentence
    ("needs 16 channels or more, has 8"); `settle(options, size)` the options that reach the network at a map of this
    size, None where the block does nothing there; `macs(module, shape)` the multiply-adds of a built block at an
    input (B, C, D, H, W) (counted by torch where it is None); `formula(options, site)` its cost in synthetic tables.
    `repeated` names the option that says how many blocks follow each other; `idle_parameters` have no gradient by
    construction, as a bias that softmax cancels.

    `label`, `source` and `licence` are for people: model cards and tables. `code` says which code a plug-in is; it
    is set where the plug-in is loaded.
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
                f"a block can't be called {self.name!r}: small letters, digits and '_', the first a letter; "
                f"not {', '.join(RESERVED)}"
            )
        for name in ("why_not", "settle", "arguments", *(each for each in ("macs", "formula") if getattr(self, each))):
            if not callable(getattr(self, name)):
                raise ValueError(f"block {self.name!r}: {name} must be a function, not {getattr(self, name)!r}")
        self._check_options()

    def _check_options(self) -> None:
        known: dict[str, Option] = {}
        for option in self.options:
            if not isinstance(option, Option):
                raise ValueError(f"options of block {self.name!r} are Options, not {option!r}")
            if not option.name.isidentifier() or option.name in known:
                raise ValueError(f"block {self.name!r}: option {option.name!r} is no name, or is there twice")
            if not option.choices or len(set(option.choices)) < len(option.choices):
                raise ValueError(f"block {self.name!r}: option {option.name!r} has no choices, or one of them twice")
            for other, allowed in option.when:
                if other not in known or not set(allowed) & set(known[other].choices):
                    raise ValueError(
                        f"block {self.name!r}: option {option.name!r} depends on {other}={list(allowed)}, "
                        "which no earlier option offers"
                    )
            known[option.name] = option
        if self.repeated and self.repeated not in known:
            raise ValueError(f"block {self.name!r}: no option is called {self.repeated!r}, as `repeated` says")

    def option(self, name: str) -> Option | None:
        """Return the option of this name."""
        return next((option for option in self.options if option.name == name), None)

    def written(self, options: Options, size: Triple) -> Options | None:
        """Return the options that an architecture writes; None where the block does nothing at such a map."""
        settled = self.settle(options, size)
        if settled is None:
            return None
        silent = {option.name: option.unwritten for option in self.options if option.unwritten is not None}
        return {name: value for name, value in settled.items() if name not in silent or silent[name] != value}

    def load(self) -> type[nn.Module]:
        """Return the module's class; this imports torch."""
        if not isinstance(self.module, str):
            return self.module
        module, _, name = self.module.partition(":")
        found: type[nn.Module] = getattr(import_module(module), name)
        return found

    @property
    def citation(self) -> str:
        """What a model card says of the block; of a plug-in's licence it speaks elsewhere."""
        licence = f" (released code: {self.licence})" if self.licence and not self.code else ""
        return f"{self.label or self.name}: {self.source or 'no source named'}{licence}"


def show_size(size: Sequence[int]) -> str:
    """Write a size for people: `4x8x8`."""
    return "x".join(str(length) for length in size)
