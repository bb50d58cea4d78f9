"""Attention blocks as specs: the papers' and plug-ins."""

from space.specs.spec import BlockSpec, FormulaCost, Option, Site

__all__ = ["BlockSpec", "FormulaCost", "Option", "Site"]
