"""From what a model is made of, and a batch, to the explainers that suit them, each with its reason."""

from pnpx.recommender.picking import Recommendation, recommend

__all__ = ["Recommendation", "recommend"]
