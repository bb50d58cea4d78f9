"""Build a block's module from its spec."""

from __future__ import annotations

from torch import nn

from space.specs.spec import BlockSpec, Options, Site


def build_block(spec: BlockSpec, site: Site, options: Options) -> nn.Module:
    """Build a block with fresh weights, or a sequence of blocks if its `repeated` option is over 1."""
    arguments = {name: value for name, value in options.items() if name != spec.repeated}
    count = int(str(options.get(spec.repeated, 1)))
    blocks = [spec.load()(site.channels, **spec.arguments(site), **arguments) for _ in range(count)]
    return blocks[0] if count == 1 else nn.Sequential(*blocks)
