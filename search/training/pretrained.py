"""Initialise timm encoders with the weights that timm publishes; timm downloads them."""

from __future__ import annotations

from search.config.errors import UserError
from space.architecture import Architecture
from space.build import Network
from space.space import Space
from space.timm_info import PREFIX, is_timm


class WeightsUnavailable(RuntimeError):
    """timm can't fetch a model's weights; the message names the model and what to do."""


def load_pretrained_encoders(network: Network, architecture: Architecture) -> None:
    """Load timm's published weights into a network's encoders if the architecture sets `pretrained`.

    timm adapts the first layer to the number of image channels. Raises WeightsUnavailable.
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
    """Return the published weights of a timm model, adapted to the input channels. Raises WeightsUnavailable."""
    from space.timm_encoder import make_timm

    try:
        return dict(make_timm(name, in_channels, levels=levels, pretrained=True).state_dict())
    # timm passes on errors of its downloader, its cache and torch, which share no base class
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise WeightsUnavailable(
            f"can't fetch the pretrained weights of {name} ({lines[0] if lines else type(error).__name__}); "
            "download them once to the Hugging Face cache (HF_HOME), or set pretrained: false"
        ) from error


def require_pretrained(space: Space) -> None:
    """Fetch all weights that a study may need, before it starts. Raises UserError naming each that is unavailable."""
    choices = {axis.name: axis.choices for axis in space.axes}
    problems = []
    for encoder in choices["encoder"] if True in choices.get("pretrained", ()) else ():
        if isinstance(encoder, str) and is_timm(encoder):
            try:
                fetch(encoder.removeprefix(PREFIX), space.context.in_channels, levels=1)
            except WeightsUnavailable as error:
                problems.append(str(error))
    if problems:
        raise UserError(problems)
