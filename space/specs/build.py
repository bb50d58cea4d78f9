"""From a spec to a module."""

from __future__ import annotations

from torch import nn

from space.specs.spec import BlockSpec, Options, Site


def build_block(spec: BlockSpec, site: Site, options: Options) -> nn.Module:
    """Build a block with fresh weights; several in a row where its options ask for them."""
    given = {name: value for name, value in options.items() if name != spec.repeated}
    count = int(str(options.get(spec.repeated, 1)))
    made = [spec.load()(site.channels, **spec.arguments(site), **given) for _ in range(count)]
    return made[0] if count == 1 else nn.Sequential(*made)
