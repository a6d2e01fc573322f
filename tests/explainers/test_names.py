"""Explainers are found by name, whatever else is called so."""

import gc

import pytest

import pnpx
from pnpx.statistics import Mean


def define(name, base):
    """An explainer of one's own, as a cell of a notebook may define it again and again."""
    points = {"points": lambda self, bound, reference: iter(()), "statistic": Mean}
    return type(name, (base,), {"__module__": "__main__", **points})


@pytest.fixture
def defined():
    """Keeps classes alive during a test, and sees that they are gone after it."""
    kept = []
    yield kept
    kept.clear()
    gc.collect()


@pytest.mark.parametrize("base", [pnpx.GradientExplainer, pnpx.SmoothGrad])
def test_an_own_explainer_does_not_take_the_name_of_one_of_the_package(defined, base):
    defined.append(define("SmoothGrad", base))
    assert pnpx.all_explainers()["SmoothGrad"] is pnpx.SmoothGrad


def test_of_own_explainers_of_one_name_the_last_one_is_found(defined):
    for _ in range(3):
        defined.append(define("OfANotebook", pnpx.GradientExplainer))
    assert pnpx.all_explainers()["OfANotebook"] is defined[-1]
