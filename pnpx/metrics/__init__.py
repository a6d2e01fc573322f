"""The metrics. Every module of this package is imported, so that a new metric is one file.

A metric judges what `Explainer.attribute` returns: one number a sample.

>>> import torch
>>> from pnpx import GradientXInput
>>> model = torch.nn.Linear(3, 2)
>>> "AbPC" in all_metrics()
True
>>> all_metrics()["Complexity"]().evaluate(GradientXInput(model), torch.randn(4, 3)).shape
torch.Size([4])
"""

from importlib import import_module
from pkgutil import iter_modules

from pnpx.metrics.base import Metric, all_metrics
from pnpx.metrics.complexity import Complexity
from pnpx.metrics.fidelity import MuFidelity
from pnpx.metrics.flipping import AbPC, LeRF, MoRF
from pnpx.metrics.randomisation import Randomisation
from pnpx.metrics.sensitivity import Sensitivity
from pnpx.metrics.sparseness import Sparseness

__all__ = [
    "SUITED",
    "AbPC",
    "Complexity",
    "LeRF",
    "Metric",
    "MoRF",
    "MuFidelity",
    "Randomisation",
    "Sensitivity",
    "Sparseness",
    "all_metrics",
]

SUITED = ("AbPC", "MuFidelity", "Complexity")
"""The metrics that ``"auto"`` stands for: is what counts found, where it is removed in its order, and at random, and is
the explanation short. They judge whatever is explained, in some 170 forward passes a sample; Sensitivity and
Randomisation explain anew, ten times and once."""

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
