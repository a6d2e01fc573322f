"""Ranges and the fields that carry them."""

import json
from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from torch import nn

import pnpx
from pnpx.explainers import all_explainers
from pnpx.masks import Patches
from pnpx.parameters import Range, search_space, tunable
from tests.errors import raises


@dataclass(frozen=True)
class Tool:
    name: str
    width: float = tunable(0.5, Range(0.1, 2.0))
    turns: int = tunable(3, Range(1, 9, log=True))


def test_a_tunable_field_keeps_default_and_range():
    assert Tool("saw") == Tool("saw", 0.5, 3)
    assert search_space(Tool) == {"width": Range(0.1, 2.0), "turns": Range(1, 9, log=True)}


@pytest.mark.parametrize("arguments, message", [
    ((1.0, 1.0), "`low < high` must hold, but got low=1.0, high=1.0"),
    ((2, 1), "`low < high` must hold, but got low=2, high=1"),
    ((float("nan"), 1.0), "`low < high` must hold, but got low=nan, high=1.0"),
    ((0.0, 1.0, True), "`low > 0` must hold for log=True, but got low=0.0"),
    ((-1.0, 1.0, True), "`low > 0` must hold for log=True, but got low=-1.0"),
])
def test_impossible_ranges(arguments, message):
    with raises(ValueError, message):
        Range(*arguments)


def test_a_range_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Range(0, 1).low = 2


def test_every_default_lies_in_its_range():
    from dataclasses import fields

    for kind in all_explainers().values():
        defaults = {field.name: field.default for field in fields(kind)}
        for name, found in search_space(kind).items():
            assert found.low <= defaults[name] <= found.high, (kind, name)


@pytest.mark.parametrize("name, given, plain", [
    ("SmoothGrad", {"n_iter": np.int64(5), "noise_level": np.float32(0.5), "seed": np.uint8(3)},
     {"n_iter": 5, "noise_level": 0.5, "seed": 3}),
    ("SmoothGrad", {"noise_std": np.float64(0.25), "batch_size": np.int32(4), "channel_axis": np.int64(1)},
     {"noise_std": 0.25, "batch_size": 4, "channel_axis": 1}),
    ("IntegratedGradients", {"n_steps": np.int64(4), "max_steps": np.int16(8), "gap_tolerance": np.float32(0.5)},
     {"n_steps": 4, "max_steps": 8, "gap_tolerance": 0.5}),
    ("Occlusion", {"window": np.int64(2), "stride": (np.int64(1),), "n_classes": np.int64(2)},
     {"window": 2, "stride": [1], "n_classes": 2}),
    ("Lime", {"n_iter": np.int64(6), "kernel_width": np.float32(0.5), "ridge": np.float16(0.25)},
     {"n_iter": 6, "kernel_width": 0.5, "ridge": 0.25}),
    ("KernelShap", {"n_iter": np.int64(6), "groups": np.int64(2)}, {"n_iter": 6, "groups": 2}),
])
def test_numbers_of_numpy_are_those_of_python(name, given, plain):
    kind, model, x = getattr(pnpx, name), nn.Linear(4, 2), torch.randn(2, 4)
    explainer = kind(model, **given)
    own = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    assert torch.equal(explainer.attribute(x, 1), kind(model, **own).attribute(x, 1))
    written = json.loads(json.dumps(explainer.parameters))
    assert all(written[key] == value and type(written[key]) is type(value) for key, value in plain.items())


@pytest.mark.parametrize("given, message", [
    ({"n_iter": np.float64(5)}, "n_iter must be an int, but got 5.0"),
    ({"n_iter": np.bool_(True)}, "n_iter must be an int, but got .*True"),
    ({"n_iter": np.int64(0)}, "`n_iter >= 1` must hold, but got n_iter=0"),
    ({"noise_level": np.bool_(True)}, "noise_level must be a number, but got .*True"),
    ({"noise_level": np.float32("nan")}, "`0 <= noise_level < inf` must hold, but got noise_level=nan"),
])
def test_numbers_of_numpy_are_checked(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        pnpx.SmoothGrad(nn.Linear(4, 2), **given)


def test_patches_take_numbers_of_numpy():
    assert Patches((np.int64(2), np.int32(3))) == Patches((2, 3))
