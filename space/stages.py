"""Training schemes of more than one patch or network: meU-net's two patches, and its cascade.

Source: blocks/meunet.py. `stages` is `two-patch` (with `expansion`, the expanded patch's factor) or `cascade`
(the second of two networks); an architecture without it has a single stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from space.architecture import Architecture

if TYPE_CHECKING:  # what is feasible is said without loading torch
    from torch import Tensor

    from blocks.meunet import TwoPatchNetwork
    from space.unet import UNet


def prediction_channels(architecture: Architecture, *, classes: int) -> int:
    """Return how many of the input's last channels are first-stage predictions, one-hot with the background's."""
    if architecture.get("stages") != "cascade":
        return 0
    return int(architecture["cascade.predictions"]) * classes


def prediction_levels(architecture: Architecture) -> tuple[int, ...]:
    """Return the decoder levels that predictions join (post-concatenation); with `pre` the encoder takes them in."""
    if architecture.get("stages") != "cascade" or architecture["cascade.join"] == "pre":
        return ()
    return tuple(architecture["cascade.levels"])


def why_not_stages(architecture: Architecture, *, in_channels: int, classes: int) -> str | None:
    """Return why this training scheme doesn't fit the rest of the network; None where it does."""
    if architecture.get("stages") == "two-patch" and architecture.get("downsampling") != "max":
        return "two-patch training pools its first level's features: it needs downsampling max"
    predicted = prediction_channels(architecture, classes=classes)
    if predicted >= in_channels and predicted:
        return (
            f"the cascade takes {predicted} channels of predictions after the image's: "
            f"an input of {in_channels} leaves none for the image"
        )
    return None


def two_patch_network(network: UNet) -> TwoPatchNetwork:
    """Return the three ways through a `two-patch` network that `blocks.meunet.two_patch_step` takes."""
    from blocks.meunet import TwoPatchNetwork

    if len(network.heads) != 2 or network.supervised_heads != 1:
        raise ValueError("two-patch training needs a network built with stages: two-patch")
    level = network.down[1]
    pool, unit = level.get_submodule("0"), level.get_submodule("1")

    def first_level(image: Tensor) -> Tensor:
        features: Tensor = pool(network.attend("encoder0", network.down[0](image)))
        return features  # (B, C, D/2, H/2, W/2): all that the expanded patch keeps of full resolution

    def deeper(features: Tensor) -> Tensor:
        x = network.attend(network.down_place(1), unit(features))
        logits: Tensor = network.heads[1](network.decode([x, *network.encode(x, first=2)], first=1)[0])
        return logits

    return TwoPatchNetwork(whole=network, first_level=first_level, deeper=deeper)
