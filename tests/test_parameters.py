"""Ranges and the fields that carry them."""

from dataclasses import FrozenInstanceError, dataclass

import pytest

from pnpx.explainers import all_explainers
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
