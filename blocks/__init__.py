"""Building blocks of volumetric segmentation networks, from five papers."""

from blocks.csam import CSAM
from blocks.epa import EPA, EPABlock
from blocks.isa import ISA
from blocks.joint import JointAttention

BLOCKS = {
    "isa": ISA,
    "csam": CSAM,
    "joint": JointAttention,
    "epa": EPABlock,
}

__all__ = ["BLOCKS", "CSAM", "EPA", "ISA", "EPABlock", "JointAttention"]
