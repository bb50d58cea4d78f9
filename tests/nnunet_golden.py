"""Write tests/nnunet_golden.json: the plans that nnunetv2 itself writes, and its networks' parameters.

Needs the optional dependencies `bench-nnunet`. Run: VOXNAS_DATA=FOLDER python tests/nnunet_golden.py
Real data sets go through nnunetv2's own fingerprint; the others are given as fingerprints.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "nnunet_golden.json"
PLANNERS = {"nnunet": "ExperimentPlanner", "nnunet_resenc_m": "nnUNetPlannerResEncM"}
FOLDERS = RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"  # nnunetv2's variables
REAL = ("Task04_Hippocampus", "Task27_ACDC")


def varied(shape, spacing, *, cases, channels=1, classes=2, seed=0):
    """Return a fingerprint whose cases vary by up to a quarter around a shape (D, H, W) and a spacing."""
    rng = np.random.default_rng(seed)
    factors = rng.uniform(0.75, 1.25, (cases, 2, 3))
    shapes = [[max(1, round(n * f)) for n, f in zip(shape, each[0], strict=True)] for each in factors]
    spacings = [[round(mm * f, 3) for mm, f in zip(spacing, each[1], strict=True)] for each in factors]
    return {"shapes": shapes, "spacings": spacings, "channels": channels, "classes": classes}


def one_slice(fingerprint):
    return {**fingerprint, "shapes": [[1, *shape[1:]] for shape in fingerprint["shapes"]]}


SYNTHETIC = {
    "ct": varied((430, 512, 512), (1.0, 0.78, 0.78), cases=40, classes=14, seed=1),
    "thin": varied((14, 320, 320), (8.0, 0.9, 0.9), cases=31, channels=2, classes=4, seed=2),
    "isotropic": varied((155, 190, 150), (1.0, 1.0, 1.0), cases=100, channels=4, classes=4, seed=3),
    "few_slices": varied((4, 700, 600), (12.0, 0.5, 0.5), cases=25, classes=3, seed=4),
    "tiny": varied((11, 13, 15), (1.2, 1.1, 1.0), cases=9, classes=2, seed=5),
    "one_slice": one_slice(varied((1, 480, 640), (5.0, 1.0, 1.0), cases=50, channels=3, classes=2, seed=6)),
}


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for variable in FOLDERS:
            os.environ[variable] = str(Path(folder) / variable)
        for number, (name, fingerprint) in enumerate(SYNTHETIC.items(), start=501):
            write_fingerprint(number, name, fingerprint)
            found[name] = {"fingerprint": fingerprint, "plans": plans_of(number, fingerprint)}
        for number, name in enumerate(REAL, start=601):
            fingerprint = extract_fingerprint(number, Path(os.environ["VOXNAS_DATA"]) / name)
            found[name] = {"fingerprint": fingerprint, "plans": plans_of(number, fingerprint)}
    GOLDEN.write_text(compact(found))


def write_fingerprint(number, name, fingerprint):
    """Write a data set of file names alone, and its fingerprint."""
    raw = Path(os.environ[RAW]) / f"Dataset{number}_{name}"
    preprocessed = Path(os.environ[PREPROCESSED]) / raw.name
    preprocessed.mkdir(parents=True)
    raw.mkdir(parents=True)
    count = len(fingerprint["shapes"])
    dataset = {
        "channel_names": {str(channel): "MRI" for channel in range(fingerprint["channels"])},
        "labels": {"background": 0, **{f"class{label}": label for label in range(1, fingerprint["classes"])}},
        "numTraining": count,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        "dataset": {f"case{case}": {"images": [f"{case}.nii.gz"], "label": f"{case}.nii.gz"} for case in range(count)},
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    described = {
        "spacings": fingerprint["spacings"],
        "shapes_after_crop": fingerprint["shapes"],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(described))


def extract_fingerprint(number, source):
    """Link a Decathlon folder as nnunetv2 wants it and let it extract the fingerprint."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints

    link_dataset(source, Path(os.environ[RAW]) / f"Dataset{number}_{source.name}")
    extract_fingerprints([number], num_processes=1, verbose=False)
    folder = Path(os.environ[PREPROCESSED]) / f"Dataset{number}_{source.name}"
    described = json.loads((folder / "dataset_fingerprint.json").read_text())
    dataset = json.loads((source / "dataset.json").read_text())
    return {
        "shapes": [list(map(int, shape)) for shape in described["shapes_after_crop"]],
        "spacings": described["spacings"],
        "channels": len(dataset["modality"]),
        "classes": len(dataset["labels"]),
    }


def link_dataset(source, target):
    """Make a Decathlon folder readable as an nnunetv2 raw data set, by links."""
    described = json.loads((source / "dataset.json").read_text())
    for kind, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (target / kind).mkdir(parents=True)
        for file in sorted((source / kind).glob("*.nii.gz")):
            (target / kind / file.name.replace(".nii.gz", ending)).symlink_to(file)
    dataset = {
        "channel_names": described["modality"],
        "labels": {name: int(value) for value, name in described["labels"].items()},
        "numTraining": described["numTraining"],
        "file_ending": ".nii.gz",
    }
    (target / "dataset.json").write_text(json.dumps(dataset))


def plans_of(number, fingerprint):
    """Return nnunetv2's plan for each planner, and the parameters of the network it would train."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    found = {}
    for name, planner in PLANNERS.items():
        plan_experiments([number], experiment_planner_class_name=planner)
        folder = next(Path(os.environ[PREPROCESSED]).glob(f"Dataset{number}_*"))
        file = "nnUNetPlans.json" if name == "nnunet" else "nnUNetResEncUNetMPlans.json"
        configurations = json.loads((folder / file).read_text())["configurations"]
        plan = configurations.get("3d_fullres") or configurations["2d"]
        built, kwargs = plan["architecture"], plan["architecture"]["arch_kwargs"]
        network = get_network_from_plans(
            built["network_class_name"],
            kwargs,
            built["_kw_requires_import"],
            fingerprint["channels"],
            fingerprint["classes"],
            deep_supervision=True,
        )
        found[name] = {
            "spacing": plan["spacing"],
            "patch": plan["patch_size"],
            "batch": plan["batch_size"],
            "strides": kwargs["strides"],
            "kernels": kwargs["kernel_sizes"],
            "features": kwargs["features_per_stage"],
            "units": kwargs.get("n_blocks_per_stage") or kwargs["n_conv_per_stage"],
            "decoder_units": kwargs["n_conv_per_stage_decoder"],
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
        }
    return found


def compact(found):
    """Return JSON text with a line per plan and per list of a fingerprint."""
    lines = []
    for name, values in found.items():
        rows = [f'   "{key}": {json.dumps(each)}' for key, each in values["fingerprint"].items()]
        plans = [f'   "{key}": {json.dumps(each)}' for key, each in values["plans"].items()]
        both = [("fingerprint", rows), ("plans", plans)]
        parts = ["  " + f'"{key}": {{\n' + ",\n".join(inside) + "\n  }" for key, inside in both]
        lines.append(f' "{name}": {{\n' + ",\n".join(parts) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
