"""Epochs are stored as columns, and read like a tuple of Epoch."""

import json
import pickle
from copy import deepcopy
from dataclasses import asdict, replace

import pytest

from search.trials.epochs import Epoch, Epochs
from search.trials.records import Measurement

EPOCHS = (Epoch(1, 0.9, None, 2.5), Epoch(2, 0.7, 0.25, 2.0, 1.5), Epoch(1, 0.8, 0.0, 3.0, 0.0, member=1))


def test_epochs_are_the_tuple_that_they_were_made_of():
    epochs = Epochs.of(EPOCHS)
    assert epochs == EPOCHS and tuple(epochs) == EPOCHS and len(epochs) == 3 and EPOCHS[1] in epochs
    assert (epochs[0], epochs[-1]) == (EPOCHS[0], EPOCHS[-1]) and epochs[1:] == EPOCHS[1:] and epochs[:0] == ()
    assert epochs != EPOCHS[:2] and hash(epochs) == hash(Epochs.of(list(EPOCHS))) and repr(epochs) == repr(EPOCHS)
    assert isinstance(epochs[0].number, int) and isinstance(epochs[2].member, int)
    with pytest.raises(IndexError):
        epochs[3]


def test_a_measurement_keeps_its_epochs_through_json_pickle_and_copies():
    measurement = Measurement("running", epochs=EPOCHS)
    for copy in (
        Measurement.from_json(measurement.to_json()),
        pickle.loads(pickle.dumps(measurement)),
        deepcopy(measurement),
        replace(measurement, seconds=0.0),
    ):
        assert copy == measurement and tuple(copy.epochs) == EPOCHS
    assert measurement.first_epochs == EPOCHS[:2] and measurement.first_dice == [None, 0.25]
    assert measurement.spent_s == 7.5


def test_epochs_of_earlier_versions_are_read():
    rows = [asdict(each) for each in EPOCHS]
    assert Epochs.from_values(json.loads(json.dumps(rows))) == EPOCHS
    first = [{"number": 1, "loss": 0.9, "dice": None, "seconds": 2.5}]  # without CPU time and members
    assert Epochs.from_values(first) == EPOCHS[:1]


def test_no_number_that_json_lacks_is_written():
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        Measurement("running", epochs=(Epoch(1, 0.5, float("nan"), 1.0),)).to_json()


@pytest.mark.parametrize("name", ["loss", "dice", "member"])
def test_columns_of_unequal_lengths_or_without_numbers_are_refused(name):
    values = Epochs.of(EPOCHS).to_values()
    with pytest.raises(ValueError, match=f"the epochs have 3 numbers, but 2 values of {name}"):
        Epochs.from_values({**values, name: values[name][:2]})
    with pytest.raises(TypeError):
        Epochs.from_values({**values, name: ["0.5", 1, 1]})
    with pytest.raises(KeyError):
        Epochs.from_values({each: values[each] for each in values if each != name})
