"""Explanations of PyTorch models that are right, at any layer, for any batch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnpx.attributors.places import resolve
from pnpx.explainers.base import Explainer, all_explainers
from pnpx.explainers.expected import ExpectedGradients
from pnpx.explainers.gradient import Gradient, GradientXInput
from pnpx.explainers.integrated import IntegratedGradients
from pnpx.explainers.lime import Lime
from pnpx.explainers.noise import SmoothGrad, SquareGrad, VarGrad
from pnpx.explainers.occlusion import FeatureAblation, Occlusion
from pnpx.explainers.perturbation import PerturbationExplainer
from pnpx.explainers.points import GradientExplainer, Point
from pnpx.explainers.shapley import KernelShap, Shapley
from pnpx.explainers.sobol import Sobol

if TYPE_CHECKING:
    from pnpx.auto import auto_explain
    from pnpx.explanation import Explanation
    from pnpx.recommender import recommend

__version__ = "0.1.0"

__all__ = [
    "ExpectedGradients",
    "Explainer",
    "Explanation",
    "FeatureAblation",
    "Gradient",
    "GradientExplainer",
    "GradientXInput",
    "IntegratedGradients",
    "KernelShap",
    "Lime",
    "Occlusion",
    "PerturbationExplainer",
    "Point",
    "Shapley",
    "SmoothGrad",
    "Sobol",
    "SquareGrad",
    "VarGrad",
    "all_explainers",
    "auto_explain",
    "recommend",
    "resolve",
]


# What records explanations is needed only once there is one, and the rest by those who leave the choice to pnpx.
_LATER = {
    "Explanation": "pnpx.explanation",
    "auto_explain": "pnpx.auto",
    "recommend": "pnpx.recommender",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'pnpx' has no attribute {name!r}")
