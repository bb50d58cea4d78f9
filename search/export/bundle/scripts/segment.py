"""The components of this bundle's inference.json: find cases, read volumes to the network's grid, write masks."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Transform

sys.path.insert(0, str(Path(__file__).resolve().parent))
import components  # type: ignore[import-not-found]  # noqa: E402  # files of this folder
import geometry  # type: ignore[import-not-found]  # noqa: E402
import numpy as np  # noqa: E402
import preprocessing  # type: ignore[import-not-found]  # noqa: E402
import volume_files  # type: ignore[import-not-found]  # noqa: E402
import volumes  # type: ignore[import-not-found]  # noqa: E402


def settings(bundle_root: str) -> dict[str, Any]:
    """Return the settings of preprocessing.json: preprocessing, channels, labels."""
    found: dict[str, Any] = preprocessing.read_settings(Path(bundle_root) / "configs" / "preprocessing.json")
    return found


def cases(folder: str, *, channels: int) -> list[dict[str, Any]]:
    """Return the volumes of a folder; print messages about skipped files to stderr."""
    found, left = volumes.find_cases([Path(folder)], channels=channels)
    shared, messages = volumes.sharing([(case, [case.name]) for case in found])
    for message in (*left, *messages):
        print(f"segment.py: {message}", file=sys.stderr)
    return [{"case": case} for case in found if case not in shared]


def best_device() -> str:
    """Return the first GPU if there is one, else the CPU."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def with_weights(network: Any, bundle_root: str, device: str) -> Any:
    """Return the network with this bundle's weights, in eval mode."""
    network.load_state_dict(torch.load(Path(bundle_root) / "models" / "model.pt", weights_only=True))
    return network.to(device).eval()


def mirrored(network: Any, settings: dict[str, Any]) -> Any:
    """Wrap a network so that it averages its logits (B, K, D, H, W) over all mirrorings along the settings' axes."""
    places = [2 + axis for axis in settings["mirror"]]
    every = [flip for count in range(len(places) + 1) for flip in combinations(places, count)]

    def average(window: Any) -> Any:
        return sum(network(window.flip(flip)).flip(flip) for flip in every) / len(every)

    return average if places else network


class ReadVolume(Transform):  # type: ignore[misc]
    """Read a case and resample it to the network's grid; adds `image` (C, D, H, W), `volume` and `grid`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.preprocessing, self.channels = geometry.Preprocessing.from_json(settings), settings["channels"]

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with the new keys."""
        volume = volumes.read_case(data["case"], self.channels)
        image, grid = geometry.to_grid(volume, self.preprocessing)
        return {**data, "image": torch.from_numpy(image), "volume": volume, "grid": grid}


class WriteMask(Transform):  # type: ignore[misc]
    """Write the mask of `pred` (K, D, H, W) on the volume's grid; adds its path as `mask`."""

    def __init__(self, settings: dict[str, Any], *, output_dir: str) -> None:
        self.settings, self.folder = settings, Path(output_dir)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with the mask's path."""
        if any(file.resolve().parent == self.folder.resolve() for file in data["case"].files):
            raise ValueError(f"{self.folder}: is the input folder, in which masks would become volumes; choose another")
        self.folder.mkdir(parents=True, exist_ok=True)
        logits = data["pred"].float().cpu().numpy()
        whole = geometry.mask_from_logits(logits, data["grid"], order=self.settings["order"])
        classes = components.keep_largest(whole, self.settings["keep_largest"])
        values = np.array(self.settings["label_values"], dtype=np.uint16)
        path = self.folder / f"{data['case'].name}.nii.gz"
        named = list(zip(self.settings["label_values"], self.settings["labels"], strict=True))
        volume_files.write_mask(path, values[classes], data["volume"], named)
        return {**data, "mask": path}


class Segmenter:
    """The bundle's evaluator: runs the network over a data set."""

    def __init__(self, *, device: Any, dataset: Any, network: Any, inferer: Any, postprocessing: Any) -> None:
        self.device, self.dataset, self.network = torch.device(device), dataset, network
        self.inferer, self.postprocessing = inferer, postprocessing

    def run(self) -> list[Path]:
        """Segment every case; return the masks' paths. Raises SystemExit at the end if cases failed."""
        masks, failed = [], 0
        for number in range(len(self.dataset)):
            try:
                masks.append(self._segment(self.dataset[number]))
                print(masks[-1])
            except Exception as error:  # the other cases are segmented
                failed += 1
                print(f"segment.py: {' '.join(str(error.__cause__ or error).split())}", file=sys.stderr)
        if failed:
            raise SystemExit(f"segment.py: {failed} of {len(self.dataset)} cases failed")
        return masks

    def _segment(self, data: dict[str, Any]) -> Path:
        with torch.inference_mode():
            pred = self.inferer(data["image"][None].to(self.device), self.network)[0]
        mask: Path = self.postprocessing({**data, "pred": pred})["mask"]
        return mask
