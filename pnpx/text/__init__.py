"""Text: from tokens to units that a reader knows, and the explanation of a text, shown and saved."""

from pnpx.text.aggregate import AGGREGATIONS, REDUCTIONS, aggregate, causal_mask, reduce_embedding
from pnpx.text.encoded import Encoded, decoded
from pnpx.text.explainer import TextExplainer
from pnpx.text.generation import Contrast
from pnpx.text.granularity import GRANULARITIES, Granularity, Unit, units
from pnpx.text.record import TextExplanation
from pnpx.text.segment import sentences, words

__all__ = ["AGGREGATIONS", "GRANULARITIES", "REDUCTIONS", "Contrast", "Encoded", "Granularity", "TextExplainer",
           "TextExplanation", "Unit",
           "aggregate", "causal_mask", "decoded", "reduce_embedding", "sentences", "units", "words"]
