"""Convert state dicts between released names and ours: UNETR++ (all four variants) and CSAM's encoder.

Sources: unetr_plus_plus at dcba1c6e, CSAM at a0029206. A released 2D convolution weight (C, C_in, k, k) becomes
(C, C_in, 1, k, k); UNETR++'s weights need no conversion (see `space.presets` for the order of axes and tokens).
CSAM's released decoder does not run; the tables omit its names.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from space.architecture import Architecture
from space.place import BOTTLENECK, Place, down_place


def from_released(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Convert a released state dict to the names and shapes of the network of `architecture`.

    Raises ValueError for names that are not in the table.
    """
    table = {theirs: ours for ours, theirs in released_prefixes(architecture).items()}
    renamed = _rename(state, table)
    if architecture["encoder"] != "csam":
        return renamed
    return {name: _widened(value) if name.startswith("down.") else value for name, value in renamed.items()}


def to_released(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Convert a state dict to the released names and shapes; for CSAM, only the encoder's weights."""
    table = released_prefixes(architecture)
    if architecture["encoder"] != "csam":
        return _rename(state, table)
    encoder = {name: value for name, value in state.items() if name.startswith(("down.", "attention."))}
    flat = {name: value.squeeze(2) if value.dim() == 5 else value for name, value in encoder.items()}
    return _rename(flat, table)


def released_prefixes(architecture: Architecture) -> dict[str, str]:
    """Return {our prefix: released prefix}. Raises ValueError for families without released weights."""
    family = architecture["encoder"]
    if family == "unetrpp":
        return _unetrpp_prefixes(architecture.levels)
    if family == "csam":
        return _csam_prefixes(architecture.levels)
    raise ValueError(f"no released weights are known for {family!r} networks, only for 'unetrpp' and 'csam'")


def _unetrpp_prefixes(levels: int) -> dict[str, str]:
    """The released encoder numbers its stages from 0 below full resolution, its decoders from 2 at full resolution."""
    table = {"down.0.": "encoder1.", "up.0.": "decoder2.decoder_block.0."}
    for level in range(1, levels):
        place = down_place(level, levels)
        table[f"down.{level}.conv."] = f"unetr_pp_encoder.downsample_layers.{level - 1}.0.conv."
        table[f"down.{level}.norm."] = f"unetr_pp_encoder.downsample_layers.{level - 1}.1."
        table[f"attention.{place}."] = f"unetr_pp_encoder.stages.{level - 1}."
    for level in range(levels - 1):
        table[f"grow.{level}.change."] = f"decoder{level + 2}.transp_conv.conv."
        if level:
            table[f"attention.{Place('decoder', level)}."] = f"decoder{level + 2}.decoder_block.0."
    return table | {f"heads.{head}.": f"out{head + 1}.conv.conv." for head in range(3)}


def _csam_prefixes(levels: int) -> dict[str, str]:
    table = {}
    for level in range(levels):
        table[f"down.{level}.{1 if level else 0}."] = f"conv.{level}."
        place = BOTTLENECK if level == levels - 1 else Place("skip", level)
        table[f"attention.{place}."] = f"attentions.{level}."
    return table


def _widened(value: Tensor) -> Tensor:
    """Add the depth axis to a 2D convolution weight; return a bias unchanged."""
    return value.unsqueeze(2) if value.dim() == 4 else value


def _rename(state: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    renamed, unknown = {}, []
    for name, value in state.items():
        prefix = next((prefix for prefix in table if name.startswith(prefix)), None)
        if prefix is None:
            unknown.append(name)
        else:
            renamed[table[prefix] + name.removeprefix(prefix)] = value
    if unknown:
        raise ValueError(f"no counterpart for {len(unknown)} of {len(state)} names, e.g. {', '.join(unknown[:3])}")
    return renamed
