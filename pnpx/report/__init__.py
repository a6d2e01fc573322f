"""The page that shows what a run explained."""

from pnpx.report.render import Failure, Panel, Report, Sample, Section, render

__all__ = ["Failure", "Panel", "Report", "Sample", "Section", "render"]
