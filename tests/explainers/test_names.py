"""Explainers are found by name, whatever else is called so."""

import gc

import pytest
from torch import nn

import pnpx
from pnpx.statistics import Mean
from tests.errors import raises


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


@pytest.mark.parametrize("kind", [pnpx.Gradient, pnpx.SmoothGrad, pnpx.Occlusion])
@pytest.mark.parametrize("given, what, advice", [
    ("conv1", "'conv1'", "layer='conv1'"), (["a", "b"], "['a', 'b']", "layer=['a', 'b']"),
    (nn.ReLU(), "a ReLU", "layer=..."),
])
def test_all_parameters_but_the_model_go_by_name(kind, given, what, advice):
    with raises(TypeError, f"the model alone goes by position, and every other parameter of {kind.__name__} by its "
                           f"name, but got {what} after the model; say which parameter that is: {advice}"):
        kind(nn.Linear(2, 2), given)


def test_a_number_without_a_name_is_answered_with_the_names():
    with pytest.raises(TypeError, match=r"but got 0.3 after the model; .* is: there are: 'noise_level', 'n_iter', "):
        pnpx.SmoothGrad(nn.Linear(2, 2), 0.3)
