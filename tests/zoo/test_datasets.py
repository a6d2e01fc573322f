"""The data sets: fixed splits that share no sample, and inputs as they are documented."""

import sys
from collections import Counter
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_breast_cancer, load_digits

from pnpx import zoo
from pnpx.zoo.datasets import scaling_of, training_scaling

N_SAMPLES = {"digits": 1797, "digits_rows": 1797, "breast_cancer": 569}
SHAPES = {"digits": (1, 8, 8), "digits_rows": (8, 8), "breast_cancer": (30,)}
of_each = pytest.mark.parametrize("name", zoo.data_names())


def test_names():
    assert zoo.data_names() == ("digits", "digits_rows", "breast_cancer")


@of_each
def test_splits_are_disjoint_and_leave_nothing_out(name):
    train, test = zoo.data(name, "train"), zoo.data(name, "test")
    assert sorted([*train.rows.tolist(), *test.rows.tolist()]) == list(range(N_SAMPLES[name]))
    assert len(test) == -(-N_SAMPLES[name] // 4)
    assert (train.split, test.split) == ("train", "test")


@of_each
def test_splits_are_stratified(name):
    train, test = Counter(zoo.data(name, "train").targets.tolist()), Counter(zoo.data(name, "test").targets.tolist())
    for label in train | test:
        assert test[label] == pytest.approx((train[label] + test[label]) / 4, abs=1)


@pytest.mark.parametrize("name, digest", [
    ("digits", "032b3891956962eb"), ("digits_rows", "032b3891956962eb"), ("breast_cancer", "8fa423257225319e"),
])
def test_the_held_out_rows_are_those_the_weights_were_measured_on(name, digest):
    """Should scikit-learn ever split otherwise, the shipped models would be measured on what they were trained on."""
    assert sha256(str(zoo.data(name, "test").rows.tolist()).encode()).hexdigest()[:16] == digest


@of_each
def test_shapes_and_dtypes(name):
    for split in ("train", "test"):
        data = zoo.data(name, split)
        assert data.inputs.shape == (len(data), *SHAPES[name]) and data.inputs.dtype == torch.float32
        assert data.targets.shape == data.rows.shape == (len(data),)
        assert data.targets.dtype == data.rows.dtype == torch.int64
        assert set(data.targets.tolist()) == set(range(len(data.class_names)))
        assert data.feature_names is None or len(data.feature_names) == data.inputs.shape[-1]


def test_test_is_the_default_split():
    assert torch.equal(zoo.data("digits").rows, zoo.data("digits", "test").rows)


def test_digits_are_scikit_learns_pixels_as_shares():
    digits, data = load_digits(), zoo.data("digits")
    assert (data.inputs.min(), data.inputs.max()) == (0, 1)
    assert (data.inputs[:, 0] * 16).tolist() == digits.images[data.rows].tolist()
    assert data.targets.tolist() == digits.target[data.rows].tolist()
    assert data.class_names == tuple("0123456789") and data.feature_names is None and data.kind == "image"


def test_digits_rows_are_the_digits_row_by_row():
    rows, images = zoo.data("digits_rows"), zoo.data("digits")
    assert torch.equal(rows.inputs[:, 3], images.inputs[:, 0, 3, :])
    assert torch.equal(rows.targets, images.targets)
    assert rows.feature_names == tuple(f"column {i}" for i in range(8)) and rows.kind == "series"


@pytest.mark.parametrize("split", ["train", "test"])
def test_breast_cancer_is_standardised_by_the_training_split(split):
    cancer, train, data = load_breast_cancer(), zoo.data("breast_cancer", "train"), zoo.data("breast_cancer", split)
    raw, training = cancer.data[data.rows], cancer.data[train.rows]
    expected = (raw - training.mean(0)) / training.std(0, ddof=1)
    torch.testing.assert_close(data.inputs, torch.tensor(expected, dtype=torch.float32))
    assert data.targets.tolist() == cancer.target[data.rows].tolist()
    assert data.class_names == ("malignant", "benign") and data.kind == "tabular"
    assert data.feature_names[:2] == ("mean radius", "mean texture")


def test_the_stored_standardisation_is_that_of_the_training_split():
    torch.testing.assert_close(load_file(scaling_of("breast_cancer")), training_scaling("breast_cancer"))
    assert scaling_of("digits") is None


def test_two_calls_do_not_share_memory():
    zoo.data("digits").inputs.zero_()
    assert zoo.data("digits").inputs.max() == 1


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(LookupError) as error:
        zoo.data("digit_rows")
    assert str(error.value) == "no data set 'digit_rows' in the zoo; the nearest: 'digits_rows'"


def test_an_unknown_split_is_answered_with_what_there_is():
    with pytest.raises(LookupError) as error:
        zoo.data("digits", "validation")
    assert str(error.value) == "no split 'validation' of the zoo's data; there are: 'train', 'test'"


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError) as error:
        zoo.data("digits")
    assert str(error.value) == (
        "the zoo's data sets come from scikit-learn, which is not installed; install it: pip install scikit-learn"
    )
