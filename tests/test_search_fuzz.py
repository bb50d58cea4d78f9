"""Fuzzed files: a reader returns what a file says, or its own error with a sentence, and nothing else."""

import json
from copy import deepcopy

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_search_simulate_files import GOOD as TABLE

from search.config import UserError
from search.data.phantom import write_phantom
from search.data.read import DataError, read_dataset
from search.export.import_weights import import_weights
from search.trials.table_file import read_trainings
from space.architecture import Architecture
from space.build import build
from space.canonical import Context
from space.presets import PRESETS

PLAIN = (
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats(width=32) | st.text(max_size=6) | st.just("../outside")
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=4
)


@st.composite
def changed(draw, good):
    """Return plain nested values with up to three parts replaced, removed or repeated."""
    values = deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        holder = values
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], (dict, list)) and holder[key] and draw(st.booleans()):
                holder = holder[key]
                continue
            how = draw(st.sampled_from(["replace", "remove", "repeat"]))
            if how == "replace":
                holder[key] = draw(VALUES)
            elif how == "remove":
                del holder[key]
            elif isinstance(holder, list):
                holder.append(deepcopy(holder[key]))
            break
    return values


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "phantom"
    write_phantom(folder, cases=4, shape=(16, 16, 2), classes=2)
    return folder


DECATHLON = {
    "name": "Phantom",
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "core", "2": "ring"},
    "numTraining": 4,
    "training": [
        {"image": f"./imagesTr/phantom_00{case}.nii.gz", "label": f"./labelsTr/phantom_00{case}.nii.gz"}
        for case in range(4)
    ],
}
NNUNET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "whole": [1, 2], "ring": 2},
    "regions_class_order": [1, 2],
    "numTraining": 4,
    "file_ending": ".nii.gz",
    "dataset": {
        f"phantom_00{case}": {
            "images": [f"imagesTr/phantom_00{case}.nii.gz"],
            "label": f"labelsTr/phantom_00{case}.nii.gz",
        }
        for case in range(4)
    },
}


@pytest.mark.parametrize("good", [DECATHLON, NNUNET], ids=["decathlon", "nnunet"])
@given(data=st.data())
def test_any_description_of_a_data_set_is_read_or_refused_with_sentences(good, data, volumes):
    (volumes / "dataset.json").write_text(json.dumps(data.draw(changed(good))))
    try:
        found = read_dataset(volumes)
    except DataError as error:
        assert error.problems and all(isinstance(each, str) and each for each in error.problems)
    else:
        assert found.cases and len(found.labels) > 1 and found.channels


@given(text=st.binary(max_size=40) | st.text(alphabet='{}[]":,019.eE-+ nulltrue', max_size=60).map(str.encode))
def test_any_text_in_place_of_a_description_is_refused(text, volumes):
    (volumes / "dataset.json").write_bytes(text)
    with pytest.raises(DataError):
        read_dataset(volumes)


CELLS = PLAIN | st.sampled_from(['{"a": 1}', '{"a": [1, null]}', "[]", "{}", "{", '{"a": {"b": 1}}', "1e999", "NaN"])


@given(
    columns=st.dictionaries(
        st.sampled_from([*TABLE, "epoch_s", "macs", "other"]), st.lists(CELLS, min_size=3, max_size=3), max_size=4
    )
)
def test_any_columns_are_a_table_or_refused_with_sentences(columns, tmp_path_factory):
    file = tmp_path_factory.mktemp("fuzz") / "table.parquet"
    try:
        table = pyarrow.table({**TABLE, **columns})
    except (pyarrow.ArrowException, OverflowError):  # values of several kinds in one column
        return
    pyarrow.parquet.write_table(table, file)
    try:
        assert read_trainings(file).epochs >= 1
    except UserError as error:
        assert error.mistakes and all(str(each).startswith(str(file)) for each in error.mistakes)


@given(place=st.integers(0, 10**6), value=st.integers(0, 255), length=st.integers(1, 8), cut=st.booleans())
def test_a_table_with_damaged_bytes_is_read_or_refused(place, value, length, cut, tmp_path_factory):
    file = tmp_path_factory.mktemp("fuzz") / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(TABLE), file)
    content = bytearray(file.read_bytes())
    place %= len(content)
    content[place : place + length] = b"" if cut else bytes([value]) * length
    file.write_bytes(content)
    try:
        assert read_trainings(file).epochs >= 1
    except UserError as error:
        assert error.mistakes


SMALL = PRESETS["sau_net"]
CONTEXT = Context((4, 16, 16), (5.0, 1.0, 1.0), 1, 3)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export's folder as far as `voxnas import` reads it, and its description."""
    folder = tmp_path_factory.mktemp("export")
    described = {
        "architecture": {**dict(SMALL.architecture.entries), "channels": [2, 4, 4, 4, 4]},
        "patch": list(CONTEXT.patch),
        "spacing": list(CONTEXT.spacing),
        "in_channels": CONTEXT.in_channels,
        "classes": CONTEXT.classes,
        "networks": 1,
    }
    described = json.loads(json.dumps(described))
    network = build(Architecture.of(described["architecture"]), CONTEXT)
    save_file({name: value.clone() for name, value in network.state_dict().items()}, folder / "weights.safetensors")
    return folder, described


@settings(max_examples=25)
@given(data=st.data())
def test_any_description_of_a_network_is_imported_or_refused_with_a_sentence(data, exported):
    folder, described = exported
    out = folder / "start.safetensors"
    (folder / "architecture.json").write_text(json.dumps(described))
    assert import_weights(folder, out).tensors > 10
    (folder / "architecture.json").write_text(json.dumps(data.draw(changed(described))))
    try:
        assert import_weights(folder, out).file == out
    except UserError as error:
        assert "architecture.json" in str(error)
