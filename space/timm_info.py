"""Channels and reductions of timm encoders' stages; for common models without importing timm, which imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from space.architecture import Value

PREFIX = "timm:"
PLANE = (128, 192)  # (H, W) of the image that unknown models are probed with


@dataclass(frozen=True)
class Stages:
    """The channels of each stage's features, and their in-plane reduction relative to the image."""

    channels: tuple[int, ...]
    reductions: tuple[int, ...]


KNOWN = {
    "resnet18": Stages((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    "resnet50": Stages((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "densenet121": Stages((64, 256, 512, 1024, 1024), (2, 4, 8, 16, 32)),
    "efficientnet_b0": Stages((16, 24, 40, 112, 320), (2, 4, 8, 16, 32)),
    "convnext_atto": Stages((40, 80, 160, 320), (4, 8, 16, 32)),
    "mobilenetv4_conv_small": Stages((32, 32, 64, 96, 960), (2, 4, 8, 16, 32)),
}


def is_timm(encoder: Value) -> bool:
    """Return whether an encoder is a timm model."""
    return isinstance(encoder, str) and encoder.startswith(PREFIX)


@lru_cache
def timm_stages(name: str) -> Stages:
    """Return the stages of a `features_only` model. Raises ValueError for unknown and unsuitable models."""
    if name in KNOWN:
        return KNOWN[name]
    import timm
    import torch

    if not timm.is_model(name):
        from difflib import get_close_matches

        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(repr(PREFIX + each) for each in close)}?" if close else ""
        raise ValueError(f"timm has no model {name!r}{hint}")
    try:
        with torch.device("meta"):
            model = timm.create_model(name, features_only=True, pretrained=False)
            stages = Stages(tuple(model.feature_info.channels()), tuple(model.feature_info.reduction()))
            shapes = [tuple(features.shape) for features in model(torch.zeros(1, 3, *PLANE))]
    except (RuntimeError, AttributeError, NotImplementedError, TypeError, AssertionError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"timm's {name!r} has no multi-scale features for images of any size: {detail}") from None
    sizes = zip(stages.channels, stages.reductions, strict=True)
    expected = [(1, channels, *(side // step for side in PLANE)) for channels, step in sizes]
    if shapes != expected:
        raise ValueError(f"timm's {name!r} returns features of shapes {shapes}, but declares {expected}")
    steps = zip(stages.reductions, stages.reductions[1:], strict=False)
    if any(coarse % fine or coarse == fine for fine, coarse in steps):
        raise ValueError(f"timm's {name!r} doesn't reduce resolution at each stage: reductions {stages.reductions}")
    return stages
