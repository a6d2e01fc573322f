"""What holds for every explainer, at every place, of every kind of model: see `pnpx.testing`.

A new explainer is examined here without a new test.
"""

import sys

import pytest

import pnpx
from pnpx.testing import MODELS, available, examinations


def shipped():
    """The explainers of the package; tests and doctests define others."""
    return [
        kind
        for name, kind in pnpx.all_explainers().items()
        if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
    ]


# Those that differ from another one only in a product or a statistic, share its models out among them.
VARIANTS = [pnpx.GradientXInput, pnpx.SquareGrad, pnpx.VarGrad]


def models_for(kind):
    if kind not in VARIANTS:
        return available()
    return sorted({*available()[VARIANTS.index(kind) :: 3], "mlp", "conv", "labelled"})


# One place of a model for each property: the explainers, which share their machinery, take different ones.
EXAMINATIONS = [
    examination for kind in shipped() for examination in examinations(kind, models_for(kind), thorough=False)
]


@pytest.mark.parametrize("examination", EXAMINATIONS, ids=str)
# Few steps do for these properties. The filter above is the stronger one.
@pytest.mark.filterwarnings("ignore:what .* steps miss:RuntimeWarning")
@pytest.mark.filterwarnings("error")
def test_holds(examination):
    examination.run()


def test_every_model_is_examined():
    examined = {examination.model for examination in EXAMINATIONS}
    if "vit" not in available():
        pytest.skip("tiny BERT and ViT need transformers")
    assert examined == set(MODELS)


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
