"""From what a model is made of, and a batch, to the explainers that suit them, each with its reason."""

from pnpx.recommender.picking import EXTRACTORS, Recommendation, recommend

__all__ = ["EXTRACTORS", "Recommendation", "recommend"]
