"""One spec for each attention block, the papers' and a user's own."""

from space.specs.spec import BlockSpec, FormulaCost, Option, Site

__all__ = ["BlockSpec", "FormulaCost", "Option", "Site"]
