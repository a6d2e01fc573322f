"""The explainers. Every module of this package is imported, so that a new explainer is one file."""

from importlib import import_module
from pkgutil import iter_modules

from pnpx.explainers.base import Explainer, all_explainers
from pnpx.explainers.points import GradientExplainer, Point

__all__ = ["Explainer", "GradientExplainer", "Point", "all_explainers"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
