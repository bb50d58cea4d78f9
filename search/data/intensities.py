"""Choose the normalisation of each channel of a data set by nnU-Net's rules.

CT has a physical scale: clip to the 0.5 and 99.5 percentiles of the foreground over all cases, then z-score
with the mean and standard deviation of the foreground. Channels named noNorm, rescale_to_0_1 or rgb_to_0_1 are treated
as these names say; all others are z-scored per volume. If the volumes
have a wide margin of zeros (skull-stripped brains), the statistics are those of the non-zero voxels. Unlike nnU-Net,
which crops that margin and leaves zeros at 0, the same linear map applies to all voxels, zeros included.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.data.check import DataFacts
from search.data.geometry import RULES, Normalisation
from search.data.labels import read_label
from search.data.layouts import Case
from search.data.parallel import for_each
from search.data.read import Dataset
from search.data.volume_files import read_volume

WIDE_MARGIN = 0.75  # zeros count as a margin if the median fraction of a volume in its non-zero bounding box is lower
NAMED = {  # nnU-Net's names of channels that state their normalisation
    "ct": "ct",
    "nonorm": "none",
    "rescale_to_0_1": "rescale_to_0_1",
    "rescale_0_1": "rescale_to_0_1",
    "rgb_to_0_1": "rgb_to_0_1",
}
CT_VOXELS = 20_000  # number sampled from the foreground of each case


def choose_normalisation(
    dataset: Dataset, facts: DataFacts, names: Literal["auto"] | tuple[str, ...]
) -> tuple[Normalisation, ...]:
    """Return an entry of `Preprocessing.normalisation` per channel; reads the volumes if a channel is CT.

    Raises ValueError unless `names` has one known rule per channel.
    """
    if names == "auto":
        margin = float(np.median([case.filled for case in facts.cases])) < WIDE_MARGIN
        other = "zscore_nonzero" if margin else "zscore"
        names = tuple(NAMED.get(channel.casefold(), other) for channel in dataset.channels)
    if len(names) != len(dataset.channels) or not set(names) <= set(RULES):
        raise ValueError(
            f"normalisation {list(names)}: expected one of {', '.join(RULES)} for each channel of "
            f"{list(dataset.channels)}"
        )
    channels = [index for index, name in enumerate(names) if name == "ct"]
    tolerance = facts.affine_tolerance
    samples = for_each(lambda case: _foreground_sample(case, channels, tolerance), dataset.cases) if channels else []
    measured = dict(zip(channels, np.concatenate(samples, axis=1), strict=True)) if samples else {}
    return tuple(("ct", *_ct_values(measured[index])) if name == "ct" else (name,) for index, name in enumerate(names))


def _foreground_sample(case: Case, channels: list[int], tolerance: float) -> NDArray[np.float32]:
    """Return the intensities of a seeded sample of foreground voxels of one case, (channels, voxels)."""
    places = np.flatnonzero(read_label(case.label)[0])
    if len(places) > CT_VOXELS:
        seed = int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "big")
        places = np.random.default_rng(seed).choice(places, CT_VOXELS, replace=False)
    data = read_volume(case.images, tolerance=tolerance).data
    return np.stack([data[index].ravel()[places] for index in channels])


def _ct_values(intensities: NDArray[np.float32]) -> tuple[float, float, float, float]:
    low, high = np.percentile(intensities, [0.5, 99.5]).tolist()
    return low, high, float(intensities.mean(dtype=np.float64)), float(intensities.std(dtype=np.float64))
