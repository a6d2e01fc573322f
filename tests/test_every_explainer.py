"""What holds for every explainer, at every place, of every kind of model: see `pnpx.testing`.

A new explainer is examined here without a new test.
"""

import sys

import pytest

import pnpx
from pnpx.testing import examinations


def shipped():
    """The explainers of the package; tests and doctests define others."""
    return [
        kind for name, kind in pnpx.explainers().items() if getattr(sys.modules[kind.__module__], name, None) is kind
    ]


def all_examinations():
    for kind in shipped():
        # One place of a model for each property; those that share their machinery take different places.
        yield from examinations(kind, thorough=kind is pnpx.Gradient)


@pytest.mark.parametrize("examination", all_examinations(), ids=str)
@pytest.mark.filterwarnings("error")
def test_holds(examination):
    if examination.model in ("bert_sdpa", "bert_eager", "vit"):
        pytest.importorskip("transformers", reason="tiny BERT and ViT need transformers")
    examination.run()


def test_every_explainer_is_examined():
    assert {kind.__name__ for kind in shipped()} >= {
        "ExpectedGradients",
        "Gradient",
        "GradientXInput",
        "IntegratedGradients",
        "SmoothGrad",
        "SquareGrad",
        "VarGrad",
    }
