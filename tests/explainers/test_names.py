"""Explainers are found by name, whatever else is called so."""

import gc
import inspect
from dataclasses import dataclass

import pytest
import torch
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


def test_the_packages_explainers_take_the_model_alone_by_position():
    for kind in pnpx.all_explainers().values():
        if kind.__module__.startswith("pnpx."):
            kinds = {one.name: one.kind for one in list(inspect.signature(kind.__init__).parameters.values())[1:]}
            assert kinds.pop("model") is inspect.Parameter.POSITIONAL_OR_KEYWORD
            assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}


def test_an_own_explainer_takes_by_position_what_it_says(defined):
    @dataclass(frozen=True)
    class Scaled(pnpx.GradientExplainer):
        by: float = 0.5
        statistic = Mean

        def points(self, bound, reference):
            yield pnpx.Point([self.by * value.tensor for value in bound.values])

    class OwnInit(pnpx.Gradient):
        def __init__(self, model, layer):
            super().__init__(model, layer=layer)

    class Passes(pnpx.Gradient):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Fixed(pnpx.Gradient):
        def __init__(self, model, *, at):
            super().__init__(model, layer=at)

    defined += [Scaled, OwnInit, Passes, Fixed]
    model = nn.Sequential(nn.Linear(2, 1))
    assert Scaled(model, 2.0).by == 2.0 and OwnInit(model, "0").layer == "0"
    assert Passes(model, layer="0").layer == "0"
    torch.testing.assert_close(Scaled(model, 2.0).attribute(torch.ones(3, 2), 0), model[0].weight.detach().expand(3, 2))
    with raises(TypeError, "model, by alone go by position, and every other parameter of Scaled by its name, but got "
                           "'0' after by; say which parameter that is: layer='0'"):
        Scaled(model, 2.0, "0")
    with pytest.raises(TypeError, match=r"but got '0' after the model; .* is: there are: 'at'$"):
        Fixed(model, "0")
    with raises(TypeError, "Scaled has no parameter 'bye'; the nearest: 'by'"):
        Scaled(model, bye=1.0)
