"""What holds for every metric, at every place, of every kind of model: see `pnpx.testing.metrics`.

A new metric is examined here without a new test.
"""

import sys

import pytest

from pnpx.metrics import all_metrics
from pnpx.testing import available
from pnpx.testing.metrics import metric_examinations


def shipped():
    """The metrics of the package; tests and doctests define others."""
    return [
        kind
        for name, kind in all_metrics().items()
        if kind.__module__.startswith("pnpx.") and getattr(sys.modules[kind.__module__], name, None) is kind
    ]


# One place of a model for each property: metrics and properties take different ones.
EXAMINATIONS = [one for kind in shipped() for one in metric_examinations(kind, thorough=False)]


@pytest.mark.parametrize("examination", EXAMINATIONS, ids=str)
@pytest.mark.filterwarnings("error")
def test_holds(examination):
    examination.run()


def test_every_metric_is_examined():
    assert {kind.__name__ for kind in shipped()} >= {
        "AbPC",
        "Complexity",
        "LeRF",
        "MoRF",
        "MuFidelity",
        "Randomisation",
        "Sensitivity",
        "Sparseness",
    }
    assert {one.model for one in EXAMINATIONS} == set(available())
