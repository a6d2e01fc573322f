"""Explaining a model with what suits it, in one call."""

from pnpx.auto.report import AutoReport
from pnpx.auto.run import auto_explain

__all__ = ["AutoReport", "auto_explain"]
