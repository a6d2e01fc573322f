"""The data sets of the zoo, from scikit-learn, each with one fixed held-out split.

The split is stratified by class: scikit-learn's ``train_test_split`` with a quarter held out and ``SPLIT_SEED``.
Models are trained on "train"; "test" serves for the accuracy that is reported, and for no choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from pnpx.suggest import nearest

Kind = Literal["image", "series", "tabular", "text"]
Split = Literal["train", "test"]

SPLIT_SEED = 0
TEST_SHARE = 0.25
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, eq=False)
class ZooData:
    """One split of a data set: every sample of it, in a fixed order.

    ``inputs`` are float32 (batch, ...), ``targets`` int64 (batch,), and ``class_names[targets[i]]`` is the class of
    sample i. ``feature_names`` name the last axis of ``inputs``; None for images. ``rows`` (batch,) are the rows of
    the samples in scikit-learn's data set.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None
    kind: Kind
    split: Split
    rows: Tensor

    def __len__(self) -> int:
        return len(self.targets)


def data_names() -> tuple[str, ...]:
    """The names of the data sets."""
    return tuple(_SETS)


def data(name: str, split: Split = "test") -> ZooData:
    """One split of the data set called ``name``.

    * "digits": grey images (batch, channels=1, height=8, width=8), pixels in [0, 1], 0 the background;
    * "digits_rows": the same images in the same order, as series (batch, time=8, features=8) of rows from the top;
    * "breast_cancer": standardised features (batch, features=30): the mean and the standard deviation are those of the
      training split, kept beside the weights.

    Raises LookupError for an unknown name or split, and ImportError without scikit-learn.
    """
    found = _find(name)
    if split not in get_args(Split):
        raise LookupError(f"no split {split!r} of the zoo's data; {nearest(str(split), get_args(Split))}")
    source = found.read()
    rows = split_rows(source.targets, split)
    inputs = source.inputs[rows]
    if found.scaling is not None:
        scaling = load_file(found.scaling)
        inputs = (inputs - scaling["mean"]) / scaling["std"]
    return ZooData(
        name=name,
        inputs=inputs.to(torch.float32),
        targets=source.targets[rows],
        class_names=source.class_names,
        feature_names=source.feature_names,
        kind=found.kind,
        split=split,
        rows=rows,
    )


def kind_of(name: str) -> Kind:
    """What the inputs of the data set called ``name`` are; needs no scikit-learn."""
    return _find(name).kind


def scaling_of(name: str) -> Path | None:
    """The safetensors file with the mean and the standard deviation of the features; None if they are not scaled."""
    return _find(name).scaling


class Source(NamedTuple):
    """A whole data set as scikit-learn ships it, in float64, before it is split and standardised."""

    inputs: Tensor
    targets: Tensor
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...] | None


def read(name: str) -> Source:
    """The whole data set called ``name``: pixels in [0, 1], but features not yet standardised."""
    return _find(name).read()


def split_rows(targets: Tensor, split: Split) -> Tensor:
    """The rows (batch,) of a split of samples with ``targets`` (samples,), in ascending order."""
    train, test = _sklearn("model_selection").train_test_split(
        range(len(targets)), test_size=TEST_SHARE, stratify=targets.numpy(), random_state=SPLIT_SEED
    )
    return torch.tensor(sorted(train if split == "train" else test))


def training_scaling(name: str) -> dict[str, Tensor]:
    """The "mean" and "std" (features,) of the training split of ``name``, in float64."""
    source = read(name)
    inputs = source.inputs[split_rows(source.targets, "train")]
    return {"mean": inputs.mean(0), "std": inputs.std(0)}


def _read_digits() -> Source:
    digits = _sklearn("datasets").load_digits()
    return Source(
        inputs=torch.tensor(digits.images).unsqueeze(1) / 16,  # scikit-learn's pixels are 0 to 16
        targets=torch.tensor(digits.target, dtype=torch.int64),
        class_names=tuple(str(name) for name in digits.target_names),
        feature_names=None,
    )


def _read_digits_rows() -> Source:
    digits = _read_digits()
    columns = tuple(f"column {column}" for column in range(8))
    return digits._replace(inputs=digits.inputs.squeeze(1), feature_names=columns)


def _read_breast_cancer() -> Source:
    cancer = _sklearn("datasets").load_breast_cancer()
    return Source(
        inputs=torch.tensor(cancer.data),
        targets=torch.tensor(cancer.target, dtype=torch.int64),
        class_names=tuple(str(name) for name in cancer.target_names),
        feature_names=tuple(str(name) for name in cancer.feature_names),
    )


class _DataSet(NamedTuple):
    kind: Kind
    read: Callable[[], Source]
    scaling: Path | None = None


_SETS: dict[str, _DataSet] = {
    "digits": _DataSet("image", _read_digits),
    "digits_rows": _DataSet("series", _read_digits_rows),
    "breast_cancer": _DataSet("tabular", _read_breast_cancer, WEIGHTS / "breast_cancer_scaling.safetensors"),
}


def _find(name: str) -> _DataSet:
    if name not in _SETS:
        raise LookupError(f"no data set {name!r} in the zoo; {nearest(name, _SETS)}")
    return _SETS[name]


def _sklearn(module: str) -> Any:
    """A module of scikit-learn, which takes a second to import and few users of the library need."""
    try:
        return import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(
            "the zoo's data sets come from scikit-learn, which is not installed; install it: pip install scikit-learn"
        ) from error
