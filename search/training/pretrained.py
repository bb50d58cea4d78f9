"""timm's published weights as a network's start: fetched by timm itself, or said clearly why not."""

from __future__ import annotations

from search.config.errors import UserError
from space.architecture import Architecture
from space.build import Network
from space.space import Space
from space.timm_info import PREFIX, is_timm


class Unavailable(RuntimeError):
    """Weights that timm can't get; the message says which and what to do."""


def start_from_pretrained(network: Network, architecture: Architecture) -> None:
    """Load timm's published weights into a network's encoders where the architecture says `pretrained`.

    timm adapts the first layer to the image's channels. Raises Unavailable where the weights can't be had.
    """
    if not architecture.get("pretrained"):
        return
    from space.timm_encoder import TimmSlices

    fetched = None
    for module in network.modules():
        if isinstance(module, TimmSlices):
            fetched = fetched or fetch(module.name, module.in_channels, levels=len(module.reductions))
            module.net.load_state_dict(fetched)


def fetch(name: str, in_channels: int, *, levels: int) -> dict[str, object]:
    """Return the published weights of timm's model for so many channels. Raises Unavailable."""
    from space.timm_encoder import make_timm

    try:
        return dict(make_timm(name, in_channels, levels=levels, pretrained=True).state_dict())
    except Exception as error:  # timm lets through what its downloader, its cache and torch raise, each of its own kind
        said = str(error).strip().splitlines()
        raise Unavailable(
            f"the pretrained weights of {name} can't be had ({said[0] if said else type(error).__name__}); "
            "fetch them once into the Hugging Face cache (HF_HOME) with internet, or set pretrained: false"
        ) from error


def require_pretrained(space: Space) -> None:
    """Fetch, before a study starts, the weights that it may ask for. Raises UserError with all that can't be had."""
    choices = {axis.name: axis.choices for axis in space.axes}
    problems = []
    for encoder in choices["encoder"] if True in choices.get("pretrained", ()) else ():
        if isinstance(encoder, str) and is_timm(encoder):
            try:
                fetch(encoder.removeprefix(PREFIX), space.context.in_channels, levels=1)
            except Unavailable as error:
                problems.append(str(error))
    if problems:
        raise UserError(problems)
