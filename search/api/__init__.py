"""voxnas in Python: run a study, read its results as DataFrames, draw them, build and export its networks.

    import voxnas

    study = voxnas.open("runs/acdc")                # or voxnas.Study.from_yaml("studies/acdc.yaml", data=FOLDER)
    study.run(trials=8)
    study.front()                                   # pandas DataFrame, a row per network
    study.pick("cheapest:dice>=0.85")               # a network of the front, and why
    study.plot_front()                              # Plotly figure
    study.build("knee")                             # torch.nn.Module with trained weights
    study.export("knee", "model")                   # a folder that runs without voxnas
    voxnas.space("studies/acdc.yaml", data=FOLDER).sample(5)
    voxnas.predict_costs("unetrpp_acdc")

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.api.opening import open_study as open
    from search.api.opening import space
    from search.api.spaces import SearchSpace, predict_costs
    from search.api.study import Network, Study
    from search.config.errors import UserError
    from space.architecture import Architecture
    from space.canonical import Context
    from space.specs.spec import BlockSpec, Option

    __version__: str

__all__ = [
    "Architecture",
    "BlockSpec",
    "Context",
    "Network",
    "Option",
    "SearchSpace",
    "Study",
    "UserError",
    "open",
    "predict_costs",
    "space",
]
_HOMES = {
    "Architecture": "space.architecture",
    "BlockSpec": "space.specs.spec",
    "Context": "space.canonical",
    "Option": "space.specs.spec",
    "Network": "search.api.study",
    "SearchSpace": "search.api.spaces",
    "Study": "search.api.study",
    "UserError": "search.config.errors",
    "open": "search.api.opening:open_study",
    "predict_costs": "search.api.spaces",
    "space": "search.api.opening",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("voxnas")
    if name not in _HOMES:
        raise AttributeError(f"module 'voxnas' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
