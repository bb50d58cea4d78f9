"""A block under check: one spec at one set of options, built on a small map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from space.place import Place
from space.pooling import Triple
from space.specs.build import build_block
from space.specs.spec import BlockSpec, Options, Site

BUILT: Triple = (4, 6, 5)
# At the built size, odd and thin, one slice, one row, deep, nearly nothing; H differs from W in all.
SIZES: tuple[Triple, ...] = (BUILT, (3, 7, 5), (1, 6, 5), (4, 1, 9), (9, 2, 3), (1, 1, 2))
CHANNELS = (16, 32, 64, 48, 8)  # the first that the block accepts


@dataclass(frozen=True)
class Subject:
    """A spec with the options and the site that its block is built with."""

    spec: BlockSpec
    options: tuple[tuple[str, object], ...]
    site: Site

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options) or "no options"

    def fresh(self) -> nn.Module:
        """Build the block as training starts it."""
        block: nn.Module = build_block(self.spec, self.site, dict(self.options))  # type: ignore[arg-type]
        return block

    def build(self) -> nn.Module:
        """Build the block with random weights: at the start some are zero, which hides mistakes.

        Biases are around 1, so that no narrow hidden layer is dead behind its ReLU.
        """
        torch.manual_seed(0)
        block = self.fresh()
        for key, parameter in block.named_parameters():
            nn.init.normal_(parameter, mean=float(key.endswith("bias")), std=0.3)
        return block

    def volumes(self, size: Triple = BUILT, *, batch: int = 2, seed: int = 1) -> Tensor:
        """Return random maps (B, C, D, H, W) for the block."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.site.channels, *size, generator=generator)


def subjects(spec: BlockSpec) -> Iterator[Subject]:
    """Yield the block at its first choices, then with each other choice of each option, if it can be built so.

    Raises ValueError if the block accepts none of the channels that are tried.
    """
    sites = [Site(channels, BUILT, Place("skip", 0)) for channels in CHANNELS]
    first = _options(spec, {})
    site = next((site for site in sites if not spec.why_not(first, site)), None)
    if site is None:
        tried = ", ".join(map(str, CHANNELS))
        raise ValueError(f"{spec.name!r} accepts none of {tried} channels at 4x6x5: {spec.why_not(first, sites[0])}")
    seen: list[Options] = []
    for changed in ({}, *({option.name: each} for option in spec.options for each in option.choices[1:])):
        options = _options(spec, changed)
        if options in seen or spec.why_not(options, site) or spec.written(options, site.size) is None:
            continue
        seen.append(options)
        yield Subject(spec, tuple(options.items()), site)


def _options(spec: BlockSpec, changed: Options) -> Options:
    """Return each open option at its changed or first choice."""
    chosen: dict[str, object] = {}
    for option in spec.options:
        if all(chosen.get(other) in allowed for other, allowed in option.when):
            chosen[option.name] = changed.get(option.name, option.choices[0])
    return chosen  # type: ignore[return-value]
